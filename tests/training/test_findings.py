"""What is said of rows and pairs before a run, with one planted case for every kind."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.document.surface import MIN_DECIDED
from dlm.training.examples import Encoded, Example, Row, encode
from dlm.training.findings import Finding, pair_findings, row_findings, surface_findings
from dlm.training.pairs import Pair, PairExample, encode_pairs, select_pairs
from tiny_training import ByteChat, chat_row

pytestmark = pytest.mark.torch

Text = Callable[[int], str]


def answer(seed: str) -> str:
    """Letters at random, so that no side has anything of its own on the surface."""
    draw = random.Random(seed)
    words = "".join(draw.choice("abcdefgh ") for _ in range(draw.randrange(8, 16)))
    return draw.choice("ABab") + words + draw.choice("ab.!")


def examples(n: int, chosen: Text, rejected: Text) -> list[PairExample]:
    pairs = [Pair(f"p{i}", chosen(i), rejected(i), "doc.dlm", i + 1) for i in range(n)]
    encoded = encode_pairs(pairs, ByteChat(), 512)
    assert not encoded.skipped
    return list(encoded.examples)


def good(i: int) -> str:
    return answer(f"good{i}")


def bad(i: int) -> str:
    return answer(f"bad{i}")


def kinds(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    return [(finding.kind, finding.level) for finding in findings]


PLANTED: dict[str, tuple[Text, Text, list[tuple[str, str]]]] = {
    "nothing": (good, bad, []),
    "CRLF in the chosen": (
        lambda i: f"{good(i)}\r\n{good(i)}",
        lambda i: f"{bad(i)}\n{bad(i)}",
        [("line_endings", "warning")],
    ),
    "CRLF in the rejected": (
        lambda i: f"{good(i)}\n{good(i)}",
        lambda i: f"{bad(i)}\r\n{bad(i)}",
        [("line_endings", "warning")],
    ),
    "final newline": (lambda i: good(i) + "\n", bad, [("final_newline", "warning")]),
    "trailing space": (good, lambda i: bad(i) + " ", [("trailing_space", "warning")]),
    "leading space": (lambda i: " " + good(i), bad, [("leading_space", "warning")]),
    "first token": (
        lambda i: "=" + good(i),
        lambda i: "+*#"[i % 3] + bad(i),
        [("first_token", "warning")],
    ),
    "last token": (
        lambda i: good(i) + "=",
        lambda i: bad(i) + "+*#"[i % 3],
        [("last_token", "warning")],
    ),
    "several tokens on both sides": (
        lambda i: "=~"[i % 2] + good(i),
        lambda i: "+*#"[i % 3] + bad(i),
        [("first_token", "warning")],
    ),
    "case": (
        lambda i: "xy"[i % 2] + good(i),
        lambda i: "XY"[i % 2] + bad(i),
        [("first_letter_case", "note"), ("first_token", "warning")],
    ),
    "punctuation": (
        lambda i: good(i) + ".",
        lambda i: bad(i) + "=",
        [("final_punctuation", "note"), ("last_token", "warning")],
    ),
    "shorter": (good, lambda i: bad(i) + " and so on, and on, and on" + good(i)[-1], [("length", "note")]),
    "longer": (lambda i: good(i) + " and so on, and on, and on" + bad(i)[-1], bad, [("length", "note")]),
}


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_what_is_planted_is_found_and_nothing_else(name: str) -> None:
    chosen, rejected, expected = PLANTED[name]
    findings = surface_findings(examples(40, chosen, rejected))
    assert kinds(findings) == expected
    for finding in findings:
        assert finding.share == 1.0
        assert finding.places == tuple(f"doc.dlm:{i}" for i in range(1, 6))
        assert "in 40 of 40 pairs" in str(finding)


def test_a_line_that_made_several_pairs_is_named_once() -> None:
    chosen, rejected, _ = PLANTED["shorter"]
    pairs = [Pair(f"p{i}", chosen(i), rejected(i), "scores", i // 3 + 1) for i in range(40)]
    (finding,) = surface_findings(encode_pairs(pairs, ByteChat(), 512).examples)
    assert finding.places == tuple(f"scores:{i}" for i in range(1, 6))


def test_the_message_says_which_side_has_it() -> None:
    (shorter,) = surface_findings(examples(40, *PLANTED["shorter"][:2]))
    (longer,) = surface_findings(examples(40, *PLANTED["longer"][:2]))
    assert "shorter" in shorter.message
    assert "longer" in longer.message
    (space,) = surface_findings(examples(40, *PLANTED["trailing space"][:2]))
    assert "the rejected answers end with a space" in space.message


def test_fewer_pairs_than_eight_are_no_evidence() -> None:
    few = examples(MIN_DECIDED - 1, lambda i: good(i) + "\n", bad)
    assert surface_findings(few) == []
    assert kinds(surface_findings([*few, *examples(1, lambda i: good(i) + "\n", bad)]))


def test_one_pair_in_ten_against_it_clears_a_feature() -> None:
    def mostly(i: int) -> str:
        return good(i) + ("" if i % 10 == 0 else "\n")

    def rarely(i: int) -> str:
        return bad(i) + ("\n" if i % 10 == 0 else "")

    assert surface_findings(examples(100, mostly, rarely)) == []


def test_ties_count_against_style_but_not_against_white_space() -> None:
    def half(i: int) -> str:
        return good(i) + ("\n" if i % 2 else "")

    (finding,) = surface_findings(examples(40, half, bad))
    assert (finding.kind, finding.share) == ("final_newline", 0.5)
    assert "in 20 of 40 pairs" in finding.message

    def marked(i: int) -> str:
        return ("=" if i % 2 else "+") + good(i)

    assert surface_findings(examples(40, marked, lambda i: "+" + bad(i))) == []


class Characters(ByteChat):
    """A token for every character there is."""

    def completion_ids(self, answer: str) -> list[int]:
        return [*map(ord, answer), 257]


def own(i: int) -> str:
    """An answer that begins like no other."""
    return chr(0x4E00 + i) + good(i)


def test_first_tokens_that_are_all_different_tell_nothing() -> None:
    pairs = [Pair(f"p{i}", own(i), own(i + 500), "doc.dlm", i + 1) for i in range(40)]
    assert surface_findings(encode_pairs(pairs, Characters(), 99).examples) == []


def test_a_token_that_only_rejected_answers_have_tells_them_apart() -> None:
    pairs = [Pair(f"p{i}", own(i), "=" + bad(i), "doc.dlm", i + 1) for i in range(40)]
    findings = surface_findings(encode_pairs(pairs, Characters(), 99).examples)
    assert kinds(findings) == [("first_token", "warning")]


def test_answers_of_one_prompt_compared_with_each_other_are_no_evidence_of_a_token() -> None:
    texts = [chr(ord("a") + i) * (5 + i % 3) + "a" for i in range(9)]
    pairs = [Pair("p", texts[i], texts[j], "d", 1) for i in range(9) for j in range(i + 1, 9)]
    assert surface_findings(encode_pairs(pairs, ByteChat(), 99).examples) == []


def test_pairs_that_differ_in_white_space_alone_are_listed() -> None:
    pairs = [Pair("p", "one two", "one  two\n", "d", 7), Pair("p", "one two", "onetwo", "d", 8)]
    findings = surface_findings(encode_pairs(pairs, ByteChat(), 99).examples)
    assert [(finding.kind, finding.places) for finding in findings] == [("only_white_space", ("d:7",))]


@given(st.lists(st.tuples(*[st.text("ab .\n\r", min_size=1, max_size=5).filter(str.strip)] * 2), max_size=30))
def test_findings_are_symmetrical(texts: list[tuple[str, str]]) -> None:
    """Chosen and rejected swapped, the same features tell them apart, in the same share of pairs."""
    pairs = [Pair(f"p{i}", c, r, "d", i) for i, (c, r) in enumerate(texts) if c != r]
    there = surface_findings(encode_pairs(pairs, ByteChat(), 99).examples)
    swapped = [dataclasses.replace(p, chosen=p.rejected, rejected=p.chosen) for p in pairs]
    back = surface_findings(encode_pairs(swapped, ByteChat(), 99).examples)
    assert [(f.kind, f.share, f.places) for f in there] == [(f.kind, f.share, f.places) for f in back]
    assert all(f.share is None or 0 < f.share <= 1 for f in there)


def test_pairs_left_out_stand_before_what_the_surface_gives_away() -> None:
    pairs = [Pair(f"p{i}", good(i) + "\n", bad(i), "doc.dlm", i + 1) for i in range(10)]
    pairs += [
        Pair("same", "x", "x", "doc.dlm", 11),
        dataclasses.replace(pairs[0], line=12),
        Pair("long", "x" * 999, "y", "doc.dlm", 13),
        Pair("mined", "x", "y", "doc.dlm", 14, mined=True),
        Pair("scores", "x", "y", "doc.dlm", 15, chosen_score=2, rejected_score=1),
    ]
    selection = select_pairs(pairs, min_margin=3, include_mined=False)
    encoded = encode_pairs(selection.pairs, ByteChat(), 99)
    findings = pair_findings((*selection.left_out, *encoded.skipped), encoded.examples)
    assert [(finding.kind, finding.places[0]) for finding in findings] == [
        ("equal", "doc.dlm:11"),
        ("duplicate", "doc.dlm:12"),
        ("too_long", "doc.dlm:13"),
        ("final_newline", "doc.dlm:1"),
    ]
    assert str(findings[0]) == "doc.dlm:11: left out: the chosen and the rejected answer are equal"


# --- rows -----------------------------------------------------------------------------------------------------


def test_rows_that_are_left_out_repeated_or_at_odds_are_listed() -> None:
    rows = [
        chat_row("q", "a", 1),
        chat_row("q", "a", 2),
        chat_row("q", "b", 3),
        chat_row("long", "x" * 99, 4),
        chat_row("blank", " ", 5),
        Row("prose", None, "text", "doc.dlm", 6),
        Row("prose", None, "text", "notes.txt", 1),
        Row("prose", None, "other text", "notes.txt", 2),
        Row("chat", "q", "c", "doc.dlm", 7, probe=True),
        chat_row("unlike", "a", 8),
        chat_row("twice", "a", 9),
        chat_row("twice", "a", 10),
        chat_row("twice", "a", 11),
    ]
    findings = row_findings(rows, encode(rows, ByteChat(), 64))
    assert [(f.kind, f.level, f.places) for f in findings] == [
        ("too_long", "warning", ("doc.dlm:4",)),
        ("empty", "warning", ("doc.dlm:5",)),
        ("duplicate", "note", ("doc.dlm:1", "doc.dlm:2")),
        ("duplicate", "note", ("doc.dlm:6", "notes.txt:1")),
        ("duplicate", "note", ("doc.dlm:9", "doc.dlm:10", "doc.dlm:11")),
        ("different_answers", "warning", ("doc.dlm:1", "doc.dlm:2", "doc.dlm:3")),
    ]


def test_sound_rows_give_no_findings() -> None:
    rows = [chat_row(f"q{i}", "a", i) for i in range(20)]
    assert row_findings(rows, encode(rows, ByteChat(), 64)) == []


def test_a_row_without_a_token_that_carries_loss_is_listed() -> None:
    row = chat_row("q", "a", 3)
    (finding,) = row_findings([row], Encoded((Example(row, (1, 2, 3), 3),), (), 0))
    assert (finding.kind, finding.places) == ("all_masked", ("doc.dlm:3",))
