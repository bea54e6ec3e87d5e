"""95 % intervals for the measurement: Wilson for shares of cases, a bootstrap over cases for means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["Figure", "mean", "share"]

Figure = tuple[float, float, float]


def share(hits: Sequence[bool]) -> Figure:
    """A share with its Wilson interval."""
    n, z = len(hits), 1.96
    p = sum(hits) / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return p, max(0.0, middle - half), min(1.0, middle + half)


def mean(values: Sequence[float]) -> Figure:
    """A mean of per-case values with its bootstrap interval (10,000 resamples of cases, fixed seed)."""
    data = np.asarray(values, dtype=float)
    if data.min() == data.max() and data[0] in (0.0, 1.0):
        # No spread to resample: the interval of an all-or-nothing share is the honest one.
        return share([bool(value) for value in data])
    picks = np.random.default_rng(0).integers(0, len(data), (10_000, len(data)))
    low, high = np.percentile(data[picks].mean(axis=1), (2.5, 97.5))
    return float(data.mean()), float(low), float(high)
