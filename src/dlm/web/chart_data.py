"""What a chart draws: its lines over steps, wall time or tokens, bucketed anew for every zoom, in one binary answer.

The answer is the length of a JSON header (uint32, little-endian), the header, spaces up to a multiple of eight bytes,
and then for each line its x as float64 and its values and smoothed values as float32, each padded to eight bytes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dlm.curves import Series
from dlm.store import Run, Store
from dlm.web.buckets import bucketed, smoothed, window
from dlm.web.charts import Chart, Line
from dlm.web.series_cache import SeriesCache

__all__ = [
    "Axis",
    "Drawn",
    "Query",
    "draw",
    "encode",
    "interpolated",
    "number",
    "places",
    "query_of",
    "table",
]

Axis = Literal["step", "time", "tokens"]
USUAL_SMOOTHING = 0.6  # of a page's charts, until a person moves the slider
AXIS_UNITS: dict[Axis, str] = {"step": "step", "time": "s since its start", "tokens": "tokens"}


@dataclass(frozen=True)
class Query:
    """What is asked of a chart: the axis, the range of x (None: all), the smoothing's weight, points a line at most."""

    axis: Axis = "step"
    low: float | None = None
    high: float | None = None
    smoothing: float = 0.0
    most: int = 4_000


def query_of(address: Mapping[str, str]) -> Query:
    """What a page's address asks of its charts, as `view.js` reads it: what cannot be read is as usual."""

    def number(name: str) -> float | None:
        try:
            found = float(address.get(name, ""))
        except ValueError:
            return None
        return found if math.isfinite(found) else None

    axis: Axis = next((one for one in AXIS_UNITS if one == address.get("x")), "step")
    smoothing = number("smoothing")
    smoothing = USUAL_SMOOTHING if smoothing is None else min(0.99, max(0.0, smoothing))
    return Query(axis, number("low"), number("high"), smoothing)


@dataclass(frozen=True)
class Drawn:
    """One line of one run, as it is sent: P points; `smooth` is None where the line is not smoothed.

    `total` counts the points in range before bucketing, `not_finite` those that are NaN or infinite. `started`: the
    time that is 0 on the axis of wall time, in seconds since 1970; None without times. `figures`: what is said of the whole
    line, whatever its range (see `_figures`).
    """

    run_id: int
    line: Line
    name: str
    x: NDArray[np.float64]
    values: NDArray[np.float64]
    smooth: NDArray[np.float64] | None
    total: int
    not_finite: int
    first_not_finite: int | None
    started: float | None
    figures: dict[str, Any]


def draw(store: Store, cache: SeriesCache, run: Run, chart: Chart, query: Query) -> list[Drawn]:
    """The lines of a chart that a run has. A run that logged no times or no tokens has none over that axis."""
    present = store.metrics.names(run.id)
    found = []
    for line in chart.lines:
        name = line.name_in(present)
        series = None if name is None else cache.read(store, run.id, name)
        if series is None or not len(series) or name is None:
            continue
        x = places(store, cache, run, series, query.axis)
        if x is not None:
            mark = (run.id, name, store.following.mark(run.id, name))
            found.append(_drawn(cache, run, line, series, x, query, mark))
    return found


def places(
    store: Store, cache: SeriesCache, run: Run, series: Series, axis: Axis
) -> NDArray[np.float64] | None:
    """Where the points of a series lie on an axis, ascending; None where the run does not tell."""
    if axis == "step":
        return series.steps.astype(np.float64)
    if axis == "time":
        if not np.isfinite(series.times).all():
            return None
        return np.maximum.accumulate(series.times - _started(run, series))
    tokens = cache.read(store, run.id, "num_tokens")
    if tokens is None or not len(tokens):
        return None
    return np.maximum.accumulate(np.interp(series.steps, tokens.steps, tokens.values))


def _started(run: Run, series: Series) -> float:
    """The time that is 0: the run's start, or (of a run that was imported) its first point where that is earlier."""
    return min(datetime.fromisoformat(run.started_at).timestamp(), float(series.times[0]))


def _drawn(
    cache: SeriesCache,
    run: Run,
    line: Line,
    series: Series,
    x: NDArray[np.float64],
    query: Query,
    mark: Hashable,
) -> Drawn:
    finite = np.isfinite(series.values)
    whole = bool(finite.all())
    steps, values = (series.steps, series.values) if whole else (series.steps[finite], series.values[finite])
    x = x if whole else x[finite]
    smooth = None
    if line.smooth and query.smoothing:
        smooth = cache.derived((mark, query.smoothing), lambda: smoothed(values, query.smoothing))
    seen = window(x, query.low, query.high)
    chosen = bucketed(values[seen], query.most) + seen.start
    return Drawn(
        run_id=run.id,
        line=line,
        name=series.name,
        x=x[chosen],
        values=values[chosen],
        smooth=None if smooth is None else smooth[chosen],
        total=seen.stop - seen.start,
        not_finite=0 if whole else int((~finite).sum()),
        first_not_finite=None if whole else int(series.steps[~finite][0]),
        started=_started(run, series) if math.isfinite(series.times[0]) else None,
        figures=_figures(x, steps, values),
    )


def _figures(x: NDArray[np.float64], steps: NDArray[np.int64], values: NDArray[np.float64]) -> dict[str, Any]:
    """What words.js tells who does not see the picture, and keeps up while points come: how many `points`, and the `first`,
    `last`, `lowest` and `highest` as step and value; and the `reach` on the axis. None where there is no finite value.
    """
    if not len(values):
        return {"points": 0, **dict.fromkeys(("first", "last", "lowest", "highest", "reach"))}

    def at(place: int) -> list[float]:
        return [int(steps[place]), float(values[place])]

    return {
        "points": len(values),
        "first": at(0),
        "last": at(-1),
        "lowest": at(int(values.argmin())),
        "highest": at(int(values.argmax())),
        "reach": [float(x[0]), float(x[-1])],
    }


def encode(chart: Chart, query: Query, lines: Sequence[Drawn]) -> bytes:
    """The answer to a page, as this module's docstring says."""
    header: dict[str, Any] = {
        "chart": chart.id,
        "share": chart.share,
        "axis": query.axis,
        "low": query.low,
        "high": query.high,
        "smoothing": query.smoothing,
        "guides": [{"value": guide.value, "label": guide.label} for guide in chart.guides],
        "lines": [
            {
                "run": one.run_id,
                "name": one.name,
                "label": one.line.label,
                "colour": one.line.colour,
                "count": len(one.x),
                "smoothed": one.smooth is not None,
                "not_finite": one.not_finite,
                "first_not_finite": one.first_not_finite,
                "started": one.started,
                **one.figures,
            }
            for one in lines
        ],
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    parts = [struct.pack("<I", len(text)), text, b" " * (-(4 + len(text)) % 8)]
    for one in lines:
        parts.append(one.x.astype("<f8").tobytes())
        for array in (one.values, *(() if one.smooth is None else (one.smooth,))):
            # float32 has no room above 3e38: such a value is drawn at the top
            packed = np.clip(array, -3e38, 3e38).astype("<f4").tobytes()
            parts += [packed, b"\0" * (-len(packed) % 8)]
    return b"".join(parts)


def table(lines: Sequence[Drawn], rows: int) -> tuple[list[str], list[list[float | None]]]:
    """The lines as a table of at most `rows` rows: heads, and for each x the values there (None: none)."""
    heads = [f"run {one.run_id} {one.line.label}" for one in lines]
    if not lines:
        return heads, []
    every = np.unique(np.concatenate([one.x for one in lines]))
    if len(every) > rows:
        every = every[np.unique(np.linspace(0, len(every) - 1, rows).round().astype(int))]
    found: list[list[float | None]] = []
    for at in every.tolist():
        row: list[float | None] = [at]
        for one in lines:
            place = int(np.searchsorted(one.x, at))
            there = place < len(one.x) and math.isclose(one.x[place], at)
            row.append(float(one.values[place]) if there else None)
        found.append(row)
    return heads, found


def interpolated(step: int, steps: NDArray[np.int64], along: NDArray[np.float64]) -> float:
    """Where a step lies on an axis, between the steps that were logged."""
    return float(np.interp(step, steps, along))


def number(value: float) -> float | None:
    """A number as JSON has it: None for what is not finite."""
    return value if math.isfinite(value) else None
