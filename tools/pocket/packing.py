"""Documents become token rows, and rows one flat pack a step: no padding, and no row sees another.

Notation: N tokens of a pack, D documents in it. Attention runs per document (see `network`), so packing
cannot leak; `spans` says where each document lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from dlm.tasks.draw import Draw
from tools.pocket.corpus import Document, document

__all__ = ["Pack", "PackReader", "drill", "encode"]

CONTEXT = 2048
# Learning to predict made-up names in prompts is wasted work, but prompts hold English too: a third of them
# count a little, and the head is computed only where something counts.
_PROMPT_SHARE = 0.33
_PROMPT_WEIGHT = 0.3
# Tables and lists hold nine tenths of the answers' tokens: without weights the facts among them are not learnt.
_ANSWER_WEIGHTS = {
    "table": 1.0,
    "long_table": 1.0,
    "list": 1.0,
    "fact": 4.0,
    "interview": 4.0,
    "refusal": 3.0,
    "advice": 4.0,
}
_OTHER_ANSWER_WEIGHT = 2.0
_DRILLS, _DRILL_TOKENS = 2, 24  # per pack: about 3 % of its tokens


@dataclass(frozen=True)
class Pack:
    """One step's input: ids, positions and loss weights (N,), and the documents' (start, end) in it."""

    ids: Tensor
    positions: Tensor
    targets: Tensor
    weights: Tensor
    spans: tuple[tuple[int, int], ...]


def encode(tokenizer: Tokenizer, one: Document, draw: Draw) -> tuple[list[int], list[int], list[float]]:
    """Ids, positions and per-token loss weights of a document, cut at the context length."""
    special = tokenizer.token_to_id
    newline = tokenizer.encode("\n").ids[0]
    ids, weights = [special("<|bos|>")], [0.0]
    prompt = _PROMPT_WEIGHT if draw.chance(_PROMPT_SHARE) else 0.0
    for role, text in one.messages:
        body = [*tokenizer.encode(text).ids, special("<|end|>")]
        if role == "prose":
            ids += body
            weights += [1.0] * len(body)
            continue
        ids += [special(f"<|{role}|>"), newline, *body, newline]
        heard = _ANSWER_WEIGHTS.get(one.kind, _OTHER_ANSWER_WEIGHT) if role == "assistant" else prompt
        weights += [0.0, 0.0, *[heard] * len(body), 0.0]
    ids, weights = ids[:CONTEXT], weights[:CONTEXT]
    return ids, list(range(len(ids))), weights


def drill(tokenizer: Tokenizer, draw: Draw) -> tuple[list[int], list[int], list[float]]:
    """Random tokens to repeat: ids, positions and weights like `encode`'s.

    Many merges of the tokenizer never occur whole in the corpus. A token that is never a target drifts into one common
    direction with all others of its kind, and no later adapter can tell them apart: a document with such a word could
    never be learnt. Here every token is a target now and then.
    """
    special = tokenizer.token_to_id
    newline = tokenizer.encode("\n").ids
    first, last = special("<|assistant|>") + 1, tokenizer.get_vocab_size() - 1  # special tokens stand first
    tokens = [draw.integer(first, last) for _ in range(_DRILL_TOKENS)]
    end = special("<|end|>")
    heard = [*tokens, end]
    asked = [
        special("<|bos|>"),
        special("<|user|>"),
        *newline,
        *tokenizer.encode("Repeat exactly: ").ids,
        *heard,
        *newline,
    ]
    opening = [special("<|assistant|>"), *newline]
    ids = [*asked, *opening, *heard, *newline]
    weights = [0.0] * (len(asked) + len(opening)) + [1.0] * len(heard) + [0.0]
    return ids, list(range(len(ids))), weights


class PackReader:
    """Reads the stream of documents into packs of at most `size` tokens; its state is the next document's number."""

    def __init__(self, tokenizer: Tokenizer, size: int, number: int) -> None:
        self._tokenizer = tokenizer
        self._size = size
        self.number = number

    def next(self, progress: float) -> Pack:
        """The next pack. A document that does not fit opens the following pack instead."""
        first = self.number
        ids: list[int] = []
        positions: list[int] = []
        weights: list[float] = []
        spans = []
        rows = [drill(self._tokenizer, Draw("drill", self.number, index)) for index in range(_DRILLS)]
        while True:
            for row in rows:
                spans.append((len(ids), len(ids) + len(row[0])))
                ids += row[0]
                positions += row[1]
                weights += row[2]
            one = document(self.number, progress)
            rows = [encode(self._tokenizer, one, Draw("pack", self.number))]
            if self.number != first and len(ids) + len(rows[0][0]) > self._size:
                break
            self.number += 1
        # The token at t predicts t + 1; a document's last token predicts nothing.
        targets = [*ids[1:], 0]
        shifted = [*weights[1:], 0.0]
        for _, end in spans:
            shifted[end - 1] = 0.0
        return Pack(
            torch.tensor(ids),
            torch.tensor(positions),
            torch.tensor(targets),
            torch.tensor(shifted),
            tuple(spans),
        )
