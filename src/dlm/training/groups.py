"""Groups of sampled answers: rows of a round of reinforcement fine-tuning, and the loss over them.

A group is a prompt with the answers that a policy gave to it, each with the advantage that its reward has over those of
its group, and with its tokens' log-probs as they were when it was sampled. Ids are kept as sampled: text that is encoded
anew may come out as other tokens.

Notation: N tokens of all answers laid out, A answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from dlm.recipe import RftRecipe
from dlm.training.layout import Layout
from dlm.training.objectives import Outcome
from dlm.training.policy_gradient import policy_gradient_loss_sum
from dlm.training.prompts import Prompt

__all__ = ["LOGP_DIFFERENCE", "Group", "GroupObjective", "cut_groups"]

LOGP_DIFFERENCE = "sampling/sampling_logp_difference/mean"  # as the field names it
Numbers = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Group:
    """Answers to one prompt that are learnt from together.

    `logprobs` holds each token's log-prob under the policy that sampled it, `reference` under the one the run started
    from (None: not taken), both under softmax(logits / temperature) over all tokens. `denominator` is what the loss of the
    whole round is divided by; it counts every answer that was graded, those of groups without spread included, whose policy
    gradient is 0 (and whose divergence from the start is not in the loss).
    """

    row: Prompt
    prompt: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]
    advantages: tuple[float, ...]
    logprobs: Numbers
    denominator: int
    reference: Numbers | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens of the answers."""
        return sum(map(len, self.branches))


def cut_groups(groups: Sequence[Group], layout: Layout, most: int | None) -> list[Group]:
    """Groups cut into some of at most `most` positions each (or one answer), so that no group is too large for memory.

    The loss is a sum over answers, so where a group is cut changes nothing; only its prompt is read once more.
    """
    if most is None:
        return list(groups)
    pieces: list[Group] = []
    for group in groups:
        places: list[int] = []
        for place in range(len(group.branches)):
            if places and layout.positions([_some(group, [*places, place])]) > most:
                pieces.append(_some(group, places))
                places = []
            places.append(place)
        pieces.append(_some(group, places))
    return pieces


def _some(group: Group, places: Sequence[int]) -> Group:
    """The answers at `places` alone."""
    if len(places) == len(group.branches):
        return group
    reference = group.reference
    return replace(
        group,
        branches=tuple(group.branches[place] for place in places),
        advantages=tuple(group.advantages[place] for place in places),
        logprobs=tuple(group.logprobs[place] for place in places),
        reference=None if reference is None else tuple(reference[place] for place in places),
    )


@dataclass(frozen=True)
class GroupObjective:
    """The GRPO family over groups (see `policy_gradient`)."""

    layout: Layout
    recipe: RftRecipe

    def counts(self, rows: Sequence[Group]) -> Mapping[str, int]:
        """What the round's loss is divided by, and the tokens that are learnt from."""
        return {"round": rows[0].denominator, "tokens": sum(row.n_tokens for row in rows)}

    def forward(self, model: Any, rows: Sequence[Group]) -> Outcome:
        """Loss sum; per token what was clipped, the divergence from the start, entropy, and how far the log-probs are from
        those of sampling."""
        knobs = self.recipe
        scores = self.layout.scores(model, rows, temperature=knobs.temperature, entropy=True)
        device = scores.logprobs.device
        sampled = _flat([row.logprobs for row in rows], device)  # (N,)
        known = [row.reference for row in rows if row.reference is not None]
        reference = _flat(known, device) if len(known) == len(rows) else None  # (N,)
        outcome = policy_gradient_loss_sum(
            scores.logprobs,
            sampled,
            torch.tensor([one for row in rows for one in row.advantages], device=device),  # (A,)
            scores.lengths,
            loss_type=knobs.loss_type,
            clip_low=knobs.clip_low,
            clip_high=knobs.clip_high,
            ref_logprobs=reference,
            beta=knobs.kl_beta if reference is not None else 0.0,
        )
        sums = {
            "clip_ratio/low_mean": outcome.clipped_low,
            "clip_ratio/high_mean": outcome.clipped_high,
            LOGP_DIFFERENCE: (scores.logprobs.detach() - sampled).abs().sum(),
        }
        if reference is not None:
            sums["kl"] = outcome.kl
        if scores.entropy is not None:
            sums["entropy"] = scores.entropy.sum()
        return Outcome({"round": outcome.loss_sum}, {"tokens": sums})


def _flat(numbers: Sequence[Numbers], device: torch.device) -> Tensor:
    return torch.tensor(list(chain.from_iterable(chain.from_iterable(numbers))), device=device)
