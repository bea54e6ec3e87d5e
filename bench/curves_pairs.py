"""Simulated preference runs (DPO). A docstring gives the truth that a run is drawn from, away from the thresholds."""

from __future__ import annotations

import numpy as np
from curves_noise import Curve, Frame, Rng, Simulated, as_run, as_series, batch_noise, frame_of, schedule

LN2 = float(np.log(2))


def _rise(rng: Rng, t: Curve) -> Curve:
    """From 0 to 1, fast at first; half of it takes 10 to 30 % of the run."""
    rise = 1 - np.exp(-t * np.log(2) / rng.uniform(0.10, 0.30))
    return np.asarray(rise / rise[-1])


def _pairs(
    rng: Rng,
    frame: Frame,
    *,
    first: float = LN2,
    accuracy: Curve | None = None,
    held_out: Curve | None = None,
    chosen: Curve | None = None,
    rejected: Curve | None = None,
    length: Curve | None = None,
) -> Simulated:
    """A DPO run: what is not given is healthy. The first step of a sound run is ln 2 exactly; rows of a step: 8."""
    t, count = frame.t, len(frame.steps)
    end = rng.uniform(0.3, 0.6)
    true = first + (end - first) * _rise(rng, t)
    loss = true * batch_noise(rng, count, frame.noise)
    loss[0] = first
    right = 0.5 + (rng.uniform(0.7, 0.95) - 0.5) * _rise(rng, t) if accuracy is None else accuracy
    ahead = 0.5 + (rng.uniform(0.62, 0.85) - 0.5) * _rise(rng, t) if held_out is None else held_out
    pairs = int(rng.integers(40, 200))
    margin = rng.uniform(0.5, 2.0) * _rise(rng, t)
    beta, base = 0.1, -rng.uniform(30, 200)
    up = base + rng.uniform(0.0, 0.04) * -base * _rise(rng, t) if chosen is None else base * (1 + chosen)
    down = base * 1.1 - margin / beta if rejected is None else base * 1.1 * (1 + rejected)
    spread = rng.uniform(0.02, 0.10)  # of log-probs, from one step's pairs to the next's
    answers = rng.uniform(20, 200) * (1 + rng.uniform(-0.2, 0.2) * t if length is None else length)
    at = frame.steps[frame.valid]
    share = rng.binomial(pairs, np.clip(ahead[frame.valid], 0, 1)) / pairs
    both = batch_noise(rng, count, spread)  # one step's pairs are long or short together
    curves = [
        as_series("train_loss", frame.steps, loss),
        as_series("rewards/accuracies", frame.steps, rng.binomial(8, np.clip(right, 0, 1)) / 8),
        as_series("rewards/margins", frame.steps, margin + rng.normal(0, 0.15, count)),
        as_series("logps/chosen", frame.steps, up * both),
        as_series("logps/rejected", frame.steps, down * both * rng.lognormal(0, 0.01, count)),
        as_series("val_pref_acc", at, share),
        as_series("full_valid_pairs", at[-1:], np.array([float(pairs)])),
        as_series("completion_tokens_mean", at, answers[frame.valid] * rng.lognormal(0, 0.04, len(at))),
        as_series("grad_norm", frame.steps, rng.lognormal(0, 0.3, count)),
        as_series("learning_rate", frame.steps, schedule(rng, t)),
    ]
    return Simulated(as_run("preference", frame, {one.name: one for one in curves}, "dpo"))


def pairs_healthy(rng: Rng) -> Simulated:
    """Starts at ln 2; held-out accuracy to .62–.85; chosen answers become no less likely."""
    return _pairs(rng, frame_of(rng))


def not_ln2(rng: Rng) -> Simulated:
    """Called DPO, and starts at 1.2 to 3 or .1 to .5."""
    first = rng.uniform(1.2, 3.0) if rng.random() < 0.5 else rng.uniform(0.1, 0.5)
    return _pairs(rng, frame_of(rng), first=float(first))


def saturated(rng: Rng) -> Simulated:
    """Training accuracy .98 to 1 from 1 to 5 % of the run on; held-out pairs stay at .46 to .54."""
    frame = frame_of(rng)
    at_once = 0.5 + (rng.uniform(0.98, 1.0) - 0.5) * (1 - np.exp(-frame.t / rng.uniform(0.003, 0.012)))
    return _pairs(rng, frame, accuracy=at_once, held_out=np.full(len(frame.t), rng.uniform(0.46, 0.54)))


def lowers_both(rng: Rng) -> Simulated:
    """Chosen answers lose 15 to 60 % of their log-prob, rejected ones more."""
    frame = frame_of(rng)
    fall = rng.uniform(0.15, 0.6) * _rise(rng, frame.t)
    return _pairs(rng, frame, chosen=fall, rejected=fall * rng.uniform(1.5, 2.5))


def length_drift(rng: Rng) -> Simulated:
    """Answers become 1.9 to 4 times as long, or as short."""
    frame = frame_of(rng)
    factor = rng.uniform(1.9, 4.0) ** rng.choice([-1, 1])
    return _pairs(rng, frame, length=1 + (factor - 1) * frame.t)


def no_gain(rng: Rng) -> Simulated:
    """Training pairs are learnt, slowly; held-out pairs stay at .46 to .5."""
    frame = frame_of(rng)
    return _pairs(rng, frame, held_out=np.full(len(frame.t), rng.uniform(0.46, 0.50)))
