"""Prompts before the tokenizer: which are held out, and which may not be trained on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dlm.errors import UsageError
from dlm.training.prompts import Prompt, encode_prompts, prompts_hash, refuse_proving_prompts, split_prompts
from tiny_training import ByteChat

pytestmark = pytest.mark.torch
PROMPTS = [Prompt(f"What is number {i}?", "p.jsonl", i, f"{i}.") for i in range(1, 41)]


def test_equal_texts_stand_on_one_side_whatever_is_known_of_their_answers() -> None:
    doubled = [*PROMPTS, *(replace(one, reference="Another answer.", line=one.line + 100) for one in PROMPTS)]
    train, held_out, _ = split_prompts(doubled, 0.4, 100)
    assert held_out
    assert not {one.text for one in train} & {one.text for one in held_out}
    assert len(held_out) % 2 == 0


def test_at_most_so_many_are_held_out_and_the_same_ones_in_any_company() -> None:
    train, few, reason = split_prompts(PROMPTS, 0.5, 5)
    assert (len(train), len(few)) == (35, 5)
    assert "validation_prompts" in reason
    _, again, _ = split_prompts(list(reversed(PROMPTS)), 0.5, 5)
    assert {one.key for one in again} == {one.key for one in few}
    assert split_prompts(PROMPTS[:10], 0.5, 5)[1] == []


def test_the_hash_covers_what_a_grade_depends_on() -> None:
    known = prompts_hash(PROMPTS)
    assert prompts_hash([replace(one, line=7, origin="moved.jsonl") for one in PROMPTS]) == known
    for change in ({"text": "x"}, {"reference": "x"}, {"facts": {"rows": [1]}}):
        assert prompts_hash([replace(PROMPTS[0], **change), *PROMPTS[1:]]) != known  # type: ignore[arg-type]


def test_what_versions_are_proven_on_is_refused_by_name_and_place() -> None:
    with pytest.raises(UsageError, match="2 of 40 prompts to train on are among the probes") as raised:
        refuse_proving_prompts(
            PROMPTS, {"the probes": ["What is number 3?\n", "What is number 9?", "Other?"]}
        )
    assert raised.value.found == "p.jsonl:3, p.jsonl:9"
    refuse_proving_prompts(PROMPTS, {"the probes": ["Other?"]})


def test_copies_and_prompts_without_room_are_left_out_with_their_places() -> None:
    long = Prompt("w" * 90, "p.jsonl", 50)
    found = encode_prompts([PROMPTS[0], replace(PROMPTS[0], line=41), long], ByteChat(), 64)
    assert [one.row.line for one in found.examples] == [1]
    assert [(one.row.line, one.kind) for one in found.skipped] == [(41, "duplicate"), (50, "too_long")]
    assert "p.jsonl:1" in found.skipped[0].reason
    assert found.examples[0].reference_tokens == len("1.") + 1
