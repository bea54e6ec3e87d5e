"""The key-value cache of a batch that only shrinks: rows leave it as they finish.

Notation: B rows, H key heads, L cached positions, S positions set aside, D head width.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

__all__ = ["STEP", "make_cache", "select_rows"]

STEP = 64  # positions set aside at a time


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A layer that writes into memory set aside in advance.

    transformers' own layer copies all keys and values at every token, which for small models costs more than the
    token itself. Keys lie in memory with the positions innermost, as their product with a query reads them.

    Args:
        whole: show all positions set aside, zeros after the cached ones, instead of the cached ones alone. Attention's
            shapes then change once in `STEP` tokens. The mask covers the zeros, as it does for `StaticLayer`.
    """

    def __init__(self, whole: bool = False) -> None:
        super().__init__()
        self._whole = whole
        self._length = 0
        self._room: tuple[torch.Tensor, torch.Tensor] | None = None  # keys (B, H, D, S), values (B, H, S, D)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states, (B, H, new, D) each, and return all of them, (B, H, L, D) or (B, H, S, D)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values, self._length = key_states, value_states, key_states.shape[-2]
            return self.keys, self.values
        old, self._length = self._length, self._length + key_states.shape[-2]
        if self._room is None or self._room[1].shape[-2] < self._length:
            self._set_aside(old)
        assert self._room is not None
        keys, values = self._room
        keys[..., old : self._length] = key_states.transpose(2, 3)
        values[:, :, old : self._length] = value_states
        self._show(keys, values)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """L."""
        return self._length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many positions `update` will return after so many new ones, and the place of the first."""
        length = self._length + query_length
        return (self._size(length) if self._whole and self._length else length), 0

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep the rows of `beam_idx`, in that order, repeated where it repeats."""
        if self._room is None:
            self._set_aside(self._length)
        assert self._room is not None
        keys, values = self._room
        self._room = keys.index_select(0, beam_idx), values.index_select(0, beam_idx)
        self._show(*self._room)

    def _size(self, length: int) -> int:
        """Positions to set aside for so many."""
        room = self._room[1].shape[-2] if self._room is not None else 0
        return room if room >= length else (length // STEP + 1) * STEP

    def _set_aside(self, old: int) -> None:
        """Make room for `_length` positions; it holds the first `old`, which are cached."""
        rows, heads, _, width = self.keys.shape
        size = self._size(self._length)
        keys = self.keys.new_zeros(rows, heads, width, size)
        values = self.values.new_zeros(rows, heads, size, self.values.shape[-1])
        keys[..., :old] = self.keys[:, :, :old].transpose(2, 3)
        values[:, :, :old] = self.values[:, :, :old]
        self._room = keys, values

    def _show(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Make a room what the model sees."""
        shown = values.shape[-2] if self._whole else self._length
        self.keys, self.values = keys[..., :shown].transpose(2, 3), values[:, :, :shown]


def make_cache(config: Any, *, whole: bool = False) -> Cache:
    """An empty cache for a model: the roomy one where every layer attends to everything, else transformers' own.

    Args:
        config: of the model.
        whole: let attention see all positions set aside, behind a mask: few shapes, for libraries that make a kernel
            for each.
    """
    cache = DynamicCache(config=config)
    layers = getattr(cache, "layers", [])
    if all(type(layer) is DynamicLayer for layer in layers):
        return (
            Cache(layer_class_to_replicate=partial(_RoomyLayer, whole))
            if not layers
            else Cache(layers=[_RoomyLayer(whole) for _ in layers])
        )
    return cache


def select_rows(cache: Cache, rows: torch.Tensor) -> None:
    """Keep, reorder or repeat rows of a cache in place; `rows` (B,) int64 names the old row of each new one."""
    cache.reorder_cache(rows)  # made for beam search, and so known to every kind of layer
