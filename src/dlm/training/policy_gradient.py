"""Losses over groups of sampled answers: GRPO and its two relatives, with clipping and a KL term.

S sequences (sampled answers), N their tokens, laid end to end with the sequences in order; T_s tokens in sequence s.

The variants share every term and differ in how token losses are averaged:

    grpo      mean over sequences of each sequence's token mean     arXiv 2402.03300
    dapo      mean over all tokens                                  arXiv 2503.14476
    dr_grpo   sum / (S · longest length allowed)                    arXiv 2503.20783; advantages without the deviation

All three are a weighted sum over tokens divided by one number for the whole accumulation window. So the loss comes as
the sum, the denominator from lengths that are known before any forward pass, and splitting a window into micro-batches,
ranks or paddings changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor

__all__ = [
    "GroupLoss",
    "PolicyGradient",
    "group_advantages",
    "policy_gradient_denominator",
    "policy_gradient_loss_sum",
]

GroupLoss = Literal["grpo", "dapo", "dr_grpo"]
ADVANTAGE_EPSILON = 1e-4  # keeps the advantages of a group finite when all its rewards are nearly equal


@dataclass(frozen=True)
class PolicyGradient:
    """A micro-batch's loss sum, and sums over its tokens of what is reported per token; all scalars."""

    loss_sum: Tensor  # with gradient; divide by `policy_gradient_denominator` of the window
    clipped_low: Tensor  # tokens whose ratio fell below 1 − clip_low while the advantage was negative
    clipped_high: Tensor  # tokens whose ratio rose above 1 + clip_high while the advantage was positive
    ratio: Tensor  # Σ ρ
    ratio_square: Tensor  # Σ ρ²
    kl: Tensor  # Σ (e^d − d − 1), nats; 0 without a reference


def group_advantages(rewards: Tensor, scale_std: bool = True) -> Tensor:
    """How much better each sample was than its group. rewards (G groups, K samples) → (G, K).

    A = R − mean, divided by (std + 1e-4) with `scale_std` (arXiv 2402.03300; the sample deviation, K − 1 below).
    Dr. GRPO (arXiv 2503.20783) leaves the deviation out. A group of one, or of equal rewards, has advantages of 0.
    """
    advantages = rewards - rewards.mean(dim=1, keepdim=True)
    if not scale_std or rewards.shape[1] == 1:
        return advantages
    return advantages / (rewards.std(dim=1, keepdim=True) + ADVANTAGE_EPSILON)


def policy_gradient_denominator(lengths: Sequence[int], loss_type: GroupLoss, *, max_length: int) -> int:
    """What the loss sums of a whole window are divided by. `lengths`: T_s of every sequence of every micro-batch and
    rank; `max_length`: tokens an answer may have at most, read by dr_grpo."""
    match loss_type:
        case "grpo":
            return len(lengths)
        case "dapo":
            return sum(lengths)
        case "dr_grpo":
            return len(lengths) * max_length
        case _:
            assert_never(loss_type)


def policy_gradient_loss_sum(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    lengths: Tensor,
    *,
    loss_type: GroupLoss,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    ref_logprobs: Tensor | None = None,
    beta: float = 0.0,
) -> PolicyGradient:
    """Σ w_t [−min(ρA, clip(ρ, 1 − clip_low, 1 + clip_high)A) + β(e^d − d − 1)], w_t = 1/T_s for grpo, else 1.

    logprobs, old_logprobs and ref_logprobs (N,): each token's log-prob under the policy, under the policy that sampled
    it, and under the reference. advantages (S,), lengths (S,) int. ρ = e^(logprobs − old_logprobs), d = ref_logprobs −
    logprobs: e^d − d − 1 ≥ 0 estimates the KL divergence from the reference without bias (arXiv 2402.03300, eq. 4).
    A ratio clipped on the side where the advantage pushes it further has no gradient; on the other side it keeps it
    (arXiv 1707.06347; a clip_high of its own: arXiv 2503.14476).
    """
    if beta and ref_logprobs is None:
        raise ValueError("beta weighs the divergence from a reference: ref_logprobs are needed")
    advantage = advantages.repeat_interleave(lengths)  # (N,)
    ratio = torch.exp(logprobs - old_logprobs.detach())
    token_losses = -torch.minimum(ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage)
    kl = torch.zeros_like(logprobs)
    if ref_logprobs is not None:
        d = ref_logprobs.detach() - logprobs
        kl = torch.expm1(d) - d
    if beta:
        token_losses = token_losses + beta * kl
    if loss_type == "grpo":
        token_losses = token_losses / lengths.repeat_interleave(lengths)
    ratio, kl = ratio.detach(), kl.detach()
    return PolicyGradient(
        loss_sum=token_losses.sum(),
        clipped_low=((ratio < 1 - clip_low) & (advantage < 0)).sum(),
        clipped_high=((ratio > 1 + clip_high) & (advantage > 0)).sum(),
        ratio=ratio.sum(),
        ratio_square=ratio.square().sum(),
        kl=kl.sum(),
    )
