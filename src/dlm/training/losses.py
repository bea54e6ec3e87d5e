"""Losses as pure functions of log-probs.

N scored targets, B pairs. `*_logps` (B,) are log-probs summed over an answer's tokens, in nats;
`*_lengths` (B,) count those tokens; l̄ = logps / length. Log-probs come in fp32 or wider.

The supervised loss returns a *sum*, the pair losses one value per pair; whoever owns the accumulation window divides by
the window's own denominator, so that accumulation over micro-batches is exact: a mean of means is not the mean.
Losses over sampled groups are in `policy_gradient`.
"""

from __future__ import annotations

import math
from typing import Literal, assert_never

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = [
    "DpoLoss",
    "dpo_losses",
    "log1mexp",
    "orpo_losses",
    "reward_losses",
    "sft_loss_sum",
    "simpo_losses",
]

DpoLoss = Literal["sigmoid", "hinge", "ipo", "ipo_sum", "robust"]


def sft_loss_sum(logprobs: Tensor) -> Tensor:
    """Negative log-likelihood summed over targets, in nats. logprobs (N,) → scalar."""
    return -logprobs.sum()


def dpo_losses(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float,
    loss_type: DpoLoss = "sigmoid",
    label_smoothing: float = 0.0,
    chosen_lengths: Tensor | None = None,
    rejected_lengths: Tensor | None = None,
) -> Tensor:
    """Direct preference optimisation, every argument (B,) → (B,).

    With r = logps − ref_logps, Δ = r_w − r_l and ε the label smoothing:

        sigmoid   −(1 − ε) log σ(βΔ) − ε log σ(−βΔ)                  arXiv 2305.18290; ε as in its conservative form
        robust    [−(1 − ε) log σ(βΔ) + ε log σ(−βΔ)] / (1 − 2ε)     arXiv 2403.00409, ε < ½
        hinge     max(0, 1 − βΔ)                                     arXiv 2305.10425
        ipo       (r_w/T_w − r_l/T_l − 1/(2β))²                      arXiv 2310.12036, per token as its authors ran it
        ipo_sum   (Δ − 1/(2β))²                                      arXiv 2310.12036, as printed

    Only `ipo` reads the lengths, and needs them; only `sigmoid` and `robust` read the label smoothing.
    """
    chosen_ratios = chosen_logps - ref_chosen_logps
    rejected_ratios = rejected_logps - ref_rejected_logps
    margins = chosen_ratios - rejected_ratios
    match loss_type:
        case "sigmoid":
            right, flipped = -logsigmoid(beta * margins), -logsigmoid(-beta * margins)
            return (1 - label_smoothing) * right + label_smoothing * flipped
        case "robust":
            right, flipped = -logsigmoid(beta * margins), -logsigmoid(-beta * margins)
            return ((1 - label_smoothing) * right - label_smoothing * flipped) / (1 - 2 * label_smoothing)
        case "hinge":
            return torch.relu(1 - beta * margins)
        case "ipo":
            if chosen_lengths is None or rejected_lengths is None:
                raise ValueError(
                    "ipo divides by the answers' lengths: chosen_lengths and rejected_lengths are needed"
                )
            per_token = chosen_ratios / chosen_lengths - rejected_ratios / rejected_lengths
            return (per_token - 1 / (2 * beta)).square()
        case "ipo_sum":
            return (margins - 1 / (2 * beta)).square()
        case _:
            assert_never(loss_type)


def simpo_losses(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    *,
    beta: float,
    gamma: float,
) -> Tensor:
    """SimPO, arXiv 2405.14734: −log σ(β(l̄_w − l̄_l) − γ), no reference. All (B,) → (B,)."""
    margins = chosen_logps / chosen_lengths - rejected_logps / rejected_lengths
    return -logsigmoid(beta * margins - gamma)


def orpo_losses(
    chosen_logps: Tensor, rejected_logps: Tensor, chosen_lengths: Tensor, rejected_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """ORPO's odds-ratio term, arXiv 2403.07691, no reference. All (B,) → losses (B,), log odds ratios (B,).

    lo = l̄ − log(1 − e^l̄) is the log-odds of an answer at its mean token probability; the loss is −log σ(lo_w − lo_l).
    ORPO trains on NLL(chosen) + α · this, the NLL being the mean over the chosen answers' tokens, prompts left out.
    """
    chosen_means, rejected_means = chosen_logps / chosen_lengths, rejected_logps / rejected_lengths
    chosen_odds = chosen_means - log1mexp(chosen_means)
    rejected_odds = rejected_means - log1mexp(rejected_means)
    log_odds_ratios = chosen_odds - rejected_odds
    return -logsigmoid(log_odds_ratios), log_odds_ratios


def reward_losses(
    chosen_scores: Tensor, rejected_scores: Tensor, *, margin: Tensor | None = None, center: float = 0.0
) -> Tensor:
    """Bradley–Terry: −log σ(s_w − s_l − m) + c (s_w + s_l)². All (B,) → (B,).

    The margin m (arXiv 2307.09288, §3.2.2) is how far the scores should stand apart; the centring weight c
    (arXiv 2312.09244) holds scores near 0, since the first term sees only their difference.
    """
    gaps = chosen_scores - rejected_scores
    if margin is not None:
        gaps = gaps - margin
    losses = -logsigmoid(gaps)
    return losses + center * (chosen_scores + rejected_scores).square() if center else losses


def log1mexp(x: Tensor) -> Tensor:
    """log(1 − e^x) for x ≤ 0, accurate at both ends, with finite value and gradient everywhere.

    Above −ln 2 through expm1, below through log1p (Mächler 2012, "Accurately computing log(1 − exp(−|a|))"). A
    probability of 1 (x = 0) counts as 1 − the type's epsilon: then no logarithm sees 0, in the branch taken or in the
    other, whose gradient `where` multiplies by 0 (0 · ∞ would be NaN).
    """
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    above, below = torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x))
    return torch.where(x > -math.log(2), above, below)
