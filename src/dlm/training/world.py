"""The processes that train together: one by default, several under `torchrun` or `accelerate launch`.

Each process holds the whole model and takes its share of every window's rows. Sums over the window are divided by the
window's own counts, which every process knows without asking, so that adding up gradients and metrics is all that has
to be exchanged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

__all__ = ["World", "current", "setup"]

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process's place among `size` processes; rank 0 is the main one, which logs and writes."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that logs and writes."""
        return self.rank == 0

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """This process's rows of a window; none where the window has fewer rows than there are processes."""
        return rows if self.size == 1 else rows[self.rank :: self.size]

    def sum_in_place(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes, the same bits in each."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def sum(self, scalars: Sequence[Tensor | None], device: str) -> Tensor:
        """Sums over all processes of a list of scalars, as one fp32 vector on `device`; None counts as 0."""
        zero = torch.zeros((), device=device)
        stacked = torch.stack([zero if one is None else one.float() for one in scalars])
        self.sum_in_place(stacked)
        return stacked

    def from_main(self, value: T) -> T:
        """The main process's value, in every process."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        found: T = box[0]
        return found

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def agree(self, reason: str, device: str) -> str:
        """The first reason to stop that any process has; "" where none has one."""
        if self.size == 1:
            return reason
        asked = torch.tensor(float(bool(reason)), device=device)
        dist.all_reduce(asked)
        return next(filter(None, self.gather(reason))) if float(asked) else ""

    def start_alike(self, tensors: Sequence[Tensor]) -> None:
        """Give every process the main one's tensors."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def wait(self) -> None:
        """Return once every process is here."""
        if self.size > 1:
            dist.barrier()


def current() -> World:
    """The processes that were set up; this one alone where none were."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World()


@contextmanager
def setup() -> Iterator[World]:
    """Join the processes that the environment speaks of (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`), while the context lasts.

    On CUDA a process takes the GPU of its local rank. Without those variables, or where torch.distributed is in use
    already, nothing is set up.
    """
    if dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield current()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl")
    else:
        dist.init_process_group("gloo")
    try:
        yield current()
    finally:
        dist.destroy_process_group()
