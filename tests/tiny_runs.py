"""Whole runs of the loop on `tiny_model`, to compare with one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dlm.recipe import PreferenceRecipe, Recipe
from dlm.training import checkpoints
from dlm.training.checkpoints import Progress
from dlm.training.examples import Example
from dlm.training.layout import Layout
from dlm.training.loop import HeldOut, LoopResult, make_optimizer, run_loop
from dlm.training.objectives import Objective, PreferenceObjective, SftObjective
from dlm.training.pairs import PairExample
from dlm.training.planning import Plan
from dlm.training.scoring import Selection
from tiny_training import PAD, Recorder, reference_of, tiny_model

PLAN = Plan(n_examples=9, rows_per_step=4, micro_rows=2, total_steps=14, eval_every=5, save_every=3)
RECIPE = Recipe(learning_rate=1e-2, keep_last=2)
BY_LOSS = Selection((("valid_loss", "min"),))


def objective_of(rows: Sequence[Any], layout: str = "plain", **knobs: Any) -> Objective:
    """SFT over rows, or a preference method over pairs, whose reference is the model before it trains."""
    chosen = Layout(layout, PAD, "cpu", headless=True)
    if isinstance(rows[0], Example):
        return SftObjective(chosen)
    return PreferenceObjective(chosen, PreferenceRecipe(**knobs), reference_of(tiny_model(), rows))


def run(
    rows: Sequence[Example] | Sequence[PairExample],
    folder: Path,
    recorder: Recorder,
    *,
    recipe: Recipe = RECIPE,
    plan: Plan = PLAN,
    objective: Objective | None = None,
    selection: Selection | None = BY_LOSS,
    resume: bool = False,
    dropout: float = 0.3,
    dora: bool = False,
) -> tuple[torch.nn.Module, LoopResult]:
    """Train `tiny_model` on rows, the first two of which are scored as if held out."""
    model = tiny_model(dropout=dropout, dora=dora)
    optimizer = make_optimizer(model, recipe)
    progress = checkpoints.load_newest(folder, model, optimizer, pytest.fail) if resume else Progress()
    objective = objective or objective_of(rows)
    held_out = [HeldOut("valid", objective, rows[:2])]
    result = run_loop(
        model,
        objective,
        rows,
        held_out,
        recipe,
        plan,
        optimizer,
        progress,
        recorder,
        folder,
        selection=selection,
    )
    return model, result


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every trainable tensor."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def assert_same_weights(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    """Bit for bit."""
    for name, tensor in weights(expected).items():
        assert torch.equal(weights(found)[name], tensor), name
