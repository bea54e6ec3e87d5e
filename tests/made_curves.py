"""Curves written by hand for the tests: a run from lists of numbers, and the shapes that losses take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlm.curves import CurveRun, Diagnosis, Series, Thresholds, diagnose, unit_of

Values = Sequence[float] | Mapping[int, float]


def series(name: str, values: Values, every: int = 1) -> Series:
    """A series at steps `every`, 2 × `every`, …, or at the steps that a mapping names."""
    steps = list(values) if isinstance(values, Mapping) else [every * (i + 1) for i in range(len(values))]
    numbers = list(values.values()) if isinstance(values, Mapping) else list(values)
    at = np.array(steps, np.int64)
    return Series(name, unit_of(name), at, np.array(numbers, float), np.full(len(at), np.nan))


def curves(kind: str = "sft", /, *, every: int = 1, **given: Any) -> CurveRun:
    """A run of curves by name, "__" standing for "/"; what is no list or mapping is a field of the run."""
    made, fields = {}, {}
    for key, value in given.items():
        if isinstance(value, (list, np.ndarray, dict)) and key not in ("stated",):
            name = key.replace("__", "/")
            made[name] = series(name, value if isinstance(value, dict) else list(map(float, value)), every)
        else:
            fields[key] = value
    rows = max((len(one) for one in made.values()), default=0)
    fields = {"name": "made", "method": kind, "logged_rows": rows} | fields
    return CurveRun(kind=kind, series=made, **fields)  # type: ignore[arg-type]


def falls(count: int = 40, start: float = 2.0, end: float = 0.8, pace: float = 0.4) -> list[float]:
    """A loss that falls fast at first, from `start` exactly to `end`."""
    shape = np.exp(-np.linspace(0, 1, count) / pace)
    shape = (shape - shape[-1]) / (shape[0] - shape[-1])
    return (end + (start - end) * shape).tolist()


def line(count: int, start: float, end: float) -> list[float]:
    """Evenly from `start` to `end`."""
    return np.linspace(start, end, count).tolist()


def noisy(values: Sequence[float], spread: float, seed: int = 0) -> list[float]:
    """Values with normal noise, a share of each."""
    rng = np.random.default_rng(seed)
    return (np.asarray(values) * (1 + spread * rng.normal(size=len(values)))).tolist()


def judged(run: CurveRun, **limits: float) -> Diagnosis:
    """A diagnosis with some thresholds moved."""
    return diagnose(run, Thresholds(**limits) if limits else None)
