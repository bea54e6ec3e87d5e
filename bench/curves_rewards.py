"""Simulated reinforcement runs. A docstring gives the truth that a run is drawn from, away from the thresholds."""

from __future__ import annotations

import numpy as np
from curves_noise import Curve, Frame, Rng, Simulated, as_run, as_series, frame_of, schedule

SAMPLES = 64  # answers of a step


def _rft(
    rng: Rng,
    frame: Frame,
    *,
    reward: Curve | None = None,
    gap: Curve | None = None,
    growth: float | None = None,
    parse: float = 0.0,
    other: Curve | float = 0.0,
    unresponsive: float = 0.0,
    spread: float | None = None,
) -> Simulated:
    """A run of which everything not given is healthy. `parse` and `unresponsive` are shares of a step's answers."""
    t, count = frame.t, len(frame.steps)
    spread = rng.uniform(0.02, 0.08) if spread is None else spread
    train = _climb(rng, t) if reward is None else reward
    apart = rng.uniform(-0.02, 0.03) * t if gap is None else gap
    longer = rng.uniform(0.8, 1.5) if growth is None else growth
    tokens = rng.uniform(50, 800) * (1 + (longer - 1) * t)
    at = frame.steps[frame.valid]
    truth = (train - apart)[frame.valid]
    curves = [
        as_series("train_mean_reward", frame.steps, train + rng.normal(0, spread, count)),
        as_series(
            "full_valid_mean_reward",
            at,
            truth + rng.normal(0, min(spread, rng.uniform(0.005, 0.02)), len(at)),
        ),
        as_series(
            "completion_tokens_mean", frame.steps, tokens * rng.lognormal(0, rng.uniform(0.02, 0.10), count)
        ),
        as_series(
            "mean_unresponsive_rewards", frame.steps, rng.binomial(SAMPLES, unresponsive, count) / SAMPLES
        ),
        as_series(
            "train_sample_parse_error_count", frame.steps, rng.binomial(SAMPLES, parse, count).astype(float)
        ),
        as_series("train_other_error_count", frame.steps, rng.poisson(other, count).astype(float)),
        as_series("learning_rate", frame.steps, schedule(rng, t)),
    ]
    run = as_run("rft", frame, {one.name: one for one in curves}, "grpo")
    return Simulated(run, dict(zip(at.tolist(), truth.tolist(), strict=True)))


def _climb(rng: Rng, t: Curve) -> Curve:
    """From .15 to .5 up by .15 to .4, fast at first."""
    rise = 1 - np.exp(-t / rng.uniform(0.2, 0.8))
    return np.asarray(rng.uniform(0.15, 0.5) + rng.uniform(0.15, 0.4) * rise / rise[-1])


def rft_healthy(rng: Rng) -> Simulated:
    """Reward climbs by .15 to .4, validation follows within .03, answers grow by at most half."""
    return _rft(rng, frame_of(rng), parse=rng.uniform(0, 0.02), unresponsive=rng.uniform(0, 0.01))


def flat_zero(rng: Rng) -> Simulated:
    """Reward 0 to .008 throughout."""
    frame = frame_of(rng)
    return _rft(
        rng,
        frame,
        reward=np.full(len(frame.t), rng.uniform(0, 0.008)),
        gap=0 * frame.t,
        spread=rng.uniform(0, 0.01),
    )


def negative(rng: Rng) -> Simulated:
    """Reward -1 to -.35, flat or climbing by up to .1."""
    frame = frame_of(rng)
    level = rng.uniform(-1.0, -0.35) + rng.uniform(0, 0.1) * frame.t
    return _rft(rng, frame, reward=level)


def high_flat(rng: Rng) -> Simulated:
    """Reward .93 to .99 from the first step."""
    frame = frame_of(rng)
    return _rft(
        rng,
        frame,
        reward=np.full(len(frame.t), rng.uniform(0.93, 0.99)),
        gap=0 * frame.t,
        spread=rng.uniform(0.005, 0.03),
    )


def stuck(rng: Rng) -> Simulated:
    """Reward .2 to .6, and no higher at the end."""
    frame = frame_of(rng)
    return _rft(rng, frame, reward=np.full(len(frame.t), rng.uniform(0.2, 0.6)), gap=0 * frame.t)


def hacked(rng: Rng) -> Simulated:
    """Training reward pulls .14 to .4 away from validation reward."""
    frame = frame_of(rng)
    return _rft(rng, frame, gap=rng.uniform(0.14, 0.4) * np.minimum(1, frame.t / 0.7))


def pulls_away(rng: Rng) -> Simulated:
    """Training reward ends .068 to .082 above validation reward."""
    frame = frame_of(rng)
    return _rft(rng, frame, gap=rng.uniform(0.068, 0.082) * np.minimum(1, frame.t / 0.6))


def verbose(rng: Rng) -> Simulated:
    """Answers become 3.5 to 6 times as long."""
    return _rft(rng, frame_of(rng), growth=rng.uniform(3.5, 6.0))


def doubles(rng: Rng) -> Simulated:
    """Answers become 2.2 to 2.6 times as long."""
    return _rft(rng, frame_of(rng), growth=rng.uniform(2.2, 2.6))


def unparsed_climbing(rng: Rng) -> Simulated:
    """A tenth to a half of the answers cannot be parsed; the reward climbs all the same."""
    return _rft(rng, frame_of(rng), parse=rng.uniform(0.10, 0.5))


def unparsed_stuck(rng: Rng) -> Simulated:
    """A tenth to a half of the answers cannot be parsed; the reward stands still."""
    frame = frame_of(rng)
    level = np.full(len(frame.t), rng.uniform(0.2, 0.6))
    return _rft(rng, frame, reward=level, gap=0 * frame.t, parse=rng.uniform(0.10, 0.5))


def grader_bugs(rng: Rng) -> Simulated:
    """The grader fails now and then: .05 to 2 times a step, at least once."""
    frame = frame_of(rng)
    rate = np.full(len(frame.t), rng.uniform(0.05, 2.0))
    rate[int(rng.integers(len(rate)))] = 50.0  # once for certain
    return _rft(rng, frame, other=rate)


def unresponsive(rng: Rng) -> Simulated:
    """A tenth to a half of the answers cannot be scored at all."""
    return _rft(rng, frame_of(rng), unresponsive=rng.uniform(0.10, 0.5))
