"""How alike two answers are: equal but for typography, nearly equal, or different.

Texts are compared as words: case, white space, typographic variants, invisible characters and the punctuation of
sentences do not count; signs that carry meaning in tables and code (`=`, `<`, `|`, …) and the points inside numbers do.
The measure is Dice's coefficient (1945) over the multisets of neighbouring words, both ends included: linear in the
text's length, so that an answer of a megabyte is no trouble, and sensitive to order, which a set of words is not.

| what differs in an answer of n words | similarity |
|---|---|
| typography alone | 1 |
| one word inside | 1 − 2/(n+1): .67 for 5 words, .85 for 12, .90 for 20, .95 for 40 |
| the order of two halves | 1 − 3/(n+1) at most |
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

__all__ = ["DUPLICATE", "TOO_SIMILAR", "normalised", "same_as_earlier", "similarity"]

DUPLICATE = 0.97
"""From here two samples count as one: they differ in a word of sixty or more. Nothing is lost by judging one of them."""

TOO_SIMILAR = 0.9
"""From here two answers make no pair: most of what training would compare is equal on both sides, and cancels. One wrong
word in an answer of up to 19 words stays below, so that a pair about a fact is kept."""

_WORDS = re.compile(r"[-+]?\w+(?:[.,:'’/@-]\w+)*|[^\w\s.,;:!?\"'“”‘’„«»…()\-–—]+")
_EDGE = ""  # no word is empty


def normalised(text: str) -> tuple[str, ...]:
    """The words that count, in order."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    visible = (
        "".join(char for char in folded if unicodedata.category(char) != "Cf")
        if not folded.isascii()
        else folded
    )
    return tuple(_WORDS.findall(visible))


def similarity(left: str, right: str) -> float:
    """From 0, no two neighbouring words in common, to 1, the same words in the same order; symmetric.

    A text without words is like another one of that kind, and like nothing else.
    """
    return _likeness(_neighbours(normalised(left)), _neighbours(normalised(right)))


def same_as_earlier(texts: Sequence[str]) -> list[int | None]:
    """For each text the place of an earlier one that stands for it, or None where it stands for itself."""
    stands_for: list[int | None] = []
    kept: list[tuple[int, Counter[tuple[str, str]]]] = []
    for place, text in enumerate(texts):
        shape = _neighbours(normalised(text))
        earlier = next((other for other, known in kept if _likeness(shape, known) >= DUPLICATE), None)
        stands_for.append(earlier)
        if earlier is None:
            kept.append((place, shape))
    return stands_for


def _neighbours(words: Sequence[str]) -> Counter[tuple[str, str]]:
    return Counter(pairwise((_EDGE, *words, _EDGE)))


def _likeness(left: Counter[tuple[str, str]], right: Counter[tuple[str, str]]) -> float:
    return 2 * (left & right).total() / (left.total() + right.total())
