from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.stats import mean, share


def test_wilson_by_hand() -> None:
    """8 of 10, z² = 3.8415: middle (.8 + .19207) / 1.38415, half 1.95996 / 1.38415 · √(.016 + .0096037)."""
    found = share([True] * 8 + [False] * 2)
    assert found.value == 0.8
    assert (found.low, found.high) == pytest.approx((0.49016, 0.94332), abs=1e-5)
    assert found.n == 10


def test_all_or_nothing_still_has_an_interval() -> None:
    assert share([True] * 10).low == pytest.approx(0.72247, abs=1e-5)
    assert share([False] * 10).high == pytest.approx(1 - 0.72247, abs=1e-5)
    assert mean([1.0] * 10) == share([True] * 10)


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_a_share_lies_within_its_interval_and_the_interval_within_0_and_1(hits: list[bool]) -> None:
    found = share(hits)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_the_bootstrap_agrees_with_the_normal_theory_and_repeats() -> None:
    values = np.random.default_rng(5).normal(3.0, 2.0, 400).tolist()
    found = mean(values)
    half = 1.96 * float(np.std(values)) / 20
    assert found.high - found.value == pytest.approx(half, rel=0.1)
    assert found.value - found.low == pytest.approx(half, rel=0.1)
    assert mean(values) == found


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(1)
    covered = [
        found.low <= 0.3 <= found.high
        for found in (share((draw.random(80) < 0.3).tolist()) for _ in range(400))
    ]
    assert 0.91 <= sum(covered) / len(covered) <= 0.99


def test_no_cases_is_no_figure() -> None:
    with pytest.raises(ValueError, match="at least one"):
        share([])
    with pytest.raises(ValueError, match="at least one"):
        mean([])
