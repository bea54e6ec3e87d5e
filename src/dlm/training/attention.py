"""Attention over trees that lie end to end in one row.

The linear layers see one long row without padding; attention is taken tree by tree, so that its cost is the sum of the
trees' squares, no tree sees another, and a tree's result does not depend on what lies beside it.

Notation: T tokens of the row, L of one tree, H query heads, K key heads, G = H / K, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from dlm.errors import TrainingError

__all__ = ["Block", "stream_attention"]

_NAME = "dlm_stream"
_blocks: ContextVar[tuple[Block, ...]] = ContextVar("blocks")


@dataclass(frozen=True)
class Block:
    """One tree of the row: tokens `start` to `stop`, and who may see whom inside."""

    start: int
    stop: int
    bias: Tensor  # (L, L) fp32, 0 where a query (row) sees a key (column), -inf elsewhere

    @classmethod
    def of(cls, start: int, prompt: int, branches: Sequence[int], device: str) -> Block:
        """A prompt of `prompt` tokens at `start`, followed by branches of the given sizes."""
        visible = cls.visible(prompt, branches)
        bias = torch.zeros(visible.shape).masked_fill_(~visible, -torch.inf)
        return cls(start, start + len(visible), bias.to(device))

    @staticmethod
    def visible(prompt: int, branches: Sequence[int]) -> Tensor:
        """(L, L) bool: causal, the prompt for everyone, a branch for itself alone."""
        total = prompt + sum(branches)
        mask = torch.ones(total, total, dtype=torch.bool).tril()
        first = prompt
        for size in branches:
            mask[first + size :, first : first + size] = False
            first += size
        return mask


@contextmanager
def stream_attention(model: Any, blocks: tuple[Block, ...]) -> Iterator[None]:
    """Let a transformers model attend within `blocks` while the context lasts."""
    before = model.config._attn_implementation
    token = _blocks.set(blocks)
    model.config._attn_implementation = _NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before
        _blocks.reset(token)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface. query (1, H, T, D), key and value (1, K, T, D) → (1, T, H, D)."""
    unknown = [name for name in ("softcap", "s_aux", "sliding_window") if options.get(name) is not None]
    if unknown or dropout:
        raise TrainingError(
            f"this base's attention uses {', '.join(unknown) or 'dropout'}, which the packed layouts do not have",
            next_step="--set layout=plain",
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    result: Tensor = _TreeAttention.apply(query[0], key[0], value[0], scale, _blocks.get())
    return result[None], None


AttentionInterface.register(_NAME, _attend)


class _TreeAttention(torch.autograd.Function):  # type: ignore[misc]
    """softmax(q kᵀ · scale + bias) v, tree by tree; the weights are computed anew in the backward pass, not kept.

    Plain matrix products beat the fused CPU kernel here, forward and backward: grouped heads need no copies of keys.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, blocks: tuple[Block, ...]
    ) -> Tensor:
        heads, total, width = query.shape
        result = query.new_empty(total, heads, width)
        for block in blocks:
            q, k, v = _pieces(block, query, key, value)
            mixed = _weights(q, k, scale, block.bias) @ v  # (K, G·L, D)
            result[block.start : block.stop] = mixed.view(heads, -1, width).transpose(0, 1)
        ctx.save_for_backward(query, key, value)
        ctx.scale, ctx.blocks = scale, blocks
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        heads, _, width = query.shape
        groups = key.shape[0]
        d_query, d_key, d_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for block in ctx.blocks:
            span = slice(block.start, block.stop)
            q, k, v = _pieces(block, query, key, value)
            g = grad[span].transpose(0, 1).reshape(groups, -1, width)  # (K, G·L, D)
            p = _weights(q, k, ctx.scale, block.bias)  # (K, G·L, L)
            d_value[:, span] = p.transpose(1, 2) @ g
            dp = g @ v.transpose(1, 2)
            inner = (dp * p).sum(-1, keepdim=True)
            ds = dp.sub_(inner).mul_(p).mul_(ctx.scale)
            d_query[:, span] = (ds @ k).view(heads, -1, width)
            d_key[:, span] = ds.transpose(1, 2) @ q
        return d_query, d_key, d_value, None, None


def _pieces(block: Block, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One tree's queries, grouped by the key head they read, (K, G·L, D); its keys and values, (K, L, D)."""
    span = slice(block.start, block.stop)
    groups, width = key.shape[0], key.shape[-1]
    return query[:, span].reshape(groups, -1, width), key[:, span], value[:, span]


def _weights(q: Tensor, k: Tensor, scale: float, bias: Tensor) -> Tensor:
    """Attention weights (K, G·L, L) in the queries' type; the softmax runs in fp32."""
    groups, rows, _ = q.shape
    length = k.shape[1]
    scores = (q @ k.transpose(1, 2)).float().mul_(scale).view(groups, rows // length, length, length)
    return torch.softmax(scores.add_(bias), dim=-1).view(groups, rows, length).to(q.dtype)
