"""The word diff: nothing lost, shared words shared, and fast where a model repeats itself."""

from __future__ import annotations

import time
from difflib import SequenceMatcher

from hypothesis import given
from hypothesis import strategies as st

from dlm.review import word_diff
from dlm.review.diff import MAX_WORDS
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


@given(st.text("ab ", max_size=30), st.text("ab ", max_size=30))
def test_no_other_alignment_shares_more(chosen: str, rejected: str) -> None:
    a, b = [f"{c} " for c in chosen.split()], [f"{c} " for c in rejected.split()]
    parts = word_diff("".join(a), "".join(b)) or ()
    shared = sum(len(part.text) for part in parts if part.side == "both")
    words = SequenceMatcher(None, a, b, autojunk=False)
    assert shared >= sum(len("".join(a[m.a : m.a + m.size])) for m in words.get_matching_blocks())
    assert shared <= min(len("".join(a)), len("".join(b)))


def test_an_answer_that_repeats_a_word_takes_no_minute() -> None:
    began = time.monotonic()
    assert word_diff("no " * 4000, "no " * 3999)
    assert time.monotonic() - began < 5
    assert word_diff("no " * MAX_WORDS, "yes") is None
