"""Rows exactly as the model sees them: decoded token by token, with what carries loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from dlm.training import PairExample, PromptExample
from dlm.workflow.views import Part, SeenRow

__all__ = ["pieces_of", "seen_row"]

_UNFINISHED = "\ufffd"  # what a decoder shows for bytes that are not yet a character
_LONGEST_CHARACTER = 4  # bytes, in UTF-8

_Roles = tuple[Literal["prompt", "answer", "chosen", "rejected"], ...]
_OF_A_ROW: Final[_Roles] = ("answer",)
_OF_A_PAIR: Final[_Roles] = ("chosen", "rejected")


def seen_row(example: Any, tokenizer: Any, *, reward: bool = False) -> SeenRow:
    """A row or a pair, as its tokens. A reward model reads its score at an answer's last token, so that one is marked."""

    def decode(ids: Sequence[int]) -> str:
        text: str = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    prompt = list(example.prompt)
    parts = [Part("prompt", prompt, pieces_of(prompt, decode), [False] * len(prompt))]
    if isinstance(example, PromptExample):  # its answers are yet to be sampled
        return SeenRow(example.row.place, parts)
    is_pair = isinstance(example, PairExample)
    for role, branch in zip(_OF_A_PAIR if is_pair else _OF_A_ROW, example.branches, strict=True):
        answer = list(branch)
        # decoded behind the prompt: some tokenizers write a word's space only when there is a word before it
        tokens = pieces_of([*prompt, *answer], decode)[len(prompt) :]
        scored = [not reward or index == len(answer) - 1 for index in range(len(answer))]
        parts.append(Part(role, answer, tokens, scored))
    return SeenRow(example.row.place, parts)


def pieces_of(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[str]:
    """What each token adds to the text, special tokens included; joined they are the text.

    A character whose bytes are spread over several tokens stands with the last of them.
    """
    pieces: list[str] = []
    settled = context = (
        0  # tokens before `settled` are text already; those from `context` on surround the next ones
    )
    for end in range(1, len(ids) + 1):
        before, now = decode(ids[context:settled]), decode(ids[context:end])
        pieces.append("")
        cut = end  # tokens before it end with a whole character
        if now.endswith(_UNFINISHED) and end < len(ids):
            if end - settled < _LONGEST_CHARACTER:
                continue
            # the sign for what is unfinished may stand in the text itself: the last whole character ends earlier, perhaps
            cut = next(
                (at for at in range(end - 1, settled, -1) if _parts(ids[settled:end], at - settled, decode)),
                end,
            )
            now = decode(ids[context:cut])
        pieces[cut - 1] = now[len(before) :] if now.startswith(before) else decode(ids[settled:cut])
        context, settled = settled, cut
    return pieces


def _parts(ids: Sequence[int], at: int, decode: Callable[[Sequence[int]], str]) -> bool:
    """Whether no character's bytes stand on both sides of a place."""
    return decode(ids[:at]) + decode(ids[at:]) == decode(ids)
