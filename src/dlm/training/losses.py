"""Losses as pure functions of log-probs, and the log-probs they need.

N scored targets, V vocabulary. A loss returns a *sum*; whoever owns the accumulation window divides by the window's
own denominator, so that accumulation over micro-batches is exact: a mean of means is not the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dlm.model import keeps_logits
from dlm.training.examples import Example
from dlm.training.layout import Batch, PlainLayout

__all__ = ["Objective", "Outcome", "SftObjective", "TokenScores", "score_tokens", "sft_loss_sum"]


@dataclass(frozen=True)
class Outcome:
    """What one micro-batch yields: a loss sum with gradient, and sums of what is averaged over the same denominator."""

    loss_sum: Tensor  # scalar
    sums: dict[str, Tensor]  # metric name without split prefix → scalar, no gradient


class Objective(Protocol):
    """A loss over examples. `denominator` is known before the forward pass, so a whole window can be normalised exactly."""

    def denominator(self, examples: Sequence[Example]) -> int: ...
    def forward(self, model: Any, examples: Sequence[Example]) -> Outcome: ...


@dataclass(frozen=True)
class TokenScores:
    """Per scored target, rows in order: log-prob (fp32, with gradient), whether it was the model's first choice, and
    while training the entropy of its distribution."""

    logprobs: Tensor  # (N,)
    correct: Tensor  # (N,) bool
    entropy: Tensor | None  # (N,) nats, no gradient


def sft_loss_sum(logprobs: Tensor) -> Tensor:
    """Negative log-likelihood summed over targets, in nats. logprobs (N,) → scalar."""
    return -logprobs.sum()


def score_tokens(model: Any, batch: Batch) -> TokenScores:
    """Log-probs of a batch's scored targets under a causal LM.

    Position t − 1 predicts token t; only positions from the first scored target of the batch on reach the head. The
    log-softmax runs in fp32 whatever the weights' type.
    """
    scored = batch.scored[:, 1:]
    first = int(
        scored.any(dim=0).to(torch.int64).argmax()
    )  # the first position that predicts a scored target
    keep = scored.shape[1] - first
    narrow = {"logits_to_keep": keep} if keeps_logits(model) else {}
    output = model(
        input_ids=batch.input_ids[:, :-1],
        attention_mask=batch.attention_mask[:, :-1],
        use_cache=False,
        **narrow,
    )
    wanted = scored[:, first:]
    logits = output.logits[:, -keep:][wanted].float()  # (N, V)
    targets = batch.input_ids[:, 1:][:, first:][wanted]  # (N,)
    logp = torch.log_softmax(logits, dim=-1)
    with torch.no_grad():
        entropy = -(logp.exp() * logp).sum(-1) if model.training else None
        correct = logits.argmax(-1) == targets
    return TokenScores(logp.gather(-1, targets[:, None]).squeeze(-1), correct, entropy)


@dataclass(frozen=True)
class SftObjective:
    """Supervised fine-tuning: mean negative log-likelihood per target token, in nats."""

    layout: PlainLayout
    device: str

    def denominator(self, examples: Sequence[Example]) -> int:
        """Target tokens of the examples."""
        return sum(example.n_targets for example in examples)

    def forward(self, model: Any, examples: Sequence[Example]) -> Outcome:
        """Loss sum, tokens predicted right and entropy of one micro-batch."""
        scores = score_tokens(model, self.layout.batch(examples).to(self.device))
        sums = {"mean_token_accuracy": scores.correct.sum()}
        if scores.entropy is not None:
            sums["entropy"] = scores.entropy.sum()
        return Outcome(sft_loss_sum(scores.logprobs), sums)
