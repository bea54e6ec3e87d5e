"""Which library multiplies fp32 matrices on this CPU: a choice by measurement, for training and sampling alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dlm.recipe import Choice

__all__ = ["choose_products", "matrix_products"]

_REPEATS = 9


def choose_products(device: str, dtype: str) -> Choice[str]:
    """How this machine multiplies fp32 matrices fastest at full precision: "torch" or "onednn".

    torch hands fp32 products on CPU to a library that is slow on some processors; oneDNN is asked for by the setting
    that allows it lower precision. Whether it takes that liberty is found out by comparison with fp64.
    """
    if device != "cpu":
        return Choice("torch", f"{device} has its own")
    if not hasattr(torch.backends.mkldnn, "matmul") or not torch.backends.mkldnn.is_available():
        return Choice("torch", "this build of torch has no other")
    errors = {name: _largest_error(name) for name in ("torch", "onednn")}
    if errors["onednn"] > 8 * errors["torch"]:
        return Choice("torch", "oneDNN rounds its inputs on this processor")
    if dtype != "fp32":
        return Choice("onednn", "heads and adapters of a bf16 base are multiplied in fp32")
    left, right = _operands()
    seconds = {"torch": math.inf, "onednn": math.inf}
    for _ in range(_REPEATS):
        for name in seconds:  # in turns, and the least of each: what disturbs a measurement only adds to it
            with matrix_products(name):
                seconds[name] = min(seconds[name], _seconds(lambda: left @ right.t()))
    ratio = seconds["torch"] / seconds["onednn"]
    if ratio < 1.1:
        return Choice("torch", f"oneDNN is not faster here ({ratio:.1f}×)")
    return Choice("onednn", f"{ratio:.1f}× as fast as torch's own here, in full fp32")


def _operands() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(512, 1024, generator=generator) for _ in range(2))
    return left, right


def _largest_error(products: str) -> float:
    left, right = _operands()
    with matrix_products(products):
        return float((left @ right.t() - left.double() @ right.double().t()).abs().max())


def _seconds(call: Callable[[], object]) -> float:
    began = time.process_time()  # not the clock on the wall: other jobs have their share of that
    call()
    return time.process_time() - began


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
