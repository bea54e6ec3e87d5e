"""What to look at in the data before training on it.

Rows and pairs that are left out, repeated or at odds with each other, and pairs that something on the surface gives
away: where line endings, a trailing space, the first or last token or length alone tell chosen from rejected answers,
a model can learn that and nothing else. Each finding names the places; none of them stops a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dlm.document.surface import FEATURES, WANTED, Level, guess, tells
from dlm.training.examples import Encoded, Row, SkippedRow
from dlm.training.pairs import PairExample, SkippedPair

__all__ = ["Finding", "pair_findings", "row_findings", "surface_findings"]

EXAMPLES: Final = 5  # places named for a finding about all pairs


@dataclass(frozen=True)
class Finding:
    """One thing to look at. A warning is most likely a fault of the data; a note may well be what the user wants.

    `share` is the share of pairs that the feature decides the right way, for findings of `surface_findings`.
    """

    kind: str
    level: Level
    message: str
    places: tuple[str, ...]
    share: float | None = None

    def __str__(self) -> str:
        return f"{', '.join(self.places)}: {self.message}"


def row_findings(rows: Sequence[Row], encoded: Encoded) -> list[Finding]:
    """Rows left out, rows no token of which carries loss, equal rows, and one question with different answers.

    Probes are never trained on, so that they repeat nothing.
    """
    findings = _left_out(encoded.skipped)
    for example in encoded.examples:
        if example.n_targets < 1:
            message = "no token of this row carries loss: nothing would be learnt from it"
            findings.append(Finding("all_masked", "warning", message, (example.row.place,)))
    trained = [row for row in rows if not row.probe]
    for same in _groups(trained, lambda row: (row.prompt, row.text)):
        message = f"the same row stands here {_times(len(same))}: it counts {_times(len(same))}"
        findings.append(Finding("duplicate", "note", message, tuple(row.place for row in same)))
    for asked in _groups((row for row in trained if row.prompt is not None), lambda row: row.prompt):
        answers = len({row.text for row in asked})
        if answers > 1:
            message = (
                f"one question with {answers} different answers: the model will give now one, now another"
            )
            findings.append(
                Finding("different_answers", "warning", message, tuple(row.place for row in asked))
            )
    return findings


def pair_findings(left_out: Iterable[SkippedPair], examples: Sequence[PairExample]) -> list[Finding]:
    """Pairs left out (of selection and encoding), then what the surface of the others gives away.

    Pairs that the user asked to leave out, by `include_mined` and `min_margin`, are their own doing and only counted
    elsewhere.
    """
    asked_for = ("mined", "below_margin")
    return [
        *_left_out([skipped for skipped in left_out if skipped.kind not in asked_for]),
        *surface_findings(examples),
    ]


def _left_out(skipped: Iterable[SkippedRow] | Iterable[SkippedPair]) -> list[Finding]:
    return [Finding(one.kind, "warning", f"left out: {one.reason}", (one.row.place,)) for one in skipped]


def _groups(rows: Iterable[Row], key: Callable[[Row], object]) -> list[list[Row]]:
    """Rows of equal keys, where there are several, in the order of the first of each."""
    groups: dict[object, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def _times(n: int) -> str:
    return "twice" if n == 2 else f"{n} times"


# --- what the surface gives away ------------------------------------------------------------------------------


_TOKENS: Final[dict[str, Callable[[tuple[int, ...]], int]]] = {
    "first_token": lambda ids: ids[0],
    "last_token": lambda ids: ids[-2:][0],  # the one before the end token, which ends every answer
}
_EXPLAINED_BY: Final = {
    "first_token": ("leading_space",),
    "last_token": ("final_newline", "trailing_space"),
}
"""Tokens are not reported where white space that is reported already makes them what they are."""


def surface_findings(examples: Sequence[PairExample]) -> list[Finding]:
    """Features of the surface that alone tell chosen from rejected in nearly every pair, and pairs that differ in
    nothing but white space.

    A feature guesses the chosen answer of each pair; where both answers have the same of it, the pair is tied. It is
    reported when it decides at least `MIN_DECIDED` pairs and is right in at least `MIN_SHARE` of all of them (white
    space: of those it decides). A first or last token is judged by the other answers only (see `_token_guesses`).
    """
    findings = [
        Finding(
            "only_white_space",
            "warning",
            "the two answers differ in nothing but white space: that is all that this pair teaches",
            (example.pair.place,),
        )
        for example in examples
        if example.pair.chosen.split() == example.pair.rejected.split()
    ]
    found: set[str] = set()
    for feature in FEATURES:
        guesses = [
            guess(feature, (one.pair.chosen, one.pair.rejected), (len(one.chosen), len(one.rejected)))
            for one in examples
        ]
        direction = 1 if sum(guesses) >= 0 else -1
        if tells(guesses, direction, ties_apart=feature.level == "warning"):
            what = feature.more if direction > 0 else feature.less
            found.add(feature.kind)
            wins = [guess == direction for guess in guesses]
            findings.append(
                _finding(feature.kind, feature.level, f"{what}; {feature.advice}", wins, examples)
            )
    for kind, token_of in _TOKENS.items():
        guesses = _token_guesses(examples, token_of)
        if tells(guesses, 1, ties_apart=False) and found.isdisjoint(_EXPLAINED_BY[kind]):
            what = f"the {kind.replace('_', ' ')} alone tells chosen from rejected answers"
            wins = [guess == 1 for guess in guesses]
            findings.append(_finding(kind, "warning", f"{what}; {WANTED}", wins, examples))
    return findings


def _finding(
    kind: str, level: Level, what: str, wins: Sequence[bool], examples: Sequence[PairExample]
) -> Finding:
    places = [example.pair.place for example, win in zip(examples, wins, strict=True) if win]
    message = f"in {len(places):,} of {len(wins):,} pairs {what}"
    named = tuple(dict.fromkeys(places))[
        :EXAMPLES
    ]  # pairs of scored answers share their better answer's line
    return Finding(kind, level, message, named, len(places) / len(wins))


def _token_guesses(examples: Sequence[PairExample], token_of: Callable[[tuple[int, ...]], int]) -> list[int]:
    """Per pair: 1 where a token of each answer, looked up in all other answers, names the chosen one; -1 where it
    names the rejected one, 0 where it says nothing.

    A token speaks for an answer by the number of other chosen answers that have it less the number of other rejected
    ones. An answer to a prompt is counted once on each side where it stands, and the pair's own two are not counted:
    tokens that no other answer has say nothing, and an answer that is chosen here and rejected there says nothing.
    """
    sides: tuple[dict[tuple[str, str], int], ...] = ({}, {})
    for example in examples:
        pair = example.pair
        sides[0][pair.prompt, pair.chosen] = token_of(example.chosen)
        sides[1][pair.prompt, pair.rejected] = token_of(example.rejected)
    chosen, rejected = sides
    votes: Counter[int] = Counter(chosen.values())
    votes.subtract(rejected.values())
    guesses = []
    for example in examples:
        own = ((example.pair.prompt, example.pair.chosen), (example.pair.prompt, example.pair.rejected))

        def standing(token: int, own: tuple[tuple[str, str], ...] = own) -> int:
            mine = sum((chosen.get(text) == token) - (rejected.get(text) == token) for text in own)
            return votes[token] - mine

        left, right = standing(token_of(example.chosen)), standing(token_of(example.rejected))
        guesses.append((left > right) - (left < right))
    return guesses
