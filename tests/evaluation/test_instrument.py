"""Where a failing behaviour is decided, from evidence made for each rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dlm.evaluation.instrument import SuiteSigns, advise, dropped_rows
from dlm.evaluation.summary import summarise
from dlm.evaluation.teacher_forcing import ReferenceScore, TeacherForced, summarise_references
from dlm.store import EvalResult


def _signs(values: Sequence[Sequence[float]], *, dimension: str = "data_preservation", flags: Sequence[str] = (),
           errors: int = 0, ceiling: float = 1.0, **more: Any) -> SuiteSigns:  # fmt: skip
    """One case for each list, one answer for each value; `flags` on every answer, `errors` of the grader first."""
    results, left = [], errors
    for case, answers in enumerate(values):
        for repeat, value in enumerate(answers):
            error, left = ("grader", left - 1) if left else (None, 0)
            results.append(
                EvalResult(case, repeat, f"k{case}", "p", "q", "o", 0.0 if error else value, {} if error else {dimension: value},
                           tuple(flags), False, error, "", "stop", 5)
            )  # fmt: skip
    return SuiteSigns("tables", summarise(results), results, {dimension: ceiling}, **more)


def _given(token_accuracy: float, whole: float = 0.9) -> TeacherForced:
    return TeacherForced(8, 0, 800, 0.01, token_accuracy, whole)


@pytest.mark.parametrize(
    ("signs", "decided", "instrument", "said"),
    [
        (_signs([[0.5]] * 8, errors=2), "nowhere", None, "the grader failed"),
        (_signs([[0.25]] * 8, ceiling=0.25, gold_truncated=0.75), "nowhere", None, "cuts 75% of the references"),
        (_signs([[0.5]] * 8, ceiling=0.5), "nowhere", None, "references themselves"),
        (_signs([[0.2, 0.3, 0.2]] * 8), "tokens", "sft", "0% of the failing cases"),
        (_signs([[0.2, 1.0, 0.2]] * 8), "sequence", "preference", "100% of the failing cases"),
        (_signs([[0.2, 1.0]] * 8, positions=[0.9, 0.8, 0.95, 0.1]), "generation", "rft", "75% of the dropped rows"),
        (_signs([[0.2, 1.0]] * 8, positions=[0.1, 0.5, 0.9, 0.2]), "sequence", "preference", "25% of the dropped rows"),
        (_signs([[0.2, 1.0]] * 8, flags=["truncated"]), "generation", "rft", "do not end"),
        # the references are known, and more is lost than the tokens that are not the version's own could explain
        (_signs([[0.2, 0.3]] * 8, references=_given(0.995)), "generation", "rft", "99.50% of their 800 tokens"),
        (_signs([[0.25]] * 8, references=_given(0.99)), "generation", "rft", "it strays as it writes"),
        (_signs([[0.25]] * 8, references=_given(0.995, whole=0.26)), "generation", "rft", "in 26% of them all"),
        (_signs([[0.2, 1.0]] * 8, references=_given(0.995)), "generation", "rft", "it strays as it writes"),
        # near misses
        (_signs([[0.2, 0.3]] * 8, references=_given(0.989)), "tokens", "sft", "hardly ever sampled"),
        (_signs([[0.2, 0.3]] * 8, references=_given(0.995, whole=0.24)), "tokens", "sft", "hardly ever sampled"),
        (_signs([[0.25]] * 8, references=_given(0.989)), "tokens", "sft", "one greedy answer"),
        (_signs([[0.2, 1.0]] * 8, references=_given(0.989)), "sequence", "preference", "98.90%"),
        (_signs([[0.8]] * 8, dimension="format_validity", flags=["text_around_table"], references=_given(0.999)),
         "tokens", "sft", "habit of form"),
        (_signs([[0.25]] * 8, ceiling=0.25, gold_truncated=0.75, references=_given(0.999)), "nowhere", None, "cuts 75%"),
        # the references are not what it would say
        (_signs([[0.25]] * 8, references=_given(0.899)), "tokens", "sft", "they have to be shown"),
        (_signs([[0.2, 0.3]] * 8, references=_given(0.2)), "tokens", "sft", "they have to be shown"),
        (_signs([[0.25]] * 8, references=_given(0.90)), "tokens", "sft", "one greedy answer"),
        (_signs([[0.2, 1.0]] * 8, references=_given(0.2)), "sequence", "preference", "20.00%"),  # it has words of its own
        (_signs([[0.8]] * 8, dimension="format_validity", flags=["text_around_table"]), "tokens", "sft", "habit of form"),
        (_signs([[0.5]] * 8), "tokens", "sft", "one greedy answer"),
    ],
)  # fmt: skip
def test_each_rule(signs: SuiteSigns, decided: str, instrument: str | None, said: str) -> None:
    [found] = advise(signs, "my notes.dlm")
    assert (found.decided, found.instrument) == (decided, instrument), found
    assert any(said in text for text in found.evidence), found.evidence
    assert found.next_step
    if instrument == "rft":
        assert found.next_step == "dlm train 'my notes.dlm' --phase rft --suite tables"


def test_nothing_fails_nothing_is_said() -> None:
    assert advise(_signs([[1.0]] * 5)) == []
    assert advise(_signs([[0.96]] * 5)) == []


def test_where_dropped_rows_stood() -> None:
    rows = ["a,1", "b,2", "c,3", "d,4", "e,5"]
    assert dropped_rows(rows, "h\na,1\n c,3 \nd,4") == [0.25, 1.0]
    assert dropped_rows(rows, "\n".join(rows)) == []
    assert dropped_rows(["a"], "") == [0.0]


def test_foreign_references_are_advice_to_train_and_not_to_ask_again() -> None:
    [known] = advise(_signs([[0.25]] * 8, references=_given(0.5)))
    assert known.next_step == "dlm train DOCUMENT --phase sft"
    [unknown] = advise(_signs([[0.25]] * 8))
    assert "--repeats 8" in unknown.next_step


def test_figures_of_references() -> None:
    scores = [ReferenceScore(0, 10, 10, 1.0), ReferenceScore(1, 30, 20, 7.0), ReferenceScore(2, 0, 0, 0.0)]
    assert summarise_references(scores) == TeacherForced(2, 1, 40, 0.2, 0.75, 0.5)
    assert summarise_references(scores[2:]) is None
    assert summarise_references([]) is None
