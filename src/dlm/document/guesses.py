"""Lines that are no headings to the grammar but were likely meant as some.

They are text, and in an answer often rightly so: `## Question` is good Markdown. Only where a heading is missing does
`body` look for one of these to say where it was meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from dlm.recipe import nearest

__all__ = ["Guess", "guess_headings"]

_LINE: Final = re.compile(
    r"^ {0,3}#{1,6}[ \t]*([A-Za-z]{1,12})[ \t]*[0-9]{0,4}[ \t]*[.:)]?[ \t]*([!(\[][^\n]{0,20})?[ \t]*\r?$",
    re.MULTILINE,
)
_MEANT: Final[dict[str, str]] = {
    "q": "Q", "question": "Q", "a": "A", "answer": "A",
    "prompt": "Prompt", "chosen": "Chosen", "rejected": "Rejected",
}  # fmt: skip
_SPELLABLE: Final = tuple(word for word in _MEANT if len(word) > 1)


class Guess(NamedTuple):
    """A line that was likely meant as a heading: where it starts, as which one, and how that is written."""

    start: int
    role: str
    fix: str


def guess_headings(text: str, start: int, end: int, roles: tuple[str, ...]) -> Iterator[Guess]:
    """The lines between two offsets that were likely meant as a heading with one of these roles, in order."""
    for match in _LINE.finditer(text, start, end):
        word = match[1].lower()
        role = _MEANT.get(word)
        if (
            role is None and len(word) > 3 and word[0] in "qapcr"
        ):  # likeness is slow to tell: not for every heading
            role = _MEANT.get(nearest(word, _SPELLABLE))
        if role in roles:
            probe = role == "Q" and "prob" in (match[2] or "").lower()
            yield Guess(match.start(), role, f"### {role} !probe" if probe else f"### {role}")
