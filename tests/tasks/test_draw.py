"""Draws are fixed for ever: known streams keep their values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dlm.tasks.draw import Draw


def test_a_known_stream_keeps_its_values():
    draw = Draw("known", 1)
    assert [draw.integer(0, 99) for _ in range(6)] == [43, 30, 95, 45, 28, 33]


@given(st.integers(), st.lists(st.integers(), max_size=20), st.integers(0, 25))
def test_shuffles_and_samples_only_rearrange(seed, options, count):
    assert sorted(Draw(seed).shuffled(options)) == sorted(options)
    picked = Draw(seed).sample(options, count)
    assert len(picked) == min(count, len(options))
    rest = list(options)
    for item in picked:
        rest.remove(item)


@given(st.integers(), st.integers(-50, 50), st.integers(0, 50))
def test_integers_stay_in_range(seed, low, width):
    assert low <= Draw(seed).integer(low, low + width) <= low + width


@given(st.integers())
def test_weights_decide(seed):
    assert Draw(seed).weighted((("never", 0.0), ("always", 1.0))) == "always"
