"""Buckets keep the extremes; smoothing is TensorBoard's, term by term."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.web.buckets import MOST_POINTS, bucketed, smoothed, window


@given(st.integers(0, 2**32 - 1), st.integers(1, 3000), st.integers(30, 200))
def test_what_is_drawn_has_the_extremes_of_every_stretch(seed: int, n: int, most: int) -> None:
    values = np.random.default_rng(seed).normal(size=n)
    chosen = bucketed(values, most)
    assert len(chosen) <= max(most, 1)
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] == 0
    assert chosen[-1] == n - 1
    assert values[chosen].min() == values.min()
    assert values[chosen].max() == values.max()


def test_a_spike_of_one_step_among_a_million_is_drawn() -> None:
    values = np.zeros(1_000_000)
    values[777_777] = 9.0
    chosen = bucketed(values)
    assert len(chosen) <= MOST_POINTS
    assert 777_777 in chosen


def test_few_points_are_all_drawn() -> None:
    assert bucketed(np.arange(50.0)).tolist() == list(range(50))
    assert bucketed(np.empty(0)).tolist() == []


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.floats(0, 0.999))
def test_smoothing_is_the_loop_of_tensorboard(values: list[float], weight: float) -> None:
    last, expected = 0.0, []
    for place, value in enumerate(values, start=1):
        last = last * weight + (1 - weight) * value
        expected.append(last / (1 - weight**place))
    np.testing.assert_allclose(smoothed(np.array(values), weight), expected, rtol=1e-9, atol=1e-6)


def test_smoothing_refuses_a_weight_that_never_moves() -> None:
    with pytest.raises(ValueError, match="weight"):
        smoothed(np.ones(3), 1.0)


def test_a_window_has_one_point_beyond_each_end() -> None:
    x = np.arange(10.0)
    assert window(x, 3.5, 6.5) == slice(3, 8)
    assert window(x, None, None) == slice(0, 10)
    assert window(x, 100, 200) == slice(9, 10)
