"""The gate: what a candidate must show against a baseline before it becomes current.

Each condition ends in one of four ways, with its numbers:

    PASS          it holds
    FAIL          it does not, and could have
    UNREACHABLE   it does not, and neither would it for the references themselves under the same token budget
    MISSING       it cannot be asked: a suite that is not there, or was not evaluated

The verdict is `pass` where all conditions hold; else `fail` where one failed; else `missing`; else `unreachable`: then the
gate, not the model, is at fault. Frozen by design: nothing here imports training.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from dlm.evaluation.conditions import VALIDATION, Condition, Metric
from dlm.evaluation.summary import ALIASES, SHARE, Summary
from dlm.stats import Estimate, paired_difference

__all__ = [
    "LEAST_CASES",
    "Ceilings",
    "ConditionResult",
    "Evidence",
    "GateResult",
    "Status",
    "SuiteEvidence",
    "judge",
    "judge_baseline",
    "out_of_reach",
]

Status = Literal["PASS", "FAIL", "UNREACHABLE", "MISSING"]
Ceilings = Mapping[str, float]
_RELATIONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
LEAST_CASES = (
    6  # below, not even all cases moving one way would be a sign at 5 % (two-sided sign test: 2 / 2⁵ > .05)
)
_ROUNDING = 1e-9  # sums of the same numbers in another order
_UNBOUNDED: Final = ("tokens",)  # an answer may be shorter or longer than the reference


@dataclass(frozen=True)
class SuiteEvidence:
    """What is known in one suite. `ceiling`: what the references score, by metric; empty where there are none. `why`: why
    a side is missing, in words."""

    candidate: Summary | None = None
    baseline: Summary | None = None
    ceiling: Ceilings = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Evidence:
    """What is known of both sides. `losses`: held-out supervised loss of candidate and baseline, on the same rows."""

    suites: Mapping[str, SuiteEvidence]
    losses: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True)
class ConditionResult:
    """How one condition ended. `value`: the metric's; `needed`: what it had to reach; `ceiling`: what can be reached;
    `difference`: to the baseline, paired over cases; `metric`: the one that decided among several."""

    text: str
    status: Status
    metric: str = ""
    value: float | None = None
    baseline: float | None = None
    needed: float | None = None
    ceiling: float | None = None
    difference: Estimate | None = None
    detail: str = ""


@dataclass(frozen=True)
class GateResult:
    """All conditions, the verdict, and why."""

    verdict: Literal["pass", "fail", "unreachable", "missing"]
    reason: str
    conditions: tuple[ConditionResult, ...]


def judge(conditions: Sequence[Condition], evidence: Evidence) -> GateResult:
    """Ask every condition.

    Raises:
        ValueError: no conditions.
    """
    if not conditions:
        raise ValueError("a gate without conditions lets nothing pass and nothing fail")
    results = tuple(_ask(condition, evidence) for condition in conditions)
    counts = {
        status: sum(result.status == status for result in results)
        for status in ("FAIL", "MISSING", "UNREACHABLE")
    }
    if not any(counts.values()):
        return GateResult("pass", f"all {len(results)} conditions hold", results)
    verdict: Literal["fail", "missing", "unreachable"] = (
        "fail" if counts["FAIL"] else "missing" if counts["MISSING"] else "unreachable"
    )
    told = {
        "FAIL": "failed",
        "MISSING": "could not be asked",
        "UNREACHABLE": "out of any model's reach under the token budget, so no failure of the model",
    }
    parts = [f"{count} {told[status]}" for status, count in counts.items() if count]
    return GateResult(verdict, f"of {len(results)} conditions " + ", ".join(parts), results)


def judge_baseline(conditions: Sequence[Condition], evidence: Evidence) -> list[ConditionResult]:
    """The conditions that are asked of the baseline, asked before there is a candidate: those that could be asked."""
    asked = [_ask(condition, evidence) for condition in conditions if condition.of_baseline]
    return [result for result in asked if result.status != "MISSING"]


def out_of_reach(
    conditions: Sequence[Condition], ceilings: Mapping[str, Ceilings]
) -> list[tuple[Condition, str]]:
    """Conditions that no model can meet, known before anything is trained: those that ask for a number which the references
    themselves do not reach, with the reason. `ceilings`: by suite; one that compares with the baseline waits for it.
    """
    found = []
    for condition in conditions:
        if condition.kind != "compare" or condition.relative or condition.of_baseline:
            continue
        if any(metric.name in _UNBOUNDED for metric in condition.metrics):
            continue
        known = [(metric, ceilings.get(metric.suite, {})) for metric in condition.metrics]
        reach = [
            own[ALIASES.get(metric.name, metric.name)]
            for metric, own in known
            if ALIASES.get(metric.name, metric.name) in own
        ]
        relation = _RELATIONS[condition.relation]
        slack = _ROUNDING if condition.relation == ">=" else -_ROUNDING if condition.relation == "<=" else 0.0
        if len(reach) == len(known) and not any(relation(value + slack, condition.bound) for value in reach):
            best = max(reach) if condition.relation in (">=", ">") else min(reach)
            found.append((condition, f"the references themselves reach {best:.4f} under the token budget"))
    return found


def _ask(condition: Condition, evidence: Evidence) -> ConditionResult:
    result = _one(condition, evidence)
    if result.status != "UNREACHABLE" or condition.otherwise is None:
        return result
    instead = _ask(condition.otherwise, evidence)
    detail = "; ".join(part for part in (f"first: {result.detail}", instead.detail) if part)
    return replace(instead, text=condition.text, detail=detail)


def _one(condition: Condition, evidence: Evidence) -> ConditionResult:
    tried = [_measure(condition, metric, evidence) for metric in condition.metrics]
    for status in ("PASS", "FAIL", "MISSING"):  # one of several is enough; a missing one might have been it
        found = [result for result in tried if result.status == status]
        if found:
            return max(found, key=lambda result: (result.value or 0.0) - (result.needed or 0.0))
    return tried[0]


def _measure(condition: Condition, metric: Metric, evidence: Evidence) -> ConditionResult:
    if metric.suite == VALIDATION:
        return _measure_loss(condition, metric, evidence)
    found = evidence.suites.get(metric.suite)
    if found is None:
        return ConditionResult(
            condition.text, "MISSING", metric.text, detail=f"there is no suite {metric.suite}"
        )
    needs_baseline = condition.relative or condition.of_baseline or condition.kind != "compare"
    if (found.candidate is None and not condition.of_baseline) or (found.baseline is None and needs_baseline):
        return ConditionResult(
            condition.text, "MISSING", metric.text, detail=found.why or "it was not evaluated"
        )
    if condition.kind == "compare":
        return _compare(condition, metric, found)
    return _paired(condition, metric, found)


def _compare(condition: Condition, metric: Metric, found: SuiteEvidence) -> ConditionResult:
    own = found.baseline if condition.of_baseline else found.candidate
    value = _value(own, metric.name)
    before = _value(found.baseline, metric.name)
    if value is None or (condition.relative and before is None):
        return ConditionResult(
            condition.text, "MISSING", metric.text, detail=f"there is no metric {metric.name}"
        )
    needed = condition.bound + (before or 0.0 if condition.relative else 0.0)
    upward = condition.relation in (">=", ">")
    slack = _ROUNDING if condition.relation in (">=", "<=") else -_ROUNDING
    holds = _RELATIONS[condition.relation](value + (slack if upward else -slack), needed)
    ceiling = _ceiling(found, metric.name)
    result = ConditionResult(
        condition.text,
        "PASS" if holds else "FAIL",
        metric.text,
        value,
        before,
        needed,
        ceiling,
        None if condition.of_baseline else _difference(found, metric.name),
    )
    if holds or ceiling is None:
        return result
    if not _RELATIONS[condition.relation](ceiling + (slack if upward else -slack), needed):
        detail = (
            f"needs {needed:.4f}, and the references themselves reach {ceiling:.4f} under the token budget"
        )
        return replace(result, status="UNREACHABLE", detail=detail)
    return result


def _paired(condition: Condition, metric: Metric, found: SuiteEvidence) -> ConditionResult:
    difference = _difference(found, metric.name)
    if difference is None:
        detail = f"{metric.name} is no mean over cases, or no case has it on both sides"
        return ConditionResult(condition.text, "MISSING", metric.text, detail=detail)
    value, before = _value(found.candidate, metric.name), _value(found.baseline, metric.name)
    ceiling = _ceiling(found, metric.name)
    if difference.n < LEAST_CASES:
        lenient = condition.kind == "no_regression" and condition.margin is None
        detail = f"too few cases to tell a change from chance: {difference.n}, and {LEAST_CASES} are needed"
        few: Status = "PASS" if lenient else "MISSING"
        return ConditionResult(
            condition.text, few, metric.text, value, before, before, ceiling, difference, detail
        )
    if condition.kind == "improves":
        holds, needed = difference.low > 0, before
        out_of_reach = before is not None and ceiling is not None and before >= ceiling - _ROUNDING
    else:
        margin = condition.margin
        holds = difference.high >= -_ROUNDING if margin is None else difference.low >= -margin - _ROUNDING
        needed, out_of_reach = before, False
    status: Status = "PASS" if holds else "UNREACHABLE" if out_of_reach else "FAIL"
    detail = "the baseline is at the ceiling already" if status == "UNREACHABLE" else ""
    return ConditionResult(
        condition.text, status, metric.text, value, before, needed, ceiling, difference, detail
    )


def _measure_loss(condition: Condition, metric: Metric, evidence: Evidence) -> ConditionResult:
    after, before = evidence.losses
    own = before if condition.of_baseline else after
    if metric.name != "sft_loss" or condition.kind != "compare":
        detail = (
            f"of {VALIDATION}, sft_loss alone is known, and it is compared with a number or the baseline's"
        )
        return ConditionResult(condition.text, "MISSING", metric.text, detail=detail)
    if own is None or (condition.relative and before is None):
        detail = "the two were not measured on the same held-out rows"
        return ConditionResult(condition.text, "MISSING", metric.text, detail=detail)
    needed = condition.bound + (before or 0.0 if condition.relative else 0.0)
    holds = _RELATIONS[condition.relation](own, needed)
    return ConditionResult(condition.text, "PASS" if holds else "FAIL", metric.text, own, before, needed)


def _value(summary: Summary | None, name: str) -> float | None:
    """A metric's value. A flag that no answer carries was counted, and is 0; `name` is a flag when it is no mean anywhere."""
    if summary is None:
        return None
    found = summary.value(name)
    return 0.0 if found is None and name.removesuffix(SHARE) in _COUNTED_FLAGS else found


_COUNTED_FLAGS: Final = {"hard_fail", "rh_like", "rh", "rh_count", "truncated", "unresponsive", "csv_not_parseable", "rows_dropped",
                         "rows_surplus", "units_wrong", "text_around_table", "ragged_rows"}  # fmt: skip


def _ceiling(found: SuiteEvidence, name: str) -> float | None:
    """What the references score; without references a share's own end."""
    summary = found.candidate or found.baseline
    known = None if summary is None else summary.metric_name(name)
    if known in _UNBOUNDED:
        return None
    if known is not None and known in found.ceiling:
        return found.ceiling[known]
    if summary is None or known is None or known not in summary.means:
        return 0.0 if name.removesuffix(SHARE) in _COUNTED_FLAGS and found.ceiling else None
    return 1.0


def _difference(found: SuiteEvidence, name: str) -> Estimate | None:
    if found.candidate is None or found.baseline is None:
        return None
    known = found.candidate.metric_name(name)
    after, before = (side.per_case.get(known or "", {}) for side in (found.candidate, found.baseline))
    if not set(after) & set(before):
        return None
    return paired_difference(after, before)
