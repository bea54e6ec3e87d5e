"""`diagnose`: every rule over one run, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from dlm.curves.findings import Diagnosis, Final, Finding, Undecided, Verdict
from dlm.curves.rules.overfitting import ratio_points
from dlm.curves.rules.records import final_of
from dlm.curves.rules.table import RULES
from dlm.curves.run import CurveRun
from dlm.curves.thresholds import Thresholds
from dlm.curves.view import Fires, Outcome, View, Waits

__all__ = ["diagnose", "findings_so_far"]

_ORDER = {"severe": 0, "warn": 1, "info": 2}
_AT_END = {rule.name for rule in RULES if rule.at_end}
_FINALS = ("train_loss", "valid_loss", "train_accuracy", "valid_accuracy", "train_reward", "valid_reward")


def diagnose(run: CurveRun, thresholds: Thresholds | None = None, *, running: bool = False) -> Diagnosis:
    """What the rules say of a run. Pure and deterministic; never raises on a `CurveRun`, whatever its numbers.

    With `running`, the run is still going: rules that judge a whole run (`Rule.at_end`) stay undecided; every other
    rule speaks as soon as it has points enough. Calling it again with more points is the way to watch a run.
    """
    limits = thresholds or Thresholds()
    with np.errstate(
        all="ignore"
    ):  # numbers that no run has may overflow; what comes of them is compared, not shown
        return _judge(View(run, running=running), limits)


def findings_so_far(run: CurveRun, thresholds: Thresholds | None = None) -> tuple[Finding, ...]:
    """What the rules say of a run that is still going: the findings of `diagnose(run, running=True)` and nothing else,
    for a loop that looks often.
    """
    limits, view = thresholds or Thresholds(), View(run, running=True)
    with np.errstate(all="ignore"):
        outcomes = [
            (rule.name, rule.check(view, limits))
            for rule in RULES
            if run.kind in rule.kinds and not rule.at_end
        ]
    return _findings(outcomes)


def _findings(outcomes: Iterable[tuple[str, Outcome]]) -> tuple[Finding, ...]:
    """Those of rules that fire, severe ones first."""
    found = [
        Finding(rule, one.severity, one.title, one.evidence, one.action)
        for rule, one in outcomes
        if isinstance(one, Fires)
    ]
    return tuple(sorted(found, key=lambda one: _ORDER[one.severity]))


def _judge(view: View, limits: Thresholds) -> Diagnosis:
    run, running = view.run, view.running
    fired: list[tuple[str, Outcome]] = []
    undecided, quiet = [], 0
    for rule in RULES:
        if run.kind not in rule.kinds:
            continue
        outcome = rule.check(view, limits)
        if outcome is None:
            continue
        if running and rule.at_end:
            undecided.append(Undecided(rule.name, "it judges a whole run, and this one is still going"))
        elif isinstance(outcome, Fires):
            fired.append((rule.name, outcome))
        elif isinstance(outcome, Waits):
            undecided.append(Undecided(rule.name, outcome.reason, outcome.have, outcome.needed))
        else:
            quiet += 1
    findings = _findings(fired)
    return Diagnosis(
        verdict=_verdict(findings, undecided, quiet, view),
        findings=findings,
        undecided=tuple(undecided),
        ratios=ratio_points(view, limits) if run.kind in ("sft", "unknown") else (),
        finals=_finals(view),
        running=running,
    )


def _verdict(findings: Sequence[Finding], undecided: Sequence[Undecided], quiet: int, view: View) -> Verdict:
    if findings:
        worst = findings[0]
        more = len(findings) - 1
        rest = f", and {more} more finding{'' if more == 1 else 's'}" if more else ""
        return Verdict(worst.severity, f"{worst.title}{rest}")
    course = any(view.curve(role) is not None and len(view.curve(role) or ()) > 1 for role in _FINALS)
    open_ones = sum(1 for one in undecided if not (view.running and one.rule in _AT_END))
    if not quiet or not course:
        return Verdict("unknown", "there is too little here to say anything")
    if quiet < 2 * open_ones:
        return Verdict(
            "unknown", f"too short to say: {open_ones} of {quiet + open_ones} rules need more points"
        )
    waiting = f"; {len(undecided)} cannot say{' yet' if view.running else ''}" if undecided else ""
    so_far = " so far" if view.running else ""
    return Verdict("healthy", f"healthy{so_far}: {quiet} rules found nothing{waiting}")


def _finals(view: View) -> Mapping[str, Final]:
    return {curve.name: final_of(curve) for role in _FINALS if (curve := view.curve(role)) is not None}
