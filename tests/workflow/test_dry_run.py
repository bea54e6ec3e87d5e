"""`--dry-run`: rows exactly as the model sees them, and nothing on the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bases_on_the_spot import ARCHITECTURES, make_tokenizer, spec_of
from dlm.document import load, render_preference
from dlm.model import load_policy
from dlm.store import home_root
from dlm.training import rows_of_document
from dlm.workflow.seen_rows import pieces_of
from dlm.workflow.train import TrainOptions, dry_run, train

pytestmark = pytest.mark.torch

Make = Callable[..., Path]
ROWS = "".join(f"### Q\nWhat is number {i}?\n### A\nIt is {i * 7} é日.\n" for i in range(24))
PAIRS = [(f"What is {i}?", f"{i}.", f"It might be {i}.") for i in range(24)]
BODY = f"Some prose.\n\n::instruction::\n{ROWS}\n{render_preference(PAIRS)}"


def options(phase: Any = "all", **knobs: Any) -> TrainOptions:
    return TrainOptions(phase=phase, knobs={"max_steps": 2, **knobs}, device="cpu")


def test_rows_are_those_the_model_reads_and_nothing_is_written(make_document: Make, view: Any) -> None:
    document = make_document(body=BODY)
    before = sorted(document.parent.rglob("*"))
    sft, preference = dry_run(document, options(), view)
    assert sorted(document.parent.rglob("*")) == before
    assert not home_root().exists()
    assert (sft.briefing.phase, preference.briefing.phase) == ("sft", "preference")
    assert (sft.briefing.run_id, sft.briefing.estimate) == (None, None)
    chat = load_policy(spec_of(document.parent / "llama"), device="cpu").chat
    rows = {row.place: row for row in rows_of_document(load(document))[0]}
    assert len(sft.rows) == 3
    for seen in sft.rows:
        row, (prompt, answer) = rows[seen.place], seen.parts
        if row.prompt is not None:
            assert list(prompt.ids) == chat.prompt_ids(row.prompt)
            assert list(answer.ids) == chat.completion_ids(row.text)
            assert row.text in "".join(answer.tokens)
        assert (any(prompt.scored), all(answer.scored)) == (False, True)
    for seen in preference.rows:
        prompt, chosen, rejected = seen.parts
        assert [part.role for part in seen.parts] == ["prompt", "chosen", "rejected"]
        assert all(chosen.scored)
        assert all(rejected.scored)
        assert "<|end|>" in chosen.tokens[-1]  # special tokens are shown
        assert "<|user|>" in "".join(prompt.tokens)


@pytest.mark.big
def test_the_first_rows_are_those_of_the_first_step(make_document: Make, view: Any) -> None:
    """The seed decides which rows come first, in a dry run as in the run."""
    document = make_document(body=BODY)
    (one,), (other,) = (dry_run(document, options("sft", seed=seed), view) for seed in (1, 2))
    assert [row.place for row in one.rows] != [row.place for row in other.rows]
    (again,) = dry_run(document, options("sft", seed=1), view)
    assert [row.place for row in again.rows] == [row.place for row in one.rows]


@pytest.mark.big
def test_a_dry_run_leaves_a_trained_store_as_it_is(make_document: Make, view: Any) -> None:
    document = make_document(body=BODY)
    train(document, options(), view)
    files = {
        path: path.read_bytes()
        for path in home_root().rglob("*")
        if path.is_file() and "-" not in path.suffix
    }
    (preference,) = dry_run(document, options("preference"), view)
    assert preference.briefing.start.value == "v0002"
    assert {path: path.read_bytes() for path in files} == files
    (reward,) = dry_run(document, options("reward"), view)
    for part in reward.rows[0].parts[1:]:
        assert list(part.scored) == [False] * (len(part.ids) - 1) + [True]  # where the score is read


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(deadline=None)
@example(text="\ufffd\x80")  # the sign for what is unfinished, and then a character of two bytes
@example(text="\ufffd" * 9 + "é")
@given(text=st.text(max_size=40))
def test_the_pieces_of_a_text_are_the_text(architecture: str, text: str) -> None:
    tokenizer = make_tokenizer(architecture)
    ids = tokenizer(text, add_special_tokens=False).input_ids

    def decode(some: Any) -> str:
        return str(
            tokenizer.decode(list(some), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )

    pieces = pieces_of(ids, decode)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == decode(ids)
