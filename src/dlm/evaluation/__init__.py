"""Evaluation: prove a version. Suites and what a version's answers score in them, the gold ceiling, gates, probes.

Nothing here loads torch until a version answers.
"""

from dlm.evaluation.ceiling import Ceiling, adequate_budget, gold_ceiling
from dlm.evaluation.conditions import Condition, default_conditions, parse_condition
from dlm.evaluation.gate import ConditionResult, Evidence, GateResult, SuiteEvidence, judge, out_of_reach
from dlm.evaluation.probes import ProbeAnswer, Question, answer_all
from dlm.evaluation.suite import PROBES, Suite, read_suite, suite_names
from dlm.evaluation.summary import Summary, plain_means, summarise

__all__ = [
    "PROBES",
    "Ceiling",
    "Condition",
    "ConditionResult",
    "Evidence",
    "GateResult",
    "ProbeAnswer",
    "Question",
    "Suite",
    "SuiteEvidence",
    "Summary",
    "adequate_budget",
    "answer_all",
    "default_conditions",
    "gold_ceiling",
    "judge",
    "out_of_reach",
    "parse_condition",
    "plain_means",
    "read_suite",
    "suite_names",
    "summarise",
]
