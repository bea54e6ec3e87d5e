"""Levels, slopes and noise of a curve, each with its standard error, and no more averaging than the noise asks for.

A curve without noise is taken at its word, point by point, so that a limit is compared with the very number in the
file; a noisy one is averaged until its error is small beside what is asked. N: points of a curve; all are finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Curve",
    "Level",
    "Slope",
    "blocks",
    "end_level",
    "lowest",
    "minimum_of",
    "noise_of",
    "smoothed",
    "start_level",
    "swing_of",
    "theil_sen",
    "trailing",
]

_NORMAL = 1.4826  # of the median absolute deviation: the standard deviation of a normal distribution
_MOST_BLOCKS = 60  # Theil–Sen looks at every pair
_WIDEST = 201  # points of a window; more make no curve smoother to the eye
_FINE = 0.01  # error of a smoothed validation loss that is small beside the 2 % a choice may cost
_ENOUGH = 4096  # points that tell the noise of any curve

Values = NDArray[np.float64]

SWINGS = 0.12
"""The swing of a validation loss, as a share of its level, from which it oscillates."""


@dataclass(frozen=True, eq=False)
class Curve:
    """The finite points of a series: name, steps (N,), values (N,)."""

    name: str
    steps: NDArray[np.int64]
    values: Values

    def __len__(self) -> int:
        return len(self.steps)

    @cached_property
    def noise(self) -> float:
        """`noise_of` the values."""
        return noise_of(self.values)

    @cached_property
    def size(self) -> float:
        """The median of the values, without its sign: what errors are measured against."""
        return abs(float(np.median(self.values)))

    def within(self, first: float, last: float) -> Curve:
        """The points of steps above `first` up to and with `last`."""
        low, high = np.searchsorted(self.steps, [first, last], side="right")
        return Curve(self.name, self.steps[low:high], self.values[low:high])


@dataclass(frozen=True)
class Level:
    """Where a curve stands: value with standard error, from `points` points of steps `first` to `last`."""

    value: float
    error: float
    first: int
    last: int
    points: int


@dataclass(frozen=True)
class Slope:
    """The change per unit of x with its standard error."""

    value: float
    error: float


def noise_of(values: Values) -> float:
    """The spread of single points around a smooth curve, as a standard deviation; 0 for a curve that hardly turns.

    From second differences, which a smooth curve leaves small. One that turns once in its course, as a validation
    loss does when it begins to rise, has curvature and no noise, however coarse its points are.
    """
    if len(values) > _ENOUGH:
        values = values[-_ENOUGH:]
    if len(values) < 4:
        return 0.0
    moves = np.diff(values)
    moves = moves[moves != 0]
    turns = int((np.sign(moves[1:]) != np.sign(moves[:-1])).sum()) if len(moves) > 1 else 0
    if turns <= max(1, len(values) // 20):
        return 0.0
    bends = np.abs(np.diff(values, 2)) / math.sqrt(6)
    return float(_NORMAL * np.median(bends))


def _needed(curve: Curve, noise: float, target: float, share: float) -> int:
    """How many points bring the error under `target` of the level, at most `share` of the curve."""
    if noise == 0.0:
        return 1
    most = max(1, int(share * len(curve)))
    if curve.size == 0.0:
        return most
    return max(1, min(math.ceil(min(noise / (target * curve.size), 1e6) ** 2), most))


def end_level(
    curve: Curve, *, target: float = 0.03, share: float = 0.25, noise: float | None = None
) -> Level:
    """Where the curve ends: its last value, or what a line through the last points says there."""
    return _edge(curve, target, share, noise, at=-1)


def start_level(
    curve: Curve, *, target: float = 0.03, share: float = 0.10, noise: float | None = None
) -> Level:
    """Where the curve begins: its first value, or what a line through the first points says there."""
    return _edge(curve, target, share, noise, at=0)


def _edge(curve: Curve, target: float, share: float, noise: float | None, at: int) -> Level:
    steps, values = curve.steps, curve.values
    spread = curve.noise if noise is None else noise
    count = _needed(curve, spread, target, share)
    part = slice(len(values) - count, None) if at else slice(None, count)
    x, y = steps[part].astype(float), values[part]
    first, last = int(steps[part][0]), int(steps[part][-1])
    if count < 6:
        return Level(float(np.mean(y)), spread / math.sqrt(count), first, last, count)
    low, high = np.quantile(y, (0.05, 0.95))
    y = np.clip(y, low, high)  # single outliers must not tilt the line
    offset = np.polyfit(x - x[at], y, 1)[1]
    return Level(float(offset), 2 * spread / math.sqrt(count), first, last, count)


def trailing(curve: Curve, at: NDArray[np.int64], *, target: float = 0.03) -> tuple[Values, Values]:
    """The curve's level at each of some increasing steps, and its error: NaN before the curve's first point.

    The mean of as many points up to the step as the noise asks for, but of none that belongs to the step before.
    """
    noise = curve.noise
    most = _needed(curve, noise, target, 1.0)
    high = np.searchsorted(curve.steps, at, side="right")
    low = np.maximum(np.concatenate(([0], high[:-1])), high - most)
    low = np.where(low == high, high - 1, low)  # nothing new since the step before: the last point there is
    none = high == 0
    low, high = np.maximum(low, 0), np.maximum(high, 1)
    sums = np.concatenate(([0.0], np.cumsum(curve.values)))
    counts = high - low
    levels = (sums[high] - sums[low]) / counts
    exact = counts == 1  # a difference of sums is not the very number
    levels[exact] = curve.values[high[exact] - 1]
    return np.where(none, np.nan, levels), noise / np.sqrt(counts)


def mean_level(curve: Curve) -> Level:
    """The mean of all points with outliers cut to the 5th and 95th percentile."""
    low, high = np.quantile(curve.values, (0.05, 0.95))
    held = np.clip(curve.values, low, high)
    error = max(curve.noise, float(held.std())) / math.sqrt(len(curve))
    return Level(float(held.mean()), error, int(curve.steps[0]), int(curve.steps[-1]), len(curve))


def smoothed(
    curve: Curve, *, target: float = 0.03, share: float = 0.35, degree: int = 1, noise: float | None = None
) -> Values:
    """The curve as local polynomials (Savitzky and Golay 1964) through as many points as its noise asks for.

    Degree 1 is the centred mean, and at the edges a line that keeps a falling curve's end where it is; degree 2 also
    keeps a minimum where it is. The curve itself, the same array, where it has no noise.
    """
    values, spread = curve.values, curve.noise if noise is None else noise
    if not spread or len(values) < degree + 3:
        return values
    needed = _needed(curve, spread, target, share)
    count = min(max(needed, degree + 2), _WIDEST, len(values))
    x = np.linspace(-1, 1, count)
    powers = np.vander(x, degree + 1)
    hat = powers @ np.linalg.pinv(
        powers
    )  # (count, count): row k evaluates the fit at the window's k-th point
    half = count // 2
    course = np.convolve(values, hat[half][::-1], mode="valid")
    head = hat[:half] @ values[:count]
    tail = hat[half + 1 :] @ values[-count:]
    return np.concatenate((head, course, tail))


@lru_cache(maxsize=256)
def _hat(count: int, degree: int) -> Values:
    """(count, count): row k evaluates the fit of a window at its k-th point."""
    powers = np.vander(np.linspace(-1, 1, count), degree + 1)
    return np.asarray(powers @ np.linalg.pinv(powers))


def course_of(curve: Curve, noise: float | None = None) -> Values:
    """A validation curve without its noise, for finding its minimum; the curve itself where it has none.

    The mean of a line's and a parabola's fit: the line alone moves a sharp minimum, the parabola alone follows noise
    (measured on simulated runs, docs/curves.md). A curve that swings by more than `SWINGS` is left as it is: held-out
    rows that stay the same do not swing, the model does.
    """
    spread = curve.noise if noise is None else noise
    if not spread or swing_of(curve) >= SWINGS:
        return curve.values
    line = smoothed(curve, target=_FINE, share=0.35, noise=spread)
    parabola = smoothed(curve, target=_FINE, share=0.5, degree=2, noise=spread)
    return np.asarray((line + parabola) / 2)


def lowest(curve: Curve, noise: float) -> tuple[int, float]:
    """Where a curve is lowest, the first of equals, and how low: by its course, among points that are not high themselves.

    A point that lies three times the noise above the lowest one is not the minimum, whatever its neighbours make of it.
    What comes after the last candidate is cut off before the course is drawn: it would run over a sudden climb like a
    cushion over an edge, and move the minimum away from it.
    """
    near = curve.values <= curve.values.min() + 3 * noise
    count = len(near) - int(np.argmax(near[::-1]))
    part = Curve(curve.name, curve.steps[:count], curve.values[:count])
    course = course_of(part, noise)
    index = int(np.argmin(np.where(near[:count], course, np.inf)))
    return index, float(course[index])


def minimum_of(curve: Curve) -> tuple[int, float]:
    """`lowest`, taken with more care, for choosing a checkpoint: (index, how low).

    The mean of a line's, a parabola's and a cubic's fit (each wider than the one before) picks a checkpoint within 2 %
    of the best more often than any of them alone. Noise is a share of the level, as a rule, so that what follows a climb
    is noisier than the minimum, and must not decide how wide to look around it.
    """
    noise, low = curve.noise, float(curve.values.min())
    if not noise or swing_of(curve) >= SWINGS:
        return int(np.argmin(curve.values)), low  # the first of equals
    spread = min(noise, noise_of(np.log(curve.values)) * low) if low > 0 else noise
    near = curve.values <= low + 3 * spread
    count = len(near) - int(np.argmax(near[::-1]))
    part = Curve(curve.name, curve.steps[:count], curve.values[:count])
    noise = noise if count == len(curve) else min(noise, part.noise)
    fits = [
        smoothed(part, target=target, share=share, degree=degree, noise=noise)
        for degree, share, target in ((1, 0.45, _FINE), (2, 0.6, _FINE), (3, 0.9, _FINE / 2))
    ]
    course = np.mean(fits, axis=0)
    index = int(np.argmin(np.where(near[:count], course, np.inf)))
    return index, float(course[index])


def swing_of(curve: Curve) -> float:
    """The spread of a curve around its course, as a share of its level; 0 without noise or with fewer than six points."""
    level = float(np.median(np.abs(curve.values))) if len(curve) else 0.0
    if len(curve) < 6 or level == 0 or curve.noise == 0:
        return 0.0
    bends = np.abs(np.diff(curve.values, 2)) / math.sqrt(6)
    kept = np.sort(bends)[: max(4, int(0.9 * len(bends)))]  # a single outlier is no swing
    return math.sqrt(float(np.mean(kept**2))) / level


def blocks(curve: Curve, most: int = _MOST_BLOCKS) -> tuple[Values, Values]:
    """At most `most` points, the medians of runs of neighbours: (x, y)."""
    if len(curve) <= most:
        return curve.steps.astype(float), curve.values
    size = -(-len(curve) // most)
    whole = len(curve) // size * size
    x = curve.steps[:whole].reshape(-1, size).mean(axis=1)
    y = np.median(curve.values[:whole].reshape(-1, size), axis=1)
    if whole < len(curve):
        x, y = np.append(x, curve.steps[whole:].mean()), np.append(y, np.median(curve.values[whole:]))
    return x, y


def theil_sen(x: Values, y: Values) -> Slope:
    """The median slope of all pairs (Theil 1950, Sen 1968), with an error from the residuals' spread.

    Raises:
        ValueError: fewer than two different x.
    """
    i, j = np.triu_indices(len(x), 1)
    apart = x[j] - x[i]
    if not apart.any():
        raise ValueError("a slope needs two different x")
    slope = float(np.median(((y[j] - y[i])[apart != 0]) / apart[apart != 0]))
    left = y - slope * x
    spread = _NORMAL * float(np.median(np.abs(left - np.median(left))))
    return Slope(slope, spread / math.sqrt(float(((x - x.mean()) ** 2).sum())))
