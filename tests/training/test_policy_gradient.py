"""The GRPO family: worked by hand, by finite differences, and the same however a window is split or padded."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dlm.training.policy_gradient import (
    GroupLoss,
    PolicyGradient,
    group_advantages,
    policy_gradient_denominator,
    policy_gradient_loss_sum,
)

pytestmark = pytest.mark.torch

VARIANTS: tuple[GroupLoss, ...] = ("grpo", "dapo", "dr_grpo")
# Two answers, of three and two tokens. Ratios ρ of the first, whose advantage is 1:  1, 2, ½: with both clips at .2
# min(ρA, clip(ρ)A) = 1, 1.2, .5, a loss of −2.7.  Of the second, whose advantage is −1:  2, ½: −2, −.8, a loss of 2.8.
RATIOS = [1, 2, 1 / 2, 2, 1 / 2]
ADVANTAGES = [1.0, -1.0]
LENGTHS = [3, 2]


def doubles(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def worked(
    loss_type: GroupLoss,
    *,
    advantages: list[float] = ADVANTAGES,
    beta: float = 0.0,
    ref: Tensor | None = None,
) -> PolicyGradient:
    logprobs = doubles([math.log(ratio) - 1 for ratio in RATIOS])
    return policy_gradient_loss_sum(
        logprobs,
        torch.full_like(logprobs, -1),
        doubles(advantages),
        torch.tensor(LENGTHS),
        loss_type=loss_type,
        ref_logprobs=None if ref is None else logprobs + ref,
        beta=beta,
    )


@pytest.mark.parametrize(
    ("loss_type", "loss_sum", "denominator"),
    [
        ("grpo", -2.7 / 3 + 2.8 / 2, 2),  # two sequences
        ("dapo", -2.7 + 2.8, 5),  # five tokens
        ("dr_grpo", -2.7 + 2.8, 8),  # two sequences of at most four tokens
    ],
)
def test_bug_14_each_variant_by_hand(loss_type: GroupLoss, loss_sum: float, denominator: int) -> None:
    assert worked(loss_type).loss_sum.item() == pytest.approx(loss_sum, abs=1e-12)
    assert policy_gradient_denominator(LENGTHS, loss_type, max_length=4) == denominator


@pytest.mark.parametrize(("loss_type", "weight"), [("grpo", 1 / 3), ("dapo", 1.0), ("dr_grpo", 1.0)])
def test_divergence_by_hand(loss_type: GroupLoss, weight: float) -> None:
    """The first token is twice as likely under the reference: e^d − d − 1 = 2 − ln 2 − 1 there, 0 elsewhere."""
    d = doubles([math.log(2), 0, 0, 0, 0])
    with_reference = worked(loss_type, beta=0.1, ref=d)
    divergence = 1 - math.log(2)
    assert with_reference.kl.item() == pytest.approx(divergence, abs=1e-12)
    added = with_reference.loss_sum.item() - worked(loss_type).loss_sum.item()
    assert added == pytest.approx(0.1 * divergence * weight, abs=1e-12)


@pytest.mark.parametrize(("advantage", "low", "high"), [(1.0, 0, 2), (-1.0, 2, 0), (0.0, 0, 0)])
def test_sums_by_hand(advantage: float, low: int, high: int) -> None:
    """Two ratios stand above the clip, two below. What the advantage pulls back inside is not clipped."""
    found = worked("dapo", advantages=[advantage, advantage])
    sums = [found.clipped_low, found.clipped_high, found.ratio, found.ratio_square, found.kl]
    assert [float(value) for value in sums] == pytest.approx([low, high, 6, 9.5, 0])
    assert not any(value.requires_grad for value in sums)


def test_clipping_has_two_sides() -> None:
    """ρ = 1.25 is inside a clip_high of .28 and outside one of .2."""
    logprobs = doubles([math.log(1.25)]).requires_grad_()
    for clip_high, slope in [(0.28, -1.25), (0.2, 0.0)]:
        logprobs.grad = None
        policy_gradient_loss_sum(
            logprobs,
            doubles([0.0]),
            doubles([1.0]),
            torch.tensor([1]),
            loss_type="dapo",
            clip_high=clip_high,
        ).loss_sum.backward()
        assert logprobs.grad is not None
        assert logprobs.grad.item() == pytest.approx(slope)


def test_bug_14_advantages_by_hand() -> None:
    """Rewards 0, 0, 3: mean 1, deviations −1, −1, 2, variance (1 + 1 + 4) / (3 − 1) = 3. Equal rewards: nothing."""
    rewards = doubles([0, 0, 3, 1, 1, 1]).reshape(2, 3)
    scale = math.sqrt(3) + 1e-4
    scaled = group_advantages(rewards).flatten().tolist()
    assert scaled == pytest.approx([-1 / scale, -1 / scale, 2 / scale, 0, 0, 0], abs=1e-12)
    assert group_advantages(rewards, scale_std=False).flatten().tolist() == [-1, -1, 2, 0, 0, 0]


def test_a_group_of_one_has_no_advantage() -> None:
    assert group_advantages(torch.tensor([[3.0], [5.0]])).tolist() == [[0.0], [0.0]]


def test_divergence_without_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="ref_logprobs"):
        worked("grpo", beta=0.1)


@pytest.mark.parametrize("loss_type", VARIANTS)
def test_gradients_by_finite_differences(loss_type: GroupLoss) -> None:
    """Tokens inside and outside the clip, on the side that has a gradient and on the one that has none."""
    old = doubles([-1.0, -2.0, -0.5, -3.0, -1.5])
    ref = old + doubles([0.1, -0.4, 0.3, 0.7, -0.2])

    def loss(logprobs: Tensor) -> Tensor:
        return policy_gradient_loss_sum(
            logprobs,
            old,
            doubles(ADVANTAGES),
            torch.tensor(LENGTHS),
            loss_type=loss_type,
            ref_logprobs=ref,
            beta=0.3,
        ).loss_sum

    moved = (old + doubles([0.05, 0.6, -0.6, 0.6, -0.6])).requires_grad_()
    assert torch.autograd.gradcheck(loss, (moved,), eps=1e-6, atol=1e-7, rtol=1e-5)


@st.composite
def windows(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Lengths of a window's sequences, a cut of it into micro-batches, and a seed for the numbers."""
    lengths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=8))
    sizes: list[int] = []
    while sum(sizes) < len(lengths):
        sizes.append(draw(st.integers(1, len(lengths) - sum(sizes))))
    return lengths, sizes, draw(st.integers(0, 2**32 - 1))


@given(windows(), st.sampled_from(VARIANTS))
def test_bug_14_the_same_however_split_or_padded(
    window: tuple[list[int], list[int], int], loss_type: GroupLoss
) -> None:
    """Bug 14. Micro-batch sums over the window's denominator, against the published formula on one padded batch with
    a mask, its padding filled with numbers that must not matter; values and gradients."""
    lengths, sizes, seed = window
    random = torch.Generator().manual_seed(seed)
    S, T = len(lengths), max(lengths)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    mask = torch.arange(T + 2) < torch.tensor(lengths)[:, None]  # (S, T + 2)
    old = -noise(S, T + 2).abs()
    policy = (old + 0.5 * noise(S, T + 2)).requires_grad_()
    reference, advantages = old + 0.1 * noise(S, T + 2), noise(S)

    ratio, d = torch.exp(policy - old), reference - policy
    surrogate = torch.minimum(
        ratio * advantages[:, None], ratio.clamp(1 - 0.1, 1 + 0.3) * advantages[:, None]
    )
    tokens = (-surrogate + 0.2 * (torch.exp(d) - d - 1)) * mask
    if loss_type == "grpo":
        expected = (tokens.sum(1) / mask.sum(1)).mean()
    elif loss_type == "dapo":
        expected = tokens.sum() / mask.sum()
    else:
        expected = tokens.sum() / (S * 9)
    (wanted,) = torch.autograd.grad(expected, policy)

    denominator = policy_gradient_denominator(lengths, loss_type, max_length=9)
    total = 0.0
    for end, size in zip(accumulate(sizes), sizes, strict=True):
        rows = slice(end - size, end)
        kept = mask[rows]
        outcome = policy_gradient_loss_sum(
            policy[rows][kept],
            old[rows][kept],
            advantages[rows],
            torch.tensor(lengths[rows]),
            loss_type=loss_type,
            clip_low=0.1,
            clip_high=0.3,
            ref_logprobs=reference[rows][kept],
            beta=0.2,
        )
        (outcome.loss_sum / denominator).backward()
        total += outcome.loss_sum.item() / denominator
    assert total == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)
    assert policy.grad is not None
    torch.testing.assert_close(policy.grad, wanted, rtol=1e-9, atol=1e-12)


@given(st.integers(1, 4), st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_advantages_are_centred_and_scaled_per_group(groups: int, samples: int, seed: int) -> None:
    rewards = 5 * torch.randn(
        groups, samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    plain, scaled = group_advantages(rewards, scale_std=False), group_advantages(rewards)
    assert plain.sum(dim=1).tolist() == pytest.approx([0.0] * groups, abs=1e-9)
    assert (scaled.std(dim=1) <= 1).all()
    torch.testing.assert_close(group_advantages(rewards[:1]), scaled[:1])  # no group sees another
    torch.testing.assert_close(group_advantages(rewards + 100), scaled, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("loss_type", VARIANTS)
def test_an_unchanged_policy_has_ratios_of_one(loss_type: GroupLoss) -> None:
    """The first step after sampling: nothing is clipped, and the loss is the mean negative advantage."""
    logprobs = torch.tensor([-1.0, -2.0, -0.5, -3.0, -1.5])
    found = policy_gradient_loss_sum(
        logprobs,
        logprobs,
        torch.tensor(ADVANTAGES),
        torch.tensor(LENGTHS),
        loss_type=loss_type,
        ref_logprobs=logprobs,
        beta=0.1,
    )
    assert [float(x) for x in (found.ratio, found.clipped_low, found.clipped_high, found.kl)] == [5, 0, 0, 0]
    expected = 0.0 if loss_type == "grpo" else -3.0 + 2.0
    assert found.loss_sum.item() == pytest.approx(expected)
