"""Text from tokens as they come: whole characters only, and nothing that a stop text might still take back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["TextStream", "find_stop"]

Decode = Callable[[Sequence[int]], str]

_UNFINISHED = "\ufffd"  # what a decoder shows for bytes that are not yet a character
_LONGEST_CHARACTER = 4  # bytes, in UTF-8


def find_stop(ids: Sequence[int], decode: Decode, stops: Sequence[str]) -> bool:
    """Whether a stop text was completed by the newest token.

    Only as many tokens are decoded as can hold the longest stop text (each has a byte or more).
    """
    if not stops:
        return False
    window = max(len(stop.encode()) for stop in stops) + _LONGEST_CHARACTER
    tail = decode(ids[-window:])
    return any(stop in tail for stop in stops)


class TextStream:
    """Turns tokens into pieces of text.

    Tokens before the last whole character are decoded again with each new one, since some tokenizers write a word's
    space only when there is a word before it; older ones are settled, so the cost per token stays small.
    """

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = stops
        self._ids: list[int] = []
        self._settled = 0  # tokens before this are text already
        self._context = 0  # tokens from here give the settled ones' surroundings
        self._text = ""
        self._given = 0  # characters handed out

    def push(self, token: int) -> str:
        """Take a token; the text that is now certain, or ""."""
        self._ids.append(token)
        before = self._decode(self._ids[self._context : self._settled])
        now = self._decode(self._ids[self._context :])
        if len(now) > len(before) and not now.endswith(_UNFINISHED):
            self._text += now[len(before) :]
            self._context, self._settled = self._settled, len(self._ids)
        return self._give(len(self._text) - self._held_back())

    def rest(self, text: str) -> str:
        """What is left to show of the finished answer's text."""
        return text[self._given :]

    def _give(self, end: int) -> str:
        piece = self._text[self._given : max(end, self._given)]
        self._given += len(piece)
        return piece

    def _held_back(self) -> int:
        """Length of the longest end of the text that could be the beginning of a stop text."""
        longest = max(map(len, self._stops), default=1) - 1
        for length in range(min(longest, len(self._text)), 0, -1):
            end = self._text[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
