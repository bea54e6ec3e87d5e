"""`select`: which checkpoint to keep, or which two or three to try."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from dlm.curves.run import Checkpoint, CurveRun
from dlm.curves.soundness import divergence, last_sound_step
from dlm.curves.thresholds import Thresholds
from dlm.curves.trend import Curve, minimum_of, smoothed
from dlm.curves.view import View, number

__all__ = ["Candidate", "Role", "Selection", "select"]

Role = Literal[
    "lowest validation loss",
    "lowest measured saved step",
    "best held-out accuracy",
    "peak validation reward",
    "peak training reward",
    "lowest training loss",
    "last sound step",
    "final",
    "middle",
]

_SHOWN = (
    "train_loss",
    "valid_loss",
    "valid_accuracy",
    "held_out_accuracy",
    "held_out_margin",
    "train_reward",
    "valid_reward",
    "completion_tokens",
)
_Z = 1.959964  # the normal distribution's 97.5 % point
_MOST_SCORED = 64  # pairs that val_pref_acc is over at most
_EQUAL = 0.05  # margins and lengths nearer than this share are equal
_NEVER = "the run has no finite numbers: there is nothing to keep of it"
_EQUAL_REWARD = 0.01  # rewards nearer than this are equal even without noise


@dataclass(frozen=True)
class Candidate:
    """A checkpoint worth having. `step`: where the curve says so. `saved_step`: the saved step at or before it; None
    where the run names no saved steps (then `step` is what to look for), or where all of them are later. `values`: the
    figures that decided it, by series name, each the last one at or before `step`.
    """

    step: int
    saved_step: int | None
    role: Role
    reason: str
    values: Mapping[str, float] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True)
class Selection:
    """The candidates, the recommended one first, and why; no candidates where nothing can be said, with the reason."""

    candidates: tuple[Candidate, ...]
    reason: str

    @property
    def best(self) -> Candidate | None:
        """The recommended candidate."""
        return self.candidates[0] if self.candidates else None


def select(run: CurveRun, thresholds: Thresholds | None = None) -> Selection:
    """Choose checkpoints by the kind of run; pure and deterministic. `thresholds`: the rules', for what counts as divergence.

    SFT and unknown: the lowest validation loss, ties to the earlier. Preference and reward: held-out accuracy, of equal
    ones (within its 95 % interval) the larger held-out margin, then the smaller change of length, then the earlier.
    RFT: never one number, but the peak of the validation reward (of equal ones the shorter answers), the end and the
    middle, to be tried on the task itself.
    """
    view, limits = View(run), thresholds or Thresholds()
    if run.kind == "rft":
        return _by_reward(view, limits)
    held_out = view.curve("held_out_accuracy")
    if run.kind in ("preference", "reward") and held_out is not None:
        return _by_pairs(view, held_out)
    return _by_loss(view, limits)


def _candidate(view: View, step: int, role: Role, reason: str) -> Candidate:
    run = view.run
    at = bisect_right(run.saved_steps, step)
    saved = run.saved_steps[at - 1] if at else None
    if saved is None and run.saved_steps:
        reason += f"; the first saved step is {run.saved_steps[0]}, later than that"
    values = {}
    for name in _SHOWN:
        curve = view.curve(name)
        index = -1 if curve is None else int(np.searchsorted(curve.steps, step, side="right")) - 1
        if curve is not None and index >= 0:
            values[curve.name] = float(curve.values[index])
    found = next((one for one in run.checkpoints if one.step == saved), None) if saved is not None else None
    return Candidate(step, saved, role, reason, values, found)


def _last(view: View, limits: Thresholds, lacking: str) -> Selection:
    """The end of a run that nothing tells apart; of one that broke, what comes before that."""
    if not view.run.last_step:
        return Selection((), "there is not one step")
    train, sound = view.curve("train_loss"), last_sound_step(view)
    if sound is None:
        return Selection((), _NEVER)
    least = None if train is None or view.run.kind == "rft" else divergence(train, limits)
    if train is not None and least is not None:
        value = float(smoothed(train, target=0.05, noise=train.noise)[least])
        step = int(train.steps[least])
        reason = (
            f"{lacking}, and {train.name} diverges: it is lowest around {view.where(step)}, {number(value)}"
        )
        return Selection((_candidate(view, step, "lowest training loss", reason),), reason)
    if sound < view.run.last_step:
        reason = f"{lacking}: the last step before the run's numbers are no longer finite"
        return Selection((_candidate(view, sound, "last sound step", reason),), reason)
    reason = f"{lacking}: the last one"
    return Selection((_candidate(view, view.run.last_step, "final", reason),), reason)


def _by_loss(view: View, limits: Thresholds) -> Selection:
    valid = view.curve("valid_loss")
    if valid is None:
        return _last(view, limits, "no validation loss tells checkpoints apart")
    best, value = minimum_of(valid)
    step = int(valid.steps[best])
    how = (
        ", smoothed over its neighbours because single validations are noisy"
        if value != valid.values[best]
        else ""
    )
    reason = f"{valid.name} is lowest at {view.where(step)}: {number(value)}{how}"
    full = view.run.series.get("full_valid_loss")
    if full is not None and full.name != valid.name and np.isfinite(full.values).any():
        other = int(full.steps[int(np.nanargmin(np.where(np.isfinite(full.values), full.values, np.nan)))])
        if other != step:
            reason += f"; full_valid_loss, over all held-out rows, is lowest at step {other}"
    chosen = _candidate(view, step, "lowest validation loss", reason)
    found = [chosen, *_better_measured(view, valid, chosen)]
    return Selection(tuple(found), reason)


def _better_measured(view: View, valid: Curve, chosen: Candidate) -> list[Candidate]:
    """A later saved step whose own validation is lower than that of the saved step before the minimum."""
    if chosen.saved_step is None or chosen.saved_step == chosen.step:
        return []
    saved = np.isin(valid.steps, np.array(view.run.saved_steps, np.int64))
    mine = valid.steps == chosen.saved_step
    if not mine.any() or not saved.any():
        return []
    own = float(valid.values[mine][0])
    index = int(np.argmin(np.where(saved, valid.values, np.inf)))
    if valid.values[index] >= own:
        return []
    step = int(valid.steps[index])
    reason = (
        f"saved step {step} was itself measured at {number(float(valid.values[index]))},"
        f" saved step {chosen.saved_step} at {number(own)}"
    )
    return [_candidate(view, step, "lowest measured saved step", reason)]


def _half_width(share: float, pairs: float) -> float:
    """Half of Wilson's 95 % interval (Wilson 1927) of a share of `pairs` pairs."""
    inner = share * (1 - share) / pairs + _Z**2 / (4 * pairs**2)
    return _Z / (1 + _Z**2 / pairs) * math.sqrt(max(inner, 0.0))


def _by_pairs(view: View, held_out: Curve) -> Selection:
    best = float(held_out.values.max())
    counted = view.run.series.get("full_valid_pairs")
    pairs = float(counted.values[-1]) if counted is not None and len(counted) else math.nan
    if held_out.name == "val_pref_acc":
        pairs = min(pairs, _MOST_SCORED) if math.isfinite(pairs) else pairs
    half = _half_width(min(max(best, 0.0), 1.0), pairs) if math.isfinite(pairs) and pairs >= 1 else 0.0
    equal = [i for i in range(len(held_out)) if held_out.values[i] >= best - half]
    margin, length = view.curve("held_out_margin"), view.curve("completion_tokens")
    chosen = _most(equal, held_out, margin)
    chosen = _steadiest(chosen, held_out, length)
    step = int(held_out.steps[chosen[0]])
    value = float(held_out.values[chosen[0]])
    interval = f" ± {half:.2f} over {pairs:.0f} pairs" if half else ""
    reason = f"{held_out.name} is {value:.3f}{interval} at {view.where(step)}"
    if len(equal) > 1:
        by = [name for name, curve in (("margin", margin), ("change of length", length)) if curve is not None]
        reason += f"; of {len(equal)} equal ones by {', then '.join([*by, 'the earlier step'])}"
    return Selection((_candidate(view, step, "best held-out accuracy", reason),), reason)


def _at(curve: Curve, step: int) -> float:
    """The last value at or before a step, NaN before the first."""
    index = int(np.searchsorted(curve.steps, step, side="right")) - 1
    return float(curve.values[index]) if index >= 0 else math.nan


def _most(index: Sequence[int], held_out: Curve, margin: Curve | None) -> list[int]:
    if margin is None:
        return list(index)
    values = {i: _at(margin, int(held_out.steps[i])) for i in index}
    top = max((value for value in values.values() if math.isfinite(value)), default=math.nan)
    if not math.isfinite(top):
        return list(index)
    return [i for i in index if values[i] >= top - _EQUAL * abs(top)] or list(index)


def _steadiest(index: Sequence[int], held_out: Curve, length: Curve | None) -> list[int]:
    if length is None or length.values[0] <= 0:
        return list(index)
    drift = {}
    for i in index:
        now = _at(length, int(held_out.steps[i]))
        drift[i] = abs(math.log(now / float(length.values[0]))) if now > 0 else math.inf
    least = min(drift.values())
    return [i for i in index if drift[i] <= least + _EQUAL] or list(index)


def _by_reward(view: View, limits: Thresholds) -> Selection:
    valid, train = view.curve("valid_reward"), view.curve("train_reward")
    reward = valid if valid is not None else train
    if reward is None:
        return _last(view, limits, "no reward tells checkpoints apart")
    sound = last_sound_step(view)
    if sound is None:
        return Selection((), _NEVER)
    if reward.steps[0] <= sound:
        reward = reward.within(-1, sound)
    role: Role = "peak validation reward" if valid is not None else "peak training reward"
    noise = reward.noise
    course = smoothed(reward, target=0.02, noise=noise)
    top = float(course.max())
    window = max(1, min(len(reward), 3))
    equal = np.flatnonzero(course >= top - max(_EQUAL_REWARD, noise / math.sqrt(window)))
    tokens = view.curve("completion_tokens")
    peak = int(np.argmax(course))
    reason = f"{reward.name} peaks at {number(top)}"
    if tokens is not None and len(equal) > 1:
        course_of_lengths = Curve(tokens.name, tokens.steps, smoothed(tokens))
        lengths = [_at(course_of_lengths, int(reward.steps[i])) for i in equal]
        order = [
            i
            for i, value in zip(equal, lengths, strict=True)
            if value <= (1 + _EQUAL) * float(np.nanmin(lengths))
        ]
        if order and peak not in order:
            peak = int(order[0])
            reason += f"; of {len(equal)} validations that are equal to it, this one has the shortest answers"
    middle = view.first_step + (sound - view.first_step) // 2
    saved = [step for step in view.run.saved_steps if step <= sound]
    if saved:
        middle = min(saved, key=lambda step: (abs(step - middle), step))
    wanted: list[tuple[int, Role, str]] = [
        (int(reward.steps[peak]), role, reason),
        (sound, "final", "the end of the run")
        if sound == view.run.last_step
        else (sound, "last sound step", "the last step before the run's numbers are no longer finite"),
        (middle, "middle", "the middle of the run, before the policy has learnt all of the grader"),
    ]
    found: list[Candidate] = []
    for step, one, why in wanted:
        made = _candidate(view, step, one, why)
        place = made.step if made.saved_step is None else made.saved_step
        if all(place != (old.step if old.saved_step is None else old.saved_step) for old in found):
            found.append(made)
    return Selection(
        tuple(found),
        "a reward is what the grader says, not the task: try these on the task itself; at equal accuracy the one with"
        " shorter answers is better",
    )
