"""The adapter as a run starts from it: what a policy that moves is held to, and compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["StartWeights"]


class StartWeights:
    """A copy of what is trained, taken before the first step (and before a checkpoint is loaded)."""

    def __init__(self, model: Any) -> None:
        self._kept = {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    @contextmanager
    def in_place(self, model: Any) -> Iterator[None]:
        """Compute with the start's weights while the context lasts; those of now come back untouched, bit for bit."""
        now: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        try:
            for name, parameter in model.named_parameters():
                if name in self._kept:
                    now.append((parameter, parameter.data))
                    parameter.data = self._kept[name]
            yield
        finally:
            for parameter, data in now:
                parameter.data = data
