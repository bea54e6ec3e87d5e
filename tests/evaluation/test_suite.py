"""Suites as the header states them: how long the tables of a generated one are, and what can be reached in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dlm.document import Document, parse
from dlm.errors import DlmError, UsageError
from dlm.evaluation import Suite, gold_ceiling, read_suite
from dlm.grading import Case, make_grader, parse_grader
from dlm.workflow.gating import read_gate
from dlm.workflow.rewards import read_rewards

HEADER = """---
dlm_id: 01KAYR5V3QJ8W2N4T6Y0E9C7BD
dlm_version: 15
base_model: pocket
evals:
  long: {SUITE}
---
"""


def _document(suite: str) -> Document:
    return parse(HEADER.replace("SUITE", suite))


def test_rows_are_those_of_each_table_and_of_its_training_split_too(tmp_path: Path) -> None:
    document = _document("task: spreadsheet, split: stress_heldout, rows: 17, n: 3")
    suite = read_suite(document, tmp_path, "long")
    assert [(case.reference or "").count("\n") for case in suite.cases] == [17, 17, 17]
    rewards = read_rewards(document, tmp_path, [], "long", None)
    assert {(prompt.reference or "").count("\n") for prompt in rewards.prompts} == {17}
    assert not {prompt.text for prompt in rewards.prompts} & {case.prompt for case in suite.cases}


def test_cases_of_a_file_have_no_rows_to_set(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"evals.long.rows: cases of a file are as they stand"):
        read_suite(_document("cases: cases.jsonl, rows: 5"), tmp_path, "long")


def test_no_suite_has_the_name_of_the_held_out_rows(tmp_path: Path) -> None:
    """A condition on `validation.score` would ask for what is no suite, and so be missing for ever."""
    document = parse(HEADER.replace("long: {SUITE}", "validation: {task: spreadsheet}"))
    with pytest.raises(UsageError, match="cannot be named validation"):
        read_suite(document, tmp_path, "validation")


def test_a_fault_of_the_header_leads_to_the_header(tmp_path: Path) -> None:
    """Its next step is not the help of a command that was typed well."""
    document = replace(_document("task: spreadsheet, split: held"), path=tmp_path / "a b.dlm")
    with pytest.raises(UsageError, match="has no split 'held'") as caught:
        read_suite(document, tmp_path, "long")
    assert (
        caught.value.next_step
        == f"mend evals.long in the header; dlm check '{tmp_path}/a b.dlm' names the line"
    )
    with pytest.raises(UsageError, match="did you mean long") as caught:
        read_suite(document, tmp_path, "lnog")
    assert not caught.value.next_step  # the command's own
    gated = HEADER.replace("---\n", "---\ngate: {conditions: [score => 1]}\n", 1).replace(
        "SUITE", "task: spreadsheet"
    )
    with pytest.raises(UsageError, match="cannot be read") as caught:
        read_gate(parse(gated), tmp_path / "b.dlm")
    assert caught.value.next_step.startswith("mend gate.conditions in the header; dlm check ")


def test_prompts_that_the_grader_cannot_grade_are_told_before_anything_is_sampled(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a", "reference": "b"}\n{"prompt": "c"}\n', encoding="utf-8")
    document = _document("task: spreadsheet")
    for grader in ("string_check:eq", "0.5*text_similarity + 0.5*length:1-5 words"):
        with pytest.raises(UsageError, match="answers to 1 of 2 prompts cannot be graded") as caught:
            read_rewards(document, tmp_path, [prompts], None, grader)
        assert caught.value.where == f"{prompts}:2"
    assert len(read_rewards(document, tmp_path, [prompts], None, "length:1-5 words").prompts) == 2


@pytest.mark.parametrize("rows", [0, 201])
def test_more_rows_than_can_be_made_are_refused_in_the_header(rows: int) -> None:
    with pytest.raises(DlmError, match="rows"):
        _document(f"task: spreadsheet, rows: {rows}")


class _Letters:
    """A token a character, and one that ends an answer."""

    def prompt_ids(self, prompt: str) -> list[int]:
        return list(map(ord, prompt))

    def completion_ids(self, answer: str) -> list[int]:
        return [*map(ord, answer), 0]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


def test_a_reference_that_the_context_has_no_room_for_is_out_of_reach() -> None:
    """No budget helps where prompt and answer are longer than the base's context, and the ceiling took it for reachable."""
    lengths = {
        "fits": (10, 9),
        "too long an answer": (10, 21),
        "too long a prompt": (11, 10),
        "not asked": (20, 1),
    }
    cases = [Case("p" * prompt, "r" * answer, {}, place) for place, (prompt, answer) in lengths.items()]
    grader = make_grader("string_check:eq", folder=Path())
    suite = Suite("words", tuple(cases), parse_grader("string_check:eq"))
    found = gold_ceiling(suite, _Letters(), 15, 20, grader.grade)
    assert found is not None
    assert (found.cases, found.reachable, found.beyond_context, found.longest) == (3, 1, 2, 22)
    assert found.summary.value("score") == pytest.approx(1 / 3)
    assert found.cut == "2 of 3 references do not fit the base's context after their prompts"
    starved = gold_ceiling(suite, _Letters(), 9, 20, grader.grade)
    assert starved is not None
    assert starved.cut.startswith(
        "1 of 3 references need more than the 9 tokens an answer may have (the longest 22); 2 of 3 "
    )
    assert gold_ceiling(Suite("none", (cases[3],), suite.grader), _Letters(), 9, 20, grader.grade) is None
