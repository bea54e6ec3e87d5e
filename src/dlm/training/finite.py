"""Numbers that are not finite: what they are blamed on, and that they are never saved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from dlm.errors import NonFiniteError
from dlm.training.objectives import Objective
from dlm.training.sharding import is_sharded
from dlm.training.world import World

__all__ = ["blame", "require_finite"]

_NAMED = 8  # places that fit a message


def require_finite(model: Any, step: int) -> None:
    """Raises `NonFiniteError` when a trainable tensor holds anything but finite numbers."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise NonFiniteError(
                f"step {step} left numbers that are not finite in {name}; they were not saved",
                next_step="lower the learning rate: --set learning_rate=…",
            )


def blame(
    model: Any,
    objective: Objective,
    window: Sequence[Any],
    step: int,
    loss: float,
    norm: float,
    world: World,
) -> NonFiniteError:
    """The error for a step whose loss or gradient is not finite; names the rows whose own loss, alone, is not finite."""
    model.eval()
    guilty: list[str] = []
    with torch.no_grad():
        for row in window if is_sharded(model) else world.share(window):
            parts = objective.forward(model, [row]).loss.values()
            if not math.isfinite(sum(float(part) for part in parts)):
                guilty.append(row.row.place)
    named = sorted({place for places in world.gather(guilty) for place in places})
    if named:
        verdict = f"the loss of {_listed(named)} is not finite"
        found, advice = (
            f"rows {_listed(named)}",
            "look at those rows, or lower the learning rate (--set learning_rate=…)",
        )
    else:
        everyone = sorted({row.row.place for row in window})
        verdict = "each of its rows alone has a finite loss, their gradient is not finite"
        found, advice = f"rows {_listed(everyone)}", "lower the learning rate (--set learning_rate=…)"
    return NonFiniteError(
        f"step {step}: the loss is {loss} and the gradient norm {norm}: {verdict}; nothing of this step was kept",
        found=found,
        next_step=advice,
    )


def _listed(places: Sequence[str]) -> str:
    return ", ".join(places[:_NAMED]) + (" …" if len(places) > _NAMED else "")
