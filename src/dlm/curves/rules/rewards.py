"""Reinforcement fine-tuning: the reward's course, its gap to validation, answers' lengths, and what the grader failed at."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dlm.curves.settling import settle
from dlm.curves.thresholds import Thresholds
from dlm.curves.trend import Curve, Level, mean_level
from dlm.curves.view import QUIET, Fires, Outcome, View, Waits, at_levels, at_steps, number

__all__ = [
    "answers_grow",
    "grader_errors",
    "parse_errors",
    "reward_always_negative",
    "reward_does_not_climb",
    "reward_flat_at_zero",
    "reward_gap",
    "reward_high_and_flat",
    "unresponsive",
]

_FEW = 10  # steps before a reward's course is spoken of
_EARLY = 0.2  # of a running run, in which a reward may stand still
_LATE = 0.25  # of the run, over which a gap is averaged


def _parts(curve: Curve) -> tuple[Level, Level]:
    """Means of the first and the last quarter."""
    size = max(1, len(curve) // 4)
    first = Curve(curve.name, curve.steps[:size], curve.values[:size])
    last = Curve(curve.name, curve.steps[-size:], curve.values[-size:])
    return mean_level(first), mean_level(last)


def _gain(curve: Curve) -> tuple[float, float]:
    """The last quarter's mean over the first's, and its error."""
    first, last = _parts(curve)
    spread = curve.noise / math.sqrt(max(1, len(curve) // 4))
    return last.value - first.value, math.sqrt(2) * spread


def _reward(view: View) -> Curve | Waits | None:
    reward = view.curve("train_reward")
    if reward is None:
        return None
    if len(reward) < _FEW:
        return Waits("a reward's course needs more steps", len(reward), _FEW)
    if view.running and view.end is not None and view.run.last_step < _EARLY * view.end:
        return Waits(f"a reward may stand still at first; {_EARLY:.0%} of the run must have passed")
    return reward


def reward_flat_at_zero(view: View, t: Thresholds) -> Outcome:
    """The reward is about 0 from the start to the end."""
    reward = _reward(view)
    if not isinstance(reward, Curve):
        return reward
    first, last = _parts(reward)
    whole = mean_level(reward)
    if max(abs(first.value), abs(last.value), abs(whole.value)) > t.reward_zero:
        return _grader_at_zero(view, t)
    return Fires(
        "severe",
        f"the reward stays at about 0 ({number(whole.value)})",
        (at_levels("means of the first and the last quarter", reward, first, last),),
        "grade a few answers by hand: the grader is broken, or its threshold is too strict for this model",
    )


def _grader_at_zero(view: View, t: Thresholds) -> Outcome:
    """Of several graders those whose own reward is about 0 throughout, while the whole reward is not."""
    found = {}
    for name, (train, _) in view.graders.items():
        if train is not None and len(train) >= _FEW:
            first, last = _parts(train)
            if max(abs(first.value), abs(last.value), abs(mean_level(train).value)) <= t.reward_zero:
                found[name] = at_levels("means of the first and the last quarter", train, first, last)
    if not found:
        return QUIET
    return Fires(
        "warn",
        f"the reward of grader {', '.join(found)} stays at about 0",
        tuple(found.values())[:6],
        "grade a few answers with it by hand: it is broken, or too strict for this model, and teaches nothing as it is",
    )


def reward_always_negative(view: View, t: Thresholds) -> Outcome:
    """The reward is below 0 throughout."""
    reward = _reward(view)
    if not isinstance(reward, Curve):
        return reward
    below = float(np.mean(reward.values < 0))
    first, last = _parts(reward)
    if below < 0.95 or max(first.value, last.value) >= -t.reward_zero:
        return QUIET
    return Fires(
        "warn",
        f"the reward is always negative ({number(first.value)} to {number(last.value)})",
        (at_levels(f"{below:.0%} of the steps below 0", reward, first, last),),
        "lower the pass threshold: between a quarter and a half of the base's answers should fail it",
    )


def reward_high_and_flat(view: View, t: Thresholds) -> Outcome:
    """The reward is high at once, and climbs by no more than a little, or falls."""
    reward = _reward(view)
    if not isinstance(reward, Curve):
        return reward
    first, last = _parts(reward)
    gain, error = _gain(reward)
    if first.value < t.reward_high or gain - 2 * error > t.reward_gain:
        return QUIET
    # from .97 of at most 1 no run can gain more than .03, and one that gains all there is left is not flat
    course = "flat"
    if gain - 2 * error >= 0.0005:
        course = f"gains only {gain:.3f}"
    elif gain + 2 * error <= -0.0005:
        course = f"falls by {-gain:.3f}"
    return Fires(
        "warn",
        f"the reward is high from the start ({number(first.value)}) and {course}",
        (at_levels("means of the first and the last quarter", reward, first, last),),
        "the threshold is too lenient: raise it until a quarter to a half of the base's answers fail",
    )


def reward_does_not_climb(view: View, t: Thresholds) -> Outcome:
    """The reward ends where it began, somewhere between the two."""
    reward = _reward(view)
    if not isinstance(reward, Curve):
        return reward
    first, last = _parts(reward)
    gain, error = _gain(reward)
    low = max(abs(first.value), abs(last.value)) <= t.reward_zero
    if low or first.value >= t.reward_high or gain >= t.reward_gain:
        return QUIET  # the two rules above speak of those
    if gain + error > 2 * t.reward_gain and error > t.reward_gain:
        return Waits(
            f"the reward is too noisy for its length: it gained {gain:.3f} ± {error:.3f}",
            len(reward),
            4 * len(reward),
        )
    return Fires(
        "warn",
        f"the reward does not climb: {number(first.value)} in the first quarter, {number(last.value)} in the last",
        (at_levels(f"a gain of {gain:+.3f} ± {error:.3f}", reward, first, last),),
        "see whether answers to one prompt get different scores at all; if so, raise the learning rate or the group size",
    )


def reward_gap(view: View, t: Thresholds) -> Outcome:
    """At the end the training reward is more than .05 above the validation reward, or more than .10."""
    train, valid = view.curve("train_reward"), view.curve("valid_reward")
    if train is None:
        return None
    if valid is None:
        return Waits("there is no validation reward, so that reward hacking cannot be seen")
    gap = _gap(train, valid, t)
    if gap is None:
        return Waits("no training reward at or before a validation")
    value, error = gap.value, gap.error
    surely = value - t.sureness * error
    # a difference of two decimals may miss a limit by its last bit
    if surely <= t.gap_warn + 1e-9:
        return _grader_gap(view, t)
    severe = value > t.gap_severe + 1e-9
    action = (
        "the policy may exploit the grader: read answers with high scores, and take an earlier checkpoint"
        if severe
        else "watch it, and read answers with high scores; above .10 it may be reward hacking"
    )
    return Fires(
        "severe" if severe else "warn",
        f"training reward is {value:.3f} above validation reward",
        (
            at_levels(
                f"validation reward at {view.where(gap.valid.last)}{_mean_of(gap.valid)}; the gap is {value:.3f} ± {error:.3f}",
                valid,
                gap.valid,
            ),
            at_levels(f"training reward there{_mean_of(gap.train)}", train, gap.train),
        ),
        action,
    )


def _grader_gap(view: View, t: Thresholds) -> Outcome:
    """Of several graders the one with the widest gap, while the whole reward has none: a warning, whatever its weight."""
    found = []
    for name, (train, valid) in view.graders.items():
        gap = None if train is None or valid is None else _gap(train, valid, t)
        if train is None or valid is None or gap is None:
            continue
        if gap.value - t.sureness * gap.error > t.gap_warn + 1e-9:
            found.append((gap.value, name, train, valid, gap))
    if not found:
        return QUIET
    found.sort(key=lambda one: -one[0])
    evidence = [
        at_levels(f"{part} reward of {name}{_mean_of(level)}", curve, level)
        for _, name, train, valid, gap in found[:3]
        for part, curve, level in (("validation", valid, gap.valid), ("training", train, gap.train))
    ]
    value, name = found[0][:2]
    also = f", and of {len(found) - 1} more" if len(found) > 1 else ""
    return Fires(
        "warn",
        f"training reward of grader {name} is {value:.3f} above its validation reward{also}",
        tuple(evidence),
        "the whole reward hides it: read answers that this grader scores high, it may be what the policy exploits",
    )


@dataclass(frozen=True)
class _Gap:
    """Levels of both rewards over one stretch, and the standard error of their difference."""

    train: Level
    valid: Level
    error: float

    @property
    def value(self) -> float:
        return self.train.value - self.valid.value


def _mean_of(level: Level) -> str:
    return f", mean of {level.points} steps" if level.points > 1 else ""


def _mean(curve: Curve, error: float) -> Level:
    return Level(float(curve.values.mean()), error, int(curve.steps[0]), int(curve.steps[-1]), len(curve))


def _gap(train: Curve, valid: Curve, t: Thresholds) -> _Gap | None:
    """Training minus validation reward over the same last stretch, no longer than the noise asks for."""
    noise, valid_noise = train.noise, valid.noise
    most = min(1000, max(1, int(_LATE * len(valid))))
    last = int(valid.steps[-1])
    for count in range(1, most + 1):
        after = float(valid.steps[-count - 1]) if count < len(valid) else -1.0
        part = train.within(after, last)
        if not len(part):
            part = train.within(-1, last)
            part = Curve(part.name, part.steps[-1:], part.values[-1:])
        if not len(part):
            return None
        if noise == 0:
            part = Curve(part.name, part.steps[-1:], part.values[-1:])
        train_error, valid_error = noise / math.sqrt(len(part)), valid_noise / math.sqrt(count)
        error = math.hypot(train_error, valid_error)
        if error <= t.gap_warn / 8 or count == most:
            held_out = Curve(valid.name, valid.steps[-count:], valid.values[-count:])
            return _Gap(_mean(part, train_error), _mean(held_out, valid_error), error)
    return None


def answers_grow(view: View, t: Thresholds) -> Outcome:
    """Answers become twice as long, which is normal, or three times, which is not."""
    tokens = view.curve("completion_tokens")
    if tokens is None:
        return None
    if len(tokens) < 2:
        return Waits("growth needs two measurements", len(tokens), 2)
    course = settle([tokens], float(tokens.steps[0]), float(tokens.steps[-1]))
    if course is None or course.start <= 0:
        return QUIET
    growth = course.end / course.start
    if growth - t.sureness * course.error < t.tokens_moderate:
        return QUIET
    excessive = growth >= t.tokens_excessive
    return Fires(
        "warn" if excessive else "info",
        f"answers grow {number(growth)} times: from {number(course.start)} to {number(course.end)} tokens",
        (
            at_steps(
                "more than the task asks for, it seems" if excessive else "normal growth", tokens, [0, -1]
            ),
        ),
        "the grader may reward length: look at what it scores, or cap the tokens; of two checkpoints with equal"
        " accuracy take the one with shorter answers"
        if excessive
        else "nothing to do: answers become more thorough; of two checkpoints with equal accuracy take the shorter",
    )


def parse_errors(view: View, t: Thresholds) -> Outcome:
    """The grader often cannot parse the answers; how bad that is, the reward says."""
    errors = view.curve("parse_errors")
    if errors is None:
        return None
    if len(errors) < _FEW:
        return Waits("a share of errors needs more steps", len(errors), _FEW)
    level = mean_level(
        Curve(errors.name, errors.steps[len(errors) // 2 :], errors.values[len(errors) // 2 :])
    )
    if level.value < t.parse_errors:
        return QUIET
    reward = view.curve("train_reward")
    climbs = False
    if reward is not None and len(reward) >= _FEW:
        gain, error = _gain(reward)
        climbs = gain >= t.reward_gain and gain > 2 * error
    text = f"{number(level.value)} a step in the second half of the run; the reward {'climbs' if climbs else 'does not climb'}"
    return Fires(
        "info" if climbs else "warn",
        "answers often cannot be parsed" + (", but the reward climbs" if climbs else ""),
        (at_levels(text, errors, level),),
        "normal where answers are taken in the middle of reasoning: let it run"
        if climbs
        else "look at such an answer: ask for the format in the prompt, allow more tokens, or parse more leniently",
    )


def grader_errors(view: View, t: Thresholds) -> Outcome:
    """The grader itself failed, once or more."""
    found = []
    looked = False
    for name, series in view.run.series.items():
        if name.rpartition("/")[2].replace("train_", "").replace("valid_", "").startswith("other_error"):
            looked = True
            bad = np.flatnonzero(series.values > 0)
            if len(bad):
                curve = Curve(name, series.steps, series.values)
                text = f"at {len(bad)} of {len(series)} points, the first at {view.where(int(series.steps[bad[0]]))}"
                found.append(at_steps(text, curve, bad[:5]))
    if not found:
        return QUIET if looked else None
    return Fires(
        "severe",
        "the grader has bugs: it failed on answers",
        tuple(found[:6]),
        "mend the grader before going on: those answers were scored wrongly, or not at all",
    )


def unresponsive(view: View, t: Thresholds) -> Outcome:
    """Many answers get no score at all."""
    share = view.curve("unresponsive")
    if share is None:
        return None
    if len(share) < 3:
        return Waits("a share needs more steps", len(share), 3)
    first, last = _parts(share)
    if last.value < t.unresponsive:
        return QUIET
    # what is above 1 is no share: some sources count the answers
    many = f"{last.value:.0%} of the answers" if last.value <= 1 else f"{number(last.value)} answers a step"
    return Fires(
        "warn",
        f"{many} cannot be scored",
        (at_levels("means of the first and the last quarter", share, first, last),),
        "look at such an answer: cut off by the token budget, empty, or without what the grader looks for",
    )
