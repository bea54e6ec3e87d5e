"""Overfitting: the ratio of the losses, the alarm, the turn of the validation loss, a gap that was always there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dlm.curves.findings import Band, Evidence, RatioPoint, Severity
from dlm.curves.selection import select
from dlm.curves.thresholds import Thresholds
from dlm.curves.trend import Curve, blocks, course_of, lowest, theil_sen, trailing
from dlm.curves.view import QUIET, Fires, Outcome, View, Waits, at_steps, number

__all__ = [
    "band_of",
    "gap_from_start",
    "overfit_alarm",
    "overfit_ratio",
    "ratio_of",
    "ratio_points",
    "valid_loss_rises",
]

_SEVERITY: dict[Band, Severity] = {"mild": "info", "moderate": "warn", "severe": "severe"}
_ADVICE: dict[Band, str] = {
    "mild": "acceptable for a small data set; watch it if you train longer",
    "moderate": "train fewer epochs, or add data",
    "severe": "use an earlier checkpoint, and train fewer epochs or on more data",
}
_TARGET = 0.025  # error of a ratio's two levels that is small beside the bands' widths
_FEW_LIVE = 4
_MOST_RATIOS = 1000
_LATE_SHARE = 0.25  # of the run that the final ratio may be averaged over, where noise asks for it


def ratio_of(valid: float, train: float) -> float:
    """Validation over training loss. A training loss of 0 is a value: the ratio is 1 where both are 0, else infinite."""
    if train == 0:
        return 1.0 if valid == 0 else math.inf
    return valid / train


def band_of(ratio: float, t: Thresholds) -> Band:
    """The band of a ratio: below 1.2 healthy, from 1.2 mild, from 1.5 moderate, above 2.0 severe."""
    if ratio > t.ratio_severe:
        return "severe"
    if ratio >= t.ratio_moderate:
        return "moderate"
    return "mild" if ratio >= t.ratio_mild else "healthy"


@dataclass(frozen=True)
class _Pair:
    """Both losses at one place: levels with relative errors."""

    step: int
    train: float
    valid: float
    error: float  # of the ratio, relative

    @property
    def ratio(self) -> float:
        return ratio_of(self.valid, self.train)


def ratio_points(view: View, t: Thresholds) -> tuple[RatioPoint, ...]:
    """The ratio at every validation that has a training loss at or before it; of more than a thousand, a thousand."""
    losses = _losses(view)
    if losses is None:
        return ()
    train, valid = losses
    levels, _ = trailing(train, valid.steps, target=_TARGET)
    # a ratio of losses below 0 says nothing; of NaN neither
    known = np.flatnonzero((levels >= 0) & (valid.values >= 0))
    if len(known) > _MOST_RATIOS:
        known = known[np.linspace(0, len(known) - 1, _MOST_RATIOS).round().astype(int)]
    made = []
    for i in known:
        loss, value = float(levels[i]), float(valid.values[i])
        ratio = ratio_of(value, loss)
        made.append(RatioPoint(int(valid.steps[i]), loss, value, ratio, band_of(ratio, t)))
    return tuple(made)


def _losses(view: View) -> tuple[Curve, Curve] | None:
    train, valid = view.curve("train_loss"), view.curve("valid_loss")
    return None if train is None or valid is None else (train, valid)


def _final_pair(train: Curve, valid: Curve) -> _Pair | None:
    """Both losses at the end, averaged over the same last stretch, no longer than their noise asks for."""
    levels, errors = trailing(train, valid.steps, target=_TARGET)
    if not math.isfinite(levels[-1]):
        return None
    noise, valid_noise = train.noise, valid.noise
    last = int(valid.steps[-1])
    most = max(1, int(_LATE_SHARE * len(valid)))
    for count in range(1, min(most, _MOST_RATIOS) + 1):
        level, error = float(levels[-1]), float(errors[-1])
        if count > 1:
            part = train.within(float(valid.steps[-count - 1]), last)
            if len(part) > 1:
                level, error = float(part.values.mean()), noise / math.sqrt(len(part))
        value = float(valid.values[-count:].mean())
        relative = math.hypot(
            error / level if level else 0.0, valid_noise / math.sqrt(count) / value if value else 0.0
        )
        if relative <= _TARGET or count >= min(most, _MOST_RATIOS):
            return _Pair(last, level, value, relative)
    return None


def overfit_ratio(view: View, t: Thresholds) -> Outcome:
    """The final ratio of validation to training loss, in bands."""
    losses = _losses(view)
    if losses is None:
        return None
    train, valid = losses
    pair = _final_pair(train, valid)
    if pair is None:
        return Waits("no training loss at or before a validation")
    if min(pair.train, pair.valid) < 0:
        return Waits("a loss below 0 has no ratio")
    band = band_of(pair.ratio, t)
    surely = pair.ratio if math.isinf(pair.ratio) else pair.ratio * (1 - t.sureness * pair.error)
    if band == "healthy" or surely < t.ratio_mild or pair.valid - pair.train < t.ratio_gap:
        return QUIET
    text = (
        f"at {view.where(pair.step)} the validation loss is {number(pair.valid)}, the training loss"
        f" {number(pair.train)}: {number(pair.ratio)} times"
    )
    shown = [len(valid) - 1]
    return Fires(
        _SEVERITY[band],
        f"{band} overfitting: validation loss is {number(pair.ratio)} times the training loss",
        (
            at_steps(text, valid, shown),
            at_steps("training loss there", train, [_at_or_before(train, pair.step)]),
        ),
        _ADVICE[band],
    )


def _at_or_before(curve: Curve, step: int) -> int:
    return max(0, int(np.searchsorted(curve.steps, step, side="right")) - 1)


@dataclass(frozen=True)
class _Turn:
    """The best validation and the end: levels, their combined error, and where they are."""

    best: int  # index
    best_value: float
    final: float
    error: float
    exact: bool  # no noise: single points are compared


def _turn_of(view: View, valid: Curve) -> _Turn:
    if "turn" not in view.memo:
        view.memo["turn"] = _turn(valid)
    found: _Turn = view.memo["turn"]
    return found


def _turn(valid: Curve) -> _Turn:
    noise = valid.noise
    course = course_of(valid, noise)
    best, value = lowest(valid, noise)
    if course is valid.values:
        return _Turn(
            best, float(course[best]), float(course[-1]), 0.0 if not noise else 2 * noise, noise == 0
        )
    width = min(_needed_points(valid, noise), 0.35 * len(valid))
    # a minimum in the middle is a mean, the end is the end of a line: four times a mean's variance
    return _Turn(best, value, float(course[-1]), noise * math.sqrt(5 / width), False)


def _needed_points(valid: Curve, noise: float) -> float:
    level = abs(float(np.median(valid.values)))
    return max(3.0, (noise / (0.01 * level)) ** 2) if level else 3.0


def overfit_alarm(view: View, t: Thresholds) -> Outcome:
    """The final validation loss is more than 1.2 times the best, or, where that is below 0, as much above it.

    Of pairs it is a warning at most where held-out accuracy is known: the loss is about the size of margins as well, and
    rises on a few pairs ranked wrong while more and more are ranked right.
    """
    valid = view.curve("valid_loss")
    if valid is None:
        if view.curve("train_loss") is None:
            return None
        return Waits("there is no validation loss, so that overfitting cannot be seen")
    needed = _FEW_LIVE if view.running else 2  # a run is not to be stopped for one validation out of two
    if len(valid) < needed:
        return Waits("the best validation must lie before the last one", len(valid), needed)
    turn = _turn_of(view, valid)
    if not _rises_by(turn, t.overfit_alarm - 1, t):
        return QUIET
    where = view.where(int(valid.steps[turn.best]))
    by_accuracy = _by_accuracy(view, valid, turn)
    return Fires(
        "severe" if by_accuracy is None else "warn",
        f"overfit: the validation loss {_ends(turn)}",
        (_turn_evidence(view, valid, turn), *([] if by_accuracy is None else [by_accuracy[0]])),
        f"use the checkpoint from about {where}, and train no longer than that"
        if by_accuracy is None
        else by_accuracy[1],
    )


def _rises_by(turn: _Turn, share: float, t: Thresholds) -> bool:
    """Whether the end lies surely above the best by more than a share of the best's size, and by more than next to nothing."""
    surely = turn.final - 2 * t.sureness * turn.error
    limit = turn.best_value * (1 + share if turn.best_value >= 0 else 1 - share)
    return surely > limit and turn.final - turn.best_value >= t.ratio_gap


def _ends(turn: _Turn) -> str:
    if turn.best_value > 0:
        return f"ends {number(turn.final / turn.best_value)} times its best"
    return f"ends at {number(turn.final)}, its best was {number(turn.best_value)}"


def _by_accuracy(view: View, valid: Curve, turn: _Turn) -> tuple[Evidence, str] | None:
    """Of pairs with a held-out accuracy: how that went meanwhile, and the checkpoint that it chooses."""
    accuracy = view.curve("held_out_accuracy")
    if accuracy is None or view.run.kind not in ("preference", "reward"):
        return None
    chosen = select(view.run).best
    best = view.where(int(valid.steps[turn.best]) if chosen is None else chosen.step)
    seen = at_steps(
        "held-out accuracy meanwhile",
        accuracy,
        [_at_or_before(accuracy, int(valid.steps[turn.best])), len(accuracy) - 1],
    )
    action = (
        f"by held-out accuracy, which decides for pairs, use the checkpoint from about {best}; the loss"
        " also grows with the margins of pairs that are ranked wrong, however few they are"
    )
    return seen, action


def _turn_evidence(view: View, valid: Curve, turn: _Turn) -> Evidence:
    how = "" if turn.exact else ", both smoothed"
    return at_steps(
        f"best {number(turn.best_value)} at {view.where(int(valid.steps[turn.best]))},"
        f" final {number(turn.final)} at step {int(valid.steps[-1])}{how}",
        valid,
        [turn.best, len(valid) - 1],
    )


def valid_loss_rises(view: View, t: Thresholds) -> Outcome:
    """The validation loss turns and rises to the end."""
    valid = view.curve("valid_loss")
    if valid is None:
        return None
    if len(valid) < 3:
        return Waits("a turn needs a validation on both sides", len(valid), 3)
    turn = _turn_of(view, valid)
    after = len(valid) - 1 - turn.best
    if after < 1 or not _rises_by(turn, t.valid_rise, t):
        return QUIET
    best = int(valid.steps[turn.best])
    by_accuracy = _by_accuracy(view, valid, turn)
    return Fires(
        "warn",
        f"the validation loss rises after {view.where(best)}",
        (_turn_evidence(view, valid, turn), *([] if by_accuracy is None else [by_accuracy[0]])),
        f"use the checkpoint from about {view.where(best)}; fewer epochs would have done"
        if by_accuracy is None
        else by_accuracy[1],
    )


def gap_from_start(view: View, t: Thresholds) -> Outcome:
    """Validation is far above training from the first validation on."""
    losses = _losses(view)
    if losses is None or view.end is None:
        return None
    train, valid = losses
    span = max(1, view.end - view.first_step)
    early = np.flatnonzero(valid.steps - view.first_step <= 0.5 * span)
    if not len(early) or valid.steps[early[0]] - view.first_step > 0.25 * span:
        return Waits("the first validation comes after a quarter of the run", len(early), 1)
    levels, errors = trailing(train, valid.steps[early], target=_TARGET)
    values = valid.values[early]
    known = (levels > 0) & (values > 0)
    if not known.any():
        return Waits("no training loss at or before the first validation")
    logs = Curve(
        "log ratio", valid.steps[early][known] - view.first_step, np.log(values[known] / levels[known])
    )
    first = float(logs.values[0])
    error = max(logs.noise, float(np.median(errors[known] / levels[known])))
    if len(logs) >= 3:  # what a line says of the first step: a gap that grows is overfitting, not this
        x, y = blocks(logs)
        slope = theil_sen(x, y)
        first = float(np.median(y - slope.value * x)) if slope.value > 0 else float(np.median(y))
        error *= 2 / math.sqrt(len(logs))
    apart = float(np.median(values[known] - levels[known]))
    if first - t.sureness * error < math.log(t.start_gap) or apart < t.ratio_gap:
        return QUIET
    shown = early[:6]
    return Fires(
        "warn",
        f"validation is {number(math.exp(first))} times training from the start",
        (
            at_steps("validation loss, first validations", valid, shown),
            at_steps(
                "training loss there", train, [_at_or_before(train, int(valid.steps[i])) for i in shown]
            ),
        ),
        "the training data are too few or unlike the validation data: add diverse data, or look how they were split",
    )
