"""Choices that shape a run before it starts: how many rows go through the model at once."""

from __future__ import annotations

from collections.abc import Sequence

from dlm.recipe import Choice

__all__ = ["choose_micro_batch"]


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
