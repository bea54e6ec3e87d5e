"""One metric of one run: the shape in which every room passes curves around.

The store hands these over, readers of foreign files make them, diagnosis and charts consume them. Pure numpy.
N: number of points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["UNITS", "Series", "unit_of"]

UNITS: Mapping[str, str] = {
    "tokens_per_second": "tokens/s",
    "peak_memory_mb": "MB",
    "num_tokens": "tokens",
    "entropy": "nats",
}
"""Units of the metrics that do not say it by one of the endings in `unit_of`; all others are plain numbers."""


def unit_of(name: str) -> str:
    """The unit of a metric by its name, "" for a plain number. Losses and log-probs are natural logarithms."""
    if name in UNITS:
        return UNITS[name]
    last = name.rpartition("/")[2]
    if name.endswith("loss") or "logps/" in name:
        return "nats"
    if last.endswith("_s"):
        return "s"
    if last.endswith("_mb"):
        return "MB"
    return ""


@dataclass(frozen=True, eq=False)
class Series:
    """A named curve: steps (N,) int64, values (N,) float64, times (N,) float64 in seconds since 1970 (UTC).

    The arrays are read-only. Values may be NaN or ±inf: a loss that blew up is a finding, not a gap. Times are NaN
    where the source does not tell them. Series from the store have strictly increasing steps.

    Raises:
        ValueError: the arrays are not one-dimensional or differ in length.
    """

    name: str
    unit: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    times: NDArray[np.float64]

    def __post_init__(self) -> None:
        for field, dtype in (("steps", np.int64), ("values", np.float64), ("times", np.float64)):
            # A view, so that making it read-only does not freeze the caller's own array.
            array = np.asarray(getattr(self, field), dtype=dtype).view()
            array.flags.writeable = False
            object.__setattr__(self, field, array)
        shapes = {self.steps.shape, self.values.shape, self.times.shape}
        if len(shapes) != 1 or self.steps.ndim != 1:
            raise ValueError(
                f"series {self.name!r}: arrays of shapes {sorted(shapes)} where one (N,) was expected"
            )

    def __len__(self) -> int:
        return len(self.steps)

    def tail_mean(self, share: float) -> float:
        """The mean of the last `share` (0 to 1) of the points, at least one: the curve's end without its jitter.

        NaN for a series without points, or when one of those points is NaN.
        """
        count = max(1, math.ceil(share * len(self)))
        return float(np.mean(self.values[-count:])) if len(self) else math.nan
