"""The noise: uniform, independent of company, and different for each seed, step and token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dlm.model.noise import exponential, row_keys

pytestmark = pytest.mark.torch


def draw(seeds: list[int], step: int, vocabulary: int) -> torch.Tensor:
    return exponential(torch.from_numpy(row_keys(seeds, step)), vocabulary)


def test_splitmix_gives_its_published_numbers() -> None:
    """Seed 0, first output of the reference implementation: 0xE220A8397B1DCDAF."""
    from dlm.model.noise import _splitmix

    assert int(_splitmix(np.array([0], dtype=np.uint64))[0]) == 0xE220A8397B1DCDAF


def test_the_numbers_are_exponential() -> None:
    values = draw(list(range(200)), 0, 5000).flatten().double()
    uniform = (-values).exp().sort().values
    grid = (torch.arange(1, len(uniform) + 1) - 0.5) / len(uniform)
    assert (uniform - grid).abs().max() < 1.63 / len(uniform) ** 0.5  # Kolmogorov–Smirnov at 1 %


def test_neighbouring_seeds_steps_and_tokens_are_unrelated() -> None:
    base = draw(list(range(300)), 0, 300)
    for other in (draw(list(range(1, 301)), 0, 300), draw(list(range(300)), 1, 300), base.roll(1, 1), base.T):
        correlation = np.corrcoef(base.flatten().numpy(), other.flatten().numpy())[0, 1]
        assert abs(correlation) < 0.015


def test_a_rows_noise_is_its_own() -> None:
    assert torch.equal(draw([1, 2, 3], 5, 100)[1], draw([2], 5, 100)[0])
    assert torch.equal(draw([7], 5, 100)[0, :50], draw([7], 5, 50)[0])


def test_the_widest_seeds_are_told_apart() -> None:
    keys = row_keys([0, -1, 2**63 - 1, 2**64 - 1, 2**32], 0)
    assert len({tuple(key) for key in keys.tolist()}) == 4  # −1 and 2**64 − 1 are the same 64 bits
    assert torch.isfinite(draw([0, -1, 2**63 - 1], 10**6, 1000)).all()


def test_numbers_are_finite_and_positive() -> None:
    values = draw([3], 0, 2_000_000)
    assert torch.isfinite(values).all()
    assert (values > 0).all()
