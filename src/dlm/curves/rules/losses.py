"""The losses' own courses: too little, too much, up again, flat too early, restless, too high; numbers that are none."""

from __future__ import annotations

import math

import numpy as np

from dlm.curves.findings import Evidence
from dlm.curves.settling import Settled, settle
from dlm.curves.soundness import divergence
from dlm.curves.thresholds import Thresholds
from dlm.curves.trend import Curve, end_level, smoothed, start_level, swing_of
from dlm.curves.view import QUIET, Fires, Outcome, View, Waits, at_levels, at_steps, number

__all__ = [
    "both_losses_high",
    "non_finite",
    "train_loss_barely_falls",
    "train_loss_crashes",
    "train_loss_diverges",
    "valid_loss_oscillates",
    "valid_loss_plateaus",
]

_FEW = 5  # points under which a course cannot be told
_WATCHED = ("loss", "grad_norm", "reward", "entropy", "logps/")


def _course(view: View) -> Settled | None:
    if "course" not in view.memo:
        view.memo["course"] = _fitted(view)
    found: Settled | None = view.memo["course"]
    return found


def _fitted(view: View) -> Settled | None:
    """How far the training loss comes, with the validation loss to steady it where that falls alike."""
    train, valid = view.curve("train_loss"), view.curve("valid_loss")
    if train is None or not len(train):
        return None
    ends = float(train.steps[0]), float(train.steps[-1])
    alone = settle([train], *ends)
    if alone is None or not alone.error or valid is None or len(valid) < 4:
        return alone
    other = settle([valid], *ends)
    if (
        other is None
        or other.change >= 0
        or abs(other.change - alone.change) > 2 * math.hypot(other.error, alone.error)
    ):
        return alone
    return settle([train, valid], *ends)


def train_loss_barely_falls(view: View, t: Thresholds) -> Outcome:
    """Over the whole run the training loss falls by less than 5 %."""
    train = view.curve("train_loss")
    if train is None:
        return None
    if len(train) < _FEW:
        return Waits("a start and an end need more points", len(train), _FEW)
    course = _course(view)
    if course is None or course.start <= t.near_zero:
        return QUIET  # there was nothing to fall from
    if abs(course.change) >= max(t.least_fall, 2.5 * course.error):
        return QUIET  # it fell, or it rose, which is divergence
    if max(course.error, abs(course.change)) > 2 * t.least_fall:
        fall = f"it fell by {-course.change:.0%} ± {course.error:.0%}"
        return Waits(f"the loss is too noisy for its length: {fall}", len(train), 4 * len(train))
    return Fires(
        "warn",
        f"the training loss barely falls: from {number(course.start)} to {number(course.end)}",
        (
            at_steps(
                f"{-course.change:.1%} ± {course.error:.1%} of its start in {len(train)} points",
                train,
                [0, -1],
            ),
        ),
        "raise the learning rate, or clean the data: what contradicts itself cannot be learnt",
    )


def train_loss_crashes(view: View, t: Thresholds) -> Outcome:
    """The training loss is about 0 before half of the run is over."""
    train = view.curve("train_loss")
    if train is None:
        return None
    if len(train) < _FEW:
        return Waits("a course needs more points", len(train), _FEW)
    course = smoothed(train, target=0.1, share=0.05)
    low = np.abs(course) <= t.near_zero  # a loss may fall below 0, as robust DPO's does
    if not low[-1]:
        return QUIET
    at = len(low) - 1 - int(np.argmax(~low[::-1])) + 1 if not low.all() else 0
    if view.end is None:
        return Waits("nobody says how long the run will be")
    share = (int(train.steps[at]) - view.first_step) / max(1, view.end - view.first_step)
    if share > t.crash_by:
        return QUIET
    step = int(train.steps[at])
    how = (
        f"is {number(float(train.values[0]))} from the start"
        if at == 0
        else f"is about 0 from {view.where(step)} on"
    )
    # a short document is to be learnt by heart, and holds nothing out: there it is the aim
    by_heart = view.curve("valid_loss") is None
    return Fires(
        "info" if by_heart else "warn",
        f"the training loss {how}",
        (at_steps(f"{share:.0%} of the run had passed", train, [0, at, len(train) - 1]),),
        "learnt by heart, and nothing is held out to see more: fewer steps or a lower rate would do, harder examples help"
        if by_heart
        else "the rate is too high or the data too easy: lower the learning rate, or add harder examples",
    )


def train_loss_diverges(view: View, t: Thresholds) -> Outcome:
    """The training loss ends at 1.5 times its lowest level or more."""
    train = view.curve("train_loss")
    if train is None:
        return None
    if len(train) < 2 * _FEW:
        return Waits("a climb must last to be told from a spike", len(train), 2 * _FEW)
    least = divergence(train, t)
    if least is None:
        return QUIET
    noise, count = train.noise, max(_FEW, len(train) // 20)
    lowest = float(smoothed(train, target=0.05, noise=noise)[least])
    end = end_level(train, noise=noise, share=0.1)
    times = f", {number(end.value / lowest)} times that at the end" if lowest >= t.near_zero else ""
    return Fires(
        "severe",
        f"the training loss diverges: from {number(lowest)} to {number(end.value)}",
        (
            at_steps(
                f"lowest around {view.where(int(train.steps[least]))}{times}",
                train,
                [least, *range(len(train) - min(count, 5), len(train))],
            ),
        ),
        "lower the learning rate, lengthen the warm-up, or clip gradients; go back to a checkpoint from before the climb",
    )


def valid_loss_plateaus(view: View, t: Thresholds) -> Outcome:
    """The first epoch brings nearly all of the fall of the validation loss."""
    train, valid = view.curve("train_loss"), view.curve("valid_loss")
    if valid is None:
        return None
    whole = view.run.epoch_at(view.run.last_step)
    if whole is None:
        return Waits("nobody says how many steps an epoch has; for a file: --epochs N")
    if whole < 1.5:
        return QUIET if not view.running else Waits("the second epoch has not come far enough")
    epochs = view.run.epochs_at(valid.steps)
    later = np.zeros(len(valid), bool) if epochs is None else epochs >= 1 - 1e-9
    if later.sum() < 3:
        return Waits("too few validations after the first epoch", int(later.sum()), 3)
    noise = valid.noise
    if swing_of(valid) >= t.oscillation:
        return QUIET
    after = Curve(valid.name, valid.steps[later], valid.values[later])
    end = end_level(valid, noise=noise, target=0.01)
    near = int(np.clip((noise / (0.015 * abs(end.value) or 1.0)) ** 2, 1, max(1, len(after) // 4)))
    reached = float(after.values[:near].mean())
    error = math.hypot(noise / math.sqrt(near), end.error)
    first = start_level(train).value if train is not None else float(valid.values[0])
    fall, left = first - end.value, reached - end.value
    course = _course(view)
    if fall <= 2 * t.least_fall * abs(first) or (
        course and -course.change < 2 * max(t.least_fall, course.error)
    ):
        return QUIET  # there was hardly a fall to speak of
    if left - 2 * t.sureness * error > (1 - t.first_epoch_share) * fall or -left > t.valid_rise * abs(
        reached
    ):
        return QUIET
    if error > 2 * (1 - t.first_epoch_share) * fall:
        return Waits("the validation loss is too noisy for its number of points", len(after), 4 * len(after))
    return Fires(
        "info",
        "the validation loss is flat after the first epoch",
        (
            at_steps(
                f"{(first - reached) / fall:.0%} of its fall by then: {number(reached)} after epoch 1,"
                f" {number(end.value)} at the end",
                after,
                [0, len(after) - 1],
            ),
        ),
        "one epoch does: train for one, or at a lower learning rate",
    )


def valid_loss_oscillates(view: View, t: Thresholds) -> Outcome:
    """The validation loss jumps up and down by more than a tenth of its level."""
    valid = view.curve("valid_loss")
    if valid is None:
        return None
    if len(valid) < 6:
        return Waits("a swing needs validations enough to see it", len(valid), 6)
    level, spread = float(np.median(valid.values)), swing_of(valid)
    if spread < t.oscillation:
        return QUIET
    return Fires(
        "warn",
        f"the validation loss oscillates by {spread:.0%} of its level",
        (at_steps(f"around {number(level)}", valid, range(max(0, len(valid) - 8), len(valid))),),
        "raise the batch size (grad_accum), or look for data that contradict each other; a smaller rate helps too",
    )


def both_losses_high(view: View, t: Thresholds) -> Outcome:
    """Both losses end high and have fallen by little."""
    train, valid = view.curve("train_loss"), view.curve("valid_loss")
    if train is None or valid is None:
        return None
    if len(train) < _FEW or len(valid) < 2:
        return Waits("too few points of both losses", min(len(train), len(valid)), _FEW)
    course, last = _course(view), end_level(valid)
    if course is None or min(course.end, last.value) < t.high_loss or abs(course.change) > t.high_fall:
        return QUIET
    return Fires(
        "warn",
        f"both losses stay high: training {number(course.end)}, validation {number(last.value)}",
        (
            at_steps(f"a fall of {-course.change:.0%} over the run", train, [0, -1]),
            at_levels("validation loss at the end", valid, last),
        ),
        "the task is too hard as it is posed: take a larger model, simplify it, or train longer at a higher rate",
    )


def non_finite(view: View, t: Thresholds) -> Outcome:
    """A loss, reward, gradient norm or log-prob is NaN or infinite."""
    evidence = []
    for name, series in view.run.series.items():
        bad = np.flatnonzero(~np.isfinite(series.values))
        if len(bad) and any(word in name for word in _WATCHED):
            first = int(series.steps[bad[0]])
            shown = bad[:3]
            evidence.append(
                Evidence(
                    f"{len(bad)} of {len(series)} values, the first at {view.where(first)}",
                    name,
                    tuple(int(series.steps[i]) for i in shown),
                    tuple(float(series.values[i]) for i in shown),
                )
            )
    if not evidence:
        return QUIET if view.run.series else None
    return Fires(
        "severe",
        f"{evidence[0].series} is not a finite number at {view.where(evidence[0].steps[0])}",
        tuple(evidence[:6]),
        "lower the learning rate, and look at that step's rows; use a checkpoint from before it",
    )
