"""What the surface of answers gives away: line ends, spaces, case, punctuation and length that differ between the two
answers of a pair. A model learns such a difference before anything else; where it runs through all pairs, it may learn
nothing else. Pure functions over texts, for the pre-flight of a training and for whoever looks at pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

__all__ = [
    "FEATURES",
    "MIN_DECIDED",
    "MIN_SHARE",
    "WANTED",
    "Feature",
    "Level",
    "SurfaceFinding",
    "audit",
    "guess",
    "tells",
    "white_space_flags",
]

Level = Literal["warning", "note"]
MIN_DECIDED: Final = 8
"""Pairs that a feature must decide before it is reported. Eight coin flips that all fall the same way are one in 128."""
MIN_SHARE: Final = 0.95
"""Share of pairs that a feature must decide the right way. Ties count against it, so that it tells the sides apart in
nearly every pair: what helps in half of them, as the style of an answer may, is no finding. White space is never meant,
so there ties stand apart, and any number of pairs from `MIN_DECIDED` on that lean one way is a finding."""


class Feature(NamedTuple):
    """A measure of one answer, of its text and length; of the two in a pair, the one with more of it is guessed to be the chosen one.

    `more` and `less` say what the chosen answers have in common when that guess, or its opposite, is right.
    """

    kind: str
    level: Level  # white space is a warning
    measure: Callable[[str, int], float | None]
    more: str
    less: str
    advice: str


_STRIP: Final = "strip it from the answers, or every model learns it before anything else"
WANTED: Final = "if that is not what you want to teach, add pairs where both answers are alike in it"


def _ends_with_punctuation(text: str) -> bool:
    return text.rstrip().endswith((".", "!", "?", "…", "。", "！", "？", ":", ";"))


def _capital(text: str) -> bool | None:
    first = text.lstrip()[:1]
    return first.isupper() if first.isupper() or first.islower() else None


FEATURES: Final = (
    Feature(
        "line_endings",
        "warning",
        lambda text, length: "\r" in text,
        "the chosen answers have Windows line ends (CR LF), the rejected ones do not",
        "the rejected answers have Windows line ends (CR LF), the chosen ones do not",
        "write all of them with the same line ends, or every model learns the difference before anything else",
    ),
    Feature(
        "final_newline",
        "warning",
        lambda text, length: text.endswith(("\n", "\r")),
        "the chosen answers end with a line end, the rejected ones do not",
        "the rejected answers end with a line end, the chosen ones do not",
        _STRIP,
    ),
    Feature(
        "trailing_space",
        "warning",
        lambda text, length: text.rstrip("\r\n") != text.rstrip(),
        "the chosen answers end with a space, the rejected ones do not",
        "the rejected answers end with a space, the chosen ones do not",
        _STRIP,
    ),
    Feature(
        "leading_space",
        "warning",
        lambda text, length: text != text.lstrip(),
        "the chosen answers begin with white space, the rejected ones do not",
        "the rejected answers begin with white space, the chosen ones do not",
        _STRIP,
    ),
    Feature(
        "first_letter_case",
        "note",
        lambda text, length: _capital(text),
        "the chosen answers begin with a capital, the rejected ones with a small letter",
        "the chosen answers begin with a small letter, the rejected ones with a capital",
        WANTED,
    ),
    Feature(
        "final_punctuation",
        "note",
        lambda text, length: _ends_with_punctuation(text),
        "the chosen answers end with a punctuation mark, the rejected ones do not",
        "the rejected answers end with a punctuation mark, the chosen ones do not",
        WANTED,
    ),
    Feature(
        "length",
        "note",
        lambda text, length: length,
        "the chosen answer is the longer one",
        "the chosen answer is the shorter one",
        "if it is not length that you want to teach, add pairs where the better answer is as long as the other",
    ),
)


@dataclass(frozen=True)
class SurfaceFinding:
    """One feature that tells chosen from rejected answers in `count` of `of` pairs."""

    kind: str
    level: Level
    message: str
    count: int
    of: int


def audit(pairs: Sequence[tuple[str, str]]) -> list[SurfaceFinding]:
    """Features that alone tell chosen from rejected in nearly every (chosen, rejected); length counts words.

    The rule is that of the training's pre-flight (`tells`), which counts tokens in place of words.
    """
    lengths = [(len(chosen.split()), len(rejected.split())) for chosen, rejected in pairs]
    found = []
    for feature in FEATURES:
        guesses = [guess(feature, pair, length) for pair, length in zip(pairs, lengths, strict=True)]
        direction = 1 if sum(guesses) >= 0 else -1
        if tells(guesses, direction, ties_apart=feature.level == "warning"):
            what = feature.more if direction > 0 else feature.less
            count = guesses.count(direction)
            message = f"in {count:,} of {len(guesses):,} pairs {what}; {feature.advice}"
            found.append(SurfaceFinding(feature.kind, feature.level, message, count, len(guesses)))
    return found


def white_space_flags(chosen: str, rejected: str) -> tuple[str, ...]:
    """What only white space tells apart in one pair: `only_white_space`, or features of level "warning" that differ."""
    if chosen.split() == rejected.split():
        return ("only_white_space",)
    white = (feature for feature in FEATURES if feature.level == "warning")
    return tuple(feature.kind for feature in white if guess(feature, (chosen, rejected), (0, 0)))


def guess(feature: Feature, texts: tuple[str, str], lengths: tuple[int, int]) -> int:
    """1 where the chosen answer has more of the feature, -1 where the rejected one has, 0 for a tie."""
    chosen, rejected = (feature.measure(text, length) for text, length in zip(texts, lengths, strict=True))
    if chosen is None or rejected is None:
        return 0
    return (chosen > rejected) - (chosen < rejected)


def tells(guesses: Sequence[int], direction: int, *, ties_apart: bool) -> bool:
    """Whether guesses are right often enough to report the feature that made them."""
    decided = len(guesses) - guesses.count(0)
    judged = decided if ties_apart else len(guesses)
    return decided >= MIN_DECIDED and guesses.count(direction) >= MIN_SHARE * judged
