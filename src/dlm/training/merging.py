"""An adapter folded into the weights while a policy only answers: decoding one token at a time is then as fast as without it.

Every product beside a small product costs a call; for one token of some rows, calls are what time goes into. Folding is
exact up to rounding in fp32. In bf16 it would round the adapter away, so a base of fewer bits keeps its adapters apart.

Notation: W (O, I) a frozen weight, A (r, I) and B (O, r) its adapter, s the adapter's scale.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor
from torch.nn.functional import linear

from dlm.training.acceleration import is_plain_lora

__all__ = ["merged"]


@contextmanager
def merged(model: Any) -> Iterator[None]:
    """Compute with W + s·B·A while the context lasts, where every adapted layer is of a kind that is known here.

    Nothing is written into the model's own weights: they, and whatever else replaced a layer's forward pass, are as they
    were afterwards, bit for bit. Takes the memory of the adapted layers a second time.
    """
    layers = [module for module in model.modules() if isinstance(module, LoraLinear)]
    if not all(_can_merge(module) for module in layers):
        yield
        return
    with ExitStack() as stack:
        for module in layers:
            before = module.__dict__.get("forward")
            stack.callback(_put_back, module, before)
            module.forward = functools.partial(
                linear, weight=_merged_weight(module), bias=module.base_layer.bias
            )
        yield


def _can_merge(module: LoraLinear) -> bool:
    is_whole = not module.disable_adapters and not module.merged
    return is_plain_lora(module) and is_whole and module.base_layer.weight.dtype == torch.float32


def _merged_weight(module: LoraLinear) -> Tensor:
    name = module.active_adapters[0]
    with torch.no_grad():
        lora_a, lora_b = module.lora_A[name].weight, module.lora_B[name].weight
        folded: Tensor = torch.addmm(module.base_layer.weight, lora_b, lora_a, alpha=module.scaling[name])
    return folded


def _put_back(module: Any, forward: Any) -> None:
    if forward is None:
        module.__dict__.pop("forward", None)
    else:
        module.forward = forward
