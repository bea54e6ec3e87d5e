"""What is shown before an apply is what is written, or nothing is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm import review
from dlm.errors import ConflictError, UsageError
from dlm.review import file_diff, unified_diff
from dlm.store import StagedPair, Store

texts = st.lists(st.sampled_from(["a\n", "b\n", "c\r\n", "\n", "d"]), max_size=9).map("".join)


@given(texts, texts)
def test_a_diff_turns_one_text_into_the_other(before: str, after: str) -> None:
    diff = file_diff(before, after)
    assert (diff == ()) == (before == after)

    def joined(signs: str) -> str:
        return "".join(line.text + ("" if line.open_end else "\n") for line in diff if line.sign in signs)

    numbers = [line.before for line in diff if line.before], [line.after for line in diff if line.after]
    for text, signs, numbered in ((before, " -", numbers[0]), (after, " +", numbers[1])):
        lines = text.split("\n")
        lines = [*(f"{line}\n" for line in lines[:-1]), *([lines[-1]] if lines[-1] else [])]
        assert numbered == list(range(numbered[0], numbered[0] + len(numbered))) if numbered else True
        if numbered:
            assert joined(signs) == "".join(lines[numbered[0] - 1 : numbered[-1]])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\nb\n", "a\nb\n\nc\n\n"),
        ("", "a\n"),
        ("a\nb", "a\nb\nc"),
        ("a\n" * 9 + "b\n", "a\n" * 9 + "c\r\n" + "a\n"),
    ],
)
def test_the_change_as_a_file_is_what_git_applies(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "my notes.dlm"
    path.write_bytes(before.encode())
    (tmp_path / "change").write_bytes(unified_diff(path.name, file_diff(before, after)).encode())
    subprocess.run(
        ["git", "apply", "change"], cwd=tmp_path, env={**os.environ, "GIT_DIR": "/none"}, check=True
    )
    assert path.read_bytes() == after.encode()
    assert unified_diff(path.name, file_diff(after, after)) == ""


def test_the_change_that_was_shown_is_made(
    store: Store, document: Path, staged: tuple[StagedPair, ...]
) -> None:
    before = document.read_text(encoding="utf-8")
    ids = [staged[0].id, staged[2].id]
    review.accept(store, ids)
    preview = review.preview_apply(store, document, ids)
    assert document.read_text(encoding="utf-8") == before
    report = review.apply_previewed(store, document, ids, preview.digest)
    after = document.read_text(encoding="utf-8")
    assert [written.pair_id for written in report.written] == ids
    assert after == preview.plan.text
    assert file_diff(before, after) == preview.diff
    added = "".join(f"{line.text}\n" for line in preview.diff if line.sign == "+")
    assert after.endswith(added)
    assert store.mining.pair(staged[1].id).status == "staged"


def test_whatever_changed_since_stops_it(
    store: Store, document: Path, staged: tuple[StagedPair, ...]
) -> None:
    ids = [staged[0].id]
    review.accept(store, ids)
    preview = review.preview_apply(store, document, ids)
    review.edit(store, ids[0], chosen="Another answer.")
    with pytest.raises(ConflictError, match="changed since this preview"):
        review.apply_previewed(store, document, ids, preview.digest)
    preview = review.preview_apply(store, document, ids)
    document.write_text(document.read_text(encoding="utf-8") + "\nMore.\n", encoding="utf-8")
    before = document.read_bytes()
    with pytest.raises(ConflictError):
        review.apply_previewed(store, document, ids, preview.digest)
    assert document.read_bytes() == before
    assert store.mining.pair(ids[0]).status == "accepted"
    review.reject(store, ids)
    with pytest.raises(UsageError):
        review.apply_previewed(store, document, ids, preview.digest)


def test_putting_back(store: Store, document: Path, staged: tuple[StagedPair, ...]) -> None:
    first = staged[0].id
    review.reject(store, [first])
    assert review.put_back(store, first, "staged").status == "staged"
    review.apply(store, document, [first])
    with pytest.raises(UsageError):
        review.put_back(store, first, "staged")
    review.revert(store, document, [first])
    review.accept(store, [first])
    assert review.put_back(store, first, "reverted").status == "reverted"
    with pytest.raises(UsageError):
        review.put_back(store, first, "staged")
