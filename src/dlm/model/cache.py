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
    token itself. Keys lie in memory with the positions innermost, as their product with a query reads them.
    """

    _room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states, (B, H, new, D) each, and return all of them, (B, H, L, D)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            self._room = None
            return self.keys, self.values
        old, new = self.keys.shape[-2], key_states.shape[-2]
        if self._room is None or self._room[1].shape[-2] < old + new:
            self._room = self._set_aside(old + new + _STEP)
        keys, values = self._room
        keys[..., old : old + new] = key_states.transpose(2, 3)
        values[:, :, old : old + new] = value_states
        self._show(self._room, old + new)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep the rows of `beam_idx`, in that order, repeated where it repeats."""
        length = self.keys.shape[-2]
        if self._room is None:
            self._room = self._set_aside(length + _STEP)
        keys, values = self._room
        self._room = keys.index_select(0, beam_idx), values.index_select(0, beam_idx)
        self._show(self._room, length)

    def _set_aside(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Room for `size` positions that holds what is cached: keys (B, H, D, size), values (B, H, size, D)."""
        rows, heads, length, width = self.keys.shape
        keys = self.keys.new_empty(rows, heads, width, size)
        values = self.values.new_empty(rows, heads, size, self.values.shape[-1])
        keys[..., :length] = self.keys.transpose(2, 3)
        values[:, :, :length] = self.values
        return keys, values

    def _show(self, room: tuple[torch.Tensor, torch.Tensor], length: int) -> None:
        """Make the first `length` positions of a room what the model sees."""
        keys, values = room
        self.keys, self.values = keys[..., :length].transpose(2, 3), values[:, :, :length]


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
