"""Graders: each reads one answer to a task and says, by named dimensions from 0 to 1, how good it is. No torch, no model."""

from dlm.grading.grader import (
    TRUNCATED,
    UNRESPONSIVE,
    Dimension,
    ErrorTally,
    Grade,
    GradeError,
    GradeItem,
    Grader,
)
from dlm.grading.limits import Limits
from dlm.grading.spec import GRADER_KINDS, GraderSpec, make_grader, parse_grader

__all__ = [
    "GRADER_KINDS",
    "TRUNCATED",
    "UNRESPONSIVE",
    "Dimension",
    "ErrorTally",
    "Grade",
    "GradeError",
    "GradeItem",
    "Grader",
    "GraderSpec",
    "Limits",
    "make_grader",
    "parse_grader",
]
