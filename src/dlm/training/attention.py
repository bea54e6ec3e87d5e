"""Attention over trees that lie end to end in one row.

The linear layers see one long row without padding; attention is taken piece by piece (a tree's prompt, then each of its
branches, which sees the prompt and itself), so that nothing masked is computed, no tree sees another, and a tree's result
does not depend on what lies beside it.

Notation: T tokens of the row, L queries and S keys of one piece, H query heads, K key heads, G = H / K, D head width.
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
_stream: ContextVar[tuple[tuple[Block, ...], torch.dtype]] = ContextVar("stream")  # and the weights' type


@dataclass(frozen=True)
class Piece:
    """Queries that see the same keys: those of a tree's prompt (`seen` empty), or of one branch."""

    queries: slice
    seen: slice  # tokens before the queries' own that all of them see: the prompt
    bias: Tensor  # (L, S) fp32: 0 where a query (row) sees a key (column), -inf elsewhere


@dataclass(frozen=True)
class Block:
    """One tree of the row, in pieces."""

    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, start: int, prompt: int, branches: Sequence[int], device: str) -> Block:
        """A prompt of `prompt` tokens at `start`, followed by branches of the given sizes (in tokens)."""
        if len(branches) == 1:  # a plain row: one causal piece
            return cls((_piece(start, 0, start, prompt + branches[0], device),))
        pieces = [_piece(start, 0, start, prompt, device)]
        first = start + prompt
        for size in branches:
            if size:
                pieces.append(_piece(start, prompt, first, size, device))
            first += size
        return cls(tuple(pieces))

    @staticmethod
    def visible(prompt: int, branches: Sequence[int]) -> Tensor:
        """(tokens, tokens) bool: causal, the prompt for everyone, a branch for itself alone."""
        total = prompt + sum(branches)
        mask = torch.ones(total, total, dtype=torch.bool).tril()
        first = prompt
        for size in branches:
            mask[first + size :, first : first + size] = False
            first += size
        return mask


def _piece(start: int, prompt: int, first: int, size: int, device: str) -> Piece:
    visible = torch.ones(size, prompt + size, dtype=torch.bool).tril(prompt)
    bias = torch.zeros(visible.shape).masked_fill_(~visible, -torch.inf)
    return Piece(slice(first, first + size), slice(start, start + prompt), bias.to(device))


@contextmanager
def stream_attention(model: Any, blocks: tuple[Block, ...]) -> Iterator[None]:
    """Let a transformers model attend within `blocks` while the context lasts."""
    before = model.config._attn_implementation
    token = _stream.set((blocks, next(model.parameters()).dtype))
    model.config._attn_implementation = _NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before
        _stream.reset(token)


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
    blocks, weights = _stream.get()
    # an fp32 stream over bf16 weights (see `acceleration`) takes its products as the layers do
    kind = weights if weights == torch.bfloat16 else query.dtype
    result: Tensor = _TreeAttention.apply(query[0], key[0], value[0], scale, blocks, kind)
    return result[None], None


AttentionInterface.register(_NAME, _attend)


class _TreeAttention(torch.autograd.Function):  # type: ignore[misc]
    """softmax(q kᵀ · scale + bias) v, piece by piece; the weights are computed anew in the backward pass, not kept.

    Plain matrix products beat the fused CPU kernel here, forward and backward: grouped heads need no copies of keys.
    `kind` is the type in which products are taken, but for the scores, which enter an exponential. Queries are scaled
    once, not their products.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        blocks: tuple[Block, ...],
        kind: torch.dtype,
    ) -> Tensor:
        heads, total, width = query.shape
        result = query.new_empty(total, heads, width)
        query, value = query * scale, value.to(kind)
        for piece in _pieces(blocks):
            q, k, v = _operands(piece, query, key, value)
            mixed = _weights(q, k, piece.bias).to(kind) @ v  # (K, G·L, D)
            result[piece.queries] = mixed.view(heads, -1, width).transpose(0, 1)
        ctx.save_for_backward(query, key, value)
        ctx.scale, ctx.blocks, ctx.kind = scale, blocks, kind
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        kind: torch.dtype = ctx.kind
        heads, _, width = query.shape
        groups = key.shape[0]
        d_query, d_key, d_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(key)
        grad = grad.to(kind)
        for piece in _pieces(ctx.blocks):
            q, k, v = _operands(piece, query, key, value)
            g = grad[piece.queries].transpose(0, 1).reshape(groups, -1, width)  # (K, G·L, D)
            p = _weights(q, k, piece.bias)  # (K, G·L, S)
            _add_to(d_value, piece, p.to(kind).transpose(1, 2) @ g)
            dp = (g @ v.transpose(1, 2)).to(p.dtype)
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype).to(kind)
            d_query[:, piece.queries] = (ds @ k.to(kind)).view(heads, -1, width).to(query.dtype)
            _add_to(d_key, piece, ds.transpose(1, 2) @ q.to(kind))
        return d_query.mul_(ctx.scale), d_key, d_value, None, None, None


def _pieces(blocks: Sequence[Block]) -> Iterator[Piece]:
    for block in blocks:
        yield from block.pieces


def _operands(piece: Piece, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A piece's queries, grouped by the key head they read, (K, G·L, D); the keys and values they see, (K, S, D)."""
    groups, width = key.shape[0], key.shape[-1]
    q = query[:, piece.queries].reshape(groups, -1, width)
    if piece.seen.start == piece.seen.stop:
        return q, key[:, piece.queries], value[:, piece.queries]
    k, v = (torch.cat([one[:, piece.seen], one[:, piece.queries]], 1) for one in (key, value))
    return q, k, v


def _add_to(total: Tensor, piece: Piece, part: Tensor) -> None:
    """Add a piece's gradient (K, S, D) to the keys or values that it saw."""
    seen = piece.seen.stop - piece.seen.start
    total[:, piece.seen] += part[:, :seen]
    total[:, piece.queries] += part[:, seen:]


def _weights(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    """Attention weights (K, G·L, S), in fp32."""
    groups, rows, _ = q.shape
    length, seen = bias.shape
    scores = (q @ k.transpose(1, 2)).float().view(groups, rows // length, length, seen)
    return torch.softmax(scores.add_(bias), dim=-1).view(groups, rows, seen)
