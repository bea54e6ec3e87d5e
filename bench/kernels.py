"""Matrix products: how many operations a step really executes, and how fast this machine does them at best."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

_REPEATS = 7
_TOKENS = (512, 1024)  # rows of a product in a step
_TILE = 16384  # part of the vocabulary that a head is multiplied with at once


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape))


aten = torch.ops.aten
_FORMULAS = {
    **flop_registry,
    # torch's registry knows neither products in place nor the fused attention of CPUs
    aten.addmm_: flop_registry[aten.addmm],
    aten.baddbmm_: flop_registry[aten.baddbmm],
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class ProductCounter(TorchDispatchMode):
    """Counts the floating-point operations of matrix products while it lasts, recomputed ones included.

    Fused attention is counted whole, whatever its kernel leaves out above the diagonal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=out))
        return out


def ceiling_gflops(config: Any, dtype: torch.dtype, device: str) -> float:
    """The most GFLOP per second (CPU seconds on a CPU) of products as they occur in this model, as it is set up now.

    Of every shape the median of a few products is taken, in both directions (x Wᵀ and g W), and of those the best.
    """
    wide, inner = config.hidden_size, config.intermediate_size
    weights = [(wide, wide), (inner, wide), (wide, inner), (min(_TILE, config.vocab_size), wide)]
    best = 0.0
    with torch.no_grad():
        for tokens in _TOKENS:
            for outputs, inputs in weights:
                weight = torch.randn(outputs, inputs, device=device).to(dtype)
                x = torch.randn(tokens, inputs, device=device).to(dtype)
                grad = torch.randn(tokens, outputs, device=device).to(dtype)
                work = 2 * tokens * outputs * inputs / 1e9
                for call in (
                    lambda x=x, w=weight: nn.functional.linear(x, w),
                    lambda g=grad, w=weight: g @ w,
                ):
                    best = max(best, work / _median_seconds(call, device))
    return best


def _median_seconds(call: Any, device: str) -> float:
    clock = time.process_time if device == "cpu" else time.perf_counter
    taken = []
    for _ in range(_REPEATS):
        began = clock()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(clock() - began)
    return statistics.median(taken)
