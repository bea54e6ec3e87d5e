"""A base that does not fit one device, spread over those of all processes (FSDP2, torch's `fully_shard`).

Only the frozen weights of the decoder layers are spread: each layer is gathered when its turn comes and let go of
afterwards. Adapter, embeddings and head stay whole in every process, so that optimiser, checkpoints and layouts work as
they always do. Gathering needs every process at every layer: all of them must run the model equally often.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypeVar

from dlm.errors import TrainingError
from dlm.model import inner_model
from dlm.training.world import World, current

__all__ = ["in_step", "is_sharded", "shard", "wanted"]

T = TypeVar("T")


def wanted() -> bool:
    """Whether the launch asked for it: `accelerate launch --use_fsdp`, or `DLM_FSDP=1` beside `torchrun`."""
    asked = ("ACCELERATE_USE_FSDP", "DLM_FSDP")
    return any(os.environ.get(name, "").lower() in ("1", "true") for name in asked)


def shard(model: Any, device: str) -> None:
    """Spread the frozen weights of the decoder layers over all processes, and move everything to `device`.

    The model may stand on the CPU before: a layer is moved when it is spread, so that no device ever holds them all.

    Raises:
        TrainingError: there is one process only, or the base does not say which modules are its layers.
    """
    world = current()
    if world.size == 1:
        raise TrainingError(
            "a base is spread over several processes, and there is one only",
            next_step="torchrun --nproc-per-node 2 -m dlm train …",
        )
    # here and not above: this needs torch 2.7, the rest of training does not
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    inner = inner_model(model)
    kinds = set(getattr(inner, "_no_split_modules", None) or ())
    layers = [module for module in inner.modules() if type(module).__name__ in kinds]
    if not layers:
        raise TrainingError(f"{type(inner).__name__} does not say which modules are its layers")
    mesh = init_device_mesh(device.partition(":")[0], (world.size,))
    ends = (inner.get_input_embeddings(), inner.get_output_embeddings())
    whole = {parameter for parameter in model.parameters() if parameter.requires_grad}
    whole |= {parameter for end in ends if end is not None for parameter in end.parameters()}
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params=whole)
    fully_shard(
        inner.base_model, mesh=mesh, ignored_params=whole
    )  # the root lets the layers prefetch each other
    model.to(device)


def is_sharded(model: Any) -> bool:
    """Whether the model runs only together with the other processes."""
    if current().size == 1:
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(module, FSDPModule) for module in model.modules())


def in_step(world: World, model: Any, parts: Sequence[Sequence[T]], filler: Sequence[T]) -> list[Sequence[T]]:
    """This process's micro-batches, followed by as many copies of `filler` as a spread model needs.

    Where a process has fewer micro-batches than another, it must run the model all the same; what the fillers yield
    does not count.
    """
    if not is_sharded(model):
        return list(parts)
    most = max(world.gather(len(parts)))
    return [*parts, *[filler] * (most - len(parts))]
