"""Objectives: from rows to a loss, through a layout.

An objective's loss is a sum of parts, and each part is a sum over its own unit: tokens, pairs. Whoever owns the
accumulation window divides each part by the window's count of that unit, so that micro-batches, devices and layouts
change nothing: a mean of means is not the mean.

Notation: N scored tokens, B pairs, A = 2·B answers (chosen and rejected of each pair in turn), E hidden width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dlm.recipe import PreferenceRecipe, RewardRecipe
from dlm.training.layout import Layout, Tree
from dlm.training.losses import dpo_losses, orpo_losses, reward_losses, sft_loss_sum, simpo_losses
from dlm.training.pairs import PairExample

__all__ = ["Objective", "Outcome", "PreferenceObjective", "Reference", "RewardObjective", "SftObjective"]

Reference = Mapping[str, tuple[float, float]]
"""Log-probs of (chosen, rejected) under the reference, by a pair's key."""


_ROUNDING = 1e-6  # relative; sums of some hundred fp32 log-probs in two layouts differ by a few 1e-7


@dataclass(frozen=True)
class Outcome:
    """What one micro-batch yields, each by the unit over which it is averaged."""

    loss: Mapping[str, Tensor]  # unit → summed part of the loss, a scalar with gradient
    sums: Mapping[str, Mapping[str, Tensor]]  # unit → metric name → sum, a scalar without gradient


class Objective(Protocol):
    """A loss over rows. `counts` is known before the forward pass, so that a whole window can be normalised exactly."""

    @property
    def layout(self) -> Layout: ...
    def counts(self, rows: Sequence[Any]) -> Mapping[str, int]: ...
    def forward(self, model: Any, rows: Sequence[Any]) -> Outcome: ...


@dataclass(frozen=True)
class SftObjective:
    """Supervised fine-tuning: mean negative log-likelihood per target token, in nats."""

    layout: Layout

    def counts(self, rows: Sequence[Tree]) -> Mapping[str, int]:
        """Target tokens of the rows."""
        return {"tokens": sum(len(branch) for row in rows for branch in row.branches)}

    def forward(self, model: Any, rows: Sequence[Tree]) -> Outcome:
        """Loss sum, tokens predicted right and, while training, entropy."""
        scores = self.layout.scores(model, rows, entropy=model.training)
        sums = {"mean_token_accuracy": scores.correct.sum()}
        if scores.entropy is not None:
            sums["entropy"] = scores.entropy.sum()
        return Outcome({"tokens": sft_loss_sum(scores.logprobs)}, {"tokens": sums})


@dataclass(frozen=True)
class PreferenceObjective:
    """DPO, ORPO or SimPO over pairs, with an optional supervised term on the chosen answers.

    `reference` holds the reference's log-probs for DPO; the other methods have none.
    """

    layout: Layout
    recipe: PreferenceRecipe
    reference: Reference

    def counts(self, rows: Sequence[PairExample]) -> Mapping[str, int]:
        """Pairs, and tokens of the chosen answers."""
        return {"pairs": len(rows), "chosen_tokens": sum(len(row.chosen) for row in rows)}

    def forward(self, model: Any, rows: Sequence[PairExample]) -> Outcome:
        """Loss parts and the metrics of the field (`rewards/…`, `logps/…`); what is ranked are the rewards."""
        scores = self.layout.scores(model, rows)
        chosen, rejected = scores.sums().view(-1, 2).unbind(1)  # (B,) each
        chosen_lengths, rejected_lengths = scores.lengths.view(-1, 2).unbind(1)
        recipe = self.recipe
        is_chosen = scores.owner.remainder(2) == 0  # (N,)
        nll_weight = recipe.sft_weight
        extra: dict[str, Tensor] = {}
        if recipe.method == "dpo":
            known = torch.tensor([self.reference[row.pair.key] for row in rows], device=chosen.device)
            ref_chosen, ref_rejected = known.to(chosen.dtype).unbind(1)
            losses = dpo_losses(
                chosen,
                rejected,
                ref_chosen,
                ref_rejected,
                beta=recipe.beta,
                loss_type=recipe.loss_type,
                label_smoothing=recipe.label_smoothing,
                chosen_lengths=chosen_lengths,
                rejected_lengths=rejected_lengths,
            )
            rewards = recipe.beta * (chosen - ref_chosen), recipe.beta * (rejected - ref_rejected)
            size = recipe.beta * (chosen.abs() + rejected.abs())
        elif recipe.method == "simpo":
            losses = simpo_losses(
                chosen, rejected, chosen_lengths, rejected_lengths, beta=recipe.beta, gamma=recipe.gamma
            )
            rewards = recipe.beta * chosen / chosen_lengths, recipe.beta * rejected / rejected_lengths
            size = rewards[0].abs() + rewards[1].abs()
        else:
            odds, log_odds = orpo_losses(chosen, rejected, chosen_lengths, rejected_lengths)
            losses = recipe.alpha * odds
            nll_weight += 1.0  # ORPO is the supervised loss with the odds-ratio term added
            rewards = recipe.alpha * chosen / chosen_lengths, recipe.alpha * rejected / rejected_lengths
            size = rewards[0].abs() + rewards[1].abs()
            extra |= {"log_odds_ratio": -odds, "log_odds_chosen": log_odds}  # both named as the field does
        nll = sft_loss_sum(scores.logprobs[is_chosen])
        loss = {"pairs": losses.sum()}
        if nll_weight:
            loss["chosen_tokens"] = nll_weight * nll
        return Outcome(
            loss,
            {
                "pairs": _pair_sums(*rewards, size)
                | {"logps/chosen": chosen.detach().sum(), "logps/rejected": rejected.detach().sum()}
                | {name: value.detach().sum() for name, value in extra.items()},
                "chosen_tokens": {
                    "nll_loss": nll.detach(),
                    "mean_token_accuracy": scores.correct[is_chosen].sum(),
                },
            },
        )


@dataclass(frozen=True)
class RewardObjective:
    """Bradley–Terry over the scores that a scalar head gives to both answers of a pair."""

    layout: Layout
    recipe: RewardRecipe

    def counts(self, rows: Sequence[PairExample]) -> Mapping[str, int]:
        """Pairs."""
        return {"pairs": len(rows)}

    def forward(self, model: Any, rows: Sequence[PairExample]) -> Outcome:
        """Loss sum and the metrics of the field (`rewards/…`)."""
        states = self.layout.last_states(model, rows)  # (A, E)
        head = model.get_base_model().score
        chosen, rejected = head(states.to(head_type(head))).float().view(-1, 2).unbind(1)
        margins = torch.tensor([row.pair.margin or 0.0 for row in rows], device=chosen.device)
        losses = reward_losses(
            chosen, rejected, margin=self.recipe.margin_scale * margins, center=self.recipe.center
        )
        return Outcome(
            {"pairs": losses.sum()}, {"pairs": _pair_sums(chosen, rejected, chosen.abs() + rejected.abs())}
        )


def head_type(head: Any) -> torch.dtype:
    """The type of a head's weights."""
    kind: torch.dtype = next(head.parameters()).dtype
    return kind


def _pair_sums(chosen: Tensor, rejected: Tensor, size: Tensor) -> dict[str, Tensor]:
    """Sums of rewards (B,), margins, right rankings and ties; a tie is neither right nor wrong.

    `size` (B,) is how large the numbers are whose difference a margin is: one below their rounding is a tie. Without
    that, a policy equal to its reference would rank by the rounding of two differently batched passes.
    """
    chosen, rejected = chosen.detach(), rejected.detach()
    margins, noise = chosen - rejected, _ROUNDING * size.detach()
    return {
        "rewards/chosen": chosen.sum(),
        "rewards/rejected": rejected.sum(),
        "rewards/margins": margins.sum(),
        "rewards/accuracies": (margins > noise).sum(),
        "rewards/ties": (margins.abs() <= noise).sum(),
    }
