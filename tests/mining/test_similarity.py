"""How alike two answers are: what a person would call the same is, what differs in substance is not."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.mining import DUPLICATE, TOO_SIMILAR, same_as_earlier, similarity

WORDS = st.lists(st.sampled_from(["red", "blue", "one", "two", "12", "a=b", "yes"]), max_size=30).map(
    " ".join
)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Short, factual, and low-drama.", "short, factual and low-drama"),
        ("It's done.", "“It’s” done!".replace("“It’s”", "It's")),
        ("two  lines\nof text", "Two lines of text"),
        ("ﬁne", "fine"),
        ("a\u200bb \u202ec", "ab c"),
        ("", "…"),
    ],
)
def test_typography_does_not_count(left: str, right: str) -> None:
    assert similarity(left, right) == 1


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("The door is green.", "The door is red."),
        ("It costs 1.5 million.", "It costs 15 million."),
        ("if a == b", "if a = b"),
        ("x < 3", "x > 3"),
        ("minus: -5", "minus: 5"),
        ("", "words"),
        ("dog bites man", "man bites dog"),
    ],
)
def test_substance_does(left: str, right: str) -> None:
    assert similarity(left, right) < TOO_SIMILAR


def test_one_word_of_n_as_the_table_says() -> None:
    for n, expected in ((5, 0.67), (12, 0.85), (20, 0.90), (40, 0.95)):
        words = [f"w{i}" for i in range(n)]
        other = [*words[: n // 2], "different", *words[n // 2 + 1 :]]
        assert similarity(" ".join(words), " ".join(other)) == pytest.approx(expected, abs=0.006)


@given(WORDS, WORDS)
def test_symmetric_and_within_bounds(left: str, right: str) -> None:
    assert 0 <= similarity(left, right) == similarity(right, left) <= 1
    assert similarity(left, left) == 1


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text(left: str, right: str) -> None:
    assert 0 <= similarity(left, right) <= 1
    assert similarity(f"  {left}\n", left) == 1


@given(st.lists(WORDS, max_size=8))
def test_each_duplicate_is_near_the_one_that_stands_for_it(texts: list[str]) -> None:
    earlier = same_as_earlier(texts)
    kept = [place for place, other in enumerate(earlier) if other is None]
    for place, other in enumerate(earlier):
        if other is not None:
            assert other < place
            assert earlier[other] is None
            assert similarity(texts[place], texts[other]) >= DUPLICATE
    for index, left in enumerate(kept):
        for right in kept[index + 1 :]:
            assert similarity(texts[left], texts[right]) < DUPLICATE


def test_a_megabyte_is_no_trouble() -> None:
    began = time.process_time()
    assert similarity("word " * 200_000, "word " * 199_000) > DUPLICATE
    assert time.process_time() - began < 10
