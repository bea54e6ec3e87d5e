"""Topic drift: an answer about another question is told apart from a worse answer to the same one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.review import Topics
from dlm.review.drift import stems
from hostile_text import writable

REST = "Research best practices for reducing latency in REST APIs."
PROMPTS = "Write a short guide to designing effective prompts for large language models."
GOOD = "To reduce latency in REST APIs, reuse connections, cache responses near the client, and measure the tail."
WORSE = "Latency in REST APIs is a broad subject. It depends on many factors, and APIs are all different from each other."
LEAKED = "Give the model a role, show one example of the output, and design prompts for large language models with care."
QUESTIONS = [
    REST,
    PROMPTS,
    *(f"How do we {verb} the {noun}?" for verb in ("clean", "paint") for noun in ("desk", "door", "lamp")),
]


def test_the_page_s_own_example() -> None:
    topics = Topics(QUESTIONS)
    leaked, worse = topics.measure(REST, GOOD, LEAKED), topics.measure(REST, GOOD, WORSE)
    assert leaked is not None
    assert worse is not None
    assert leaked.drifts
    assert leaked.question == PROMPTS
    assert leaked.other > leaked.own
    assert not worse.drifts


def test_without_the_other_question_the_chosen_answer_tells() -> None:
    leaked = Topics([REST]).measure(REST, GOOD, LEAKED)
    assert leaked is not None
    assert leaked.drifts
    assert leaked.question == ""


def test_short_answers_and_short_questions_are_left_alone() -> None:
    topics = Topics(QUESTIONS)
    assert topics.measure("What colour is the office door?", "Green.", "Blue, I think.") is None
    assert topics.measure("Why?", GOOD, LEAKED) is None


def test_a_question_about_the_same_is_no_other_question() -> None:
    twin = "Give advice on reducing latency in REST APIs for a small company."
    vague = (
        "It is important to see that this is a broad subject, and reducing latency in APIs has many aspects."
    )
    found = Topics([REST, twin]).measure(REST, "Cache.", vague)
    assert found is not None
    assert not found.drifts


def test_words_are_compared_without_case_accents_and_endings() -> None:
    assert stems("Reducing LATENCIES, réduced") == stems("reduces latency reduce")
    assert stems("Who are they?") == frozenset()


@given(writable, writable, writable, st.lists(writable, max_size=4))
def test_any_text_is_measured_within_bounds(
    prompt: str, chosen: str, rejected: str, others: list[str]
) -> None:
    found = Topics([prompt, *others]).measure(
        f"{prompt} red green blue", chosen, f"{rejected} a1 b2 c3 d4 e5 f6 g7 h8"
    )
    if found is not None:
        for share in (found.own, found.chosen, found.other):
            assert share == pytest.approx(min(1.0, max(0.0, share)))
