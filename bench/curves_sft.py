"""Simulated supervised runs. A docstring gives the truth that a run is drawn from, away from the thresholds."""

from __future__ import annotations

import numpy as np
from curves_noise import Curve, Frame, Rng, Simulated, as_run, as_series, batch_noise, frame_of, schedule


def _decay(rng: Rng, frame: Frame, *, first_epoch: tuple[float, float] = (0.25, 0.7)) -> Curve:
    """A healthy loss: a stretched exponential of which the first epoch brings 25 to 70 % of the fall."""
    start = rng.uniform(1.5, 4.0)
    floor = start * rng.uniform(0.15, 0.5)
    shape, share = rng.uniform(0.7, 1.0), rng.uniform(*first_epoch)
    tau = (1 / frame.epochs) / (-np.log(1 - share)) ** (1 / shape)
    return np.asarray(floor + (start - floor) * np.exp(-((frame.t / tau) ** shape)))


def _sft(
    rng: Rng,
    frame: Frame,
    train: Curve,
    valid: Curve,
    *,
    rate: Curve | None = None,
    grad: Curve | None = None,
    extra: Curve | float = 1.0,
) -> Simulated:
    """Both losses with noise; `extra` multiplies the true validation loss (V,)."""
    count, true = len(frame.steps), valid[frame.valid] * extra
    seen = true * np.exp(rng.normal(0, frame.valid_noise, len(true)))
    at = frame.steps[frame.valid]
    norms = rng.lognormal(0, rng.uniform(0.2, 0.4), count) if grad is None else grad
    curves = [
        as_series("train_loss", frame.steps, train * batch_noise(rng, count, frame.noise)),
        as_series("valid_loss", at, seen),
        as_series("grad_norm", frame.steps, norms),
        as_series("learning_rate", frame.steps, schedule(rng, frame.t) if rate is None else rate),
    ]
    run = as_run("sft", frame, {one.name: one for one in curves})
    return Simulated(run, dict(zip(at.tolist(), true.tolist(), strict=True)))


def _apart(rng: Rng, frame: Frame) -> Curve:
    """Validation over training loss of a healthy run: 1.02 to 1.12, reached slowly."""
    return np.asarray(1 + rng.uniform(0.02, 0.12) * frame.t)


def healthy(rng: Rng) -> Simulated:
    """Both fall to the end; the ratio ends at most at 1.12."""
    frame = frame_of(rng)
    train = _decay(rng, frame)
    return _sft(rng, frame, train, train * _apart(rng, frame))


def slow(rng: Rng) -> Simulated:
    """Learns steadily but little: 12 to 30 % down, evenly, and not done."""
    frame = frame_of(rng)
    train = rng.uniform(1.5, 4.0) * (1 - rng.uniform(0.12, 0.30) * frame.t)
    return _sft(rng, frame, train, train * _apart(rng, frame))


def _overfit(rng: Rng, rise: tuple[float, float]) -> Simulated:
    """Validation falls with training, turns at 25 to 60 % of the run, and ends `rise` times its minimum."""
    frame = frame_of(rng, (3, 6))
    train, turn = _decay(rng, frame), rng.uniform(0.25, 0.6)
    best = np.interp(turn, frame.t, train) * rng.uniform(1.02, 1.12)
    falling = np.maximum(train * 1.05, best)
    after = np.clip((frame.t - turn) / (1 - turn), 0, 1)
    rising = best * (1 + (rng.uniform(*rise) - 1) * after ** rng.uniform(0.8, 1.5))
    valid = np.where(frame.t < turn, falling, rising)
    return _sft(rng, frame, train, valid)


def overfit(rng: Rng) -> Simulated:
    """The final validation loss is 1.35 to 2 times the best."""
    return _overfit(rng, (1.35, 2.0))


def turns_up(rng: Rng) -> Simulated:
    """The final validation loss is 1.12 to 1.16 times the best: it rises, yet is no alarm."""
    return _overfit(rng, (1.12, 1.16))


def _with_ratio(rng: Rng, ends: tuple[float, float]) -> Simulated:
    """The ratio grows evenly to `ends` while validation goes on falling."""
    frame = frame_of(rng)
    train = _decay(rng, frame)
    ratio = 1 + (rng.uniform(*ends) - 1) * frame.t
    valid = np.minimum.accumulate(train * ratio)  # flat where it would rise
    return _sft(rng, frame, np.minimum(train, valid / ratio), valid)


def mild(rng: Rng) -> Simulated:
    """Ratio 1.28 to 1.42."""
    return _with_ratio(rng, (1.28, 1.42))


def moderate(rng: Rng) -> Simulated:
    """Ratio 1.6 to 1.88."""
    return _with_ratio(rng, (1.60, 1.88))


def severe(rng: Rng) -> Simulated:
    """Ratio 2.2 to 4."""
    return _with_ratio(rng, (2.2, 4.0))


def underfit(rng: Rng) -> Simulated:
    """Falls by 0 to 2.5 % in the whole run."""
    frame = frame_of(rng)
    train = rng.uniform(1.5, 4.0) * (1 - rng.uniform(0, 0.025) * frame.t)
    return _sft(rng, frame, train, train * _apart(rng, frame))


def crash(rng: Rng) -> Simulated:
    """Below .02 nats in the first quarter; validation stays where it was by then."""
    frame = frame_of(rng)
    start, end = rng.uniform(1.5, 4.0), rng.uniform(0.001, 0.015)
    train = end + (start - end) * np.exp(-frame.t / rng.uniform(0.01, 0.035))
    valid = np.maximum(train * 1.05, start * rng.uniform(0.2, 0.6))
    return _sft(rng, frame, train, valid)


def plateau(rng: Rng) -> Simulated:
    """The first epoch brings all but 1 % of the fall of both losses."""
    frame = frame_of(rng)
    train = _decay(rng, frame, first_epoch=(0.99, 0.999))
    return _sft(rng, frame, train, train * (1 + rng.uniform(0.02, 0.12)))


def oscillate(rng: Rng) -> Simulated:
    """Validation swings by 18 to 40 % around a healthy curve, from one validation to the next."""
    frame = frame_of(rng)
    train, swing = _decay(rng, frame), rng.uniform(0.18, 0.40)
    signs = np.where(np.arange(len(frame.valid)) % 2 == 0, 1.0, -1.0)
    flips = rng.random(len(frame.valid)) < 0.2  # not a clock: one in five comes out of turn
    extra = np.exp(swing * np.where(flips, -signs, signs) * rng.uniform(0.6, 1.0, len(frame.valid)))
    return _sft(rng, frame, train, train * _apart(rng, frame), extra=extra)


def both_high(rng: Rng) -> Simulated:
    """From 2.4 to 5 nats down by 8 to 14 % in the first third, and flat from there."""
    frame = frame_of(rng)
    fall = rng.uniform(0.08, 0.14) * (1 - np.exp(-frame.t / rng.uniform(0.05, 0.12)))
    train = rng.uniform(2.4, 5.0) * (1 - fall)
    return _sft(rng, frame, train, train * _apart(rng, frame))


def gap_from_start(rng: Rng) -> Simulated:
    """Validation is 1.7 to 2.5 times training at the first validation, and stays so."""
    frame = frame_of(rng)
    train = _decay(rng, frame)
    return _sft(rng, frame, train, train * rng.uniform(1.7, 2.5))


def diverge(rng: Rng) -> Simulated:
    """Turns at 10 to 70 % of the run and climbs to 2 to 5 times its minimum."""
    frame = frame_of(rng)
    train, turn = _decay(rng, frame), rng.uniform(0.10, 0.70)
    least, speed = np.interp(turn, frame.t, train), rng.uniform(0.02, 0.15)
    climb = least * (1 + (rng.uniform(2.0, 5.0) - 1) * (1 - np.exp(-np.clip(frame.t - turn, 0, 1) / speed)))
    train = np.where(frame.t < turn, train, climb)
    grad = rng.lognormal(0, 0.3, len(frame.t)) * np.where(frame.t < turn, 1, rng.uniform(1, 4))
    return _sft(rng, frame, train, train * _apart(rng, frame), grad=grad)


def explode(rng: Rng) -> Simulated:
    """Three to ten gradients of 20 to 100 times the usual norm; the losses are healthy."""
    frame = frame_of(rng)
    train = _decay(rng, frame)
    grad = rng.lognormal(0, rng.uniform(0.2, 0.4), len(frame.t))
    at = rng.choice(len(grad), int(rng.integers(3, 11)), replace=False)
    grad[at] *= rng.uniform(20, 100, len(at))
    return _sft(rng, frame, train, train * _apart(rng, frame), grad=grad)


def spiky(rng: Rng) -> Simulated:
    """Healthy, with one or two gradients of 3 to 5 times the usual norm."""
    frame = frame_of(rng)
    train = _decay(rng, frame)
    grad = rng.lognormal(0, rng.uniform(0.2, 0.4), len(frame.t))
    grad[rng.choice(len(grad), int(rng.integers(1, 3)), replace=False)] = rng.uniform(3, 5)
    return _sft(rng, frame, train, train * _apart(rng, frame), grad=grad)


def mis_scheduled(rng: Rng) -> Simulated:
    """Cut off above .6 of its peak, at zero for the last 15 to 50 %, restarted midway, or still warming up."""
    frame = frame_of(rng)
    train, t, peak = _decay(rng, frame), frame.t, 10 ** rng.uniform(-6, -3)
    cut, zero = rng.uniform(0.60, 0.85), rng.uniform(0.50, 0.85)
    again = rng.uniform(0.35, 0.7)
    rate = [
        1 - (1 - cut) * t,
        np.clip(1 - t / zero, 0, 1),
        np.where(t < again, 1 - t, 1 - (t - again)),
        np.minimum(1, 0.02 + t / 1.05),
    ][int(rng.integers(4))]
    return _sft(rng, frame, train, train * _apart(rng, frame), rate=peak * np.asarray(rate))
