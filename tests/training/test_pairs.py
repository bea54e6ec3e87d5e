"""Pairs from a document, their selection, split and encoding."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.document import mined, parse, render_preference
from dlm.document.provenance import write_provenance
from dlm.errors import UsageError
from dlm.training.pairs import (
    Pair,
    encode_pairs,
    pairs_hash,
    pairs_of_document,
    select_pairs,
    split_pairs,
)
from tiny_training import ByteChat

pytestmark = pytest.mark.torch

HEADER = "---\ndlm_id: 01ARZ3NDEKTSV4RRFFQ69G5FAV\ndlm_version: 15\nbase_model: pocket\n---\n"
BY_JUDGE = mined(
    judge_name="sway",
    judge_score_chosen=0.75,
    judge_score_rejected=-0.5,
    mined_at="2026-04-23T18:42:11Z",
    mined_run_id=7,
)


def pair(
    prompt: str = "p", chosen: str = "good", rejected: str = "bad", line: int = 1, **more: object
) -> Pair:
    return dataclasses.replace(Pair(prompt, chosen, rejected, "doc.dlm", line), **more)


def kinds(left_out: object) -> list[tuple[int, str]]:
    return [(skipped.row.line, skipped.kind) for skipped in left_out]  # type: ignore[attr-defined]


# --- from a document ------------------------------------------------------------------------------------------


def test_pairs_of_a_document_keep_their_lines_and_scores() -> None:
    text = (
        HEADER
        + "::preference::\n### Prompt\nOne?\n### Chosen\nYes.\n### Rejected\nWell, yes.\n"
        + "### Prompt\nTwo?\n### Chosen\nNo.\n### Rejected\nWell, no.\n\n"
        + f"::preference::\n{write_provenance(BY_JUDGE)}\n### Prompt\nThree?\n### Chosen\nA\n### Rejected\nB\n"
    )
    pairs = pairs_of_document(parse(text))
    assert [(p.prompt, p.chosen, p.rejected, p.mined, p.chosen_score, p.rejected_score) for p in pairs] == [
        ("One?", "Yes.", "Well, yes.", False, None, None),
        ("Two?", "No.", "Well, no.", False, None, None),
        ("Three?", "A", "B", True, 0.75, -0.5),
    ]
    assert [p.margin for p in pairs] == [None, None, 1.25]
    lines = text.split("\n")
    assert [lines[p.line] for p in pairs] == ["One?", "Two?", "Three?"]
    assert pairs[0].place == "<text>:7"


def test_another_kind_of_provenance_is_not_mined() -> None:
    text = HEADER + '::preference::\n<!-- dlm-auto-harvest: source="x" -->\n'
    (only,) = pairs_of_document(parse(text + "### Prompt\np\n### Chosen\nc\n### Rejected\nr\n"))
    assert (only.mined, only.margin) == (False, None)


def test_what_the_document_writes_is_what_is_trained_on() -> None:
    hostile = "::instruction::\n### Q\n\\x\n```\nopen"
    text = HEADER + render_preference([(hostile, "a" + hostile, "b" + hostile)], provenance=BY_JUDGE)
    (only,) = pairs_of_document(parse(text))
    assert (only.prompt, only.chosen, only.rejected) == (hostile, "a" + hostile, "b" + hostile)


def test_a_named_adapter_is_refused_with_its_line() -> None:
    with pytest.raises(UsageError) as fault:
        pairs_of_document(
            parse(HEADER + "::preference#tone::\n### Prompt\np\n### Chosen\nc\n### Rejected\nr\n")
        )
    assert fault.value.where.endswith(":6:1")


def test_a_key_depends_on_the_three_texts_alone() -> None:
    base = pair()
    assert base.key == pair(line=9, mined=True, chosen_score=1.0, rejected_score=0.0).key
    others = [pair(prompt="P"), pair(chosen="Good"), pair(rejected="Bad"), pair("p", "bad", "good")]
    assert len({base.key, *(other.key for other in others)}) == 5
    assert len(base.key) == 64
    assert pairs_hash([base, others[0]]) != pairs_hash([others[0], base])
    assert pairs_hash([base]) == pairs_hash([pair(line=4)])


def test_the_hash_of_pairs_sees_what_decides_how_they_are_trained_on() -> None:
    """Scores are read by the least margin and by the reward model's; a reverted pair is not read at all."""
    scored = pair(chosen_score=1.0, rejected_score=0.0)
    others = [pair(), pair(chosen_score=1.0, rejected_score=0.5), pair(reverted=True)]
    assert len({pairs_hash([one]) for one in (scored, *others)}) == 4
    assert pairs_hash([scored, others[1]]) != pairs_hash([others[1], scored])
    assert pairs_hash([scored]) == pairs_hash([pair(chosen_score=1.0, rejected_score=0.0, line=4)])


# --- selection ------------------------------------------------------------------------------------------------


def test_each_reason_is_listed_with_its_place() -> None:
    pairs = [
        pair(line=1),
        pair("mined?", line=2, mined=True),
        pair(chosen="same", rejected="same", line=3),
        pair("near?", line=4, chosen_score=0.5, rejected_score=0.4),
        pair("far?", line=5, chosen_score=0.9, rejected_score=0.4),
        pair("reversed?", line=6, chosen_score=0.1, rejected_score=0.9),
        pair("either?", "x", "y", line=7),
        pair("either?", "y", "x", line=8),
        pair("either?", "x", "y", line=9),
        pair(line=10),
    ]
    selection = select_pairs(pairs, min_margin=0.2, include_mined=False)
    assert [p.line for p in selection.pairs] == [1, 5]
    assert kinds(selection.left_out) == [
        (2, "mined"),
        (3, "equal"),
        (4, "below_margin"),
        (6, "scores_reversed"),
        (7, "contradiction"),
        (8, "contradiction"),
        (9, "contradiction"),
        (10, "duplicate"),
    ]
    assert (selection.mined, selection.below_margin) == (1, 1)
    reasons = {skipped.pair.line: skipped.reason for skipped in selection.left_out}
    assert "doc.dlm:8" in reasons[7]
    assert "doc.dlm:7" in reasons[8]
    assert "doc.dlm:1" in reasons[10]
    assert "0.5 and 0.4" in reasons[4]


def test_a_pair_that_is_left_out_neither_contradicts_nor_stands_in_for_another() -> None:
    hand = pair(line=2)
    against = pair("p", "bad", "good", line=1, mined=True)
    assert select_pairs([against, hand], include_mined=False).pairs == (hand,)
    assert select_pairs([against, hand]).pairs == ()
    weak = pair(line=1, chosen_score=0.5, rejected_score=0.4)
    assert select_pairs([weak, hand], min_margin=0.3).pairs == (hand,)
    assert select_pairs([weak, hand]).pairs == (weak,)
    back = pair(line=1, mined=True, reverted=True)
    assert select_pairs([back, pair("p", "bad", "good", line=2)]).count("reverted") == 1
    assert select_pairs([back, hand]).pairs == (hand,)


def test_the_margin_is_met_as_it_is_written() -> None:
    exact = pair(chosen_score=0.7, rejected_score=0.4)  # 0.29999999999999993 in floating point
    assert select_pairs([exact], min_margin=0.3).pairs == (exact,)
    assert select_pairs([exact], min_margin=0.31).pairs == ()
    tie = pair(chosen_score=0.7, rejected_score=0.7)
    assert select_pairs([tie]).pairs == (tie,)


small_pairs = st.lists(
    st.builds(
        Pair,
        st.sampled_from("pq"),
        st.sampled_from("abc"),
        st.sampled_from("abc"),
        st.just("d"),
        st.integers(1, 99),
        st.booleans(),
        st.sampled_from([0.0, 1.0]),
        st.sampled_from([0.0, 1.0]),
        st.booleans(),
    ),
    max_size=12,
)


@given(small_pairs, st.sampled_from([0.0, 0.5]), st.booleans())
def test_selection_loses_no_pair_and_keeps_no_bad_one(
    pairs: list[Pair], min_margin: float, include_mined: bool
) -> None:
    selection = select_pairs(pairs, min_margin=min_margin, include_mined=include_mined)
    everything = [*selection.pairs, *(skipped.pair for skipped in selection.left_out)]
    assert sorted(map(id, everything)) == sorted(map(id, pairs))
    kept = [(p.prompt, p.chosen, p.rejected) for p in selection.pairs]
    assert len(set(kept)) == len(kept)
    for p in selection.pairs:
        assert p.chosen != p.rejected
        assert (p.prompt, p.rejected, p.chosen) not in kept
        assert p.margin is not None
        assert p.margin >= min_margin
        assert include_mined or not p.mined
        assert not p.reverted
    again = select_pairs(selection.pairs, min_margin=min_margin, include_mined=include_mined)
    assert (again.pairs, again.left_out) == (selection.pairs, ())


# --- encoding -------------------------------------------------------------------------------------------------


class Deaf(ByteChat):
    """A chat whose tokenizer cannot tell capitals, and has no tokens for snowmen."""

    def completion_ids(self, answer: str) -> list[int]:
        return super().completion_ids(answer.lower().replace("☃", ""))


def test_both_sides_share_one_prompt_and_end() -> None:
    chat = ByteChat()
    (only,) = encode_pairs([pair("ask", "tell", "babble")], chat, 64).examples
    assert only.prompt == tuple(chat.prompt_ids("ask"))
    assert only.branches == (tuple(chat.completion_ids("tell")), tuple(chat.completion_ids("babble")))
    assert only.n_targets == len("tell") + len("babble") + 2
    assert only.row.place == "doc.dlm:1"


def test_what_cannot_be_trained_on_is_listed_and_never_cut() -> None:
    pairs = [
        pair("q", "x" * 100, "y", line=1),
        pair("q", "y", "x" * 99, line=2),
        pair("q", "Same", "same", line=3),
        pair("q", "☃", "same", line=4),
        pair("q", "same", "  ", line=5),
        pair(" ", "a", "b", line=6),
        pair("q", "a", "b", line=7),
    ]
    encoded = encode_pairs(pairs, Deaf(), 64)
    assert [example.pair.line for example in encoded.examples] == [7]
    assert kinds(encoded.skipped) == [
        (1, "too_long"),
        (2, "too_long"),
        (3, "same_tokens"),
        (4, "empty"),
        (5, "empty"),
        (6, "empty"),
    ]
    first, second, *_ = [skipped.reason for skipped in encoded.skipped]
    assert first == "104 tokens, 3 of them the prompt and 101 the chosen answer; the limit is 64"
    assert "100 the rejected answer" in second


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(8, 64))
def test_the_limit_holds_for_the_prompt_with_its_longest_answer(p: int, c: int, r: int, max_len: int) -> None:
    encoded = encode_pairs([pair("p" * p, "c" * c, "r" * r)], ByteChat(), max_len)
    assert len(encoded.examples) == (p + 2 + max(c, r) + 1 <= max_len)
    assert len(encoded.examples) + len(encoded.skipped) == 1


# --- held-out pairs -------------------------------------------------------------------------------------------


def many(n: int, per_prompt: int = 1) -> list[Pair]:
    return [pair(f"question {i // per_prompt}?", f"yes {i}", f"no {i}", i) for i in range(n)]


def test_no_validation_below_twenty_pairs_and_it_is_said() -> None:
    train, validation, reason = split_pairs(many(19), 0.5)
    assert (len(train), validation) == (19, [])
    assert "20 pairs" in reason
    assert split_pairs(many(30), 0)[1:] == ([], "val_fraction is 0")


@given(st.integers(20, 80), st.integers(1, 7), st.floats(0.05, 0.5))
def test_the_pairs_of_one_prompt_stand_on_one_side(n: int, per_prompt: int, fraction: float) -> None:
    train, validation, _ = split_pairs(many(n, per_prompt), fraction)
    assert len(train) + len(validation) == n
    assert train
    assert validation
    assert {p.prompt for p in train}.isdisjoint(p.prompt for p in validation)


@given(st.integers(20, 60), st.integers(1, 40))
def test_added_pairs_move_no_pair_to_the_other_side(n: int, more: int) -> None:
    _, before, _ = split_pairs(many(n), 0.2)
    _, after, _ = split_pairs(many(n + more), 0.2)
    if len(before) > 1:  # a single held-out pair may be the stand-in for an empty draw
        assert set(before) <= set(after)


def test_white_space_in_a_prompt_moves_no_pair() -> None:
    plain = many(40)
    held = {p.line for p in split_pairs(plain, 0.3)[1]}
    spaced = [dataclasses.replace(p, prompt=f" {p.prompt.replace(' ', chr(10))} ") for p in plain]
    assert {p.line for p in split_pairs(spaced, 0.3)[1]} == held


def test_pairs_of_one_prompt_alone_are_all_trained_on() -> None:
    train, validation, reason = split_pairs(many(25, per_prompt=25), 0.3)
    assert (len(train), validation) == (25, [])
    assert "pairs are all alike in prompt" in reason
