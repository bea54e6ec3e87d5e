"""Where a model runs and in which number format, each with the reason that is shown beside it."""

from __future__ import annotations

import os

import torch

from dlm.errors import UsageError
from dlm.recipe import Choice

__all__ = ["DTYPES", "choose_device", "choose_dtype", "choose_threads"]

_SMALL = 20_000_000  # parameters

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(request: str = "auto") -> Choice[str]:
    """The device to run on: what was asked for, or the first there is of cuda, mps and cpu.

    Raises:
        UsageError: an unknown device, or one this machine does not have.
    """
    if request == "auto":
        if torch.cuda.is_available():
            return Choice("cuda", f"a CUDA GPU is here: {torch.cuda.get_device_name()}")
        if torch.backends.mps.is_available():
            return Choice("mps", "no CUDA GPU, but Apple's Metal is here")
        return Choice("cpu", "neither a CUDA GPU nor Apple's Metal is here")
    kind, _, index = request.partition(":")
    if kind not in {"cpu", "cuda", "mps"} or (index and not (kind == "cuda" and index.isdecimal())):
        raise UsageError(
            f"unknown device {request!r}",
            expected="auto, cpu, cuda, cuda:N or mps",
            next_step="--device auto",
        )
    if kind == "cuda" and not torch.cuda.is_available():
        built = (
            "this build of torch has CUDA" if torch.version.cuda else "this build of torch is without CUDA"
        )
        raise _absent(request, f"no usable CUDA GPU ({built})")
    if index and int(index) >= torch.cuda.device_count():
        raise _absent(request, f"{torch.cuda.device_count()} CUDA GPU(s), counted from 0")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise _absent(request, "no Metal on this machine")
    return Choice(request, "asked for")


def _absent(request: str, found: str) -> UsageError:
    return UsageError(f"the device {request!r} is not here", found=found, next_step="--device auto")


def choose_dtype(precision: str | None, device: str) -> Choice[str]:
    """The type of the frozen weights: `fp32`, `bf16` or `fp16`.

    Raises:
        UsageError: an unknown precision, or one that `device` cannot compute in.
    """
    kind = device.partition(":")[0]
    bf16_on_gpu = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision is None:
        if kind == "cuda" and bf16_on_gpu:
            return Choice("bf16", "the GPU computes in bf16: half the memory of fp32, and faster")
        if kind == "cuda":
            return Choice("fp32", "this GPU has no bf16, and fp16 overflows without loss scaling")
        if kind == "mps":
            return Choice("fp32", "on Metal, fp32 is the format every operation supports")
        return Choice("fp32", "on a CPU, fp32 is exact and mostly no slower")
    if precision not in DTYPES:
        raise UsageError(
            f"unknown precision {precision!r}",
            expected=", ".join(DTYPES),
            next_step="--set precision=fp32",
        )
    if precision == "fp16" and kind == "cpu":
        raise UsageError(
            "fp16 needs a GPU",
            found="the device is the CPU",
            next_step="--set precision=fp32 (or bf16, which has fp32's range)",
        )
    if precision == "bf16" and kind == "cuda" and not bf16_on_gpu:
        raise UsageError("this GPU does not compute in bf16", next_step="--set precision=fp32")
    return Choice(precision, "asked for")


def choose_threads(parameters: int) -> Choice[int]:
    """How many threads the CPU's matrix products use.

    On the embedded base and two cores, a second thread took .75 of one thread's time alone and 2.3 times it beside a job
    that kept one core busy (`bench/threads.py`): a team waits for its slowest member at every small product. The safe
    choice costs little.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        return Choice(torch.get_num_threads(), "OMP_NUM_THREADS")
    if parameters < _SMALL:
        return Choice(1, "a base this small gains little from more, and loses much on a busy machine")
    return Choice(torch.get_num_threads(), "the cores of this machine")
