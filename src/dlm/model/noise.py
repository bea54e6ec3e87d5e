"""Random numbers for sampling that depend on a sample's seed, the step and the token, and on nothing else.

Each (seed, step, token) has its own number, hashed on the spot. So a sample is the same text alone or in a batch of
any company and order, and on any device, and no generator's state needs to follow rows that leave a batch. Choosing
by argmax of log p + Gumbel noise (Gumbel 1954; arXiv 1611.01144) draws from p exactly, and unlike a search in the
cumulative sum it is disturbed by rounding only where two tokens all but tie.

Notation: B rows, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["exponential", "row_keys"]

_LOW32 = 0xFFFFFFFF


def row_keys(seeds: Sequence[int], step: int) -> np.ndarray:
    """Two 32-bit keys for each row at one step, (B, 2) int64: splitmix64 (Steele et al. 2014) of seed and step."""
    state = np.array([seed & 0xFFFFFFFFFFFFFFFF for seed in seeds], dtype=np.uint64)
    with np.errstate(over="ignore"):  # the hash lives on wrapping around
        mixed = _splitmix(_splitmix(state) + np.uint64(step))
    return np.stack([mixed >> np.uint64(32), mixed & np.uint64(_LOW32)], axis=1).astype(np.int64)


def _splitmix(state: np.ndarray) -> np.ndarray:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(state ^ (state >> np.uint64(31)))


def exponential(keys: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Independent Exp(1) numbers, (B, V) fp32, one per row and token; −log of them is Gumbel noise.

    Args:
        keys: (B, 2) int64 from `row_keys`, on the device of the result.
        vocabulary: V.
    """
    tokens = torch.arange(vocabulary, device=keys.device, dtype=torch.int64)  # (V,)
    words = _wrapped(keys)
    bits = _wrapped(tokens * 0x9E3779B1) + words[:, :1]  # (B, V)
    spare = torch.empty_like(bits)
    _mix(bits, spare)
    bits += words[:, 1:]
    _mix(bits, spare)
    # The number without its sign, rounded once: both halves are exact in fp32. 32 bits, finest near 0: the smallest of
    # V numbers decides, and 24 bits would tie there for V above 1e5.
    uniform = _upper(bits, 16, spare).to(torch.float32)
    uniform.mul_(65536.0).add_(bits.bitwise_and_(0xFFFF)).add_(0.5).mul_(2.0**-32)
    return uniform.clamp_(max=1 - 2.0**-24).neg_().log1p_().neg_()


def _wrapped(numbers: torch.Tensor) -> torch.Tensor:
    """The low 32 bits of int64 numbers as int32, whose products wrap around as those of unsigned numbers do."""
    return ((numbers & _LOW32) - ((numbers & 0x80000000) << 1)).to(torch.int32)


def _upper(bits: torch.Tensor, places: int, out: torch.Tensor) -> torch.Tensor:
    """Shift right into `out` as if the numbers had no sign."""
    torch.bitwise_right_shift(bits, places, out=out)
    return out.bitwise_and_((1 << (32 - places)) - 1)


def _mix(bits: torch.Tensor, spare: torch.Tensor) -> None:
    """The 32-bit finaliser "lowbias32" (Wellons 2018), in place. In 64 bits it took twice the time."""
    bits ^= _upper(bits, 16, spare)
    bits *= 0x7FEB352D
    bits ^= _upper(bits, 15, spare)
    bits *= 0x846CA68B - (1 << 32)
    bits ^= _upper(bits, 16, spare)
