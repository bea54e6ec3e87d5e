"""The key-value cache of a batch that only shrinks: rows leave it as they finish.

Notation: B rows, H key heads, L cached positions, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

__all__ = ["make_cache", "select_rows"]

_STEP = 64  # positions set aside at a time


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A layer that writes into memory set aside in advance.

    transformers' own layer copies all keys and values at every token, which for small models costs more than the
    token itself.
    """

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states, (B, H, new, D) each, and return all of them, (B, H, L, D)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            self._room: tuple[torch.Tensor, torch.Tensor] | None = None
            return self.keys, self.values
        old, new = self.keys.shape[-2], key_states.shape[-2]
        room = self._room
        if room is None or room[0].shape[0] != key_states.shape[0] or room[0].shape[-2] < old + new:
            size = old + new + _STEP
            room = (_grown(self.keys, size), _grown(self.values, size))
            self._room = room
        for store, states in zip(room, (key_states, value_states), strict=True):
            store[:, :, old : old + new] = states
        self.keys, self.values = room[0][:, :, : old + new], room[1][:, :, : old + new]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep the rows of `beam_idx`, in that order, repeated where it repeats."""
        self.keys, self.values = self.keys[beam_idx], self.values[beam_idx]
        self._room = None


def _grown(states: torch.Tensor, size: int) -> torch.Tensor:
    rows, heads, length, width = states.shape
    room = states.new_empty(rows, heads, size, width)
    room[:, :, :length] = states
    return room


def make_cache(config: Any) -> Cache:
    """An empty cache for a model: the roomy one where every layer attends to everything, else transformers' own."""
    cache = DynamicCache(config=config)
    layers = getattr(cache, "layers", [])
    if all(type(layer) is DynamicLayer for layer in layers):
        return (
            Cache(layer_class_to_replicate=_RoomyLayer)
            if not layers
            else Cache(layers=[_RoomyLayer() for _ in layers])
        )
    return cache


def select_rows(cache: Cache, rows: torch.Tensor) -> None:
    """Keep, reorder or repeat rows of a cache in place; `rows` (B,) int64 names the old row of each new one."""
    cache.reorder_cache(rows)  # made for beam search, and so known to every kind of layer
