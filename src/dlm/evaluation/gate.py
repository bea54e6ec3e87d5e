"""The gate: what a candidate must show against a baseline before it becomes current.

Each condition ends in one of four ways, with its numbers:

    PASS          it holds
    FAIL          it does not, and could have
    UNREACHABLE   it does not, and no answer could: it lies beyond the metric's end, or beyond what the references reach
    MISSING       it cannot be asked: a suite that is not there or was not evaluated, too few cases

The verdict is `pass` where all conditions hold; else `fail` where one failed; else `missing`; else `unreachable`: then the
gate, not the model, is at fault. Frozen by design: nothing here imports training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from dlm.evaluation.conditions import VALIDATION, Condition, Metric
from dlm.evaluation.reach import (
    LEAST_CASES,
    OF_VALIDATION,
    ROUNDING,
    SuiteEvidence,
    figure,
    gold,
    holds,
    no_metric,
    no_suite,
    obstacle,
)
from dlm.evaluation.suite import PROBES
from dlm.stats import Estimate, paired_difference

__all__ = [
    "ConditionResult",
    "Evidence",
    "GateResult",
    "Status",
    "judge",
    "judge_baseline",
]

Status = Literal["PASS", "FAIL", "UNREACHABLE", "MISSING"]


@dataclass(frozen=True)
class Evidence:
    """What is known of both sides. `losses`: held-out supervised loss of candidate and baseline, on the same rows."""

    suites: Mapping[str, SuiteEvidence]
    losses: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True)
class ConditionResult:
    """How one condition ended. `value`: the metric's; `needed`: what it had to reach; `ceiling`: what the references score;
    `difference`: to the baseline, paired over cases; `metric`: the one that decided among several; `detail`: why it ended
    so where the numbers do not say it, and what helps."""

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
        "UNREACHABLE": "out of reach (no failure of the model)",
    }
    parts = [f"{count} {told[status]}" for status, count in counts.items() if count]
    return GateResult(verdict, f"of {len(results)} conditions " + ", ".join(parts), results)


def judge_baseline(conditions: Sequence[Condition], evidence: Evidence) -> list[ConditionResult]:
    """The conditions that are asked of the baseline, asked before there is a candidate: those that could be asked."""
    asked = [_ask(condition, evidence) for condition in conditions if condition.of_baseline]
    return [result for result in asked if result.status != "MISSING"]


def _ask(condition: Condition, evidence: Evidence) -> ConditionResult:
    result = _one(condition, evidence)
    if result.status != "UNREACHABLE" or condition.otherwise is None:
        return result
    instead = _ask(condition.otherwise, evidence)
    detail = f"first: {result.metric} {result.detail}" + (
        f"; instead: {instead.detail}" if instead.detail else ""
    )
    return replace(instead, text=condition.text, detail=detail)


def _one(condition: Condition, evidence: Evidence) -> ConditionResult:
    tried = [_measure(condition, metric, evidence) for metric in condition.metrics]
    better = 1.0 if condition.relation in (">=", ">") else -1.0
    for status in ("PASS", "MISSING", "FAIL"):  # one of several is enough; a missing one might have been it
        found = [result for result in tried if result.status == status]
        if found:
            return max(found, key=lambda result: better * ((result.value or 0.0) - (result.needed or 0.0)))
    return tried[0]


def _measure(condition: Condition, metric: Metric, evidence: Evidence) -> ConditionResult:
    if metric.suite == VALIDATION:
        return _measure_loss(condition, metric, evidence)
    found = evidence.suites.get(metric.suite)
    if found is None:
        return ConditionResult(
            condition.text,
            "MISSING",
            metric.text,
            detail=no_suite(metric.suite, tuple(evidence.suites)),
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
    value = figure(own, metric.name)
    before = figure(found.baseline, metric.name)
    if value is None or (condition.relative and before is None):
        return ConditionResult(
            condition.text, "MISSING", metric.text, detail=no_metric(metric.name, metric.suite, found)
        )
    needed = condition.bound + (before or 0.0 if condition.relative else 0.0)
    difference = None if condition.of_baseline else _difference(found, metric.name)
    passed = holds(condition.relation, value, needed)
    status, why = _ended(passed, condition, metric, found)
    reached = gold(found, metric.name)
    return ConditionResult(
        condition.text, status, metric.text, value, before, needed, reached, difference, why
    )


def _paired(condition: Condition, metric: Metric, found: SuiteEvidence) -> ConditionResult:
    difference = _difference(found, metric.name)
    if difference is None:
        detail = f"{metric.name} is no mean over cases, or no case has it on both sides"
        return ConditionResult(condition.text, "MISSING", metric.text, detail=detail)
    status, why = _paired_status(condition, metric, found, difference)
    value, before = figure(found.candidate, metric.name), figure(found.baseline, metric.name)
    reached = gold(found, metric.name)
    return ConditionResult(
        condition.text, status, metric.text, value, before, before, reached, difference, why
    )


def _paired_status(
    condition: Condition, metric: Metric, found: SuiteEvidence, difference: Estimate
) -> tuple[Status, str]:
    plain = condition.kind == "no_regression" and condition.margin is None
    if difference.n < LEAST_CASES:
        few = f"a change cannot be told from chance in fewer than {LEAST_CASES} cases, and both have {difference.n}"
        if plain and difference.value >= -ROUNDING:
            return "PASS", f"{few}; it holds because the mean did not fall"
        more = f"{LEAST_CASES - difference.n} more " + (
            "### Q !probe" if metric.suite == PROBES else f"for {metric.suite}"
        )
        return "MISSING", f"{few}; write {more}, and ask again"
    if condition.kind == "improves":
        passed = difference.low > 0
        risen = _risen(found, metric.name)
        if passed and risen < LEAST_CASES:
            status, why = _ended(False, condition, metric, found)
            few = f"only {risen} of {difference.n} cases rose, and fewer than {LEAST_CASES} may by chance"
            return status, why or few
    elif condition.margin is None:
        passed = difference.high >= -ROUNDING
    else:
        passed = difference.low >= -condition.margin - ROUNDING
    return _ended(passed, condition, metric, found)


def _ended(passed: bool, condition: Condition, metric: Metric, found: SuiteEvidence) -> tuple[Status, str]:
    """How a condition ended that could be asked, and where no answer could meet it, why."""
    if passed:
        return "PASS", ""
    why = obstacle(condition, metric, found)
    return ("UNREACHABLE" if why else "FAIL"), why


def _measure_loss(condition: Condition, metric: Metric, evidence: Evidence) -> ConditionResult:
    after, before = evidence.losses
    own = before if condition.of_baseline else after
    if metric.name != "sft_loss" or condition.kind != "compare":
        return ConditionResult(condition.text, "MISSING", metric.text, detail=OF_VALIDATION)
    if own is None or (condition.relative and before is None):
        detail = "the two were not measured on the same held-out rows"
        return ConditionResult(condition.text, "MISSING", metric.text, detail=detail)
    needed = condition.bound + (before or 0.0 if condition.relative else 0.0)
    passed = holds(condition.relation, own, needed)
    return ConditionResult(condition.text, "PASS" if passed else "FAIL", metric.text, own, before, needed)


def _difference(found: SuiteEvidence, name: str) -> Estimate | None:
    after, before = _both(found, name)
    return paired_difference(after, before) if set(after) & set(before) else None


def _risen(found: SuiteEvidence, name: str) -> int:
    """The cases whose mean rose. Those that fell are no sign of an improvement, and must not help one to pass."""
    after, before = _both(found, name)
    shared = set(after) & set(before)
    return sum(fmean(after[case]) - fmean(before[case]) > ROUNDING for case in shared)


def _both(found: SuiteEvidence, name: str) -> tuple[Mapping[str, Sequence[float]], ...]:
    """What each side scored in every case."""
    if found.candidate is None or found.baseline is None:
        return {}, {}
    known = found.candidate.metric_name(name) or ""
    return tuple(side.per_case.get(known, {}) for side in (found.candidate, found.baseline))
