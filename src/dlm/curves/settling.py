"""How far a curve comes over a run: one fit of "falls fast at first, then settles", for curves that do so together.

A training loss is noisy and has many points, a validation loss is steadier and has few; both fall at one pace. Fitted
together they tell a fall of a few per cent from none, where either alone could not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlm.curves.trend import Curve, blocks

__all__ = ["Settled", "settle"]

_PACES = (
    0.02,
    0.05,
    0.1,
    0.2,
    0.4,
    1.0,
    math.inf,
)  # shares of the run in which the change falls to 1/e; inf: evenly
_MEDIAN = 1.2533  # the error of a median over that of a mean (normal noise)
_LEAST = 1e-9
_PENALTY = 4.0  # two standard deviations, squared

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Settled:
    """What the fit says: `change` over the run as a share of the start (negative: a fall), its standard error, and the
    fitted start and end of the first curve.
    """

    change: float
    error: float
    start: float
    end: float


def settle(curves: Sequence[Curve], first: float, last: float) -> Settled | None:
    """Fit curves that change at one pace between two steps; None where the first one's start is not positive.

    Without noise in it, the first curve is taken at its word: its first and its last value.
    """
    lead = curves[0]
    if lead.noise == 0.0 or len(lead) < 4 or last <= first:
        start, end = float(lead.values[0]), float(lead.values[-1])
        return Settled((end - start) / abs(start), 0.0, start, end) if start else None
    data = [_prepared(curve, first, last) for curve in curves if len(curve) >= 3]
    if not data:
        return None
    # an even change needs no evidence; a quick one at the start, which a few noisy points can feign, must fit better
    misfits = {pace: sum(_fit(t, y, error, pace)[3] for t, y, error in data) for pace in _PACES}
    # neighbours that correlate make blocks noisier than single points tell: the best fit's misfit says by how much
    free = max(1, sum(len(t) for t, _, _ in data) - 3 * len(data))
    scale = max(1.0, min(misfits.values()) / free)
    pace = min(_PACES, key=lambda one: misfits[one] + (0.0 if math.isinf(one) else _PENALTY * scale))
    changes, weights, ends = [], [], []
    for t, y, error in data:
        start, end, spread, _ = _fit(t, y, error, pace)
        ends.append((start, end))
        if start > 0 or (end < 0 and start < 0):
            changes.append((end - start) / abs(start))
            weights.append(1 / max(spread / abs(start), _LEAST) ** 2)
    if not changes or ends[0][0] == 0:
        return None
    total = sum(weights)
    if not 0 < total < math.inf:
        return None  # every point lies at one place: there is no course
    change = sum(one * weight for one, weight in zip(changes, weights, strict=True)) / total
    return Settled(change, math.sqrt(scale / total), *ends[0])


def _prepared(curve: Curve, first: float, last: float) -> tuple[Values, Values, float]:
    """Times on [0, 1], medians of neighbours, and the error of one of them."""
    x, y = blocks(curve)
    each = len(curve) / len(x)
    spread = curve.noise
    error = spread * (_MEDIAN if each >= 3 else 1.0) / math.sqrt(each)
    return (
        np.clip((x - first) / (last - first), 0.0, 1.0),
        y,
        max(error, 1e-4 * float(np.median(np.abs(y))), _LEAST),
    )


def _fit(t: Values, y: Values, error: float, pace: float) -> tuple[float, float, float, float]:
    """Start, end, the error of their difference, and the misfit (chi squared) of one pace."""
    if math.isinf(pace):
        shape = 1 - t
    else:
        rest = math.exp(-1 / pace)
        shape = (np.exp(-t / pace) - rest) / (1 - rest)
    mean = shape.mean()
    spread = float(((shape - mean) ** 2).sum())
    if spread < _LEAST:
        level = float(y.mean())
        return level, level, math.inf, float(((y - level) ** 2).sum()) / error**2
    drop = float(((shape - mean) * (y - y.mean())).sum()) / spread
    end = float(y.mean()) - drop * float(mean)
    misfit = float(((y - end - drop * shape) ** 2).sum()) / error**2
    return end + drop, end, error / math.sqrt(spread), misfit
