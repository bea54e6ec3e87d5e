"""Which library multiplies fp32 matrices on this CPU: one choice for training and sampling, the same at every start."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dlm.recipe import Choice

__all__ = ["choose_products", "matrix_products"]


@functools.cache
def choose_products(device: str) -> Choice[str]:
    """Which library multiplies fp32 matrices at full precision: "torch" (its default) or "onednn".

    torch's default is slow on some processors (on an AMD EPYC oneDNN took less than half its time). oneDNN is asked for
    by the setting that allows it lower precision; whether it takes that liberty is found out by comparison with fp64.
    Nothing is timed: the libraries round differently, and a run must not differ from itself by what else the machine
    was doing.
    """
    if device != "cpu":
        return Choice("torch", f"{device} has its own")
    if not hasattr(torch.backends.mkldnn, "matmul") or not torch.backends.mkldnn.is_available():
        return Choice("torch", "this build of torch has no other")
    if _largest_error("onednn") > 8 * _largest_error("torch"):
        return Choice("torch", "oneDNN rounds its inputs on this processor")
    return Choice(
        "onednn", "as exact as torch's own here, by comparison with fp64, and on many processors faster"
    )


def _operands() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(512, 1024, generator=generator) for _ in range(2))
    return left, right


def _largest_error(products: str) -> float:
    left, right = _operands()
    with matrix_products(products):
        return float((left @ right.t() - left.double() @ right.double().t()).abs().max())


@contextmanager
def matrix_products(products: str) -> Iterator[None]:
    """Multiply fp32 matrices on CPU with "torch" or "onednn" while the context lasts."""
    settings = getattr(torch.backends.mkldnn, "matmul", None)
    onednn = products == "onednn"
    if settings is None or (settings.fp32_precision == "bf16") == onednn:
        yield
        return
    before = settings.fp32_precision
    settings.fp32_precision = "bf16" if onednn else "ieee"  # allowed, not taken: `choose_products` made sure
    try:
        yield
    finally:
        settings.fp32_precision = before
