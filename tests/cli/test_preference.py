"""`dlm preference` as a person types it: what is printed, which code is returned, and what happens to the document."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlm.document import load
from dlm.store import Home, StagedPair, Store
from mined_pairs import TEXTS, mine

from .conftest import BODY, DLM_ID, HEADER, Dlm
from .test_schemas import validate

Staged = tuple[StagedPair, ...]


@pytest.fixture
def store(own_home: Path) -> Iterator[Store]:
    with Home.open().store(DLM_ID) as opened:
        yield opened


@pytest.fixture
def staged(store: Store, document: Path) -> Staged:
    return mine(store, document, judge="sway")


def test_the_page_s_order_mine_list_apply(dlm: Dlm, document: Path, staged: Staged) -> None:
    before = document.read_bytes()
    text = dlm("preference", "list", "notes.dlm").stdout
    assert "batch 1 · sway" in text
    assert "3 staged" in text
    for prompt, _, _ in TEXTS:
        assert prompt in text
    first = dlm("preference", "apply", "notes.dlm")
    assert "wrote pairs 1, 2 and 3 into notes.dlm" in first.stdout
    after = document.read_bytes()
    assert after.startswith(before)
    assert "pairs 1, 2 and 3: applied already" in dlm("preference", "apply", "notes.dlm").stdout
    assert document.read_bytes() == after
    assert "3 applied" in dlm("preference", "list", "notes.dlm").stdout
    assert "removed pairs 1, 2 and 3" in dlm("preference", "revert", "notes.dlm").stdout
    assert document.read_bytes() == before
    result = dlm("preference", "apply", "notes.dlm", expect=2)
    assert "dlm preference apply notes.dlm 1 2 3" in result.stderr
    dlm("preference", "apply", "notes.dlm", "1-3")
    assert document.read_bytes() == after


def test_show_compares_and_traces(dlm: Dlm, document: Path, staged: Staged) -> None:
    text = dlm("preference", "show", "notes.dlm", "2").stdout
    assert "pair 2 · staged · batch 1" in text
    assert f"== chosen · 0.82\n{TEXTS[1][1]}" in text
    assert f"== rejected · 0.31\n{TEXTS[1][2]}" in text
    assert "== difference\n" in text
    assert "{+Whoever" in text
    assert "because of 0.82" in text
    assert f"{load(document).sha256[:16]}…, as it is now" in text
    document.write_text(HEADER + BODY + "More.\n")
    data = validate(dlm.json("preference", "show", "notes.dlm", "2"))
    assert data["document_changed"] is True
    assert [data["candidates"][side]["seed"] for side in ("chosen", "rejected")] == [100, 101]
    assert data["run"]["id"] == data["pair"]["batch"] == 1
    assert "".join(part["text"] for part in data["diff"] if part["side"] != "rejected") == TEXTS[1][1]


def test_nothing_of_an_answer_reaches_the_terminal_raw(dlm: Dlm, document: Path, store: Store) -> None:
    mine(store, document, [("q\x1b[31m", "a\x1b]0;x\x07", "b\x9b")], judge="cli:\x1b[2J")
    for args in (["list", "notes.dlm"], ["show", "notes.dlm", "1"]):
        text = dlm("preference", *args).stdout
        assert "\x1b" not in text
        assert "\x9b" not in text
        assert "\\x1b" in text


def test_decisions(dlm: Dlm, document: Path, staged: Staged) -> None:
    assert "accepted pairs 1 and 3" in dlm("preference", "accept", "notes.dlm", "3", "1-1").stdout
    assert "accepted already" in dlm("preference", "accept", "notes.dlm", "1").stdout
    assert "rejected pair 2" in dlm("preference", "reject", "notes.dlm", "--all").stdout
    text = dlm("preference", "list", "notes.dlm").stdout
    assert TEXTS[1][0] not in text
    assert "1 pair rejected or reverted: --all shows them" in text
    assert TEXTS[1][0] in dlm("preference", "list", "notes.dlm", "--all").stdout
    assert "no pair is staged" in dlm("preference", "accept", "notes.dlm", "--all", expect=2).stderr
    assert (
        "no pair is staged in batch 1"
        in dlm("preference", "reject", "notes.dlm", "--batch", "1", expect=2).stderr
    )
    dlm("preference", "apply", "notes.dlm")
    assert "revert notes.dlm 1" in dlm("preference", "reject", "notes.dlm", "1", expect=2).stderr
    assert "rejected" in dlm("preference", "apply", "notes.dlm", "2", expect=2).stderr


@pytest.mark.parametrize(
    "args",
    [
        ["accept", "notes.dlm"],
        ["accept", "notes.dlm", "1", "--all"],
        ["reject", "notes.dlm", "1", "--batch", "1"],
        ["accept", "notes.dlm", "x"],
        ["accept", "notes.dlm", "3-1"],
        ["accept", "notes.dlm", "1-999999999999"],
        ["show", "notes.dlm", "0"],
        ["edit", "notes.dlm", "1", "--chosen", "a", "--chosen-file", "b"],
        ["edit", "notes.dlm", "1", "--chosen-file", "missing.txt"],
        ["frobnicate"],
    ],
    ids=str,
)
def test_misuse_decides_nothing(
    args: list[str], dlm: Dlm, store: Store, document: Path, staged: Staged
) -> None:
    assert dlm("preference", *args, expect=2).stderr.strip()
    assert store.mining.pairs() == staged


def test_alone_it_shows_its_commands_and_a_slip_suggests_the_nearest(dlm: Dlm) -> None:
    assert "revert" in dlm("preference", expect=2).stderr
    assert "dlm preference list" in dlm("preference", "lsit", expect=2).stderr
    assert "dlm preference show --help" in dlm("preference", "show", expect=2).stderr


def test_an_unknown_number_is_told_the_known_ones(dlm: Dlm, document: Path, staged: Staged) -> None:
    for args in (["show", "notes.dlm", "9"], ["accept", "notes.dlm", "2-9"], ["apply", "notes.dlm", "9"]):
        assert "a number from 1 to 3" in dlm("preference", *args, expect=1).stderr
    assert "no run 5" in dlm("preference", "list", "notes.dlm", "--batch", "5", expect=1).stderr


def test_before_anything_was_mined(dlm: Dlm, document: Path) -> None:
    assert "no pairs have been mined" in dlm("preference", "list", "notes.dlm").stdout
    for args in (["apply"], ["revert"], ["accept", "--all"], ["reject", "1"], ["show", "1"], ["edit", "1"]):
        result = dlm("preference", args[0], "notes.dlm", *args[1:], expect=2)
        assert "dlm preference mine notes.dlm" in result.stderr
    assert "missing.dlm" in dlm("preference", "list", "missing.dlm", expect=2).stderr


def test_edit_by_options_and_files(dlm: Dlm, document: Path, store: Store, staged: Staged) -> None:
    dlm("preference", "edit", "notes.dlm", "1", "--chosen", "Brief.")
    Path("worse.txt").write_bytes("Länger\r\nund mehr\n\n".encode())
    dlm("preference", "edit", "notes.dlm", "1", "--rejected-file", "worse.txt")
    pair = store.mining.pair(1)
    assert (pair.chosen, pair.rejected, pair.edited) == ("Brief.", "Länger\r\nund mehr\n", True)
    assert "staged (edited)" in dlm("preference", "list", "notes.dlm").stdout
    Path("bad.txt").write_bytes(b"\xff")
    assert "UTF-8" in dlm("preference", "edit", "notes.dlm", "1", "--chosen-file", "bad.txt", expect=1).stderr
    assert "same text" in dlm("preference", "edit", "notes.dlm", "1", "--rejected", "Brief.", expect=2).stderr
    dlm("preference", "edit", "notes.dlm", "1", "--chosen", "Brief.", expect=2)
    assert store.mining.pair(1) == pair


def editor(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Make `code` the editor: `text` is what it opened, and what it saves."""
    Path("editor.py").write_text(
        "import sys\npath = sys.argv[1]\ntext = open(path, newline='').read()\n"
        f"{code}\nopen(path, 'w', newline='').write(text)\n"
    )
    monkeypatch.setenv("VISUAL", f"{sys.executable} {os.path.abspath('editor.py')}")


def test_edit_in_an_editor(
    dlm: Dlm, document: Path, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tricky = "windows\r\n::prose::\n```\nopen"
    mine(store, document, [("q", "good", tricky)])
    editor(monkeypatch, "text = text.replace('good', 'better\\n\\nby far')")
    dlm("preference", "edit", "notes.dlm", "1")
    pair = store.mining.pair(1)
    assert (pair.chosen, pair.rejected) == ("better\n\nby far", tricky)
    assert not list(tmp_path.glob("pair-*"))
    editor(monkeypatch, "")
    assert "not changed" in dlm("preference", "edit", "notes.dlm", "1", expect=2).stderr


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("text = text.replace('### Rejected', '')", "problem"),
        ("text = text.replace('How should', 'Why should')", "question was changed"),
        ("text = ''", "no longer one pair"),
        ("text += text", "no longer one pair"),
        ("raise SystemExit(3)", "Editing failed"),
    ],
    ids=str,
)
def test_what_was_written_in_an_editor_is_never_lost(
    code: str,
    why: str,
    dlm: Dlm,
    store: Store,
    staged: Staged,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    editor(monkeypatch, code)
    result = dlm("preference", "edit", "notes.dlm", "1", expect=2)
    assert why in result.stderr
    (kept,) = tmp_path.glob("pair-1-*")
    assert str(kept) in result.stderr
    assert store.mining.pair(1) == staged[0]


def test_without_a_terminal_and_an_editor_edit_says_what_it_takes(
    dlm: Dlm, staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    assert "--chosen-file" in dlm("preference", "edit", "notes.dlm", "1", expect=2).stderr


def test_accepted_ones_alone_and_what_is_left_is_said(dlm: Dlm, document: Path, staged: Staged) -> None:
    dlm("preference", "accept", "notes.dlm", "2")
    assert "2 staged pairs left" in dlm("preference", "apply", "notes.dlm").stdout
    assert "2 staged pairs left" in dlm("preference", "apply", "notes.dlm").stdout
    assert sum(section.auto_mined for section in load(document).sections) == 1


def test_what_a_person_edited_is_shown_and_left(dlm: Dlm, document: Path, staged: Staged) -> None:
    dlm("preference", "apply", "notes.dlm")
    document.write_text(document.read_text().replace("Short and factual.", "Short, factual, warm."))
    assert "section edited by hand" in dlm("preference", "list", "notes.dlm").stdout
    result = dlm("preference", "revert", "notes.dlm")
    assert "removed pairs 2 and 3" in result.stdout
    assert "--force" in result.stderr
    assert "Short, factual, warm." in document.read_text()
    dlm("preference", "revert", "notes.dlm", "--force")
    assert document.read_text() == HEADER + BODY


def test_a_document_in_the_middle_of_an_edit_is_listed_and_not_touched(
    dlm: Dlm, document: Path, staged: Staged
) -> None:
    dlm("preference", "apply", "notes.dlm")
    broken = document.read_text() + "\n### \n```\n"
    document.write_text(broken)
    result = dlm("preference", "list", "notes.dlm")
    assert "dlm check notes.dlm" in result.stderr
    assert "3 applied" in result.stdout
    assert "applied" in dlm("preference", "show", "notes.dlm", "1").stdout
    dlm("preference", "revert", "notes.dlm", expect=1)
    assert document.read_text() == broken


def test_sections_of_another_store_are_told_apart(dlm: Dlm, document: Path, staged: Staged) -> None:
    dlm("preference", "apply", "notes.dlm")
    line = next(section.line for section in load(document).sections if section.auto_mined)
    document.write_text(document.read_text().replace('mined_run_id="1"', 'mined_run_id="41"', 1))
    result = dlm("preference", "list", "notes.dlm")
    assert f"not from this store stand at line {line}" in result.stderr
    assert "applied (no longer in the document)" in result.stdout
    assert len(validate(dlm.json("preference", "list", "notes.dlm"))["foreign"]) == 1


def test_json_of_every_command(dlm: Dlm, document: Path, store: Store, staged: Staged) -> None:
    mine(store, document, [("q", "good", "bad")])
    for args in (
        ["list", "notes.dlm"],
        ["accept", "notes.dlm", "1-3"],
        ["reject", "notes.dlm", "3"],
        ["edit", "notes.dlm", "2", "--chosen", "x"],
        ["apply", "notes.dlm"],
        ["apply", "notes.dlm", "1", "3"],
        ["list", "notes.dlm"],
        ["show", "notes.dlm", "1"],
        ["revert", "notes.dlm", "1", "3"],
        ["show", "notes.dlm", "1"],
    ):
        envelope = dlm.json("preference", *args)
        assert envelope["command"] == f"preference {args[0]}"
        validate(envelope)
    validate(dlm.json("preference", "list", "notes.dlm", "--batch", "2"))
    assert validate(dlm.json("preference", "apply", "notes.dlm", expect=0))["waiting"] == [4]
    error = dlm.json("preference", "accept", "notes.dlm", "--batch", "1", expect=2)
    validate(error)
    assert error["command"] == "preference accept"
