"""95 % intervals: Wilson's for a share of cases, a bootstrap over cases for a mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Estimate", "mean", "share"]

_Z = 1.959964  # the normal distribution's 97.5 % point
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, over `n` independent cases."""

    value: float
    low: float
    high: float
    n: int


def share(hits: Sequence[float]) -> Estimate:
    """The share of hits with Wilson's interval (Wilson 1927), which stays within 0–1 and is honest at both ends.

    A case is true or false, or .5 where it is neither, as a tie is in a comparison.

    Raises:
        ValueError: no cases.
    """
    n = len(hits)
    if n == 0:
        raise ValueError("a share needs at least one case")
    p = sum(hits) / n
    scale = 1 + _Z**2 / n
    middle = (p + _Z**2 / (2 * n)) / scale
    half = _Z / scale * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    # the clamps only take away rounding: by algebra the interval lies within 0–1 and holds p
    return Estimate(p, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)), n)


def mean(values: Sequence[float], seed: int = 0) -> Estimate:
    """The mean of per-case values with the percentile interval of 10,000 resamples of cases (Efron 1979).

    Cases that are all 0 or all 1 have no spread to resample: they get the interval of a share.

    Raises:
        ValueError: no cases.
    """
    data = np.asarray(values, dtype=float)
    if len(data) == 0:
        raise ValueError("a mean needs at least one case")
    if data.min() == data.max() and data[0] in (0.0, 1.0):
        return share([bool(value) for value in data])
    picks = np.random.default_rng(seed).integers(0, len(data), (_RESAMPLES, len(data)))
    low, high = np.percentile(data[picks].mean(axis=1), (2.5, 97.5))
    return Estimate(float(data.mean()), float(low), float(high), len(data))
