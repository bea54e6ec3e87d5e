"""95 % intervals: Wilson's for a share of cases, a bootstrap over cases for a mean and for a difference of two means."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import TypeVar

import numpy as np

__all__ = ["Estimate", "cluster_mean", "mean", "paired_difference", "share"]

_Z = 1.959964  # the normal distribution's 97.5 % point
_RESAMPLES = 10_000
Case = TypeVar("Case", bound=Hashable)


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
    """The mean of per-case values with the expanded percentile interval of 10,000 resamples of cases (Efron 1979; Hesterberg
    2015, section 3.4: resamples of few cases spread less than the mean does).

    Cases that are each 0 or 1 are a share, and get its interval: all alike they have no spread to resample, and of few hits a
    bootstrap knows less than Wilson.

    Raises:
        ValueError: no cases.
    """
    data = np.asarray(values, dtype=float)
    if len(data) == 0:
        raise ValueError("a mean needs at least one case")
    if np.isin(data, (0.0, 1.0)).all():
        return share(data.tolist())
    picks = np.random.default_rng(seed).integers(0, len(data), (_RESAMPLES, len(data)))
    low, high = _ends(data[picks].mean(axis=1), len(data))
    return Estimate(float(data.mean()), low, high, len(data))


def cluster_mean(groups: Sequence[Sequence[float]], seed: int = 0) -> Estimate:
    """The mean over all values, with the interval of `mean` by a bootstrap that draws whole groups (Field and Welsh 2007).

    Values of one group, such as the repeats of one case, say less than as many cases: what is drawn is the case. A group
    without values is left out; `n` counts groups.

    Raises:
        ValueError: no values.
    """
    full = [group for group in groups if len(group)]
    if all(len(group) == 1 for group in full):
        return mean([group[0] for group in full], seed)
    sums = np.array([math.fsum(group) for group in full])
    sizes = np.array([len(group) for group in full])
    means = sums / sizes
    if np.isin(means, (0.0, 1.0)).all() and (np.ptp(means) == 0 or np.ptp(sizes) == 0):
        return share(means.tolist())  # each group is 0 or 1 throughout, and says no more than one value would
    picks = np.random.default_rng(seed).integers(0, len(full), (_RESAMPLES, len(full)))
    low, high = _ends(sums[picks].sum(axis=1) / sizes[picks].sum(axis=1), len(full))
    return Estimate(float(sums.sum() / sizes.sum()), low, high, len(full))


def paired_difference(
    after: Mapping[Case, Sequence[float]], before: Mapping[Case, Sequence[float]], seed: int = 0
) -> Estimate:
    """By how much the mean over cases rose, with the interval of `mean` by a bootstrap over the cases that both have.

    Each case is compared with itself, so that what makes cases differ in difficulty drops out. Where no case changed, the
    interval is the point 0: what was seen holds no sign of a change.

    Raises:
        ValueError: no case with values on both sides.
    """
    shared = [key for key, values in after.items() if len(values) and len(before.get(key, ()))]
    if not shared:
        raise ValueError("a paired difference needs at least one case that both sides have")
    steps = np.array([np.mean(after[key]) - np.mean(before[key]) for key in shared])
    picks = np.random.default_rng(seed).integers(0, len(steps), (_RESAMPLES, len(steps)))
    low, high = _ends(steps[picks].mean(axis=1), len(steps))
    return Estimate(float(steps.mean()), low, high, len(steps))


def _ends(means: np.ndarray, n: int) -> tuple[float, float]:
    """The ends of the interval: of normal data about those of Student's t from five cases on. Resamples of fewer reach no
    further than the least and the greatest case, which is too near."""
    tail = 100 * _tail(n)
    low, high = np.percentile(means, (tail, 100 - tail))
    return float(low), float(high)


@cache
def _tail(n: int) -> float:
    """The share of resampled means of `n` cases beyond each end: 2.5 % of very many, less of few."""
    if n < 2:
        return 0.0
    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * _t975(min(n - 1, 1000)))


def _t975(df: int) -> float:
    """The 97.5 % point of Student's t, by halving."""
    low, high = 1.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, df) < 0.95 else (low, middle)
    return (low + high) / 2


def _within(t: float, df: int) -> float:
    """P(|T| < t) of Student's t with `df` degrees of freedom (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = df % 2
    term, total = (cosine, cosine if df > 1 else 0.0) if odd else (1.0, 1.0)
    for k in range(3 if odd else 2, df, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
