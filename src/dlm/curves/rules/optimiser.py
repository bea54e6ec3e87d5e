"""Gradients and learning rate: explosions, and schedules that do not fit the run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlm.curves.findings import Severity
from dlm.curves.thresholds import Thresholds
from dlm.curves.trend import Curve
from dlm.curves.view import QUIET, Fires, Outcome, View, Waits, at_steps, number

__all__ = ["gradient_explodes", "learning_rate_mis_scheduled"]

_FEW = 10
_ZERO = 1e-3  # of the peak; the tail of a cosine spends 2 % of its steps below
_WARM = 0.02  # of the run, in which norms are high in every run


def gradient_explodes(view: View, t: Thresholds) -> Outcome:
    """Three gradients of ten times the usual norm, or a norm that has grown tenfold and stays."""
    norms = view.curve("grad_norm")
    if norms is None:
        return None
    if len(norms) < _FEW:
        return Waits("what is usual needs more points", len(norms), _FEW)
    usual = _usual(norms)
    skip = int(np.ceil(_WARM * len(norms)))
    spikes = np.flatnonzero(norms.values > t.grad_spike * usual)
    spikes = spikes[spikes >= skip]
    quarter = max(3, len(norms) // 4)
    early = float(np.median(norms.values[skip : skip + quarter]))
    late = float(np.median(norms.values[-max(3, len(norms) // 10) :]))
    if early > 0 and late > t.grad_spike * early:
        return Fires(
            "severe",
            f"the gradient norm grows from {number(early)} to {number(late)}",
            (at_steps("median of the first quarter, and of the last tenth", norms, [skip, len(norms) - 1]),),
            "lower the learning rate, or clip gradients (max_grad_norm)",
        )
    if len(spikes) < t.grad_spikes:
        return QUIET
    times = float(np.max(norms.values[spikes] / np.maximum(usual[spikes], 1e-60)))
    shown = f"the usual norm is {number(float(np.median(usual)))}, the highest {number(times)} times that of its surroundings"
    return Fires(
        "severe" if times >= t.grad_huge else "warn",
        f"the gradient explodes at {len(spikes)} steps",
        (at_steps(shown, norms, spikes),),
        "clip gradients (max_grad_norm), lower the learning rate, and look at the rows of those steps",
    )


def _usual(norms: Curve) -> NDArray[np.float64]:
    """The usual norm at each point: the median of its surroundings, a twentieth of the run or 20 points."""
    size = max(20, len(norms) // 20)
    count = max(1, len(norms) // size)
    parts = np.array_split(np.arange(len(norms)), count)
    middles = np.array([part.mean() for part in parts])
    medians = np.array([np.median(norms.values[part]) for part in parts])
    return np.asarray(np.interp(np.arange(len(norms)), middles, medians))


def learning_rate_mis_scheduled(view: View, t: Thresholds) -> Outcome:
    """A rate that is 0 for long, restarts, is cut off high, or still warms up at the end."""
    rate = view.curve("learning_rate")
    if rate is None:
        return None
    if len(rate) < 5:
        return Waits("a schedule needs more points", len(rate), 5)
    values, peak = rate.values, float(rate.values.max())
    if peak <= 0:
        return _schedule(
            "is 0 throughout", "nothing was trained", rate, [0, -1], "set a learning rate above 0"
        )
    top = int(np.argmax(values))
    tail = len(values) - 1 - int(np.argmax(values[::-1] > _ZERO * peak))
    zeros = len(values) - 1 - tail
    if zeros >= max(3, t.zero_rate_share * len(values)):
        planned = view.run.planned_steps
        past = planned is not None and view.run.last_step > planned
        why = f"; {planned} steps were planned, {view.run.last_step} were logged" if past else ""
        return _schedule(
            f"is 0 for the last {zeros} of {len(values)} points",
            f"what was trained after step {int(rate.steps[tail])} changed nothing{why}",
            rate,
            [top, tail, -1],
            "plan the schedule for as many steps as the run has",
        )
    lowest = np.minimum.accumulate(values[top:])
    again = np.flatnonzero((values[top:] - lowest) >= t.rate_restart * peak)
    if len(again):
        at = top + int(again[0])
        return _schedule(
            f"rises again at {view.where(int(rate.steps[at]))}",
            f"from {number(float(lowest[again[0]]))} to {number(float(values[at]))}",
            rate,
            [top, max(top, at - 1), at],
            "if no restart was meant, the schedule began anew on resuming: resume with the optimiser's state",
        )
    if view.running:
        return QUIET
    if top >= 0.9 * (len(values) - 1) and values[0] < 0.5 * peak:
        return _schedule(
            "still warms up when the run ends",
            f"from {number(float(values[0]))} to its peak {number(peak)} at step {int(rate.steps[top])}",
            rate,
            [0, len(values) // 2, -1],
            "shorten the warm-up: 3 to 10 % of the run are usual",
        )
    recent = values[-max(3, len(values) // 4) :]
    if t.rate_at_end * peak < values[-1] < 0.98 * peak and recent[-1] < recent[0]:
        planned = view.run.planned_steps or 0
        stopped = planned > 1.02 * view.run.last_step
        why = (
            f"the run ended at step {view.run.last_step} of {planned}"
            if stopped
            else "the run ended all the same"
        )
        return _schedule(
            f"is cut off at {values[-1] / peak:.0%} of its peak",
            f"it was still falling; {why}",
            rate,
            [top, len(values) // 2, -1],
            "stopped early, the last steps were taken at a high rate: an earlier checkpoint or a shorter plan may do better"
            if stopped
            else "the schedule was planned for a longer run: plan it for this one, or let the run go on",
            "info" if stopped else "warn",
        )
    return QUIET


def _schedule(
    title: str, text: str, rate: Curve, shown: list[int], action: str, severity: Severity = "warn"
) -> Fires:
    index = sorted({one % len(rate) for one in shown})
    return Fires(severity, f"the learning rate {title}", (at_steps(text, rate, index),), action)
