"""Graders: each reads one answer to a task and says, by named dimensions from 0 to 1, how good it is. No torch, no model."""

from dlm.grading.cases import (
    TASKS,
    Case,
    cases_hash,
    grader_of_task,
    is_training_split,
    read_cases,
    task_cases,
)
from dlm.grading.grader import (
    HARD_FAIL,
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
from dlm.grading.sanity import (
    ENOUGH_ERRORS,
    BadOutput,
    Sanity,
    ThresholdRow,
    advise_on_ranks,
    calibrate,
    check_sanity,
)
from dlm.grading.spec import GRADER_KINDS, GraderSpec, make_grader, parse_grader

__all__ = [
    "ENOUGH_ERRORS",
    "GRADER_KINDS",
    "HARD_FAIL",
    "TASKS",
    "TRUNCATED",
    "UNRESPONSIVE",
    "BadOutput",
    "Case",
    "Dimension",
    "ErrorTally",
    "Grade",
    "GradeError",
    "GradeItem",
    "Grader",
    "GraderSpec",
    "Limits",
    "Sanity",
    "ThresholdRow",
    "advise_on_ranks",
    "calibrate",
    "cases_hash",
    "check_sanity",
    "grader_of_task",
    "is_training_split",
    "make_grader",
    "parse_grader",
    "read_cases",
    "task_cases",
]
