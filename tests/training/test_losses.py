"""The supervised loss by hand, by finite differences, and across layouts of the same rows."""

from __future__ import annotations

import math

import pytest
import torch

from dlm.training.examples import Example
from dlm.training.layout import PlainLayout, choose_micro_batch
from dlm.training.losses import SftObjective, score_tokens, sft_loss_sum
from tiny_training import PAD, example, tiny_model

pytestmark = pytest.mark.torch
OBJECTIVE = SftObjective(PlainLayout(PAD), "cpu")


def test_closed_form() -> None:
    logprobs = torch.log(torch.tensor([0.5, 0.25, 0.125]))
    assert float(sft_loss_sum(logprobs)) == pytest.approx(6 * math.log(2), rel=1e-6)


def test_scores_are_those_of_the_full_softmax(uneven: list[Example]) -> None:
    model = tiny_model().eval()
    scores = score_tokens(model, PlainLayout(PAD).batch(uneven))
    expected = []
    for row in uneven:
        with torch.no_grad():
            logp = torch.log_softmax(model(input_ids=torch.tensor([row.ids])).logits[0].float(), -1)
        expected += [float(logp[t - 1, row.ids[t]]) for t in range(row.first_target, len(row.ids))]
    assert scores.logprobs.detach().tolist() == pytest.approx(expected, abs=1e-5)
    assert len(scores.correct) == sum(row.n_targets for row in uneven)


def test_entropy_of_a_uniform_model_is_log_v(uneven: list[Example]) -> None:
    model = tiny_model().eval()
    model.get_base_model().lm_head.weight.data.zero_()
    assert (
        score_tokens(model, PlainLayout(PAD).batch(uneven)).entropy is None
    )  # nobody reads it outside training
    scores = score_tokens(model.train(), PlainLayout(PAD).batch(uneven))
    assert scores.entropy is not None
    assert scores.entropy.tolist() == pytest.approx([math.log(259)] * len(scores.entropy), rel=1e-5)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("micro", [1, 2, 4, 9])
def test_accumulation_is_exact_with_uneven_lengths(uneven: list[Example], micro: int) -> None:
    """Bug 1: normalising per micro-batch changes loss and gradients with the accumulation."""
    model = tiny_model().eval()
    denominator = OBJECTIVE.denominator(uneven)

    def accumulate(rows: int) -> tuple[float, dict[str, torch.Tensor]]:
        model.zero_grad()
        total = 0.0
        for start in range(0, len(uneven), rows):
            outcome = OBJECTIVE.forward(model, uneven[start : start + rows])
            (outcome.loss_sum / denominator).backward()
            total += float(outcome.loss_sum.detach()) / denominator
        return total, gradients(model)

    loss, grads = accumulate(micro)
    whole_loss, whole_grads = accumulate(len(uneven))
    assert loss == pytest.approx(whole_loss, abs=1e-6)
    assert grads
    for name, grad in grads.items():
        torch.testing.assert_close(grad, whole_grads[name], atol=1e-6, rtol=1e-5)


def test_gradient_by_finite_differences() -> None:
    """Along the gradient itself: the steepest direction stands far above the fp32 parts of the model."""
    model = tiny_model().eval()
    rows = [example("two", "words")]
    trainable = [p for p in model.parameters() if p.requires_grad]
    model.zero_grad()
    OBJECTIVE.forward(model, rows).loss_sum.backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in trainable))
    step = 1e-2
    losses = []
    with torch.no_grad():
        for sign in (1, -2):
            for p in trainable:
                p += sign * step * p.grad / norm
            losses.append(float(OBJECTIVE.forward(model, rows).loss_sum))
    assert norm == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-2)


def test_padding_changes_no_score() -> None:
    model = tiny_model().eval()
    short, long = example("a", "b"), example("a longer question", "and a much longer answer than the other")
    alone = score_tokens(model, PlainLayout(PAD).batch([short])).logprobs
    beside = score_tokens(model, PlainLayout(PAD).batch([short, long])).logprobs[: short.n_targets]
    torch.testing.assert_close(alone, beside, atol=1e-6, rtol=1e-6)


def test_micro_batch_follows_length_and_vocabulary() -> None:
    assert choose_micro_batch([100] * 50, 8, 1024).value == 8
    assert choose_micro_batch([2048] * 50, 8, 1024).value == 4
    assert choose_micro_batch([2048] * 50, 8, 151_936).value == 1
    assert "2,048" in choose_micro_batch([2048], 8, 1024).reason
