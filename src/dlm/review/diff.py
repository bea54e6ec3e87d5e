"""Two answers word by word: what both say, and what only one of them says."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

__all__ = ["MAX_WORDS", "DiffPart", "Side", "word_diff"]

MAX_WORDS = 20_000  # of one answer, white space and signs counted: 50 MB of bits and about a second at most

Side = Literal["both", "chosen", "rejected"]

_WORD = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True)
class DiffPart:
    """A stretch of text that both answers have, or only the one."""

    side: Side
    text: str


def word_diff(chosen: str, rejected: str) -> tuple[DiffPart, ...] | None:
    """The answers as parts; those of "both" and "chosen" joined are the chosen answer, of "both" and "rejected" the other.

    Words, signs and white space are compared. None where an answer has more than `MAX_WORDS` of them.
    """
    left, right = _WORD.findall(chosen), _WORD.findall(rejected)
    if max(len(left), len(right)) > MAX_WORDS:
        return None
    runs = [
        (both, list(run))
        for both, run in groupby(
            reversed(list(_aligned_backwards(left, right))), key=lambda item: item[0] == "both"
        )
    ]
    parts: list[DiffPart] = []
    texts: dict[Side, str] = {"rejected": "", "chosen": ""}
    for place, (both, run) in enumerate(runs):
        if both and (place in (0, len(runs) - 1) or any(_says_something(word) for _, word in run)):
            parts += _differing(texts)
            texts = {"rejected": "", "chosen": ""}
            parts.append(DiffPart("both", "".join(word for _, word in run)))
            continue
        for side, word in run:
            for own in ("rejected", "chosen") if side == "both" else (side,):
                texts[own] += word
    return (*parts, *_differing(texts))


def _says_something(word: str) -> bool:
    """Whether it is a word: blanks and signs between two changes that happen to be equal only chop them up."""
    return word[0].isalnum()


def _differing(texts: Mapping[Side, str]) -> list[DiffPart]:
    return [DiffPart(side, text) for side, text in texts.items() if text]


def _aligned_backwards(left: Sequence[str], right: Sequence[str]) -> Iterable[tuple[Side, str]]:
    """The words of both sequences along a longest common subsequence, from the last to the first.

    Bit-parallel (Hyyrö 2004, "Bit-parallel LCS-length computation revisited"): bit i of a row is 0 where the longest
    common subsequence grows with word i of `left`. An answer that repeats one word for ever, which models do, takes
    difflib more than a minute.
    """
    places: dict[str, int] = defaultdict(int)
    for place, word in enumerate(left):
        places[word] |= 1 << place
    row = full = (1 << len(left)) - 1
    rows = []
    for word in right:
        matching = row & places.get(word, 0)
        row = ((row + matching) | (row - matching)) & full
        rows.append(row)
    a, b = len(left), len(right)
    while a and b:
        if rows[b - 1] >> (a - 1) & 1:
            a -= 1
            yield "chosen", left[a]
        elif b > 1 and not rows[b - 2] >> (a - 1) & 1:
            b -= 1
            yield "rejected", right[b]
        else:
            a, b = a - 1, b - 1
            yield "both", left[a]
    yield from (("chosen", word) for word in reversed(left[:a]))
    yield from (("rejected", word) for word in reversed(right[:b]))
