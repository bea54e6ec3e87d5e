"""Rows, pairs, versions and whole runs of every phase, on a base of a few thousand random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bases_on_the_spot import spec_of
from dlm.model import Policy, load_policy
from dlm.recipe import PreferenceRecipe, Recipe, RewardRecipe
from dlm.training import (
    Pair,
    Prepared,
    Row,
    add_adapter,
    add_reward_head,
    make_optimizer,
    prepare_preference,
    prepare_reward,
    prepare_sft,
    start_adapter,
    train_phase,
)
from dlm.training.checkpoints import Progress, save_adapter
from tiny_training import Recorder


def chat(prompt: str, answer: str, line: int = 1, probe: bool = False) -> Row:
    return Row("chat", prompt, answer, "doc.dlm", line, probe)


def pair(number: int, line: int = 1, **more: Any) -> Pair:
    long = "Well, I think that it may be " + "about " * (number % 4)
    return Pair(
        f"What is number {number}?", f"It is {number * 7}.", f"{long}{number * 7}.", "doc.dlm", line, **more
    )


ROWS = [chat(f"What is number {i}?", "It is " * (i % 5) + f"{i * 7}.", i) for i in range(1, 25)]
PAIRS = [pair(i, i) for i in range(1, 25)]


def stir(model: Any, scale: float = 0.1) -> Any:
    """Move every trainable tensor away from where it starts, so that an adapter does something."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.requires_grad:
                tensor += scale * torch.randn(tensor.shape, generator=generator)
    return model


def make_version(base: Path, folder: Path, **knobs: Any) -> Path:
    """An adapter far from zero, alpha ≠ r, as a version's folder."""
    policy = load_policy(spec_of(base), device="cpu")
    save_adapter(stir(add_adapter(policy, Recipe(lora_r=4, lora_alpha=11, **knobs))), folder)
    return folder


def started(
    base: Path, recipe: Recipe, version: Path | None = None, system_prompt: str | None = None
) -> tuple[Policy, Any]:
    """A policy and its trainable model, from a version or from nothing."""
    policy = load_policy(
        spec_of(base), version, device="cpu", system_prompt=system_prompt, trainable=version is not None
    )
    return policy, start_adapter(policy, recipe)


def prepared_for(
    phase: str, base: Path, recipe: Recipe, folder: Path, version: Path | None = None
) -> tuple[Prepared, Policy, Any]:
    """Any phase over ROWS and PAIRS with its knobs as they come."""
    if phase == "reward":
        policy = load_policy(spec_of(base), device="cpu")
        model = add_reward_head(policy, recipe)
        return prepare_reward(PAIRS, policy, model, recipe, RewardRecipe()), policy, model
    policy, model = started(base, recipe, version)
    if phase == "sft":
        return prepare_sft(ROWS, PAIRS, policy, model, recipe, reference_folder=folder), policy, model
    prepared = prepare_preference(PAIRS, ROWS, policy, model, recipe, PreferenceRecipe(), folder)
    return prepared, policy, model


def run(prepared: Prepared, model: Any, recipe: Recipe, folder: Path) -> Recorder:
    """Train to the end, checkpoints in `folder`."""
    recorder = Recorder()
    train_phase(prepared, model, recipe, make_optimizer(model, recipe), Progress(), recorder, folder)
    return recorder


def trainable(model: Any) -> dict[str, torch.Tensor]:
    """Copies of what is trained, by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
