"""A small plot in the terminal: curves as braille dots with colours, or as plain characters where nobody looks.

N: points of a curve. The grid has `width` × `height` cells; a braille cell holds 2 × 4 dots, a plain one a single
character.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PlotCurve", "plot"]

LOG_FROM = 50.0  # a highest over a lowest value beyond which the axis is logarithmic: a blow-up would flatten the rest
COLOURS = ("cyan", "yellow", "magenta", "green", "blue", "red")
PLAIN = ".o+x*#"  # one sign a curve
FANCY = "●◆▲■✚✖"
_DOTS = np.array(
    [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]]
)  # braille, by row and column in a cell
_AXIS = 9  # columns of the y axis with its numbers


@dataclass(frozen=True)
class PlotCurve:
    """A curve to draw: steps (N,), values (N,). `few`: drawn as one sign a point, as validations are."""

    label: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    few: bool = False


def plot(
    curves: Sequence[PlotCurve],
    width: int,
    height: int,
    *,
    fancy: bool,
    mark: int | None = None,
    colour: Callable[[str, str], str] = lambda text, _: text,
) -> list[str]:
    """Lines of text: a legend, the grid with its axes, the steps. Empty where no value is finite.

    Args:
        fancy: braille and signs beyond ASCII; else plain characters.
        mark: a step to point at from below.
        colour: gives a text one of `COLOURS`.
    """
    kept = [_finite(curve) for curve in curves]
    kept = [curve for curve in kept if len(curve.values)]
    if not kept:
        return []
    ends = [int(steps[at]) for steps in (curve.steps for curve in curves) if len(steps) for at in (0, -1)]
    scale = _Scale.of(kept, (min(ends), max(ends)), width - _AXIS, height)
    cells: dict[tuple[int, int], tuple[str, str]] = {}  # (row, column) → sign, colour
    for number, curve in enumerate(kept):
        tint, sign = COLOURS[number % len(COLOURS)], (FANCY if fancy else PLAIN)[number % len(PLAIN)]
        if curve.few:
            for row, column in zip(scale.rows(curve.values, 1), scale.columns(curve.steps, 1), strict=True):
                cells[int(row), int(column)] = (sign, tint)
        elif fancy:
            _draw_braille(cells, curve, scale, tint)
        else:
            for column, low, high in _spans(curve, scale, 1, 1):
                for row in range(low, high + 1):
                    cells[row, column] = (sign, tint)
    legend = "   ".join(
        colour(_legend_sign(curve, number, fancy), COLOURS[number % len(COLOURS)]) + f" {curve.label}"
        for number, curve in enumerate(kept)
    )
    lines = [" " * _AXIS + legend + ("   (log scale)" if scale.log else "")]
    corner, bar = ("┤", "│") if fancy else ("|", "|")
    for row in range(height):
        label = scale.label(row)
        edge = f"{label:>{_AXIS - 2}} {corner if label else bar}"
        signs = (cells.get((row, column), (" ", "")) for column in range(scale.width))
        lines.append((edge + "".join(colour(s, tint) if tint else s for s, tint in signs)).rstrip())
    return [*lines, *_under(scale, mark, fancy)]


def _finite(curve: PlotCurve) -> PlotCurve:
    fine = np.isfinite(curve.values)
    return PlotCurve(curve.label, curve.steps[fine], curve.values[fine], curve.few)


def _legend_sign(curve: PlotCurve, number: int, fancy: bool) -> str:
    if fancy and not curve.few:
        return "⠤⠤"
    return (FANCY if fancy else PLAIN)[number % len(PLAIN)]


@dataclass(frozen=True)
class _Scale:
    """Where steps and values fall in a grid of `width` × `height` cells; `low` and `high` are logarithms with `log`."""

    first: int
    last: int
    low: float
    high: float
    log: bool
    width: int
    height: int

    @classmethod
    def of(cls, curves: Sequence[PlotCurve], ends: tuple[int, int], width: int, height: int) -> _Scale:
        values = np.concatenate([curve.values for curve in curves])
        low, high = float(values.min()), float(values.max())
        usual = float(np.quantile(values, 0.05))  # a single batch near 0 does not bend the axis
        log = low > 0 and high / usual > LOG_FROM
        if log:
            low, high = float(np.log(low)), float(np.log(high))
        if high - low < 1e-12 * max(abs(low), abs(high), 1.0):
            low, high = low - 0.5, high + 0.5
        first, last = ends
        return cls(first, max(last, first + 1), low, high, log, max(width, 1), max(height, 2))

    def columns(self, steps: NDArray[np.int64], per_cell: int) -> NDArray[np.int64]:
        share = (steps - self.first) / (self.last - self.first)
        return np.rint(share * (self.width * per_cell - 1)).astype(np.int64)

    def rows(self, values: NDArray[np.float64], per_cell: int) -> NDArray[np.int64]:
        """Counted from above."""
        heights = np.log(values) if self.log else values
        share = (self.high - heights) / (self.high - self.low)
        return np.rint(share * (self.height * per_cell - 1)).astype(np.int64)

    def label(self, row: int) -> str:
        """The value of a row that carries one: the first, the middle and the last."""
        if row not in (0, self.height // 2, self.height - 1):
            return ""
        value = self.high - (self.high - self.low) * row / (self.height - 1)
        value = float(np.exp(value)) if self.log else value
        return f"{value:.3g}" if len(f"{value:.3g}") <= _AXIS - 2 else f"{value:.0e}"


def _spans(curve: PlotCurve, scale: _Scale, across: int, down: int) -> list[tuple[int, int, int]]:
    """For each fine column that the curve passes, the rows from its highest to its lowest point there."""
    columns, rows = scale.columns(curve.steps, across), scale.rows(curve.values, down)
    if len(columns) < scale.width * across:  # few points: straight lines between them
        every = np.arange(columns[0], columns[-1] + 1)
        rows = np.rint(np.interp(every, columns, rows)).astype(np.int64)
        columns = every
    starts = np.flatnonzero(np.r_[True, np.diff(columns) > 0])
    lows, highs = np.minimum.reduceat(rows, starts), np.maximum.reduceat(rows, starts)
    spans, before = [], None
    for column, low, high in zip(columns[starts].tolist(), lows.tolist(), highs.tolist(), strict=True):
        if before is not None:  # joined to the column before, so that a steep line does not fall apart
            low, high = min(low, before[1] + 1), max(high, before[0] - 1)
        before = (low, high)
        spans.append((column, low, high))
    return spans


def _draw_braille(
    cells: dict[tuple[int, int], tuple[str, str]], curve: PlotCurve, scale: _Scale, tint: str
) -> None:
    for column, low, high in _spans(curve, scale, 2, 4):
        for row in range(low, high + 1):
            place = (row // 4, column // 2)
            before = ord(cells.get(place, (" ", ""))[0])
            dots = before - 0x2800 if 0x2800 <= before < 0x2900 else 0
            cells[place] = (chr(0x2800 + (dots | int(_DOTS[row % 4, column % 2]))), tint)


def _under(scale: _Scale, mark: int | None, fancy: bool) -> list[str]:
    """The line under the grid with the first and last step, and the marked one."""
    axis = ("└" if fancy else "+") + ("─" if fancy else "-") * scale.width
    lines = [" " * (_AXIS - 1) + axis]
    first, last = f"step {scale.first}", str(scale.last)
    text = [*first.ljust(scale.width - len(last)), *last]
    if mark is not None and scale.first <= mark <= scale.last:
        column = int(scale.columns(np.array([mark]), 1)[0])
        pointer = f"{'▲' if fancy else '^'} {mark}"
        start = min(column, scale.width - len(pointer))
        space = text[max(start - 1, 0) : start + len(pointer) + 1]
        if not any(sign.strip() for sign in space):
            text[start : start + len(pointer)] = pointer
        else:  # no room beside the ends
            lines.append(" " * (_AXIS + start) + pointer)
    lines.append((" " * _AXIS + "".join(text)).rstrip())
    return lines
