"""Rank correlation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["spearman"]


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, tied values at their mean rank (Spearman 1904); None where one side does not vary.

    Raises:
        ValueError: not as many values on both sides.
    """
    if len(first) != len(second):
        raise ValueError(f"as many values on both sides are needed, not {len(first)} and {len(second)}")
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean() if len(a) else a, b - b.mean() if len(b) else b
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return max(-1.0, min(1.0, float(a @ b) / scale)) if scale else None


def _ranks(values: Sequence[float]) -> npt.NDArray[np.float64]:
    data = np.asarray(values, dtype=float)
    _, inverse, counts = np.unique(data, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle: npt.NDArray[np.float64] = ends - (counts - 1) / 2
    return middle[inverse.reshape(-1)]
