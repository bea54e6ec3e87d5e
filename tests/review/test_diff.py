"""The word diff: nothing lost, shared words shared, and fast where a model repeats itself."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from dlm.review import word_diff
from dlm.review.diff import MAX_WORDS, _aligned_backwards
from hostile_text import texts


def test_by_example() -> None:
    parts = word_diff("The office door is green.", "The door of the office is green, I think.")
    assert parts is not None
    assert [(part.side, part.text) for part in parts] == [
        ("both", "The "),
        ("rejected", "door of the "),
        ("both", "office "),
        ("chosen", "door "),
        ("both", "is green"),
        ("rejected", ", I think"),
        ("both", "."),
    ]
    assert word_diff("", "") == ()


@given(texts, texts)
def test_both_answers_come_back(chosen: str, rejected: str) -> None:
    parts = word_diff(chosen, rejected) or ()
    assert "".join(part.text for part in parts if part.side != "rejected") == chosen
    assert "".join(part.text for part in parts if part.side != "chosen") == rejected
    assert all(part.text for part in parts)


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_no_other_alignment_shares_more(chosen: list[str], rejected: list[str]) -> None:
    aligned = list(_aligned_backwards(chosen, rejected))
    assert [word for side, word in reversed(aligned) if side != "rejected"] == chosen
    assert [word for side, word in reversed(aligned) if side != "chosen"] == rejected
    lengths = [0] * (len(rejected) + 1)  # of the longest common subsequence, by the textbook
    for word in chosen:
        before = lengths[:]
        for place, other in enumerate(rejected):
            lengths[place + 1] = (
                before[place] + 1 if word == other else max(before[place + 1], lengths[place])
            )
    assert sum(side == "both" for side, _ in aligned) == lengths[-1]


def test_blanks_between_changes_do_not_chop_them_up() -> None:
    parts = word_diff("one two three.", "four five six.")
    assert parts is not None
    assert [(part.side, part.text) for part in parts] == [
        ("rejected", "four five six"),
        ("chosen", "one two three"),
        ("both", "."),
    ]


def test_an_answer_that_repeats_a_word_takes_no_minute() -> None:
    began = time.monotonic()
    assert word_diff("no " * 4000, "no " * 3999)
    assert time.monotonic() - began < 5
    assert word_diff("no " * MAX_WORDS, "yes") is None
