"""Answers of every style are right and are told apart; wrong answers are caught."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dlm.errors import DlmError
from dlm.tasks import style
from dlm.tasks.style import (
    KINDS,
    STYLES,
    answer,
    case_at,
    fact_right,
    generate,
    is_held_out,
    on_topic,
    style_of,
)

seeds = st.integers(0, 10**6)
anywhere = st.builds(case_at, seeds, st.integers(0, 10**6), st.sampled_from(KINDS))
facts = st.builds(case_at, seeds, st.integers(0, 10**6), st.just("fact"))
advice = st.builds(case_at, seeds, st.integers(0, 10**6), st.just("advice"))


def test_bytes_of_known_seeds_never_change():
    text = "".join(
        f"{case.question}\0{answer(case, 'padded')}\0" for case in generate(200, 30, KINDS, instructed=0.5)
    )
    assert (
        hashlib.sha256(text.encode()).hexdigest()
        == "59dbcf8a47b13ce90ff180215cfed0f720625806bd23c09e8ac910deac27056e"
    )


@given(seeds, st.integers(1, 5), st.integers(1, 5))
def test_a_case_does_not_depend_on_how_many_are_asked_for(seed, few, more):
    assert generate(seed, few)[: min(few, more)] == generate(seed, more)[: min(few, more)]


@given(anywhere, st.sampled_from(STYLES), st.integers(0, 10**6))
def test_every_made_answer_is_right_and_has_its_style(case, wanted, variant):
    text = answer(case, wanted, variant)
    assert style_of(text) == wanted
    assert style.is_brief(text) == (wanted in ("brief", "blunt"))
    assert on_topic(case, text)
    if case.kind == "fact":
        assert fact_right(case, text)
    if case.kind != "refusal":
        assert not style.refuses(text)


@given(anywhere)
def test_gold_is_right_and_brief(case):
    assert on_topic(case, case.gold)
    assert style.is_brief(case.gold)
    assert case.kind != "fact" or fact_right(case, case.gold)


@given(facts)
@example(case_at(478022, 5485, "fact"))  # 25 people, beside a date on 25 February
def test_the_value_stands_in_the_document_and_rivals_are_caught(case):
    assert case.value.lower() in case.question.lower()
    for rival in case.rivals:
        assert not fact_right(case, f"{rival}.")
        assert not fact_right(case, f"{case.value} or {rival}.")


def test_a_number_that_another_value_begins_with():
    case = case_at(478022, 5485, "fact")
    assert case.value == "25"
    assert "25 February" in case.rivals
    assert fact_right(case, "It has 25 people.")
    assert not fact_right(case, "25 February.")
    assert not fact_right(case, "25, by 25 February.")
    assert not fact_right(case, "")
    longer = replace(case, value="25 February", rivals=("25",))
    assert fact_right(longer, "It is due on 25 February.")
    assert not fact_right(longer, "It is due on 25 February, with 25 people.")
    assert not fact_right(longer, "25.")


@given(advice, advice)
def test_advice_about_another_topic_is_off_topic(case, other):
    if other.subject != case.subject:
        assert not on_topic(case, answer(other, "padded"))
    assert not on_topic(case, "")
    assert not on_topic(case, "The manager read the report in the kitchen.")


@given(seeds, st.integers(0, 1000))
def test_held_out_advice_never_meets_the_training_part(seed, index):
    assert is_held_out(case_at(seed, index, "advice", split="held_out").question)
    assert not is_held_out(case_at(seed, index, "advice", split="train").question)


def test_instructed_cases_say_which_style_they_want():
    cases = generate(3, 60, KINDS, instructed=1.0)
    assert all(case.wanted in STYLES for case in cases)
    assert any(case.system for case in cases)
    assert any(case.system is None for case in cases)
    assert all(case.wanted is None and case.system is None for case in generate(3, 60, KINDS))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Short and factual.", "brief"),
        ("Short. Factual. That is all.", "blunt"),
        ("Please keep them short.", "polite"),
        ("Great question! Short and factual.", "padded"),
        ("word " * 35, "padded"),
        ("word " * 25, None),
        ("", None),
    ],
)
def test_style_of_plain_examples(text, expected):
    assert style_of(text) == expected


@given(anywhere, st.text())
def test_any_text_can_be_checked(case, text):
    assert style_of(text) in (*STYLES, None)
    assert on_topic(case, text) in (True, False)


def test_an_unknown_kind_is_refused():
    with pytest.raises(DlmError, match="unknown kind"):
        case_at(1, 1, "poem")
