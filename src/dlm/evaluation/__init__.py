"""Evaluation: prove a version. Suites and what a version's answers score in them, the gold ceiling, gates, probes.

Nothing here loads torch until a version answers.
"""

from dlm.evaluation.ceiling import Ceiling, adequate_budget, budget_for, gold_ceiling
from dlm.evaluation.conditions import VALIDATION, Condition, default_conditions, parse_condition
from dlm.evaluation.gate import (
    ConditionResult,
    Evidence,
    GateResult,
    judge,
    judge_baseline,
)
from dlm.evaluation.probes import ProbeAnswer, Question, answer_all
from dlm.evaluation.reach import (
    BEYOND_CONTEXT,
    LEAST_CASES,
    Ceilings,
    SuiteEvidence,
    not_askable,
    out_of_reach,
    what_it_gives,
)
from dlm.evaluation.results import case_not_asked, case_result
from dlm.evaluation.suite import PROBES, Suite, read_suite, suite_names, taught
from dlm.evaluation.summary import SHARE, Summary, plain_means, summarise
from dlm.evaluation.teacher_forcing import (
    ReferenceScore,
    TeacherForced,
    force_references,
    summarise_references,
)

__all__ = [
    "BEYOND_CONTEXT",
    "LEAST_CASES",
    "PROBES",
    "SHARE",
    "VALIDATION",
    "Ceiling",
    "Ceilings",
    "Condition",
    "ConditionResult",
    "Evidence",
    "GateResult",
    "ProbeAnswer",
    "Question",
    "ReferenceScore",
    "Suite",
    "SuiteEvidence",
    "Summary",
    "TeacherForced",
    "adequate_budget",
    "answer_all",
    "budget_for",
    "case_not_asked",
    "case_result",
    "default_conditions",
    "force_references",
    "gold_ceiling",
    "judge",
    "judge_baseline",
    "not_askable",
    "out_of_reach",
    "parse_condition",
    "plain_means",
    "read_suite",
    "suite_names",
    "summarise",
    "summarise_references",
    "taught",
    "what_it_gives",
]
