"""Is a grader fit to be used? Five bad outputs must score under half, gold must stand at the top, and the pass threshold
must leave work to do.

The rules are those of the page on reading curves: a fail rate of the untrained base between 25 and 50 % is good (aim at
35 %), under 10 % is too easy, over 70 % too hard; two graders whose ranks agree from .8 on (Spearman) may stand in for one
another, under .6 one of them is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from dlm.grading.cases import Case
from dlm.grading.grader import ErrorTally, Grade, GradeItem, Grader

__all__ = [
    "ENOUGH_ERRORS",
    "THRESHOLDS",
    "BadOutput",
    "Sanity",
    "ThresholdRow",
    "advise_on_ranks",
    "calibrate",
    "check_sanity",
]

ENOUGH_ERRORS: Final = (
    3  # of the grader on one kind of output: a grader that hangs is told apart in half a minute
)
THRESHOLDS: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
_HALF = 0.5
_REFUSAL: Final = "I'm sorry, but I can't help with that."
_OFF_TOPIC: Final = (
    "The quick brown fox jumps over the lazy dog.\nIt does so every day, and twice on Sundays."
)


@dataclass(frozen=True)
class BadOutput:
    """One deliberately bad output over all cases: the worst (highest) score it got, and where; both scores are None where the
    grader gave none. `message`: of its first error."""

    name: str
    highest: float | None
    mean: float | None
    errors: int
    place: str
    message: str = ""

    @property
    def ok(self) -> bool:
        """Under half everywhere, and never an error of the grader."""
        return not self.errors and self.highest is not None and self.highest < _HALF


@dataclass(frozen=True)
class Sanity:
    """What the checks found. `gold_*` are None where no case has a reference.

    gold_lowest: the least score of a reference. gold_passed: their share that passes. gold_message: of the grader's first error
    on one. beaten: bad outputs that scored as much as the reference of their case, as `name at place`.
    """

    cases: int
    gold_lowest: float | None
    gold_passed: float | None
    gold_errors: int
    bad: tuple[BadOutput, ...]
    beaten: tuple[str, ...]
    gold_message: str = ""

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        gold = self.gold_passed in (None, 1.0) and not self.gold_errors
        return gold and not self.beaten and all(one.ok for one in self.bad)


def check_sanity(grader: Grader, cases: Sequence[Case]) -> Sanity:
    """Grade references and five bad outputs of each case.

    The five: nothing at all, a refusal, text about something else, the prompt given back, and another case's reference (or,
    where there is none, the prompt's first line). Of each kind no more are graded after the grader's third error.
    """
    gold_cases = [case for case in cases if case.reference is not None]
    gold = _grades(grader, [case.item(case.reference or "", truncated=False) for case in gold_cases])
    gold_of = {case.key: grade.score for case, grade in zip(gold_cases, gold, strict=False) if grade.scored}
    bad: list[BadOutput] = []
    beaten: list[str] = []
    for name, outputs in _bad_outputs(cases).items():
        grades = _grades(
            grader, [case.item(text, truncated=False) for case, text in zip(cases, outputs, strict=True)]
        )
        bad.append(_worst(name, cases, grades))
        beaten += [
            f"{name} at {case.place}"
            for case, grade in zip(cases, grades, strict=False)
            if case.key in gold_of and grade.scored and grade.score >= gold_of[case.key]
        ]
    scored = [grade for grade in gold if grade.scored]
    return Sanity(
        cases=len(cases),
        gold_lowest=min((grade.score for grade in scored), default=None),
        gold_passed=sum(grade.passed for grade in scored) / len(scored) if scored else None,
        gold_errors=len(gold) - len(scored),
        bad=tuple(bad),
        beaten=tuple(beaten),
        gold_message=_first_error(gold),
    )


def _grades(grader: Grader, items: Sequence[GradeItem]) -> list[Grade]:
    if not items:
        return []
    return ErrorTally(allowed_share=(ENOUGH_ERRORS - 0.5) / len(items)).in_turn(grader, items)


def _bad_outputs(cases: Sequence[Case]) -> dict[str, list[str]]:
    others = [*cases[1:], *cases[:1]]
    swapped = [
        other.reference
        if other.reference is not None and other.reference != case.reference
        else case.prompt.split("\n")[0]
        for case, other in zip(cases, others, strict=True)
    ]
    return {
        "nothing": [""] * len(cases),
        "a refusal": [_REFUSAL] * len(cases),
        "off topic": [_OFF_TOPIC] * len(cases),
        "the prompt given back": [case.prompt for case in cases],
        "another case's answer": swapped,
    }


def _worst(name: str, cases: Sequence[Case], grades: Sequence[Grade]) -> BadOutput:
    scored = [(grade.score, case.place) for case, grade in zip(cases, grades, strict=False) if grade.scored]
    highest, place = max(scored, default=(None, ""))
    mean = sum(score for score, _ in scored) / len(scored) if scored else None
    return BadOutput(name, highest, mean, len(grades) - len(scored), place, _first_error(grades))


def _first_error(grades: Sequence[Grade]) -> str:
    return next((grade.message for grade in grades if not grade.scored), "")


@dataclass(frozen=True)
class ThresholdRow:
    """A pass threshold with the share of outputs that fails under it, and what to make of that."""

    threshold: float
    fail_rate: float
    verdict: Literal["too easy", "easy", "good", "hard", "too hard"]


def calibrate(grades: Sequence[Grade]) -> list[ThresholdRow]:
    """The fail rate of the base's graded answers under each threshold. What the grader never lets pass fails under all of them.

    Boundaries: 10 % is no longer too easy, 25 % and 50 % are good, 70 % is hard and not yet too hard.

    Raises:
        ValueError: no grades.
    """
    if not grades:
        raise ValueError("a threshold needs scores to be calibrated on")
    return [
        _row(mark, sum(grade.barred or grade.score < mark for grade in grades) / len(grades))
        for mark in THRESHOLDS
    ]


def _row(threshold: float, rate: float) -> ThresholdRow:
    if rate < 0.10:
        return ThresholdRow(threshold, rate, "too easy")
    if rate < 0.25:
        return ThresholdRow(threshold, rate, "easy")
    if rate <= 0.50:
        return ThresholdRow(threshold, rate, "good")
    return ThresholdRow(threshold, rate, "hard" if rate <= 0.70 else "too hard")


def advise_on_ranks(correlation: float | None) -> str:
    """What a rank correlation of two graders' scores says. None: one of them gave one score to everything."""
    if correlation is None:
        return "no ranks: one of the graders gives the same score to every output"
    if correlation >= 0.8:
        return "go: the two rank alike"
    return "fix one of them: they rank differently" if correlation < 0.6 else "look at where they differ"
