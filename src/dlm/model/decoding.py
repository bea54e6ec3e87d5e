"""Fast steps of one token for many rows: the CPU's best matrix products, and attention that suits a single query.

Notation: B rows, H query heads, K key heads, G = H / K, L cached positions, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from dlm.model.cache import STEP
from dlm.model.products import choose_products, matrix_products

__all__ = ["fast_decoding"]

_NAME = "dlm_decode"


@contextmanager
def fast_decoding(model: Any, device: str) -> Iterator[bool]:
    """Decode faster on the CPU while the context lasts; the numbers stay those of the library within rounding.

    Yields whether anything is different, so that a cache of whole rooms is worth its mask.

    Args:
        model: a causal language model of transformers, under PEFT or not.
        device: where it lies.
    """
    config = model.config
    if device != "cpu" or config._attn_implementation != "sdpa":
        yield False
        return
    config._attn_implementation = _NAME
    try:
        with matrix_products(choose_products(device).value):
            yield True
    finally:
        config._attn_implementation = "sdpa"


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface. query (B, H, T, D), key and value (B, K, L, D) → (B, T, H, D).

    oneDNN makes a kernel for every L, so it multiplies only where L stays the same for long, which is when the cache shows
    whole rooms (a third of torch's time then). The library's fused attention makes many small products, on each of
    which oneDNN spends what it costs to look a kernel up (55 µs per row and layer on the embedded base, against 5).
    """
    rows, heads, tokens, width = query.shape
    shared = attention_mask is None or (attention_mask.dtype == torch.bool and attention_mask.shape[1] == 1)
    known = all(
        value is None for name, value in options.items() if name in ("position_bias", "s_aux", "softcap")
    )
    other = tokens > 1 or dropout or not shared or not known or query.dtype != torch.float32
    if other:
        with matrix_products("torch"):
            result: tuple[Tensor, None] = sdpa_attention_forward(
                module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
            )
        return result
    with nullcontext() if key.shape[2] % STEP == 0 else matrix_products("torch"):
        scale = width**-0.5 if scaling is None else scaling
        grouped = (query * scale).view(rows, key.shape[1], -1, width)  # (B, K, G, D)
        scores = grouped @ key.transpose(2, 3)  # (B, K, G, L)
        if attention_mask is not None:
            scores.masked_fill_(~attention_mask, -torch.inf)
        mixed = scores.softmax(-1) @ value  # (B, K, G, D)
        return mixed.view(rows, 1, heads, value.shape[-1]), None


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
