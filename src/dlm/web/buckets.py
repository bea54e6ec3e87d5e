"""From a million points to what a screen can show: buckets with their extremes, and smoothing. Pure numpy.

N: points of a series. A chart gets real points of the series, never averages, so that a spike of one step is seen at
any zoom.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_POINTS", "bucketed", "smoothed", "window"]

MOST_POINTS = 4_000
"""Points of one line that are sent at most."""

_NEGLIGIBLE = 1e-18  # of the weight: what lies further back does not move a float64


def bucketed(values: NDArray[np.float64], most: int = MOST_POINTS) -> NDArray[np.int64]:
    """Which of N finite values to draw, ascending: of each of `most / 3` buckets the lowest, the highest and the last.

    Buckets hold equally many points. The first and the last point are always among them.
    """
    n = len(values)
    if n <= most:
        return np.arange(n)
    n_buckets = max(1, (most - 1) // 3)
    size = -(-n // n_buckets)
    whole = n // size
    block = values[: whole * size].reshape(whole, size)
    start = np.arange(whole) * size
    parts = [[0], start + block.argmin(axis=1), start + block.argmax(axis=1), start + size - 1]
    if whole * size < n:
        rest = values[whole * size :]
        parts.append([whole * size + int(rest.argmin()), whole * size + int(rest.argmax()), n - 1])
    return np.unique(np.concatenate([np.asarray(part, np.int64) for part in parts]))


def window(x: NDArray[np.float64], low: float | None, high: float | None) -> slice:
    """The points of ascending x within [low, high], with one more on either side, so that a line enters and leaves."""
    first = 0 if low is None else max(0, int(np.searchsorted(x, low)) - 1)
    last = len(x) if high is None else min(len(x), int(np.searchsorted(x, high, side="right")) + 1)
    return slice(first, max(first, last))


def smoothed(values: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """N finite values under TensorBoard's smoothing: an exponential moving average without the pull towards 0.

    s_i = (w s_(i-1) + (1-w) v_i), divided by 1 - w^(i+1). Computed by doubling: after the pass of stride k every value
    holds the sum over 2k terms, so a million points take a dozen passes instead of a million steps.
    """
    if not 0 <= weight < 1:
        raise ValueError(f"the weight of smoothing lies in [0, 1), not at {weight}")
    if not len(values) or not weight:
        return values.copy()
    total, factor, stride = (1 - weight) * values, weight, 1
    shifted = np.empty_like(total)
    while stride < len(values) and factor > _NEGLIGIBLE:
        np.multiply(total[:-stride], factor, out=shifted[:-stride])
        total[stride:] += shifted[:-stride]
        factor, stride = factor * factor, stride * 2
    young = min(
        len(values), math.ceil(math.log(_NEGLIGIBLE) / math.log(weight))
    )  # where the start still pulls
    total[:young] /= 1 - weight ** np.arange(1, young + 1, dtype=np.float64)
    return total
