"""Where a failing behaviour is decided, from evidence made for each rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from dlm.evaluation.instrument import SuiteSigns, advise
from dlm.evaluation.summary import summarise
from dlm.evaluation.teacher_forcing import ReferenceScore, TeacherForced, summarise_references
from dlm.store import EvalResult


def _signs(values: Sequence[Sequence[float]], *, dimension: str = "data_preservation", flags: Sequence[str] = (),
           errors: int = 0, ceiling: float = 1.0, passes_from: float = 2.0, **more: Any) -> SuiteSigns:  # fmt: skip
    """One case for each list, one answer for each value; `flags` on every answer, `errors` of the grader first; from `passes_from` on
    an answer passes."""
    results, left = [], errors
    for case, answers in enumerate(values):
        for repeat, value in enumerate(answers):
            error, left = ("grader", left - 1) if left else (None, 0)
            results.append(
                EvalResult(case, repeat, f"k{case}", "p", "q", "o", 0.0 if error else value, {} if error else {dimension: value},
                           tuple(flags), value >= passes_from, error, "", "stop", 5)
            )  # fmt: skip
    return SuiteSigns("tables", summarise(results), results, {dimension: ceiling}, **more)


def _given(token_accuracy: float, whole: float = 0.9) -> TeacherForced:
    return TeacherForced(8, 0, 800, 0.01, token_accuracy, whole)


@pytest.mark.parametrize(
    ("signs", "decided", "instrument", "said"),
    [
        (_signs([[0.5]] * 8, errors=2), "nowhere", None, "the grader failed"),
        (_signs([[0.25]] * 8, ceiling=0.25, gold_truncated=0.75), "nowhere", None, "cuts 75% of the references"),
        (_signs([[0.25]] * 8, ceiling=0.25, gold_truncated=1 - 0.7, gold_beyond_context=0.3), "nowhere", None, "context cuts 30%"),
        (_signs([[0.25]] * 8, ceiling=0.25, gold_truncated=0.75, gold_beyond_context=0.5), "nowhere", None, "budget cuts 75%"),
        (_signs([[0.5]] * 8, ceiling=0.5), "nowhere", None, "references themselves"),
        (_signs([[0.2, 0.3, 0.2]] * 8), "tokens", "sft", "0% of the failing cases"),
        (_signs([[0.2, 1.0, 0.2]] * 8), "sequence", "preference", "100% of the failing cases"),
        (_signs([[0.2, 1.0]] * 8, positions=[0.9, 0.8, 0.95, 0.1]), "generation", "rft", "75% of the dropped rows"),
        (_signs([[0.2, 1.0]] * 8, positions=[0.1, 0.5, 0.9, 0.2]), "sequence", "preference", "25% of the dropped rows"),
        (_signs([[0.2, 1.0]] * 8, flags=["truncated"]), "generation", "rft", "do not end"),
        (_signs([[0.2, 1.0]] * 8, flags=["truncated"], gold_truncated=0.75), "sequence", "preference", "100% of the failing cases"),
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
    assert advise(_signs([[0.96]] * 5, passes_from=0.8)) == []


def test_many_answers_that_lose_little_fail_although_their_mean_does_not() -> None:
    """As the embedded base's forty tables of 40 rows: 28 of 160 answers lose rows, and the mean hardly shows it."""
    values = [[1.0, 1.0, 1.0, 1.0]] * 20 + [[0.9, 1.0, 1.0, 1.0]] * 12 + [[0.9, 0.975, 1.0, 1.0]] * 8
    signs = _signs(values, passes_from=1.0)
    assert signs.summary.means["data_preservation"].value > 0.98
    [found] = advise(signs)
    assert (found.decided, found.instrument) == ("sequence", "preference")
    assert "28 of 160 answers (18%) fall short of it, in 20 of 40 cases" in found.evidence
    assert "in 100% of the failing cases the best of its answers is right" in found.evidence
    assert advise(_signs([[0.96]] * 5, passes_from=1.0))
    # near misses: one answer of 20; answers that pass; less than answers that pass have; a ceiling nobody knows by case
    assert advise(_signs([[0.5]] + [[1.0]] * 19, passes_from=1.0)) == []
    assert advise(_signs([[0.96]] * 20, passes_from=0.9)) == []
    assert advise(_signs([[0.96, 0.97]] * 20, passes_from=0.97, ceiling=0.99)) == []
    mixed = _signs([[0.97]] * 20 + [[0.98]] * 20, passes_from=2.0)
    passed = [replace(one, passed=one.case_index < 20) for one in mixed.results]
    assert advise(replace(mixed, results=passed)) == []


def test_the_share_of_a_flag_is_that_of_the_answers_that_fail() -> None:
    signs = _signs([[1.0, 1.0, 1.0, 0.2]] * 8, passes_from=1.0)
    cut = [replace(one, flags=("truncated",) if one.repeat == 3 else ()) for one in signs.results]
    [found] = advise(replace(signs, results=cut))
    assert found.decided == "generation"
    assert any("100% of the failing answers run into a budget" in text for text in found.evidence)


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
