"""A run as the rules look at it: its curves by role, finite points only, and how far it has come."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlm.curves.findings import Evidence, Severity
from dlm.curves.run import CurveRun, graders_of
from dlm.curves.series import Series
from dlm.curves.trend import Curve, Level

__all__ = ["QUIET", "Fires", "Outcome", "Quiet", "View", "Waits", "at_levels", "at_steps", "number"]

_MOST_SHOWN = 12
_BIGGEST, _SMALLEST = 1e60, 1e-60


@dataclass(frozen=True)
class Fires:
    """A rule has found what it looks for."""

    severity: Severity
    title: str
    evidence: tuple[Evidence, ...]
    action: str


@dataclass(frozen=True)
class Waits:
    """A rule cannot say yet; `have` points of `needed`, both 0 where something else is missing."""

    reason: str
    have: int = 0
    needed: int = 0


class Quiet:
    """A rule has looked and found nothing."""


QUIET = Quiet()
Outcome = Fires | Waits | Quiet | None
"""What a rule says; None where the run does not have the curves that it is about."""


class View:
    """A run with what several rules want to know of it."""

    def __init__(self, run: CurveRun, *, running: bool = False) -> None:
        self.run = run
        self.running = running
        self.memo: dict[str, Any] = {}  # what one rule has worked out and another wants
        self._curves: dict[str, Curve | None] = {}

    def curve(self, role: str) -> Curve | None:
        """The finite points of the series that plays a role; None where there are none."""
        if role not in self._curves:
            self._curves[role] = _finite(self.run.role(role))
        return self._curves[role]

    @cached_property
    def graders(self) -> Mapping[str, tuple[Curve | None, Curve | None]]:
        """The rewards of each grader in training and validation, by the grader's name; empty where there are not several."""
        found = graders_of(self.run)
        return {name: (_finite(train), _finite(valid)) for name, (train, valid) in found.items()}

    @cached_property
    def first_step(self) -> int:
        """The first step of the training curve, or of any."""
        curve = self.curve("train_loss") or self.curve("train_reward")
        if curve is not None:
            return int(curve.steps[0])
        return min((int(one.steps[0]) for one in self.run.series.values() if len(one)), default=0)

    @cached_property
    def end(self) -> int | None:
        """The step at which the run ends or has ended; None for a running one without a plan."""
        if not self.running:
            return self.run.last_step
        return max(self.run.planned_steps, self.run.last_step) if self.run.planned_steps else None

    def where(self, step: int) -> str:
        """A step in words, with its epoch where that is known."""
        epoch = self.run.epoch_at(step)
        return f"step {step}" if epoch is None else f"step {step} (epoch {epoch:.2g})"


def _finite(series: Series | None) -> Curve | None:
    if series is None:
        return None
    good = np.isfinite(series.values)
    if not good.any():
        return None
    if good.all():
        return Curve(series.name, series.steps, _bounded(series.values))
    return Curve(series.name, series.steps[good], _bounded(series.values[good]))


def _bounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same array, or, with values that no loss has, one whose squares and ratios stay within floating point."""
    size = np.abs(values)
    if size.max() <= _BIGGEST and not ((size < _SMALLEST) & (size > 0)).any():
        return values
    held = np.clip(values, -_BIGGEST, _BIGGEST)
    return np.where(size < _SMALLEST, 0.0, held)


def number(value: float) -> str:
    """A number as evidence shows it: four digits."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def at_steps(text: str, curve: Curve, chosen: Iterable[int]) -> Evidence:
    """Evidence with the points of a curve at the given indices (negative ones from the end), at most twelve of them."""
    index = [int(one) % len(curve) for one in chosen]
    if len(index) > _MOST_SHOWN:
        index = [index[int(i)] for i in np.linspace(0, len(index) - 1, _MOST_SHOWN)]
    return Evidence(
        text,
        curve.name,
        tuple(int(curve.steps[i]) for i in index),
        tuple(float(curve.values[i]) for i in index),
    )


def at_levels(text: str, curve: Curve, *levels: Level) -> Evidence:
    """Evidence with smoothed levels of a curve, each at the last step it was taken from."""
    return Evidence(text, curve.name, tuple(one.last for one in levels), tuple(one.value for one in levels))
