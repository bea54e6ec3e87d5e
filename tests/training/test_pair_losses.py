"""Losses over pairs: worked by hand, by finite differences, and by the properties that define them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dlm.training.losses import (
    DpoLoss,
    dpo_losses,
    log1mexp,
    orpo_losses,
    reward_losses,
    sft_loss_sum,
    simpo_losses,
)

pytestmark = pytest.mark.torch

LN2, LN3 = math.log(2), math.log(3)
THREE_TO_ONE = math.log(4 / 3)  # −log σ(ln 3): the preferred side has odds of three to one
DPO_LOSSES: tuple[DpoLoss, ...] = ("sigmoid", "hinge", "ipo", "ipo_sum", "robust")
LENGTHS = {"chosen_lengths": torch.tensor([2, 5]), "rejected_lengths": torch.tensor([3, 1])}

log_ratios = st.floats(-40, 40)
betas = st.floats(0.01, 5)
smoothings = st.floats(0, 0.45)


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def dpo(margin: float, beta: float, loss_type: DpoLoss, label_smoothing: float = 0.0) -> float:
    """One pair whose log-ratios stand `margin` apart."""
    zero = row(0.0)
    losses = dpo_losses(
        row(margin - 7),
        row(-7.0),
        zero,
        zero,
        beta=beta,
        loss_type=loss_type,
        label_smoothing=label_smoothing,
    )
    return float(losses)


# By hand. σ(ln 3) = 3/4 and σ(−ln 3) = 1/4, so values are logarithms of fractions.


@pytest.mark.parametrize(
    ("loss_type", "label_smoothing", "expected"),
    [
        ("sigmoid", 0.0, math.log(4 / 3)),
        ("sigmoid", 0.1, 0.9 * math.log(4 / 3) + 0.1 * math.log(4)),
        ("robust", 0.1, (0.9 * math.log(4 / 3) - 0.1 * math.log(4)) / 0.8),
        ("hinge", 0.0, 0.0),  # 1 − ln 3 < 0
        ("ipo_sum", 0.0, (2 * LN3 - 1) ** 2),  # 1/(2β) = 1
    ],
)
def test_dpo_by_hand(loss_type: DpoLoss, label_smoothing: float, expected: float) -> None:
    """β = ½; r_w = −3 + 5 ln 3 − (−3 + 4 ln 3) = ln 3; r_l = −2 − (−2 + ln 3) = −ln 3; so βΔ = ln 3."""
    losses = dpo_losses(
        row(-3 + 5 * LN3),
        row(-2.0),
        row(-3 + 4 * LN3),
        row(-2 + LN3),
        beta=0.5,
        loss_type=loss_type,
        label_smoothing=label_smoothing,
    )
    assert losses.tolist() == pytest.approx([expected], abs=1e-12)


def test_hinge_of_a_pair_ranked_the_wrong_way() -> None:
    """βΔ = −ln 3."""
    assert dpo(-2 * LN3, 0.5, "hinge") == pytest.approx(1 + LN3, abs=1e-12)


def test_ipo_by_hand() -> None:
    """r_w = 4 over 2 tokens, r_l = −3 over 3 tokens: 2 − (−1) = 3 per token, 7 in sums; 1/(2β) = 1."""
    logps = (row(-1.0), row(-8.0), row(-5.0), row(-5.0))
    per_token = dpo_losses(*logps, beta=0.5, loss_type="ipo", chosen_lengths=row(2), rejected_lengths=row(3))
    assert per_token.tolist() == pytest.approx([4.0])
    assert dpo_losses(*logps, beta=0.5, loss_type="ipo_sum").tolist() == pytest.approx([36.0])


def test_ipo_without_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="lengths"):
        dpo_losses(row(0.0), row(0.0), row(0.0), row(0.0), beta=0.1, loss_type="ipo")


def test_simpo_by_hand() -> None:
    """Means −1 and −2, β = 2: a margin of 2; γ = 2 − ln 3 leaves ln 3."""
    losses = simpo_losses(row(-4.0), row(-6.0), row(4), row(3), beta=2.0, gamma=2 - LN3)
    assert losses.tolist() == pytest.approx([THREE_TO_ONE], abs=1e-12)


def test_orpo_by_hand() -> None:
    """Mean token probabilities ½ and ¼: odds of 1 and 1/3, an odds ratio of 3."""
    losses, log_odds_ratios = orpo_losses(row(-3 * LN2), row(-2 * 2 * LN2), row(3), row(2))
    assert log_odds_ratios.tolist() == pytest.approx([LN3], abs=1e-12)
    assert losses.tolist() == pytest.approx([THREE_TO_ONE], abs=1e-12)


def test_reward_by_hand() -> None:
    """Scores ln 3 + 1 and ½; a margin of ½ leaves ln 3; their sum squared, a hundredth of it."""
    chosen, rejected = row(LN3 + 1), row(0.5)
    losses = reward_losses(chosen, rejected, margin=row(0.5), center=0.01)
    assert losses.tolist() == pytest.approx([THREE_TO_ONE + 0.01 * (LN3 + 1.5) ** 2], abs=1e-12)
    no_margin = reward_losses(row(2 * LN3), row(LN3))
    assert no_margin.tolist() == pytest.approx([THREE_TO_ONE], abs=1e-12)


# Finite differences: the gradient that autograd gives is the slope of the value, for every argument that has one.


def finite_differences(loss: Callable[..., Tensor], *inputs: Tensor) -> None:
    leaves = tuple(x.clone().requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(loss, leaves, eps=1e-6, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("loss_type", DPO_LOSSES)
def test_dpo_gradients(loss_type: DpoLoss) -> None:
    """One pair on either side of the hinge's corner."""

    def loss(*logps: Tensor) -> Tensor:
        return dpo_losses(*logps, beta=0.7, loss_type=loss_type, label_smoothing=0.2, **LENGTHS)

    finite_differences(loss, row(-3, -9), row(-5, -2), row(-4, -8), row(-3, -1.5))


def test_simpo_gradients() -> None:
    def loss(chosen: Tensor, rejected: Tensor) -> Tensor:
        return simpo_losses(chosen, rejected, *LENGTHS.values(), beta=2.0, gamma=0.5)

    finite_differences(loss, row(-3, -9), row(-5, -2))


def test_orpo_gradients() -> None:
    """Mean log-probs on both sides of the branch at −ln 2, and near both ends."""
    for chosen, rejected in [(row(-3, -9), row(-5, -0.2)), (row(-0.02, -60), row(-30, -0.01))]:
        finite_differences(lambda w, r: orpo_losses(w, r, *LENGTHS.values())[0], chosen, rejected)


def test_reward_gradients() -> None:
    def loss(chosen: Tensor, rejected: Tensor) -> Tensor:
        return reward_losses(chosen, rejected, margin=row(0.3, 0.0), center=0.1)

    finite_differences(loss, row(1.5, -0.5), row(0.2, 0.9))


def test_sft_gradient() -> None:
    finite_differences(sft_loss_sum, row(-0.5, -2, -7))


# Properties.


@given(st.lists(st.floats(-500, 0), min_size=1, max_size=5), betas)
def test_dpo_at_the_reference_is_ln_2(logps: list[float], beta: float) -> None:
    """Whatever the reference, a policy equal to it has no margin: bug 6 shows as any other first value."""
    chosen, rejected = torch.tensor(logps), torch.tensor(logps[::-1])
    losses = dpo_losses(chosen, rejected, chosen, rejected, beta=beta)
    assert losses.tolist() == pytest.approx([LN2] * len(logps), abs=1e-6)


@given(log_ratios, betas)
def test_sigmoid_of_a_swapped_pair_differs_by_its_margin(margin: float, beta: float) -> None:
    """−log σ(x) + log σ(−x) = −x."""
    assert dpo(margin, beta, "sigmoid") - dpo(-margin, beta, "sigmoid") == pytest.approx(
        -beta * margin, abs=1e-9
    )


@given(log_ratios, betas)
def test_no_smoothing_is_the_plain_loss(margin: float, beta: float) -> None:
    plain = math.log1p(math.exp(-beta * margin))
    assert dpo(margin, beta, "sigmoid", 0.0) == pytest.approx(plain, rel=1e-9)
    assert dpo(margin, beta, "robust", 0.0) == pytest.approx(plain, rel=1e-9)


@given(log_ratios, betas, smoothings)
def test_smoothing_is_the_expected_loss_under_flipped_labels(margin: float, beta: float, eps: float) -> None:
    expected = (1 - eps) * dpo(margin, beta, "sigmoid") + eps * dpo(-margin, beta, "sigmoid")
    assert dpo(margin, beta, "sigmoid", eps) == pytest.approx(expected, abs=1e-9)


@given(log_ratios, betas, smoothings)
def test_robust_undoes_flipped_labels(margin: float, beta: float, eps: float) -> None:
    """Its mean over labels flipped with probability ε is the loss of the true label (arXiv 2403.00409, lemma 3.1)."""
    mean = (1 - eps) * dpo(margin, beta, "robust", eps) + eps * dpo(-margin, beta, "robust", eps)
    assert mean == pytest.approx(dpo(margin, beta, "sigmoid"), abs=1e-9)


@given(log_ratios, betas)
def test_hinge_is_zero_exactly_when_the_margin_is_enough(margin: float, beta: float) -> None:
    loss = dpo(margin, beta, "hinge")
    if beta * margin > 1 + 1e-9:
        assert loss == 0
    elif beta * margin < 1 - 1e-9:
        assert loss > 0


@given(betas, st.floats(0.01, 10))
def test_ipo_is_least_at_one_over_two_beta(beta: float, off: float) -> None:
    best = 1 / (2 * beta)
    assert dpo(best, beta, "ipo_sum") == pytest.approx(0, abs=1e-12)
    assert dpo(best + off, beta, "ipo_sum") == pytest.approx(off * off, rel=1e-6)
    assert dpo(best - off, beta, "ipo_sum") == pytest.approx(off * off, rel=1e-6)


@given(st.integers(1, 50), st.integers(1, 50), betas, st.floats(0, 2))
def test_length_normalised_losses_see_means_only(t: int, k: int, beta: float, gamma: float) -> None:
    """An answer repeated k times at the same mean log-prob weighs the same, in SimPO, ORPO and per-token IPO."""
    short, long = (
        (row(-1.5 * t), row(-2.5), row(t), row(1)),
        (row(-1.5 * t * k), row(-2.5), row(t * k), row(1)),
    )
    assert simpo_losses(*short, beta=beta, gamma=gamma).item() == pytest.approx(
        simpo_losses(*long, beta=beta, gamma=gamma).item(), rel=1e-9
    )
    assert orpo_losses(*short)[0].item() == pytest.approx(orpo_losses(*long)[0].item(), rel=1e-9)
    for chosen, rejected, chosen_length, rejected_length in (short, long):
        loss = dpo_losses(
            chosen,
            rejected,
            row(0),
            row(0),
            beta=beta,
            loss_type="ipo",
            chosen_lengths=chosen_length,
            rejected_lengths=rejected_length,
        )
        assert loss.item() == pytest.approx((1 - 1 / (2 * beta)) ** 2, rel=1e-9)


@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(-50, 50))
def test_only_centring_sees_a_shift_of_both_scores(chosen: float, rejected: float, shift: float) -> None:
    plain = reward_losses(row(chosen), row(rejected)).item()
    assert reward_losses(row(chosen + shift), row(rejected + shift)).item() == pytest.approx(plain, abs=1e-9)
    centred = reward_losses(row(chosen + shift), row(rejected + shift), center=0.5).item()
    assert centred - plain == pytest.approx(0.5 * (chosen + rejected + 2 * shift) ** 2, abs=1e-6)


# Ends of the range, in the type that runs.


@pytest.mark.parametrize("x", [-1e-6, -1e-3, -0.5, -LN2, -0.7, -1.0, -10.0, -80.0])
def test_log1mexp_in_fp32_is_accurate(x: float) -> None:
    single = torch.tensor(x, dtype=torch.float32)
    exact = math.log(-math.expm1(float(single)))
    assert log1mexp(single).item() == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("chosen", [0.0, -1e-12, -1e-7, -0.7, -100.0, -1e5])
@pytest.mark.parametrize("rejected", [0.0, -1e-12, -1e-7, -0.7, -100.0, -1e5])
def test_orpo_is_finite_at_both_ends(chosen: float, rejected: float) -> None:
    """A sure answer has infinite odds: its logarithm must not see 0, and the branch not taken must not give NaN."""
    logps = torch.tensor([chosen, rejected], requires_grad=True)
    one = torch.ones(1)
    losses, log_odds_ratios = orpo_losses(logps[:1], logps[1:], one, one)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(log_odds_ratios).all()
    assert logps.grad is not None
    assert torch.isfinite(logps.grad).all()
