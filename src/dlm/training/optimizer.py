"""What moves the weights: the learning rate of a step, AdamW, and the gradients as one buffer."""

from __future__ import annotations

import math
from typing import Any

import torch

from dlm.recipe import Choice, Recipe
from dlm.training.world import World

__all__ = ["Gradients", "choose_kernel", "learning_rate", "make_optimizer", "trainable"]


def learning_rate(step: int, total_steps: int, recipe: Recipe) -> float:
    """The rate for step `step` (from 1): linear warm-up, then cosine, linear or constant down to step `total_steps`."""
    warmup = math.ceil(recipe.warmup_ratio * total_steps)
    if step <= warmup:
        return recipe.learning_rate * step / warmup
    done = (step - warmup - 1) / max(
        total_steps - warmup, 1
    )  # 0 at the first step after warm-up, never quite 1
    shape = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
    return recipe.learning_rate * shape[recipe.lr_scheduler]


def trainable(model: Any) -> list[torch.nn.Parameter]:
    """The parameters that are trained, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def choose_kernel(device: str) -> Choice[str]:
    """How AdamW runs over an adapter's many small tensors: `fused` or `foreach`.

    On one CPU thread a step over 420 tensors (2.4 million numbers: rank 8 at the shape of a 135M base) took 12.0 ms
    tensor by tensor, 11.9 ms by foreach and 3.9 ms fused; over 84 tensors of a base 192 wide 2.9, 2.2 and .7 ms.
    """
    if device.partition(":")[0] in ("cpu", "cuda"):
        return Choice("fused", "one kernel for all tensors: a third of the time on a CPU")
    return Choice("foreach", f"the fused kernel was not measured on {device}")


def make_optimizer(model: Any, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW over what is trainable."""
    parameters = trainable(model)
    kernel = choose_kernel(str(parameters[0].device)).value
    return torch.optim.AdamW(
        parameters,
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        eps=recipe.adam_epsilon,
        weight_decay=recipe.weight_decay,
        fused=kernel == "fused" or None,
        foreach=kernel == "foreach" or None,
    )


class Gradients:
    """The gradients of all trainable tensors as views of one buffer per number type.

    An adapter has hundreds of small tensors: clearing, summing over processes, measuring and clipping are then one
    operation each.
    """

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self._parameters = parameters
        kinds = {(parameter.dtype, parameter.device): 0 for parameter in parameters}
        for parameter in parameters:
            kinds[parameter.dtype, parameter.device] += parameter.numel()
        self._buffers = {
            kind: torch.zeros(size, dtype=kind[0], device=kind[1]) for kind, size in kinds.items()
        }

    def clear(self) -> None:
        """Zero the gradients, and make every parameter accumulate into the buffer."""
        starts = dict.fromkeys(self._buffers, 0)
        for buffer in self._buffers.values():
            buffer.zero_()
        for parameter in self._parameters:
            kind = parameter.dtype, parameter.device
            start = starts[kind]
            starts[kind] += parameter.numel()
            parameter.grad = self._buffers[kind][start : starts[kind]].view_as(parameter)

    def sum_over(self, world: World) -> None:
        """Add up what the processes found, each over its share of the window."""
        for buffer in self._buffers.values():
            world.sum_in_place(buffer)

    def clip(self, limit: float) -> torch.Tensor:
        """Scale the gradients so that their global norm is at most `limit`; the norm before, a scalar."""
        norms = [torch.linalg.vector_norm(buffer.float()) for buffer in self._buffers.values()]
        norm = torch.linalg.vector_norm(torch.stack([one.to(norms[0].device) for one in norms]))
        if math.isfinite(limit):
            scale = (limit / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
            for buffer in self._buffers.values():
                buffer.mul_(scale.to(buffer))
        return norm
