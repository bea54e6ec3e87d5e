"""From a case, an answer and its grade to the record of it: the one place that fills it in."""

from __future__ import annotations

from dlm.grading import Case, Grade
from dlm.store import TOO_LONG, EvalResult

__all__ = ["case_not_asked", "case_result"]


def case_result(
    case: Case, index: int, output: str, grade: Grade, *, repeat: int = 0, finish_reason: str, n_tokens: int
) -> EvalResult:
    """A graded answer. `index`: the case's place in its suite; `repeat`: which answer to it."""
    return EvalResult(
        case_index=index,
        repeat=repeat,
        case_key=case.key,
        place=case.place,
        prompt=case.prompt,
        output=output,
        score=grade.score,
        dimensions=grade.dimensions,
        flags=grade.flags,
        passed=grade.passed,
        error=grade.error,
        message=grade.message,
        finish_reason=finish_reason,
        n_tokens=n_tokens,
    )


def case_not_asked(case: Case, index: int, message: str, *, repeat: int = 0) -> EvalResult:
    """A case that the base has no room to answer: no measurement, and counted as `prompt_too_long`."""
    return EvalResult(
        case_index=index,
        repeat=repeat,
        case_key=case.key,
        place=case.place,
        prompt=case.prompt,
        output="",
        score=0.0,
        dimensions={},
        flags=(),
        passed=False,
        error=TOO_LONG,
        message=message,
        finish_reason="not_asked",
        n_tokens=0,
    )
