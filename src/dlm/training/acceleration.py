"""Faster kernels for what most of a training step is: products with frozen weights, and the adapters beside them.

`accelerated` swaps the forward pass of a model's linear layers while it lasts; the numbers stay those of the library's
own layers (within rounding), and what it does not know it leaves alone.

Notation: T tokens, I inputs and O outputs of a layer, r the adapter's rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor
from torch.nn import functional as F

from dlm.model import inner_model

__all__ = ["accelerated"]


@contextmanager
def accelerated(model: Any, products: str) -> Iterator[None]:
    """Train faster while the context lasts.

    `products`: "torch" (torch's own kernels) or "onednn" (oneDNN's, see `choose_products`). Weights in bf16 are
    multiplied in bf16 with fp32 sums, and what flows between the layers stays fp32.
    """
    with ExitStack() as stack:
        stack.enter_context(_kernels(products))
        stack.enter_context(_fp32_stream(model))
        for module in model.modules():
            forward = _faster(module)
            if forward is not None:
                module.forward = forward
                stack.callback(module.__dict__.pop, "forward")
        yield


@contextmanager
def _kernels(products: str) -> Iterator[None]:
    settings = torch.backends.mkldnn.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "bf16" if products == "onednn" else before
    try:
        yield
    finally:
        settings.fp32_precision = before


@contextmanager
def _fp32_stream(model: Any) -> Iterator[None]:
    """Embeddings leave as fp32, so that the residual stream is never rounded to the weights' type."""
    handle = inner_model(model).get_input_embeddings().register_forward_hook(lambda _m, _i, out: out.float())
    try:
        yield
    finally:
        handle.remove()


def _faster(module: Any) -> Callable[[Tensor], Tensor] | None:
    """A faster forward for a linear layer, or None where the layer's own is kept."""
    if isinstance(module, LoraLinear):
        name = module.active_adapters[0] if len(module.active_adapters) == 1 else None
        plain = type(module.base_layer) is torch.nn.Linear and name not in module.lora_variant
        if name is None or not plain or module.lora_bias[name] or module.fan_in_fan_out:
            return None
        return lambda x: _lora_forward(module, name, x)
    return None


def _lora_forward(module: LoraLinear, name: str, x: Tensor) -> Tensor:
    base = module.base_layer
    if module.disable_adapters or module.merged:
        return _FrozenLinear.apply(x, base.weight, base.bias)  # type: ignore[no-untyped-call]
    dropped = module.lora_dropout[name](x)
    result: Tensor = _AdaptedLinear.apply(  # type: ignore[no-untyped-call]
        x,
        None if dropped is x else dropped,
        base.weight,
        base.bias,
        module.lora_A[name].weight,
        module.lora_B[name].weight,
        module.scaling[name],
    )
    return result


class _FrozenLinear(torch.autograd.Function):
    """x Wᵀ + b with a frozen W of any type, x and result in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(x.to(weight.dtype), weight, bias).float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        return (grad.to(weight.dtype) @ weight).float(), None, None


class _AdaptedLinear(torch.autograd.Function):
    """x Wᵀ + b + s · (d Aᵀ) Bᵀ with a frozen W, d = x after dropout (None: x itself)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        lora_a: Tensor,
        lora_b: Tensor,
        scale: float,
    ) -> Tensor:
        kind = weight.dtype
        flat = x.reshape(-1, x.shape[-1]).to(kind)  # (T, I)
        source = flat if dropped is None else dropped.reshape(flat.shape).to(kind)
        small = source @ lora_a.to(kind).t()  # (T, r)
        result = F.linear(flat, weight, bias)  # (T, O)
        result.addmm_(small, lora_b.to(kind).t(), alpha=scale)
        ctx.save_for_backward(source, small, weight, lora_a, lora_b)
        ctx.scale, ctx.has_dropout = scale, dropped is not None
        return result.float().view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        source, small, weight, lora_a, lora_b = ctx.saved_tensors
        kind = weight.dtype
        flat = grad.reshape(-1, grad.shape[-1]).to(kind)  # (T, O)
        d_small = (flat @ lora_b.to(kind)).mul_(ctx.scale)  # (T, r)
        d_a = (d_small.t() @ source).float()
        d_b = (flat.t() @ small).float() * ctx.scale
        d_x = d_dropped = None
        if ctx.needs_input_grad[0]:
            d_x = flat @ weight
            if not ctx.has_dropout:
                d_x.addmm_(d_small, lora_a.to(kind))
            d_x = d_x.float().view(*grad.shape[:-1], -1)
        if ctx.has_dropout and ctx.needs_input_grad[1]:
            d_dropped = (d_small @ lora_a.to(kind)).float().view(*grad.shape[:-1], -1)
        return d_x, d_dropped, None, None, d_a, d_b, None
