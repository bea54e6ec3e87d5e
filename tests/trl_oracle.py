"""The same weights and token ids through TRL's trainers and through this core, step by step.

TRL's side is in `trl_trainers`. Our side is what a run uses: an objective on the plain layout.

Both models start from one LoRA that is not zero. TRL's model takes the steps; before a comparison its weights are
copied into ours. Beside that, a third model takes the same steps with our loss alone: how far it drifts is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlm.recipe import PreferenceRecipe, RewardRecipe
from dlm.training.layout import Layout
from dlm.training.losses import reward_losses
from dlm.training.objectives import Objective, PreferenceObjective, RewardObjective, SftObjective
from dlm.training.policy_gradient import (
    GroupLoss,
    group_advantages,
    policy_gradient_denominator,
    policy_gradient_loss_sum,
)
from trl_trainers import (
    GRPO,
    MARGINS,
    MAX_LENGTH,
    N_ROWS,
    PAD,
    ROWS_PER_STEP,
    SftTree,
    Side,
    pairs,
    rollouts,
    tiny_model,
    trainable,
    trl_dpo,
    trl_grpo,
    trl_orpo,
    trl_reward,
    trl_sft,
    trl_simpo,
)

COMPARED_STEPS = (1, 10, 50)
LEARNING_RATE = 5e-4


@dataclass(frozen=True)
class Case:
    """One loss: TRL's way and ours to compute it, from a model each."""

    name: str
    theirs: Callable[[Any, Path], Side]
    ours: Callable[[Any], Side]
    scorer: bool = False  # a scalar head instead of a language model's
    rows_per_step: int = ROWS_PER_STEP
    differs: frozenset[str] = frozenset()  # metrics of one name and two meanings


@dataclass
class Comparison:
    """What came out of a case. Relative figures are ‖ours − theirs‖ / ‖theirs‖ over all trainable weights."""

    name: str
    loss: dict[int, float] = field(default_factory=dict)  # step → TRL's loss
    loss_gap: dict[int, float] = field(default_factory=dict)  # step → |Δ|
    gradient_gap: dict[int, float] = field(default_factory=dict)  # step → relative
    metric_gap: dict[str, float] = field(default_factory=dict)  # name → largest |Δ| / max(1, |TRL's|)
    metrics: dict[str, float] = field(default_factory=dict)  # TRL's, at the last compared step
    drift_loss: float = 0.0  # largest |Δ| over free-running steps
    drift_weights: float = 0.0  # after the last of them, relative to how far TRL's weights have moved


# Our side.


def normalised(objective: Objective[Any], examples: Sequence[Any], model: Any) -> Side:
    """The loss and metrics of a step whose rows are the whole window."""
    latest: dict[str, float] = {}

    def loss(places: Sequence[int]) -> Tensor:
        rows = [examples[place] for place in places]
        counts, outcome = objective.counts(rows), objective.forward(model, rows)
        for unit, sums in outcome.sums.items():
            latest.update({name: float(total) / counts[unit] for name, total in sums.items()})
        return torch.stack([part / counts[unit] for unit, part in outcome.loss.items()]).sum()

    return Side(loss, lambda: latest)


def plain(model: Any) -> Layout:
    return Layout.of("plain", model, PAD, "cpu")


def our_sft(model: Any) -> Side:
    rows = [SftTree(row.prompt, (row.chosen,)) for row in pairs()]
    return normalised(SftObjective(plain(model)), rows, model)


def our_preference(model: Any, prompt_tokens: tuple[int, int] = (3, 9), **knobs: Any) -> Side:
    """The reference is the adapter that the run starts from."""
    rows, layout, recipe = pairs(prompt_tokens), plain(model), PreferenceRecipe(**knobs)
    reference = {}
    if recipe.method == "dpo":
        with torch.no_grad():
            sums = layout.scores(model, rows).sums().view(-1, 2).tolist()
        reference = {
            row.pair.key: (chosen, rejected) for row, (chosen, rejected) in zip(rows, sums, strict=True)
        }
    return normalised(PreferenceObjective(layout, recipe, reference), rows, model)


def our_odds_ratio_term(model: Any, *, alpha: float) -> Side:
    rows = pairs()
    objective = PreferenceObjective(plain(model), PreferenceRecipe(method="orpo", alpha=alpha), {})

    def loss(places: Sequence[int]) -> Tensor:
        return objective.forward(model, [rows[place] for place in places]).loss["pairs"] / len(places)

    return Side(loss)


def our_reward(model: Any, *, center: float) -> Side:
    layout = Layout("plain", PAD, "cpu", headless=True)
    return normalised(RewardObjective(layout, RewardRecipe(center=center)), pairs(), model)


def our_reward_with_margins(model: Any, *, center: float) -> Side:
    """No phase trains with margins yet, so the loss is called as it is."""
    rows, layout = pairs(), Layout("plain", PAD, "cpu", headless=True)

    def loss(places: Sequence[int]) -> Tensor:
        states = layout.last_states(model, [rows[place] for place in places])
        chosen, rejected = model.get_base_model().score(states).view(-1, 2).unbind(1)
        margin = torch.tensor([MARGINS[place] for place in places])
        return reward_losses(chosen, rejected, margin=margin, center=center).mean()

    return Side(loss)


def our_grpo(model: Any, *, loss_type: GroupLoss) -> Side:
    groups, layout = rollouts(), plain(model)
    with torch.no_grad():
        start = layout.scores(model, groups)
    rewards = torch.tensor([group.rewards for group in groups])
    advantages = group_advantages(rewards, scale_std=loss_type != "dr_grpo").flatten()
    denominator = policy_gradient_denominator(start.lengths.tolist(), loss_type, max_length=MAX_LENGTH)
    latest: dict[str, float] = {}

    def loss(_: Sequence[int]) -> Tensor:
        outcome = policy_gradient_loss_sum(
            layout.scores(model, groups).logprobs,
            start.logprobs,
            advantages,
            start.lengths,
            loss_type=loss_type,
            ref_logprobs=start.logprobs,
            **GRPO,
        )
        n_tokens = int(start.lengths.sum())
        latest["kl"] = float(outcome.kl) / n_tokens
        latest["clip_ratio/low_mean"] = float(outcome.clipped_low) / n_tokens
        latest["clip_ratio/high_mean"] = float(outcome.clipped_high) / n_tokens
        return outcome.loss_sum / denominator

    return Side(loss, lambda: latest)


def dpo_case(name: str, loss_type: str | list[str], ours: dict[str, Any], **theirs: Any) -> Case:
    return Case(
        name,
        partial(trl_dpo, loss_type=loss_type, beta=ours["beta"], **theirs),
        partial(our_preference, method="dpo", **ours),
    )


ONE_TOKEN = (1, 1)
MEAN_LOGPS = frozenset({"logps/chosen", "logps/rejected"})  # means per token there, sums here and in DPO
CASES = [
    Case("sft", trl_sft, our_sft),
    dpo_case("dpo sigmoid", "sigmoid", {"beta": 0.5}),
    # TRL's sigmoid has no label smoothing; its `aot` has, and is the same loss on one pair at a time
    Case(
        "dpo sigmoid, smoothed",
        partial(trl_dpo, loss_type="aot", beta=0.5, label_smoothing=0.2),
        partial(our_preference, method="dpo", beta=0.5, label_smoothing=0.2),
        rows_per_step=1,
    ),
    dpo_case("dpo hinge", "hinge", {"beta": 0.15, "loss_type": "hinge"}),
    dpo_case("dpo ipo", "ipo", {"beta": 0.25, "loss_type": "ipo"}),
    dpo_case(
        "dpo robust",
        "robust",
        {"beta": 0.5, "loss_type": "robust", "label_smoothing": 0.2},
        label_smoothing=0.2,
    ),
    dpo_case(
        "dpo sigmoid + sft",
        ["sigmoid", "sft"],
        {"beta": 0.5, "sft_weight": 0.25},
        loss_weights=[1.0, 0.25],
    ),
    # TRL takes ORPO's NLL over prompt and answer, we over the answer; behind a prompt of one token both are the same
    Case(
        "orpo, prompts of one token",
        partial(trl_orpo, alpha=0.3, prompt_tokens=ONE_TOKEN, whole=True),
        partial(our_preference, prompt_tokens=ONE_TOKEN, method="orpo", alpha=0.3),
        differs=MEAN_LOGPS,
    ),
    Case(
        "orpo, odds-ratio term",
        partial(trl_orpo, alpha=0.3, prompt_tokens=(3, 9), whole=False),
        partial(our_odds_ratio_term, alpha=0.3),
    ),
    Case(
        "simpo",
        partial(trl_simpo, beta=2.0, gamma=0.5),
        partial(our_preference, method="simpo", beta=2.0, gamma=0.5),
        differs=MEAN_LOGPS | {"nll_loss"},  # TRL's is the weighted term of CPO, switched off here
    ),
    Case(
        "reward",
        partial(trl_reward, center=None, margins=False),
        partial(our_reward, center=0.0),
        scorer=True,
    ),
    Case(
        "reward, centred",
        partial(trl_reward, center=0.05, margins=False),
        partial(our_reward, center=0.05),
        scorer=True,
    ),
    Case(
        "reward, margins",
        partial(trl_reward, center=0.05, margins=True),
        partial(our_reward_with_margins, center=0.05),
        scorer=True,
    ),
    *(
        Case(loss_type, partial(trl_grpo, loss_type=loss_type), partial(our_grpo, loss_type=loss_type))
        for loss_type in ("grpo", "dapo", "dr_grpo")
    ),
]


# The comparison.


def gradients(loss: Tensor, weights: dict[str, Tensor]) -> Tensor:
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, list(weights.values()))])


def apply_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def copy_weights(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, weight in target.items():
            weight.copy_(source[name])


def flat(weights: dict[str, Tensor]) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in weights.values()])


def compare(
    case: Case,
    folder: Path,
    steps: Sequence[int] = COMPARED_STEPS,
    learning_rate: float = LEARNING_RATE,
) -> Comparison:
    """Run a case for `max(steps)` steps of AdamW and say how far apart the two sides are."""
    their_model, our_model, free_model = (tiny_model(case.scorer) for _ in range(3))
    their_side = case.theirs(their_model, folder)
    our_side, free_side = case.ours(our_model), case.ours(free_model)
    theirs, ours, free = trainable(their_model), trainable(our_model), trainable(free_model)
    start = flat(theirs)
    optimizers = [
        torch.optim.AdamW(weights.values(), lr=learning_rate, weight_decay=0.0) for weights in (theirs, free)
    ]
    found = Comparison(case.name)
    for step in range(1, max(steps) + 1):
        rows = [(step * case.rows_per_step + i) % N_ROWS for i in range(case.rows_per_step)]
        if step in steps:
            copy_weights(theirs, ours)
            loss, expected = our_side.loss(rows), their_side.loss(rows)
            wanted = gradients(expected, theirs)
            found.loss[step] = expected.item()
            found.loss_gap[step] = abs(loss.item() - expected.item())
            found.gradient_gap[step] = ((gradients(loss, ours) - wanted).norm() / wanted.norm()).item()
            found.metrics = dict(their_side.metrics())
            for name, value in our_side.metrics().items():
                if name in found.metrics and name not in case.differs:
                    gap = abs(value - found.metrics[name]) / max(1.0, abs(found.metrics[name]))
                    found.metric_gap[name] = max(found.metric_gap.get(name, 0.0), gap)
        moved = apply_step(optimizers[0], their_side.loss(rows))
        drifted = apply_step(optimizers[1], free_side.loss(rows))
        found.drift_loss = max(found.drift_loss, abs(moved - drifted))
    end = flat(theirs)
    found.drift_weights = ((flat(free) - end).norm() / (end - start).norm()).item()
    return found
