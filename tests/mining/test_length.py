"""Length in a batch: by hand, against textbook values, and what is warned of."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.mining import length_bias


def test_by_hand() -> None:
    """Two questions, lengths 1, 2, 3 and 10, 20: within questions the score follows the length."""
    bias = length_bias(
        [("long", "s"), ("s", "long"), ("same", "size")],
        [[("a", 0.0), ("aa", 1.0), ("aaa", 2.0)], [("b" * 10, 50.0), ("b" * 20, 60.0)]],
    )
    assert bias.longer_wins == pytest.approx(0.5)
    x = np.array([-1, 0, 1, -5, 5.0])
    y = np.array([-1, 0, 1, -5, 5.0])
    assert bias.pearson == pytest.approx(float(np.corrcoef(x, y)[0, 1]))
    assert bias.spearman == pytest.approx(1)
    assert (bias.pairs, bias.answers) == (3, 5)
    assert bias.warning == ""  # too few to say anything


def test_what_is_the_same_everywhere_has_no_correlation() -> None:
    bias = length_bias([], [[("a", 1.0), ("b", 2.0)], [("lonely", 3.0)]])
    assert (bias.longer_wins, bias.pearson, bias.spearman) == (None, None, None)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(-5, 5)), min_size=2, max_size=20))
def test_spearman_is_pearson_of_mean_ranks(rows: list[tuple[int, int]]) -> None:
    bias = length_bias([], [[("x" * length, float(score)) for length, score in rows]])
    lengths, scores = (np.array(column, dtype=float) for column in zip(*rows, strict=True))

    def ranks(values: np.ndarray) -> np.ndarray:
        return np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])

    if len(set(lengths)) > 1 and len(set(scores)) > 1:
        assert bias.spearman == pytest.approx(
            float(np.corrcoef(ranks(lengths), ranks(scores))[0, 1]), abs=1e-9
        )
        assert bias.pearson == pytest.approx(float(np.corrcoef(lengths, scores)[0, 1]), abs=1e-9)
    else:
        assert bias.spearman is None


def test_an_extreme_batch_is_warned_of() -> None:
    long_wins = [("a long answer", "short")] * 9 + [("short", "a long answer")]
    assert "longer answer wins in 90% of 10 pairs" in length_bias(long_wins, []).warning
    short_wins = [(rejected, chosen) for chosen, rejected in long_wins]
    assert "shorter answer wins in 90%" in length_bias(short_wins, []).warning
    assert length_bias(long_wins[:5], []).warning == ""
    answers = [[("x" * i, -math.sqrt(i)) for i in range(1, 20)]]
    assert "rank correlation -1.00" in length_bias([], answers).warning
    fair = [("a long answer", "short"), ("short", "a long answer")] * 5
    assert length_bias(fair, []).warning == ""
