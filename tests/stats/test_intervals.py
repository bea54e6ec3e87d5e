from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.stats import cluster_mean, intervals, mean, paired_difference, share, spearman


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
    assert mean([1.0] + [0.0] * 19) == share([True] + [False] * 19)  # a hit of twenty: no narrower than none


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


@pytest.mark.parametrize("n", [6, 20])
def test_a_difference_of_few_cases_is_sure_no_oftener_than_it_says(n: int) -> None:
    draw = np.random.default_rng(n)
    before = {case: [0.0] for case in range(n)}
    sure = 0
    for _ in range(400):
        found = paired_difference({case: [value] for case, value in enumerate(draw.normal(size=n))}, before)
        sure += not found.low <= 0 <= found.high
    assert sure / 400 <= 0.09  # the plain percentiles: .15 of six, .07 of twenty


def test_students_t_and_what_few_cases_have_as_tails() -> None:
    for df, point in ((1, 12.706), (2, 4.303), (5, 2.571), (10, 2.228), (39, 2.023), (120, 1.980)):
        assert intervals._t975(df) == pytest.approx(point, abs=6e-4)
    assert intervals._tail(10**6) == pytest.approx(0.025, abs=2e-4)
    assert intervals._tail(1) == 0 < intervals._tail(6) < intervals._tail(40) < 0.025


def test_no_cases_is_no_figure() -> None:
    with pytest.raises(ValueError, match="at least one"):
        share([])
    with pytest.raises(ValueError, match="at least one"):
        mean([])


def test_a_cluster_is_drawn_as_a_whole() -> None:
    spread = [[0.0] * 5, [1.0] * 5] * 10
    one = cluster_mean(spread)
    alone = cluster_mean([[value] for group in spread for value in group])
    assert one.value == alone.value == 0.5
    assert (one.n, alone.n) == (20, 100)
    assert one.high - one.low > 1.8 * (alone.high - alone.low)  # √5, were there no rounding
    assert cluster_mean([[0.2], [], [0.4, 0.6]]).value == pytest.approx(0.4)
    assert cluster_mean([[1.0, 1.0], [1.0]]) == share([True, True])
    once = [[1.0]] + [[0.0]] * 19
    assert cluster_mean([group * 3 for group in once]) == cluster_mean(
        once
    )  # the same answer again is no news
    with pytest.raises(ValueError, match="at least one"):
        cluster_mean([[]])


def test_a_paired_difference_forgets_how_hard_cases_are() -> None:
    before = {case: [case / 100] for case in range(100)}
    after = {case: [case / 100 + 0.05] for case in range(100)}
    found = paired_difference(after, before)
    assert (found.value, found.low, found.high) == pytest.approx((0.05, 0.05, 0.05))
    assert found.n == 100
    one_sided = {**after, "new": [9.0], 3: []}
    assert paired_difference(one_sided, before).n == 99
    swing = paired_difference({case: [case % 2] for case in range(40)}, {case: [0.5] for case in range(40)})
    assert swing.low < 0 < swing.high
    with pytest.raises(ValueError, match="both sides"):
        paired_difference({"a": [1.0]}, {"b": [1.0]})


def test_spearman_by_hand() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1.0)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    # d² = 0, 1, 1, 0: 1 - 6·2 / (4·15)
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    # ties at their mean rank: ranks 1.5 1.5 3 against 1 2 3 → 0.5·√3 = .8660
    assert spearman([5, 5, 9], [1, 2, 3]) == pytest.approx(3**0.5 / 2)
    assert spearman([1, 1], [1, 2]) is None
    assert spearman([], []) is None
    with pytest.raises(ValueError, match="both sides"):
        spearman([1], [1, 2])
