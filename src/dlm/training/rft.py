"""The rft phase: prompts and a grader, prepared for the loop.

It moves the adapter of the version it starts from, or a fresh one, and is held to the state it started from. Supervised
rows are not trained on; what they score is watched, so that it shows when facts are lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dlm.errors import TrainingError
from dlm.grading import Grader
from dlm.model import Policy
from dlm.recipe import Choice, Recipe, RftRecipe
from dlm.training.examples import Row
from dlm.training.groups import GroupObjective
from dlm.training.loop import Selection
from dlm.training.planning import Plan, Planned
from dlm.training.prepared import (
    Limit,
    Prepared,
    Settled,
    Spread,
    Stored,
    limit_of,
    preflight_of,
    refuse_if_many_skipped,
    settle,
    special_tokens_in,
    without_validation,
)
from dlm.training.prompts import Prompt, PromptExample, encode_prompts, split_prompts
from dlm.training.rollouts import Rollouts
from dlm.training.sft import sft_monitors
from dlm.training.start import StartWeights

__all__ = ["DEFAULT_BUDGET", "REWARD_SELECTION", "prepare_rft"]

DEFAULT_BUDGET = 512  # tokens of an answer where neither a knob, nor a suite, nor references say
LEAST_BUDGET = 64
ROOM_BEYOND_REFERENCE = 1.25  # an answer may be this much longer than the longest reference
REWARD_SELECTION = Selection((("full_valid_mean_reward", "max"), ("valid_completion_tokens_mean", "min")))
"""An evaluation is better that earns more on held-out prompts; among equals, the one with the shorter answers."""


@dataclass(frozen=True)
class _Expected:
    """A prompt with answers as long as they may be expected: what layouts are tried and micro-batches sized on."""

    prompt: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]


def prepare_rft(
    prompts: Sequence[Prompt],
    rows: Sequence[Row],
    policy: Policy,
    model: object,
    recipe: Recipe,
    knobs: RftRecipe,
    grader: Grader,
    *,
    budget: Choice[int] | None = None,
    stored: Stored | None = None,
) -> Prepared:
    """Split, encode and plan a run over prompts. Call it before a checkpoint is loaded: the policy is held to the adapter
    as the run starts from it.

    Args:
        rows: the document's supervised rows, watched and never trained on.
        policy: the base with the version to start from, or with a fresh adapter inside its model.
        model: the model with its adapter open to training, as `start_adapter` gives it.
        recipe: with the learning rate of the rft phase (`dlm.recipe.for_phase`).
        grader: gives the rewards.
        budget: longest answer in tokens where the knob says nothing, and what says so.
        stored: what the run being resumed began with.

    Raises:
        TrainingError: no prompt fits, or more than a tenth of them do not.
        UsageError: a layout was named that does not fit the base.
    """
    limit = limit_of(policy, recipe)
    train_prompts, held_out, reason = split_prompts(prompts, recipe.val_fraction, knobs.validation_prompts)
    train = encode_prompts(train_prompts, policy.chat, limit.tokens.value)
    validation = encode_prompts(held_out, policy.chat, limit.tokens.value)
    skipped = (*train.skipped, *validation.skipped)
    if not train.examples:
        raise TrainingError(
            f"no prompt leaves room for an answer within {limit.tokens.value:,} tokens",
            next_step=f"shorten the prompts{limit.advice}",
        )
    refuse_if_many_skipped([one for one in skipped if one.kind == "too_long"], len(prompts), "prompts", limit)
    longest = _longest(knobs, budget, train.examples)
    expected = [_expected(one, knobs, longest.value, limit) for one in train.examples]
    rounds = min(knobs.steps, recipe.max_steps or knobs.steps)
    groups = min(len(expected), knobs.prompts_per_step)
    settled = settle(expected, policy, model, recipe, stored, planned_rows=rounds * groups)
    settled = replace(settled, planned=_plan(len(train.examples), settled, recipe, knobs, stored))
    rollouts = Rollouts(
        replace(policy, context_length=limit.tokens.value),  # an answer ends where a row may
        grader,
        knobs,
        settled.layout,
        settled.planned.plan,
        recipe.seed,
        StartWeights(model),
        validation.examples,
        longest.value,
    )
    monitors, probes = sft_monitors(rows, policy, recipe, settled)
    preflight = preflight_of(
        settled,
        model,
        rows={"train": len(train_prompts), "validation": len(held_out), "probes": len(probes)}
        | {one.prefix: len(one.rows) for one in monitors if one.rows and one.prefix != "probe"},
        used=prompts,
        tokens={"whole": Spread.of(len(one.prompt) for one in train.examples)},
        limit=limit,
        skipped=skipped,
        special_tokens=special_tokens_in(policy, [(one.place, one.text) for one in prompts]),
        split_reason=reason,
        notes=[
            *without_validation(recipe, validation.examples),
            *_about_room(train.examples, longest, limit),
        ],
    )
    return Prepared(
        train=train.examples,
        validation=validation.examples,
        monitors=monitors,
        probes=probes,
        plan=settled.planned.plan,
        objective=GroupObjective(settled.layout, knobs),
        preflight=preflight,
        layout=settled.layout_choice,
        products=settled.products,
        findings=[],
        selection=REWARD_SELECTION if validation.examples else None,
        rollouts=rollouts,
    )


def _longest(knobs: RftRecipe, budget: Choice[int] | None, examples: Sequence[PromptExample]) -> Choice[int]:
    """Tokens an answer may have: what is stated, else what the references need, else the default."""
    if knobs.max_new_tokens is not None:
        return Choice(knobs.max_new_tokens, "rft.max_new_tokens")
    if budget is not None:
        return budget
    references = [one.reference_tokens for one in examples if one.reference_tokens is not None]
    if not references:
        return Choice(DEFAULT_BUDGET, "there are no references to tell")
    needed = max(LEAST_BUDGET, round(ROOM_BEYOND_REFERENCE * max(references)))
    return Choice(needed, "the longest reference and a quarter more")


def _expected(one: PromptExample, knobs: RftRecipe, longest: int, limit: Limit) -> _Expected:
    """A tree of the size that a group is expected to have; its tokens are the prompt's own."""
    size = min(one.reference_tokens or longest // 2, longest, limit.tokens.value - len(one.prompt))
    repeated = one.prompt * (size // len(one.prompt) + 1)
    answer = repeated[: max(1, size)]
    return _Expected(one.prompt, (answer,) * knobs.group_size)


def _plan(n: int, settled: Settled, recipe: Recipe, knobs: RftRecipe, stored: Stored | None) -> Planned:
    """Rounds instead of passes; how a round's groups are cut to fit memory is as it was settled."""
    planned = settled.planned
    if stored is not None:
        return replace(planned, plan=stored.plan, epochs=Choice(planned.epochs.value, "as the run began"))
    total = min(knobs.steps, recipe.max_steps or knobs.steps)
    per_round = min(n, knobs.prompts_per_step)
    eval_every = recipe.eval_every_steps or max(1, math.ceil(total / 10))
    plan = Plan(
        n_examples=n,
        rows_per_step=per_round,
        micro_rows=planned.plan.micro_rows,
        total_steps=total,
        eval_every=eval_every,
        save_every=recipe.save_every_steps or eval_every,
        micro_batches=planned.plan.micro_batches,
        micro_positions=planned.plan.micro_positions,
    )
    reason = "rft.steps" if total == knobs.steps else f"cut short by max_steps = {recipe.max_steps}"
    return replace(
        planned,
        plan=plan,
        epochs=Choice(plan.epoch_at(total), reason),
        order=Choice(False, "rounds draw prompts of any length"),
    )


def _about_room(examples: Sequence[PromptExample], longest: Choice[int], limit: Limit) -> list[str]:
    """Notes on answers that cannot be as long as they should be."""
    notes = [f"answers may have {longest.value:,} tokens ({longest.reason})"]
    short = [one for one in examples if len(one.prompt) + longest.value > limit.tokens.value]
    if short:
        notes.append(
            f"{len(short)} of {len(examples)} prompts leave less room than that within {limit.tokens.value:,} tokens "
            f"({limit.tokens.reason}): their answers are cut off there"
        )
    out_of_reach = [one for one in examples if one.reference_tokens and one.reference_tokens > longest.value]
    if out_of_reach:
        notes.append(
            f"{len(out_of_reach)} of {len(examples)} reference answers are longer than {longest.value:,} tokens: no "
            "model can give those within the budget, so their rewards have a ceiling; raise rft.max_new_tokens"
        )
    return notes
