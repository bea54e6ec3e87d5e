"""The reward phase: a head that scores answers, learnt from pairs, prepared for the loop.

It starts from the base with a fresh adapter, whatever versions there are: a reward model that shared the policy's
adapter would judge it by its own taste.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model

from dlm.model import Policy, with_score_head, write_reward_facts
from dlm.recipe import Recipe, RewardRecipe
from dlm.training.adapters import lora_config, quiet_injection, refuse_bad_targets, without_dropout
from dlm.training.checkpoints import save_adapter
from dlm.training.objectives import RewardObjective
from dlm.training.pair_files import Scalar, ScalarCounts, pairs_from_scalars
from dlm.training.pairs import Pair
from dlm.training.planning import derived_seed
from dlm.training.preference import PAIR_SELECTION, pair_texts, split_and_encode
from dlm.training.prepared import (
    Prepared,
    Stored,
    limit_of,
    preflight_of,
    settle,
    special_tokens_in,
    without_validation,
)

__all__ = ["add_reward_head", "prepare_reward", "save_reward_model"]


def add_reward_head(policy: Policy, recipe: Recipe) -> Any:
    """A fresh adapter and a scoring head on the policy's trunk; both follow from the seed alone.

    Dropout is off, see `without_dropout`. The policy must have no adapter. Its own model is used up: its layers carry the reward model's adapter now.

    Raises:
        UsageError: `target_modules` names layers this base does not have.
        BaseModelError: transformers has no scoring head for this architecture.
    """
    classifier = with_score_head(policy)
    head = classifier.score.float()  # trained, so it moves by less than bf16 can hold
    # N(0, 1 / (E + 1)), as for the reward models of arXiv 2009.01325
    generator = torch.Generator().manual_seed(derived_seed(recipe.seed, "reward head", 0))
    weight = torch.randn(head.weight.shape, generator=generator) * (head.in_features + 1) ** -0.5
    with torch.no_grad():
        head.weight.copy_(weight)
    torch.manual_seed(recipe.seed)
    config = lora_config(classifier, recipe, task_type="SEQ_CLS")  # which also trains and keeps `score`
    with refuse_bad_targets(classifier), quiet_injection():
        return without_dropout(get_peft_model(classifier, config))


def save_reward_model(model: Any, policy: Policy, folder: Path) -> None:
    """Write adapter and head as PEFT does, and what `load_reward_model` needs to know beside them.

    Raises:
        StoreError: the disk refuses.
    """
    save_adapter(model, folder)
    write_reward_facts(folder, policy.chat.system_prompt)


def prepare_reward(
    pairs: Sequence[Pair],
    policy: Policy,
    model: Any,
    recipe: Recipe,
    reward: RewardRecipe,
    *,
    scalars: Sequence[Scalar] = (),
    stored: Stored | None = None,
) -> Prepared:
    """Select, split, encode and plan a run over pairs, and over scored answers made into pairs.

    Args:
        policy: the base whose trunk `model` scores with.
        model: as `add_reward_head` gives it.
        recipe: with the learning rate and epochs of the reward phase (`dlm.recipe.for_phase`).
        scalars: every two of one prompt whose scores differ by more than `reward.min_margin` make a pair.
        stored: what the run being resumed began with.

    Raises:
        UsageError, TrainingError: see `split_and_encode`; or a layout was named that does not fit the base.
    """
    limit = limit_of(policy, recipe)
    made, counts = pairs_from_scalars(scalars, reward.min_margin)
    split = split_and_encode(
        [*pairs, *made],
        policy,
        recipe,
        limit,
        min_margin=reward.min_margin,
        include_mined=reward.include_mined,
    )
    # the language model around the same trunk tells which layouts it computes right; the run itself makes no logits
    settled = settle(split.train, policy, policy.model, recipe, stored, headless=True)
    preflight = preflight_of(
        settled,
        model,
        rows=split.counts,
        used=split.selected,
        tokens=split.tokens,
        limit=limit,
        skipped=split.skipped,
        special_tokens=special_tokens_in(policy, pair_texts(split.selected)),
        split_reason=split.reason,
        notes=[*without_validation(recipe, split.validation), *([_about(counts)] if scalars else [])],
    )
    return Prepared(
        train=split.train,
        validation=split.validation,
        monitors=[],
        probes=[],
        plan=settled.planned.plan,
        objective=RewardObjective(settled.layout, reward),
        preflight=preflight,
        layout=settled.layout_choice,
        products=settled.products,
        findings=split.findings,
        selection=PAIR_SELECTION if split.validation else None,
    )


def _about(counts: ScalarCounts) -> str:
    """What became of scored answers, in a line."""
    parts = [
        f"{_n(counts.scalars, 'scored answer')} to {_n(counts.prompts, 'prompt')} make {_n(counts.pairs, 'pair')}"
    ]
    if counts.repeated:
        parts.append(f"{_n(counts.repeated, 'score')} of an answer that had one: the mean counts")
    for count, noun, why in (
        (counts.below_margin, "pair", "whose scores differ too little"),
        (counts.lone, "prompt", "with one answer only"),
        (counts.over_limit, "answer", "of prompts that have very many"),
    ):
        if count:
            parts.append(f"left out: {_n(count, noun)} {why}")
    return "; ".join(parts)


def _n(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
