"""What a grader is: it reads one answer to a task and says, by named dimensions, how good it is.

A grader differs from a judge in that its scores mean the same everywhere: 0 is nothing right, 1 is all right, and a score
from `pass_threshold` up is a pass. Each is deterministic for one answer, and none loads a model. Any grader is a judge
(`grader:NAME`), the measure of an evaluation suite, and the reward of the phase `rft`.

Errors stand apart from scores, because they have different owners:

    error           whose fault       the score
    None            –                 a measurement
    sample_parse    the model's       0, and it counts: the answer is not of the form that the grader reads
    grader          the grader's      0, and it must not be used: the answer was not judged (`Grade.scored` is False)

Three flags every grader sets: `truncated` (the token budget ended the answer), `unresponsive` (there is no answer) and
`hard_fail` (a hard-fail cap holds the score down).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol, runtime_checkable

from dlm.errors import GradingError

__all__ = [
    "HARD_FAIL",
    "TRUNCATED",
    "UNRESPONSIVE",
    "Dimension",
    "ErrorTally",
    "Grade",
    "GradeError",
    "GradeItem",
    "Grader",
    "graded",
    "not_graded",
    "weighted",
]

GradeError = Literal["sample_parse", "grader"]
TRUNCATED: Final = "truncated"
UNRESPONSIVE: Final = "unresponsive"
HARD_FAIL: Final = "hard_fail"
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True)
class Dimension:
    """One named part of a grade, 0–1, with its weight in the score. Weights are at least 0 and need not sum to 1."""

    name: str
    weight: float


@dataclass(frozen=True)
class GradeItem:
    """One answer to be graded.

    Attributes:
        prompt: what was asked, as the document or the case has it (no chat template).
        output: the answer's text.
        reference: the right answer, where the case has one.
        facts: what else the case knows, by name; a grader names in its docstring what it reads (for `spreadsheet` see
            `grading.spreadsheet.facts_of`). Plain JSON values only, so that a grader in another process sees the same.
        truncated: the token budget ended the answer before the model did.
    """

    prompt: str
    output: str
    reference: str | None = None
    facts: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    truncated: bool = False


@dataclass(frozen=True)
class Grade:
    """What a grader says of one answer.

    Attributes:
        score: 0–1, finite; 0 with an error.
        dimensions: each dimension's own value, 0–1, by name; empty with the error `grader`.
        flags: what was seen, such as `csv_not_parseable`, `truncated`; sorted, each once.
        passed: the score reached the grader's threshold, and nothing was seen that the grader never lets pass; never
            with an error.
        barred: something was seen that the grader never lets pass, whatever the score.
        capped: a hard-fail cap holds the score down; a whole that this grade is a part of scores no more.
        error: see the module.
        message: why, in words; "" when there is nothing to say.

    Raises:
        ValueError: a score or dimension outside 0–1 or not finite, or a pass or a score above 0 with an error.
    """

    score: float
    dimensions: Mapping[str, float]
    flags: tuple[str, ...] = ()
    passed: bool = False
    barred: bool = False
    capped: bool = False
    error: GradeError | None = None
    message: str = ""

    def __post_init__(self) -> None:
        for name, value in (("score", self.score), *self.dimensions.items()):
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise ValueError(f"{name} is a number from 0 to 1, not {value}")
        if self.error is not None and (self.passed or self.score):
            raise ValueError("a grade with an error passes nothing and scores 0")

    @property
    def scored(self) -> bool:
        """Whether `score` says something about the answer: everything but an error of the grader itself."""
        return self.error != "grader"


@runtime_checkable
class Grader(Protocol):
    """Grades answers. One that keeps a process ends it in `close`, which may be called twice.

    Properties:
        name: the spec it was made from, canonical: `spreadsheet:strict`.
        dimensions: the names that every scored grade has, with their weights.
        pass_threshold: the least score that passes, 0–1.
    """

    @property
    def name(self) -> str: ...
    @property
    def dimensions(self) -> tuple[Dimension, ...]: ...
    @property
    def pass_threshold(self) -> float: ...

    def grade(self, items: Sequence[GradeItem]) -> Sequence[Grade]:
        """One grade for each item, in order. What goes wrong with one item is its grade's error; it never raises for it."""
        ...

    def close(self) -> None: ...


def weighted(values: Mapping[str, float], dimensions: Sequence[Dimension]) -> float:
    """The weighted mean of the dimensions' values, 0–1."""
    total = math.fsum(dimension.weight for dimension in dimensions)
    return math.fsum(values[dimension.name] * dimension.weight for dimension in dimensions) / total


def graded(
    item: GradeItem,
    score: float,
    dimensions: Mapping[str, float],
    *,
    threshold: float,
    flags: Sequence[str] = (),
    error: Literal["sample_parse"] | None = None,
    never_passes: bool = False,
    capped: bool = False,
    message: str = "",
) -> Grade:
    """The grade of an answer that was read: adds the flags every grader sets, and whether it passed."""
    own = set(flags)
    if item.truncated:
        own.add(TRUNCATED)
    if not item.output.strip():
        own.add(UNRESPONSIVE)
    if capped:
        own.add(HARD_FAIL)
    score = 0.0 if error else min(1.0, max(0.0, score))
    passed = error is None and not never_passes and score >= threshold
    return Grade(
        score,
        dict(dimensions),
        tuple(sorted(own)),
        passed,
        never_passes,
        capped,
        error=error,
        message=message,
    )


def not_graded(item: GradeItem, message: str) -> Grade:
    """The grade of an answer that the grader failed on."""
    return replace(graded(item, 0.0, {}, threshold=1.0), passed=False, error="grader", message=message)


@dataclass
class ErrorTally:
    """Counts the grader's own errors and stops a run in which they are too many to believe the rest.

    Attributes:
        allowed_share: of all answers so far, 0–1; 0 stops at the first error.
        at_least: answers that must have been seen before a share means something.
        what: is graded, in words.
    """

    allowed_share: float = 0.1
    at_least: int = 20
    seen: int = 0
    errors: int = 0
    last_message: str = ""
    what: str = "answers"

    def add(self, grades: Sequence[Grade]) -> None:
        """Count some grades.

        Raises:
            GradingError: more than the allowed share are errors of the grader.
        """
        failed = [grade for grade in grades if not grade.scored]
        self.seen += len(grades)
        self.errors += len(failed)
        if failed:
            self.last_message = failed[-1].message
        self.check(final=False)

    def in_turn(
        self, grader: Grader, items: Sequence[GradeItem], heed: Callable[[], None] = lambda: None
    ) -> list[Grade]:
        """Grade items one by one, without counting them, after `heed` for each, which may raise. Up to the error that is one
        too many for all of them, then there are fewer grades than items: of a grader that hangs, nobody waits for more."""
        grades: list[Grade] = []
        errors, most = self.errors, self.allowed_share * (self.seen + len(items))
        for item in items:
            heed()
            grades += grader.grade([item])
            errors += not grades[-1].scored
            if errors > most:
                break
        return grades

    def all_of(
        self, grader: Grader, items: Sequence[GradeItem], heed: Callable[[], None] = lambda: None
    ) -> list[Grade]:
        """Grade items as `in_turn` does, and count them.

        Raises:
            GradingError: more than the allowed share of them are errors of the grader.
        """
        grades = self.in_turn(grader, items, heed)
        self.add(grades)
        if len(grades) < len(items):
            self.check()
        return grades

    def check(self, *, final: bool = True) -> None:
        """Raise `GradingError` when the share is exceeded; `final` judges fewer than `at_least` answers, too."""
        enough = final or self.seen >= self.at_least or not self.allowed_share
        if enough and self.errors > self.allowed_share * self.seen:
            raise GradingError(
                f"the grader failed on {self.errors} of {self.seen} {self.what}: its scores cannot be relied on",
                expected=f"errors on at most {self.allowed_share:.0%} of them",
                found=self.last_message,
                next_step="mend the grader, then look at it alone: dlm grader test",
            )
