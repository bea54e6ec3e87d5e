"""One chart as inline SVG: lines for training, dots for validations, marks where a checkpoint is worth keeping.

It is drawn for any width (a view box), coloured by CSS classes (`c0`, `c1`, …) so that light and dark share one
drawing, and says in words what it shows. N: points of a curve.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

__all__ = ["ChartCurve", "Mark", "svg_chart"]

WIDTH, HEIGHT = 720, 250
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 22, 30
MOST_POINTS = 1200  # drawn of a line: beyond that, least and most of each bucket
SMOOTH_FROM = 100  # points from which a line is also shown smoothed
SMOOTH_SHARE = 0.02  # of the points: the window of that
MAX_POWER = sys.float_info.max_10_exp
LOG_FROM = 50.0  # a highest over a usual lowest value beyond which the axis is logarithmic


@dataclass(frozen=True)
class ChartCurve:
    """A curve to draw: steps (N,) int64, values (N,) float64. `few`: drawn as dots joined by a line."""

    label: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    few: bool = False
    exact: bool = False  # no noise in it: neither smoothed nor on a logarithmic axis


@dataclass(frozen=True)
class Mark:
    """A step to point at."""

    step: int
    label: str


def svg_chart(
    title: str,
    summary: str,
    curves: Sequence[ChartCurve],
    *,
    marks: Sequence[Mark] = (),
    level: float | None = None,
    level_label: str = "",
) -> str:
    """The chart as an `<svg>` element; "" where no value is finite. `summary` is its description for screen readers."""
    axes = _Axes.of(curves, level)
    if axes is None:
        return ""
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{title}. {summary}", quote=True)}">',
        *axes.grid(),
    ]
    if level is not None and axes.holds(level):
        y = axes.y(level)
        parts.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT + 4}" y="{y - 4:.1f}">{escape(level_label)}</text>')
    for mark in marks:
        if axes.first <= mark.step <= axes.last:
            parts += _mark(axes.x(mark.step), mark)
    for number, curve in enumerate(curves):
        parts += _curve(axes, curve, f"c{number % 6}")
    return "".join([*parts, "</svg>"])


def _mark(x: float, mark: Mark) -> Iterator[str]:
    """A dashed line with its label, on the side where there is room."""
    anchor, dx = ("end", -4) if x > WIDTH * 0.7 else ("start", 4)
    yield f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
    yield f'<text class="tick" x="{x + dx:.1f}" y="{TOP - 8}" text-anchor="{anchor}">{escape(mark.label)}</text>'


def _curve(axes: _Axes, curve: ChartCurve, colour: str) -> Iterator[str]:
    fine = np.isfinite(curve.values)
    steps, values = curve.steps[fine], curve.values[fine]
    if not len(steps):
        return
    if curve.few:
        yield f'<path class="line {colour}" d="{axes.path(steps, values)}"/>'
        for step, value in zip(steps.tolist(), values.tolist(), strict=True):
            place = f'cx="{axes.x(step):.1f}" cy="{axes.y(value):.1f}"'
            yield f'<circle class="dot {colour}" {place} r="3"><title>step {step}: {value:.5g}</title></circle>'
        return
    smoothed = len(values) >= SMOOTH_FROM and not curve.exact
    yield f'<path class="{"faint" if smoothed else "line"} {colour}" d="{axes.path(*_thinned(steps, values))}"/>'
    if smoothed:
        yield f'<path class="line {colour}" d="{axes.path(*_thinned(steps, _smooth(values)))}"/>'


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centred moving mean over a share of the points; at the ends over those there are."""
    half = max(1, round(SMOOTH_SHARE * len(values) / 2))
    sums = np.r_[0.0, np.cumsum(values)]
    places = np.arange(len(values))
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    means = (sums[last] - sums[first]) / (last - first)
    clipped: NDArray[np.float64] = np.clip(
        means, values.min(), values.max()
    )  # a blow-up leaves rounding behind it
    return clipped


def _thinned(
    steps: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """At most `MOST_POINTS` points: of each bucket its least and its most, so that no spike is lost."""
    if len(values) <= MOST_POINTS:
        return steps, values
    starts = np.linspace(0, len(values), MOST_POINTS // 2, endpoint=False).astype(np.int64)
    ends = np.r_[starts[1:], len(values)]
    kept = {0, len(values) - 1}
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        kept |= {start + int(values[start:end].argmin()), start + int(values[start:end].argmax())}
    chosen = np.array(sorted(kept))
    return steps[chosen], values[chosen]


@dataclass(frozen=True)
class _Axes:
    """From steps and values to places; `low` and `high` are logarithms with `log`."""

    first: int
    last: int
    low: float
    high: float
    log: bool

    @classmethod
    def of(cls, curves: Sequence[ChartCurve], level: float | None) -> _Axes | None:
        values = np.concatenate([curve.values for curve in curves] or [np.empty(0)])
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        low, high = float(values.min()), float(values.max())
        exact = all(curve.exact for curve in curves)
        log = not exact and low > 0 and high / float(np.quantile(values, 0.05)) > LOG_FROM
        if level is not None and not log and low - (high - low) <= level <= high + (high - low):
            low, high = min(low, level), max(high, level)
        if log:
            low, high = math.log(low), math.log(high)
        pad = 0.04 * (high - low) or max(abs(low) * 0.05, 1e-9)
        first = min(int(curve.steps[0]) for curve in curves if len(curve.steps))
        last = max(int(curve.steps[-1]) for curve in curves if len(curve.steps))
        return cls(first, max(last, first + 1), low - pad, high + pad, log)

    def holds(self, value: float) -> bool:
        return (not self.log or value > 0) and self.low <= self._height(value) <= self.high

    def _height(self, value: float) -> float:
        return math.log(value) if self.log else value

    def x(self, step: float) -> float:
        return LEFT + (step - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (self.high - self._height(value)) / (self.high - self.low)
        return TOP + share * (HEIGHT - TOP - BOTTOM)

    def path(self, steps: NDArray[np.int64], values: NDArray[np.float64]) -> str:
        """The `d` of a path through the points."""
        heights = np.log(values) if self.log else values
        xs = LEFT + (steps - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)
        ys = TOP + (self.high - heights) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs.tolist(), ys.tolist(), strict=True))

    def grid(self) -> Iterator[str]:
        """Lines and numbers of both axes."""
        bottom = HEIGHT - BOTTOM
        for value in self._ticks():
            y = self.y(value)
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>'
        for step in _nice(self.first, self.last, 7):
            if step == int(step):
                x = self.x(step)
                yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
                yield f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{int(step):,}</text>'
        yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'

    def _ticks(self) -> list[float]:
        if not self.log:
            return _nice(self.low, self.high, 7)
        # the room around the curves may reach past the numbers there are
        lowest = math.exp(max(self.low, math.log(sys.float_info.min)))
        highest = math.exp(min(self.high, math.log(sys.float_info.max)))
        powers = range(math.floor(math.log10(lowest)), min(math.ceil(math.log10(highest)), MAX_POWER) + 1)
        every = (1, 2, 5) if len(powers) <= 3 else (1,)
        step = max(1, len(powers) // 6)
        ticks = [digit * 10.0**power for power in powers[::step] for digit in every]
        return [tick for tick in ticks if lowest <= tick <= highest]


def _nice(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers between two values."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
