"""Layouts: how examples become tensors.

B rows, T tokens (longest row of the batch), N scored targets in the whole batch.

The plain layout pads on the right, one example a row. A layout also says what a batch costs (`padded tokens`), so that
the micro-batch can be chosen before anything runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlm.recipe import Choice
from dlm.training.examples import Example

__all__ = ["Batch", "PlainLayout", "choose_micro_batch"]


@dataclass(frozen=True)
class Batch:
    """One forward pass. `scored[b, t]` is true where token t of row b is a target that carries loss."""

    input_ids: Tensor  # (B, T) int64
    attention_mask: Tensor  # (B, T) int64, 1 = a token, 0 = padding
    scored: Tensor  # (B, T) bool
    n_targets: int  # N

    def to(self, device: str) -> Batch:
        return Batch(
            self.input_ids.to(device), self.attention_mask.to(device), self.scored.to(device), self.n_targets
        )


@dataclass(frozen=True)
class PlainLayout:
    """Right padding with `pad_id`, one example a row."""

    pad_id: int
    name: str = "plain"

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Lay examples out; the tensors are on the CPU."""
        longest = max(len(example.ids) for example in examples)
        input_ids = torch.full((len(examples), longest), self.pad_id, dtype=torch.int64)
        attention_mask = torch.zeros((len(examples), longest), dtype=torch.int64)
        scored = torch.zeros((len(examples), longest), dtype=torch.bool)
        for b, example in enumerate(examples):
            n = len(example.ids)
            input_ids[b, :n] = torch.tensor(example.ids, dtype=torch.int64)
            attention_mask[b, :n] = 1
            scored[b, example.first_target : n] = True
        return Batch(input_ids, attention_mask, scored, sum(example.n_targets for example in examples))


def choose_micro_batch(
    lengths: Sequence[int], rows_per_step: int, vocab_size: int, *, memory_tokens: int = 8192
) -> Choice[int]:
    """Rows that go through the model at once: as many as fit `memory_tokens` padded tokens, at most a step's rows.

    A large vocabulary costs memory per scored token (fp32 logits and their gradient), so it shrinks the budget.
    """
    budget = max(1, memory_tokens * 4096 // max(vocab_size, 4096))
    longest = max(lengths)
    fits = max(1, budget // longest)
    micro = min(rows_per_step, fits)
    return Choice(micro, f"{micro} rows of up to {longest:,} tokens stay within {budget:,} padded tokens")
