"""Faster kernels for what most of a training step is: products with frozen weights, and the adapters beside them.

`accelerated` swaps the forward pass of a model's linear layers while it lasts; the numbers stay those of the library's
own layers (within rounding), and what it does not know it leaves alone.

Notation: T tokens, I inputs and O outputs of a layer, r the adapter's rank.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from torch.nn.functional import layer_norm, linear, silu
from transformers.activations import SiLUActivation
from transformers.pytorch_utils import Conv1D

from dlm.model import inner_model, matrix_products
from dlm.training.pages import keep_pages

__all__ = ["accelerated", "is_plain_lora"]


@contextmanager
def accelerated(model: Any, products: str) -> Iterator[None]:
    """Train faster while the context lasts.

    Args:
        model: a causal language model or sequence classifier, under PEFT or not.
        products: "torch" or "onednn" (see `dlm.model.choose_products`).

    Weights in bf16 are multiplied in bf16 with fp32 sums, while what flows between the layers stays fp32. That needs
    every layer to be known here; a model with others (DoRA, GPT-2's transposed layers) keeps its own forward passes. So
    does a model that is not on the CPU: what was measured was measured there.
    """
    if next(model.parameters()).device.type != "cpu":
        yield
        return
    keep_pages()
    with ExitStack() as stack:
        stack.enter_context(matrix_products(products))
        swaps = _swaps(model)
        if swaps is not None:
            stack.enter_context(_fp32_embeddings(model))
            for module, forward in swaps:
                module.forward = functools.partial(forward, module)
                stack.callback(module.__dict__.pop, "forward")
        yield


@contextmanager
def _fp32_embeddings(model: Any) -> Iterator[None]:
    """Embeddings leave as fp32, so that the residual stream is never rounded to the weights' type."""
    handle = inner_model(model).get_input_embeddings().register_forward_hook(lambda _m, _i, out: out.float())
    try:
        yield
    finally:
        handle.remove()


_Swap = tuple[Any, Callable[..., Tensor]]


def _swaps(model: Any) -> list[_Swap] | None:
    """The modules with their faster forward passes; None when a layer is of a kind that is not known here."""
    swaps: list[_Swap] = []
    inside: set[int] = set()  # parts of adapted layers, which the adapted layer's own pass reads
    for module in model.modules():
        if id(module) in inside:
            continue
        if isinstance(module, LoraLinear):
            if not is_plain_lora(module):
                return None
            inside.update(id(part) for part in module.modules())
            swaps.append((module, _adapted_forward))
        elif type(module) is torch.nn.Linear and not module.weight.requires_grad:
            swaps.append((module, _frozen_forward))
        elif type(module) is torch.nn.LayerNorm:
            swaps.append((module, _norm_forward))
        elif isinstance(module, (Conv1D, BaseTunerLayer)):
            return None
        elif _is_swiglu(module):
            swaps.append((module, _swiglu_forward))
    return swaps


def is_plain_lora(module: LoraLinear) -> bool:
    """Whether a layer is x Wᵀ + b + s · (d Aᵀ) Bᵀ and nothing else."""
    if len(module.active_adapters) != 1 or type(module.base_layer) is not torch.nn.Linear:
        return False
    name = module.active_adapters[0]
    return name in module.lora_A and name not in module.lora_variant and not module.lora_bias[name]


def _is_swiglu(module: Any) -> bool:
    """Llama's feed-forward layer, by its parts: down(silu(gate(x)) · up(x))."""
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    are_linear = all(isinstance(part, (torch.nn.Linear, LoraLinear)) for part in parts)
    is_silu = isinstance(getattr(module, "act_fn", None), (torch.nn.SiLU, SiLUActivation))
    return are_linear and is_silu and len(list(module.children())) == 4


def _adapted_forward(module: LoraLinear, x: Tensor) -> Tensor:
    base = module.base_layer
    if module.disable_adapters or module.merged:
        return _frozen_forward(base, x)
    name = module.active_adapters[0]
    dropped = module.lora_dropout[name](x)
    result: Tensor = _AdaptedLinear.apply(
        x,
        None if dropped is x else dropped,
        base.weight,
        base.bias,
        module.lora_A[name].weight,
        module.lora_B[name].weight,
        module.scaling[name],
    )
    return result


def _frozen_forward(module: Any, x: Tensor) -> Tensor:
    result: Tensor = _FrozenLinear.apply(x, module.weight, module.bias)
    return result


def _norm_forward(module: torch.nn.LayerNorm, x: Tensor) -> Tensor:
    weight, bias = module.weight, module.bias
    weights = (None if weight is None else weight.float(), None if bias is None else bias.float())
    return layer_norm(x, module.normalized_shape, *weights, module.eps)


def _swiglu_forward(module: Any, x: Tensor) -> Tensor:
    gate, up = module.gate_proj(x), module.up_proj(x)
    kind = getattr(module.down_proj, "base_layer", module.down_proj).weight.dtype
    result: Tensor = module.down_proj(_SwiGlu.apply(gate, up, kind))
    return result


class _SwiGlu(torch.autograd.Function):  # type: ignore[misc]
    """silu(gate) · up; keeps its two inputs in `kind`, the type they are multiplied in next, and nothing else."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, kind: torch.dtype) -> Tensor:
        ctx.save_for_backward(gate.to(kind), up.to(kind))
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = (kept.float() for kept in ctx.saved_tensors)
        sigmoid = torch.sigmoid(gate)
        active = gate * sigmoid
        d_up = grad * active
        # d silu(g)/dg = σ + silu(g)·(1 − σ)
        slope = active.mul_(1 - sigmoid).add_(sigmoid)
        return slope.mul_(up).mul_(grad), d_up, None


class _FrozenLinear(torch.autograd.Function):  # type: ignore[misc]
    """x Wᵀ + b with a frozen W of any type, x and result in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return linear(x.to(weight.dtype), weight, bias).float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return (grad.to(weight.dtype) @ weight).float(), None, None


class _AdaptedLinear(torch.autograd.Function):  # type: ignore[misc]
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
        flat = x.reshape(-1, x.shape[-1])  # (T, I)
        source = flat if dropped is None else dropped.reshape(flat.shape)
        # the adapter's own products stay in fp32: they cost little, and in bf16 they would be the larger error
        small = source @ lora_a.t()  # (T, r)
        result = linear(flat.to(kind), weight, bias).float()  # (T, O)
        result.addmm_(small, lora_b.t(), alpha=scale)
        ctx.save_for_backward(source.to(kind), small, weight, lora_a, lora_b)
        ctx.scale, ctx.has_dropout = scale, dropped is not None
        return result.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        source, small, weight, lora_a, lora_b = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])  # (T, O)
        d_small = (flat @ lora_b).mul_(ctx.scale)  # (T, r)
        d_a = d_small.t() @ source.float()
        d_b = (flat.t() @ small).mul_(ctx.scale)
        d_x = d_dropped = None
        if ctx.needs_input_grad[0]:
            d_x = (flat.to(weight.dtype) @ weight).float()
            if not ctx.has_dropout:
                d_x.addmm_(d_small, lora_a)
            d_x = d_x.view(*grad.shape[:-1], -1)
        if ctx.has_dropout and ctx.needs_input_grad[1]:
            d_dropped = (d_small @ lora_a).view(*grad.shape[:-1], -1)
        return d_x, d_dropped, None, None, d_a, d_b, None
