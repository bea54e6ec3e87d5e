"""What is known in a suite, and which conditions no answer could meet there.

A condition is out of reach for one of three reasons, each with its own way on: it lies beyond the metric's own end (the
baseline leaves no room for what is asked, or leaves it in too few cases), the token budget or the base's context cuts the
references short of it, or the references, uncut, score less. What the baseline's own answers meet is within reach. All three
are known before anything is trained, once the baseline has been evaluated.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final

from dlm.evaluation.conditions import VALIDATION, Condition, Metric
from dlm.evaluation.summary import ALIASES, COUNTED, SHARE, Summary
from dlm.grading import TRUNCATED, Grader
from dlm.recipe import nearest

__all__ = [
    "BEYOND_CONTEXT",
    "LEAST_CASES",
    "OF_VALIDATION",
    "ROUNDING",
    "Ceilings",
    "SuiteEvidence",
    "figure",
    "gold",
    "holds",
    "no_metric",
    "no_suite",
    "not_askable",
    "obstacle",
    "out_of_reach",
    "what_it_gives",
]

Ceilings = Mapping[str, float]
_RELATIONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
BEYOND_CONTEXT: Final = "beyond_context"  # references that the context has no room for, whatever the budget
# Below, not even all cases moving one way would be a sign at 5 % (two-sided sign test: 2 / 2⁵ > .05).
LEAST_CASES: Final = 6
OF_VALIDATION: Final = (
    f"of {VALIDATION}, sft_loss alone is known, and it is compared with a number or the baseline's"
)
ROUNDING: Final = 1e-9  # sums of the same numbers in another order
_UNBOUNDED: Final = ("tokens",)  # an answer may be shorter or longer than the reference
_COUNTED_FLAGS: Final = {"hard_fail", "rh_like", "rh", "rh_count", "truncated", "unresponsive", "csv_not_parseable", "rows_dropped",
                         "rows_surplus", "units_wrong", "text_around_table", "ragged_rows", "header_wrong", "columns_surplus"}  # fmt: skip


@dataclass(frozen=True)
class SuiteEvidence:
    """What is known in one suite. `ceiling`: what the references score, by metric; empty where there are none. `why`: why
    a side is missing, in words."""

    candidate: Summary | None = None
    baseline: Summary | None = None
    ceiling: Ceilings = field(default_factory=dict)
    why: str = ""


def what_it_gives(grader: Grader) -> SuiteEvidence:
    """What can be asked of a suite before anything was evaluated: the metrics that its grader gives, each at its best."""
    names = ("score", "pass_rate", *COUNTED, *(dimension.name for dimension in grader.dimensions))
    return SuiteEvidence(ceiling=dict.fromkeys(names, 1.0))


def no_suite(name: str, known: Sequence[str]) -> str:
    """That there is no such suite, in words, with the one that was likely meant."""
    meant = nearest(name, tuple(known))
    return f"there is no suite {name}: " + (
        f"did you mean {meant}?" if meant else "name it under evals in the header"
    )


def no_metric(name: str, suite: str, found: SuiteEvidence) -> str:
    """That a suite has no such metric, in words, with the one that was likely meant."""
    sides = [side for side in (found.candidate, found.baseline) if side is not None]
    known = {
        *found.ceiling,
        *ALIASES,
        *_UNBOUNDED,
        *_COUNTED_FLAGS,
        *(mean for side in sides for mean in side.means),
    }
    known |= {one.rpartition("/")[2] for one in known}
    meant = nearest(name, sorted(known))
    return f"there is no metric {name} in {suite}" + (f": did you mean {meant}?" if meant else "")


def holds(relation: str, value: float, needed: float) -> bool:
    """Whether `value` stands in `relation` to `needed`, whatever the order in which either was summed."""
    slack = ROUNDING if relation in (">=", "<") else -ROUNDING
    return _RELATIONS[relation](value + slack, needed)


def figure(summary: Summary | None, name: str) -> float | None:
    """A metric's value. A flag that no answer carries was counted, and is 0; `name` is a flag when it is no mean anywhere."""
    if summary is None:
        return None
    found = summary.value(name)
    return 0.0 if found is None and name.removesuffix(SHARE) in _COUNTED_FLAGS else found


def gold(found: SuiteEvidence, name: str) -> float | None:
    """What the references score; None where there are none, or where they say nothing about what can be reached."""
    own = ALIASES.get(name, name)
    if own in _UNBOUNDED or not found.ceiling:
        return None
    if own in found.ceiling:
        return found.ceiling[own]
    ends = [value for known, value in found.ceiling.items() if known.rpartition("/")[2] == own]
    if len(ends) == 1:
        return ends[0]
    return 0.0 if name.removesuffix(SHARE) in _COUNTED_FLAGS else None


def obstacle(condition: Condition, metric: Metric, found: SuiteEvidence) -> str:
    """Why no answer could meet a condition on a metric, and what helps; "" where one could, or where that is not known."""
    improves = condition.kind == "improves"
    relative = condition.relative or improves
    before = figure(found.baseline, metric.name)
    unbounded = ALIASES.get(metric.name, metric.name) in _UNBOUNDED
    if condition.kind == "no_regression" or unbounded or (relative and before is None):
        return ""
    counted = _is_count(found, metric.name)
    if (improves and counted) or not _is_known(found, metric.name):
        return ""  # it is missing, not out of reach
    needed = condition.bound + (before or 0.0 if relative else 0.0)
    relation = ">" if improves else condition.relation
    upward = relation in (">=", ">")
    strictly = "" if relation in (">=", "<=") else "more than " if upward else "less than "
    needs = f"needs {strictly}{needed:.4f}"
    end = 0.0 if not upward else None if counted else 1.0
    if end is not None and not holds(relation, end, needed):
        told = f"{needs}, and {end:g} is the {'most' if upward else 'least'} there is; "
        return told + (_no_room(condition, before or 0.0, end) if relative else "ask for what there is")
    if improves and (few := _few_that_can_rise(found, metric.name)):
        return _or_another(condition, few)
    reached = gold(found, metric.name)
    met = before is not None and holds(
        relation, before, needed
    )  # whatever the references say, there are answers that do
    if met or reached is None or holds(relation, reached, needed):
        return ""
    beyond = found.ceiling.get(BEYOND_CONTEXT, 0.0)
    cut = found.ceiling.get(TRUNCATED, 0.0) - beyond
    told = f"{needs}, and the references themselves reach {reached:.4f}"
    helps = ", or ask for what they reach (dlm eval --gold)"
    if cut:
        return f"{told} under the token budget, which cuts {cut:g} of them; raise the suite's max_new_tokens{helps}"
    if beyond:
        return f"{told}: the base's context cuts {beyond:g} of them; take shorter cases or a base with a longer one{helps}"
    return f"{told}, although the token budget cuts none; mend them or the grader{helps}"


def _no_room(condition: Condition, before: float, end: float) -> str:
    """What is in the way where the baseline stands too near to a metric's end, and what helps."""
    near = "there already" if abs(end - before) <= ROUNDING else f"within {abs(condition.bound):g} of it"
    return _or_another(condition, f"the baseline, at {before:.4f}, is {near}")


def _few_that_can_rise(found: SuiteEvidence, name: str) -> str:
    """Where the baseline stands at the most there is in so many cases that too few are left for a sign; "" elsewhere, and
    where there are too few cases to begin with."""
    known = found.baseline.metric_name(name) if found.baseline else None
    cases = found.baseline.per_case.get(known or "", {}) if found.baseline else {}
    below = sum(fmean(values) < 1.0 - ROUNDING for values in cases.values())
    if len(cases) < LEAST_CASES or below >= LEAST_CASES:
        return ""
    return f"needs {LEAST_CASES} cases that rise, and the baseline is below 1 in {below} of {len(cases)}"


def _or_another(condition: Condition, told: str) -> str:
    if condition.otherwise:
        return told
    return f"{told}: ask for another metric, or write `if unreachable …` behind it"


def _is_known(found: SuiteEvidence, name: str) -> bool:
    sides = (found.candidate, found.baseline)
    return gold(found, name) is not None or any(figure(side, name) is not None for side in sides)


def _is_count(found: SuiteEvidence, name: str) -> bool:
    """Whether a metric counts answers, and so has no end but their number."""
    own = ALIASES.get(name, name)
    if own in _COUNTED_FLAGS or f"{own}{SHARE}" in found.ceiling:
        return True
    sides = [side for side in (found.candidate, found.baseline) if side is not None]
    return any(own in side.counts and own not in side.means for side in sides)


def out_of_reach(
    conditions: Sequence[Condition], suites: Mapping[str, SuiteEvidence]
) -> list[tuple[Condition, str]]:
    """Conditions that no model can meet, nor what they ask `if unreachable`, each with the reason: known before anything is
    trained. Those asked of the baseline are `judge_baseline`'s; one that compares with it waits until it was evaluated.
    """
    told = [(condition, _why_out_of_reach(condition, suites)) for condition in conditions]
    return [(condition, why) for condition, why in told if why]


def not_askable(
    conditions: Sequence[Condition], suites: Mapping[str, SuiteEvidence]
) -> list[tuple[Condition, str]]:
    """Conditions that will be missing whatever is trained, each with the reason: of a suite that is not there, on a metric
    that neither the references nor the baseline's answers have, or paired on what has no value in each case. `suites`: all
    that the conditions need and that there are."""
    found = []
    for condition in conditions:
        reasons = [_why_not_askable(condition, metric, suites) for metric in condition.metrics]
        if all(reasons):  # of several, one is enough
            found.append((condition, "; ".join(dict.fromkeys(reasons))))
    return found


def _why_not_askable(condition: Condition, metric: Metric, suites: Mapping[str, SuiteEvidence]) -> str:
    if metric.suite == VALIDATION:
        return "" if metric.name == "sft_loss" and condition.kind == "compare" else OF_VALIDATION
    if metric.suite not in suites:
        return no_suite(metric.suite, tuple(suites))
    found, own = suites[metric.suite], ALIASES.get(metric.name, metric.name)
    told = bool(found.ceiling) or found.baseline is not None
    if not told or own in _UNBOUNDED:
        return ""
    if not _is_known(found, metric.name):
        return no_metric(metric.name, metric.suite, found)
    counted = _is_count(found, own.removesuffix(SHARE))
    return f"{metric.name} is no mean over cases" if counted and condition.kind != "compare" else ""


def _why_out_of_reach(condition: Condition, suites: Mapping[str, SuiteEvidence]) -> str:
    if condition.of_baseline:
        return ""
    reasons = [
        (metric, obstacle(condition, metric, suites.get(metric.suite, SuiteEvidence())))
        for metric in condition.metrics
    ]
    if not all(why for _, why in reasons):
        return ""
    first = "; ".join(f"{metric.text} {why}" for metric, why in reasons)
    if condition.otherwise is None:
        return first
    instead = _why_out_of_reach(condition.otherwise, suites)
    return f"{first}; instead: {instead}" if instead else ""
