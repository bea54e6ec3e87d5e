"""A prepared run of any phase: what it will cost, its training, and the last scoring.

Nothing here knows the store: the caller gives a folder for checkpoints and an observer for metrics, and records what
comes back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dlm.errors import TrainingError
from dlm.recipe import Recipe
from dlm.training.acceleration import accelerated
from dlm.training.checkpoints import Progress
from dlm.training.loop import HeldOut, LoopResult, Observer, evaluate, peak_memory_mb, run_loop
from dlm.training.planning import Sampler
from dlm.training.prepared import Prepared, fixed_sample
from dlm.training.rollouts import Validation
from dlm.training.world import current

__all__ = [
    "Estimate",
    "answer_held_out",
    "estimate",
    "first_window",
    "score_held_out",
    "score_monitors",
    "train_phase",
]


@dataclass(frozen=True)
class Estimate:
    """Time and memory of the whole run, measured on one micro-batch of its longest rows."""

    seconds: float
    peak_memory_mb: float


def estimate(prepared: Prepared, model: Any) -> Estimate | None:
    """Run one micro-batch of the longest rows forward and backward, throw its gradients away, and extrapolate. None where
    a run makes its rows itself: how long answers will be, and so what they cost, shows at the first step.

    Raises:
        TrainingError: the micro-batch does not fit the device's memory.
    """
    if prepared.rollouts is not None:
        return None
    plan, layout = prepared.plan, prepared.objective.layout
    by_size = sorted(prepared.train, key=lambda tree: -layout.positions([tree]))
    longest = by_size[: plan.micro_rows]
    model.train()
    try:
        with accelerated(model, prepared.products.value):
            for _ in range(2):  # the first pass pays for allocation and kernel choice
                began = time.perf_counter()
                sum(prepared.objective.forward(model, longest).loss.values()).backward()
                if layout.device.startswith("cuda"):
                    torch.cuda.synchronize(layout.device)
                took = time.perf_counter() - began
    except torch.OutOfMemoryError:
        raise TrainingError(
            f"a micro-batch of {len(longest)} rows, {layout.positions(longest):,} tokens as laid out, does not fit "
            f"{layout.device}'s memory",
            next_step=f"--set micro_batch_size={max(1, plan.micro_rows // 2)}, a shorter sequence_len, or --device cpu",
        ) from None
    model.zero_grad(set_to_none=True)
    per_epoch = sum(layout.positions([tree]) for tree in prepared.train)
    epochs = plan.epoch_at(plan.total_steps)
    seconds = took * epochs * per_epoch / layout.positions(longest) / current().size
    return Estimate(seconds, peak_memory_mb(layout.device))


def first_window(prepared: Prepared, recipe: Recipe) -> list[Any]:
    """The rows of the first step."""
    plan, layout = prepared.plan, prepared.objective.layout
    lengths = [layout.positions([tree]) for tree in prepared.train] if plan.by_length else None
    return [prepared.train[index] for index in Sampler(plan, recipe.seed, lengths).window(1)]


def train_phase(
    prepared: Prepared,
    model: Any,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    observer: Observer,
    checkpoint_folder: Path,
    *,
    enough: Callable[[], str] = lambda: "",
) -> LoopResult:
    """Run the loop. Validation during the run scores a fixed sample of the held-out rows; probes are always scored.

    `enough` gives a reason to end the run after a step, "" for none; it is asked where the recipe has `stop_on`.

    Raises:
        NonFiniteError: a loss, gradient or weight is not finite; the rows are named, the last checkpoint stays.
        StoreError: the disk refuses a checkpoint; those before stay.
        GradingError: a grader failed on too many answers; the last checkpoint stays.
    """
    own = [] if prepared.rollouts else fixed_sample(prepared.validation)
    valid = HeldOut("valid", prepared.objective, own)
    with accelerated(model, prepared.products.value):
        return run_loop(
            model,
            prepared.objective,
            prepared.train,
            [valid, *prepared.monitors],
            recipe,
            prepared.plan,
            optimizer,
            progress,
            observer,
            checkpoint_folder,
            selection=prepared.selection,
            enough=enough,
            rollouts=prepared.rollouts,
        )


def score_held_out(prepared: Prepared, model: Any) -> dict[str, float]:
    """`full_valid_…` over every held-out row of the phase; empty when none is held out.

    Where pairs are ranked, `full_valid_pairs` counts those behind `full_valid_pref_acc`. Prompts are no rows that could be
    scored: see `answer_held_out`.
    """
    if prepared.rollouts is not None:
        return {}
    everything = HeldOut("full_valid", prepared.objective, prepared.validation)
    with accelerated(model, prepared.products.value):
        values = evaluate(model, everything, prepared.plan)
    if "full_valid_pref_acc" in values:
        values["full_valid_pairs"] = float(len(prepared.validation))
    return values


def answer_held_out(prepared: Prepared, model: Any) -> Validation:
    """One answer to each held-out prompt, graded (see `Rollouts.validate`); empty in a phase without prompts."""
    if prepared.rollouts is None:
        return Validation({}, {})
    with accelerated(model, prepared.products.value):
        return prepared.rollouts.validate(model)


def score_monitors(prepared: Prepared, model: Any) -> dict[str, float]:
    """What is watched beside the phase's own rows (`sft_valid_…`, `probe_…`), as it is named while the phase trains."""
    with accelerated(model, prepared.products.value):
        return {
            name: value
            for one in prepared.monitors
            for name, value in evaluate(model, one, prepared.plan).items()
        }
