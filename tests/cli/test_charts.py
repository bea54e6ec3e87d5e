"""The plot in the terminal and the charts of the page: whatever the numbers, they fit and fall over nothing."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm.cli.plot import PlotCurve, plot
from dlm.cli.svg_chart import MOST_POINTS, ChartCurve, Mark, svg_chart

NUMBERS = st.one_of(
    st.floats(), st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.0, math.nan, math.inf, 1e-300])
)
CURVES = st.lists(
    st.tuples(st.lists(NUMBERS, min_size=1, max_size=60), st.booleans()), min_size=1, max_size=4
)


def steps(count: int) -> np.ndarray:
    return np.arange(1, count + 1)


@settings(max_examples=100)  # each draws a screen
@given(CURVES, st.integers(20, 120), st.integers(2, 20), st.booleans(), st.integers(0, 70))
def test_a_plot_fits_its_width_and_height(
    curves: list[tuple[list[float], bool]], width: int, height: int, fancy: bool, mark: int
) -> None:
    drawn = [PlotCurve("c", steps(len(v)), np.array(v, np.float64), few) for v, few in curves]
    with np.errstate(all="ignore"):  # differences of the largest numbers there are
        lines = plot(drawn, width, height, fancy=fancy, mark=mark)
    if not any(math.isfinite(x) for values, _ in curves for x in values):
        assert lines == []
        return
    assert max(map(len, lines[1:])) <= width
    assert height + 2 < len(lines) <= height + 4
    assert fancy or all(ord(sign) < 128 for line in lines for sign in line)


@settings(max_examples=100)  # each draws a screen
@given(CURVES, st.one_of(st.none(), st.floats(-10, 10)))
def test_a_chart_is_well_formed_and_without_numbers_that_are_none(
    curves: list[tuple[list[float], bool]], level: float | None
) -> None:
    drawn = [
        ChartCurve("<c>", steps(len(v)), np.clip(np.array(v, np.float64), -1e9, 1e9), few)
        for v, few in curves
    ]
    text = svg_chart("a <b>", 'says "so"', drawn, marks=[Mark(1, "<m>")], level=level, level_label="&")
    if text:
        root = ElementTree.fromstring(text)
        assert root.attrib["aria-label"] == 'a <b>. says "so"'
        assert "nan" not in text
        assert "inf" not in text


@pytest.mark.parametrize("values", [[5e-324, 1e-3, 9.0], [1e-9, 1.0, 1.7e308], [5e-324, 1.0, 1.7e308]])
def test_an_axis_may_end_where_the_numbers_do(values: list[float]) -> None:
    """The room around such a curve reaches past the least or the greatest number there is."""
    text = svg_chart("t", "s", [ChartCurve("c", steps(3), np.array(values))])
    numbers = [
        float(str(one.text))
        for one in ElementTree.fromstring(text).iter()
        if one.attrib.get("text-anchor") == "end"
    ]
    assert len(numbers) >= 3
    assert all(math.isfinite(number) for number in numbers)


def test_a_spike_is_seen_among_a_million_points() -> None:
    values = np.ones(1_000_000)
    values[123_456] = 40.0
    text = svg_chart("t", "s", [ChartCurve("c", steps(len(values)), values)])
    (faint,) = (
        path.attrib["d"] for path in ElementTree.fromstring(text) if path.attrib.get("class") == "faint c0"
    )
    points = faint.removeprefix("M").split("L")
    assert len(points) <= MOST_POINTS + 2
    heights = [float(point.split()[1]) for point in points]
    assert min(heights) < max(heights) - 100


def test_a_blow_up_does_not_flatten_the_rest() -> None:
    values = np.r_[np.linspace(2, 1, 50), np.full(5, 1e6)]
    lines = plot([PlotCurve("loss", steps(55), values)], 60, 8, fancy=False)
    assert "(log scale)" in lines[0]
