"""What is known in a suite, and which conditions no answer could meet there.

A condition is out of reach for one of three reasons, each with its own way on: it lies beyond the metric's own end (the
baseline leaves no room for what is asked), the token budget cuts the references short of it, or the references, uncut,
score less. All three are known before anything is trained, once the baseline has been evaluated.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dlm.evaluation.conditions import Condition, Metric
from dlm.evaluation.summary import ALIASES, SHARE, Summary
from dlm.grading import TRUNCATED

__all__ = ["ROUNDING", "Ceilings", "SuiteEvidence", "figure", "gold", "holds", "obstacle", "out_of_reach"]

Ceilings = Mapping[str, float]
_RELATIONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
ROUNDING: Final = 1e-9  # sums of the same numbers in another order
_UNBOUNDED: Final = ("tokens",)  # an answer may be shorter or longer than the reference
_COUNTED_FLAGS: Final = {"hard_fail", "rh_like", "rh", "rh_count", "truncated", "unresponsive", "csv_not_parseable", "rows_dropped",
                         "rows_surplus", "units_wrong", "text_around_table", "ragged_rows"}  # fmt: skip


@dataclass(frozen=True)
class SuiteEvidence:
    """What is known in one suite. `ceiling`: what the references score, by metric; empty where there are none. `why`: why
    a side is missing, in words."""

    candidate: Summary | None = None
    baseline: Summary | None = None
    ceiling: Ceilings = field(default_factory=dict)
    why: str = ""


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
    before, reached = figure(found.baseline, metric.name), gold(found, metric.name)
    improves = condition.kind == "improves"
    relative = condition.relative or improves
    if condition.kind == "no_regression" or ALIASES.get(metric.name, metric.name) in _UNBOUNDED:
        return ""
    if before is None and (relative or (reached is None and figure(found.candidate, metric.name) is None)):
        return ""  # not known: the baseline was not evaluated, or there is no such metric
    if improves and _is_count(found, metric.name):
        return ""  # which is asked of means alone
    needed = condition.bound + (before or 0.0 if relative else 0.0)
    relation = ">" if improves else condition.relation
    upward = relation in (">=", ">")
    end = 0.0 if not upward else None if _is_count(found, metric.name) else 1.0
    needs = (
        f"needs {'' if relation in ('>=', '<=') else 'more than ' if upward else 'less than '}{needed:.4f}"
    )
    if end is not None and not holds(relation, end, needed):
        return f"{needs}, and {end:g} is the {'most' if upward else 'least'} there is" + _at_the_end(
            condition, before if relative else None, end
        )
    if reached is None or holds(relation, reached, needed):
        return ""
    less = "or ask for what they reach (dlm eval --gold)"
    cut = found.ceiling.get(TRUNCATED, 0.0)
    if cut:
        return (
            f"{needs}, and the references themselves reach {reached:.4f} under the token budget, which cuts {cut:g} of them; "
            f"raise the suite's max_new_tokens, {less}"
        )
    return (
        f"{needs}, and the references themselves reach {reached:.4f}, although the token budget cuts none; "
        f"mend them or the grader, {less}"
    )


def _at_the_end(condition: Condition, before: float | None, end: float) -> str:
    """The rest of the sentence that says that a metric ends before what is asked. `before`: the baseline's, where the
    condition compares with it."""
    if before is None:
        return "; ask for what there is"
    there = abs(end - before) <= ROUNDING
    told = f"; the baseline, at {before:.4f}, is {'there already' if there else f'within {abs(condition.bound):g} of it'}"
    return (
        told
        if condition.otherwise
        else f"{told}: ask for another metric, or write `if unreachable …` behind it"
    )


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
    return f"{first}; and instead: {instead}" if instead else ""
