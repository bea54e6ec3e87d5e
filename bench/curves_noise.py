"""What simulated training runs are made of: where they are logged, and how noisy they are.

Written, with its noise levels, before the rules were tuned. A run is drawn from (pattern, seed) alone. What makes it
hard, and where the levels come from:

* a training loss is one batch: its spread over batches of eight rows is 4 to 20 % of its level, neighbours correlate
  (0 to .3), and one step in a hundred is an outlier 1.3 to 2 times too high;
* a validation loss is over the same held-out rows each time, .3 to 2 % of noise, or, in three runs of ten, over one
  random batch of them as result files of hosted services have it, 3 to 8 % of noise with more points;
* rewards of a step spread by .02 to .08, those of a validation by .005 to .02; shares of held-out pairs are binomial over
  40 to 200 pairs; gradient norms are log-normal with a spread of .2 to .4 and single spikes of up to five times.

The patterns are in `curves_sft.py`, `curves_pairs.py` and `curves_rewards.py`, their table in `curves_simulation.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dlm.curves import CurveRun, Series, unit_of

__all__ = ["Curve", "Frame", "Rng", "Simulated", "as_run", "as_series", "batch_noise", "frame_of", "schedule"]

Curve = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Simulated:
    """A run, and the true validation loss (or reward) at each validation step where the pattern has one."""

    run: CurveRun
    true_valid: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Frame:
    """Where a run is logged: N training steps on [0, 1], V validations among them."""

    steps: NDArray[np.int64]
    valid: NDArray[np.int64]  # indices into steps
    epochs: int
    noise: float  # of a training batch
    valid_noise: float

    @property
    def t(self) -> Curve:
        return (self.steps - self.steps[0]) / (self.steps[-1] - self.steps[0])


def frame_of(rng: Rng, epochs: tuple[int, int] = (2, 6)) -> Frame:
    count = int(np.exp(rng.uniform(np.log(60), np.log(600))))
    every = int(rng.choice([1, 1, 5, 10]))
    by_batch = rng.random() < 0.3
    validations = int(rng.integers(30, 60) if by_batch else rng.integers(8, 25))
    valid = np.unique(np.linspace(0, count - 1, validations + 1).round().astype(int)[1:])
    return Frame(
        steps=np.arange(1, count + 1, dtype=np.int64) * every,
        valid=valid,
        epochs=int(rng.integers(epochs[0], epochs[1] + 1)),
        noise=rng.uniform(0.04, 0.20),
        valid_noise=rng.uniform(0.03, 0.08) if by_batch else rng.uniform(0.003, 0.02),
    )


def batch_noise(rng: Rng, count: int, spread: float) -> Curve:
    """Factors around 1: log-normal, correlated with their neighbours, one in a hundred far too high."""
    white, rho = rng.normal(0, 1, count), rng.uniform(0, 0.3)
    for i in range(1, count):
        white[i] = rho * white[i - 1] + np.sqrt(1 - rho**2) * white[i]
    outliers = np.where(rng.random(count) < 0.01, rng.uniform(1.3, 2.0, count), 1.0)
    return np.asarray(np.exp(spread * white - spread**2 / 2) * outliers)


def as_series(name: str, steps: Curve | NDArray[np.int64], values: Curve) -> Series:
    at = np.asarray(steps, np.int64)
    return Series(name, unit_of(name), at, np.asarray(values, float), np.full(len(at), np.nan))


def as_run(kind: str, frame: Frame, curves: Mapping[str, Series], method: str = "") -> CurveRun:
    last = int(frame.steps[-1])
    return CurveRun(
        name="simulated",
        kind=kind,  # type: ignore[arg-type]
        method=method or kind,
        series=dict(curves),
        planned_steps=last,
        steps_per_epoch=last / frame.epochs,
        saved_steps=tuple(int(frame.steps[i]) for i in frame.valid),
        logged_rows=len(frame.steps),
    )


def schedule(rng: Rng, t: Curve) -> Curve:
    """A sound schedule: linear, cosine or constant, with a warm-up of up to a tenth."""
    warm = rng.choice([0.0, 0.03, 0.1])
    rise = np.minimum(1.0, (t + 1 / len(t)) / warm) if warm else np.ones_like(t)
    left = np.clip((1 - t) / (1 - warm), 0, 1)
    shape = [left, 0.5 - 0.5 * np.cos(np.pi * left), np.ones_like(t)][int(rng.integers(3))]
    return np.asarray(10 ** rng.uniform(-6, -3) * rise * shape)
