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
    mixed = _mix(_mix(tokens * 0x9E3779B1 + keys[:, :1]) + keys[:, 1:])  # (B, V), 32 bits in 64
    # 32 bits, finest near 0: the smallest of V numbers decides, and 24 bits would tie there for V above 1e5
    uniform = (mixed.to(torch.float32) + 0.5) * 2.0**-32
    return -torch.log1p(-uniform.clamp_(max=1 - 2.0**-24))


def _mix(bits: torch.Tensor) -> torch.Tensor:
    """The 32-bit finaliser "lowbias32" (Wellons 2018), in 64-bit arithmetic."""
    bits = bits & _LOW32
    bits ^= bits >> 16
    bits *= 0x7FEB352D
    bits &= _LOW32
    bits ^= bits >> 15
    bits *= 0x846CA68B
    bits &= _LOW32
    bits ^= bits >> 16
    return bits
