"""The rules about curves while a run trains: warnings as they arise, once each, and a reason to stop.

What is watched are the numbers that the run logs anyway; no random state is touched, so a run that is watched has the
bits of one that is not. When to look is a function of the step alone, and what was logged before a stop is read back:
a run that goes on warns, and stops, where it would have.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from dlm.curves import ROLES, CurveRun, Finding, Series, findings_so_far, unit_of
from dlm.store import RunEvent
from dlm.workflow.run_curves import curve_run_of

__all__ = ["WARNING", "CurveWatch", "lowest_training_loss", "warning_data", "warning_text"]

WARNING: Final = "warning"  # the kind of a run's event that holds one
LEAST_STEPS: Final = 10  # between two looks, so that they cost nothing beside the steps
LOOKS: Final = 40  # about so many in a long run whose evaluations are rarer
USUAL_STEPS: Final = 25

_WATCHED: Final = frozenset(name for names in ROLES.values() for name in names)
_RANK: Final = {"info": 0, "warn": 1, "severe": 2}


class _Points:
    """A curve that grows."""

    def __init__(self) -> None:
        self.steps, self.values = array("q"), array("d")

    def series(self, name: str) -> Series:
        steps, values = np.array(self.steps), np.array(self.values)
        return Series(name, unit_of(name), steps, values, np.full(len(steps), math.nan))


@dataclass(frozen=True)
class _Told:
    """A finding that the run's record has already."""

    rule: str
    rank: int


class CurveWatch:
    """Looks at the curves of a run under way.

    Args:
        stop_on: `Recipe.stop_on`.
        earlier: what the run logged before it was stopped.
        told: the run's events of kind `warning`, which are not told again.
    """

    def __init__(
        self,
        kind: str,
        method: str,
        planned_steps: int,
        eval_every: int,
        *,
        stop_on: Literal["never", "severe", "warn"],
        earlier: Mapping[str, Series],
        told: Collection[RunEvent],
    ) -> None:
        self._kind, self._method, self._planned_steps = kind, method, planned_steps
        self._eval_every = eval_every
        self._every = max(LEAST_STEPS, min(eval_every, max(USUAL_STEPS, planned_steps // LOOKS)))
        self._stops_at = math.inf if stop_on == "never" else _RANK[stop_on]
        rules = [event.data for event in told if "rule" in event.data]  # others may warn, too
        self._told = {_Told(data["rule"], _RANK[data["severity"]]) for data in rules}
        self._points: dict[str, _Points] = {}
        self.reason = ""  # to stop; "" = none
        last_step = 0
        for name, series in earlier.items():
            if name in _WATCHED:
                points = self._points.setdefault(name, _Points())
                points.steps.extend(series.steps.tolist())
                points.values.extend(series.values.tolist())
                last_step = max(last_step, int(series.steps[-1]))
        if self._is_due(
            last_step
        ):  # the run may have been killed between this look and the stop it asked for
            self._look()

    def add(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """Take what was logged of a step; what the rules warn of now and did not before."""
        for name, value in values.items():
            if name in _WATCHED:
                points = self._points.setdefault(name, _Points())
                points.steps.append(step)
                points.values.append(value)
        return self._look() if self._is_due(step) else []

    def curves(self) -> CurveRun:
        """The run as far as it is."""
        series = {name: points.series(name) for name, points in self._points.items()}
        return curve_run_of(series, kind=self._kind, method=self._method, planned_steps=self._planned_steps)

    def _is_due(self, step: int) -> bool:
        if not step:
            return False
        evaluated = self._eval_every >= LEAST_STEPS and step % self._eval_every == 0
        return evaluated or step % self._every == 0

    def _look(self) -> list[Finding]:
        new = []
        for finding in findings_so_far(self.curves()):
            rank = _RANK[finding.severity]
            if rank >= self._stops_at and not self.reason:
                self.reason = f"{finding.severity}: {finding.title}"
            if rank and not any(told.rule == finding.rule and told.rank >= rank for told in self._told):
                self._told.add(_Told(finding.rule, rank))
                new.append(finding)
        return new


def warning_text(step: int, finding: Finding) -> str:
    """A finding as a line for people."""
    evidence = "; ".join(one.text for one in finding.evidence)
    return f"step {step}: {finding.title}" + (f" ({evidence})" if evidence else "") + f". {finding.action}"


def warning_data(step: int, finding: Finding) -> dict[str, Any]:
    """A finding as the run's record keeps it, at the step it was made."""
    return {
        "step": step,
        "rule": finding.rule,
        "severity": finding.severity,
        "title": finding.title,
        "evidence": [
            {"text": one.text, "series": one.series, "steps": list(one.steps), "values": list(one.values)}
            for one in finding.evidence
        ],
        "action": finding.action,
    }


def lowest_training_loss(losses: Series, steps: Collection[int]) -> int | None:
    """Of some saved steps the one with the lowest training loss, each smoothed over the steps since the one before it.

    For a run that was stopped with nothing held out, where no validation says which step is best. None without a
    finite loss.
    """
    found: dict[int, float] = {}
    before = 0
    for step in sorted(steps):
        window = losses.values[(losses.steps > before) & (losses.steps <= step)]
        if len(window) and np.isfinite(window).all():
            found[step] = float(window.mean())
        before = step
    return min(found, key=lambda step: (found[step], step)) if found else None
