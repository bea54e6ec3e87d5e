"""Objectives over rows of uneven length: exact accumulation, gradients, and metrics that can be recomputed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from dlm.recipe import PreferenceRecipe, RewardRecipe
from dlm.training.examples import Example
from dlm.training.layout import LAYOUT_NAMES, Layout
from dlm.training.losses import sft_loss_sum
from dlm.training.objectives import Objective, PreferenceObjective, RewardObjective, SftObjective
from dlm.training.pairs import PairExample
from dlm.training.planning import Plan
from dlm.training.scoring import HeldOut, evaluate, means
from tiny_training import PAD, example, plain_layout, reference_of, tiny_model

pytestmark = pytest.mark.torch
METHODS = ("sft", "dpo", "ipo", "orpo", "simpo", "reward")
TOGETHER = Plan(9, 9, 9, 1, 1, 1)


def model_for(method: str) -> Any:
    """A model whose adapter is not zero: at zero, half of its gradients would be."""
    model = tiny_model().eval()
    if method == "reward":
        torch.manual_seed(1)
        model.get_base_model().score = torch.nn.Linear(16, 1, bias=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(2))
    return model


def objective_for(method: str, layout: Layout, pairs: Sequence[PairExample]) -> Objective:
    if method == "sft":
        return SftObjective(layout)
    if method == "reward":
        return RewardObjective(layout, RewardRecipe(center=0.1))
    reference = reference_of(tiny_model(), pairs)
    if method in ("orpo", "simpo"):
        return PreferenceObjective(layout, PreferenceRecipe(method=method), reference)
    loss_type = "sigmoid" if method == "dpo" else method
    recipe = PreferenceRecipe(loss_type=loss_type, sft_weight=0.3)
    return PreferenceObjective(layout, recipe, reference)


def accumulated(
    model: Any, objective: Objective, rows: Sequence[Any], micro: int
) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    counts, total = objective.counts(rows), 0.0
    for start in range(0, len(rows), micro):
        loss = means(objective.forward(model, rows[start : start + micro]), counts)["loss"]
        loss.backward()
        total += float(loss.detach())
    found = [p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None]
    return total, torch.cat(found)


@pytest.mark.parametrize("name", LAYOUT_NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_bug_1_accumulation_is_exact_with_uneven_lengths(
    uneven: list[Example], uneven_pairs: list[PairExample], method: str, name: str
) -> None:
    """One, two and four micro-batches and one row at a time: the same loss and the same gradients."""
    rows: Sequence[Any] = (uneven if method == "sft" else uneven_pairs)[1:]
    model = model_for(method)
    objective = objective_for(method, Layout(name, PAD, "cpu", headless=True), uneven_pairs)
    loss, gradients = accumulated(model, objective, rows, len(rows))
    assert float(gradients.norm()) > 1e-3
    for micro in (4, 2, 1):
        other_loss, other_gradients = accumulated(model, objective, rows, micro)
        assert other_loss == pytest.approx(loss, rel=1e-6, abs=1e-6)
        assert float((other_gradients - gradients).norm() / gradients.norm()) <= 1e-6


def test_a_mean_of_means_would_be_another_number(uneven: list[Example]) -> None:
    """What the test above would let pass if the rows were even."""
    model, objective = model_for("sft"), SftObjective(plain_layout())
    whole, _ = accumulated(model, objective, uneven, 9)
    of_means = [accumulated(model, objective, uneven[at : at + 2], 2)[0] for at in range(0, 9, 2)]
    assert abs(sum(of_means) / len(of_means) - whole) > 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_bug_10_gradient_by_finite_differences(uneven_pairs: list[PairExample], method: str) -> None:
    """Bug 10, along the gradient itself: the steepest direction stands far above fp32's noise."""
    rows: Sequence[Any] = [example("two", "words")] if method == "sft" else uneven_pairs[2:4]
    model = model_for(method)
    objective = objective_for(method, plain_layout(), uneven_pairs)
    trainable = [p for p in model.parameters() if p.requires_grad]
    _, gradient = accumulated(model, objective, rows, 2)
    norm = float(gradient.norm())
    step = 2e-3 * math.sqrt(1 + 1 / norm)
    losses = []
    with torch.no_grad():
        for sign in (1, -2):
            for p in trainable:
                p += sign * step * p.grad / norm
            losses.append(float(means(objective.forward(model, rows), objective.counts(rows))["loss"]))
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(norm, rel=2e-2)


def test_the_supervised_loss_by_hand() -> None:
    assert float(sft_loss_sum(torch.log(torch.tensor([0.5, 0.25, 0.125])))) == pytest.approx(6 * math.log(2))


def row_log_probs(model: Any, rows: Sequence[Any]) -> list[list[float]]:
    """Log-prob of each answer, row by row, from the model's own logits."""
    return [[sum(of_target) for of_target, _ in sides] for sides in scored(model, rows)]


def scored(model: Any, rows: Sequence[Any]) -> list[list[tuple[list[float], int]]]:
    """(log-prob of each token, tokens that are the model's first choice) of each answer of each row."""
    found = []
    for row in rows:
        sides = []
        for branch in row.branches:
            with torch.no_grad():
                logp = model(input_ids=torch.tensor([row.prompt + branch])).logits[0].float().log_softmax(-1)
            before = logp[len(row.prompt) - 1 : -1]  # what predicts each of the answer's tokens
            of_target = [float(one[token]) for one, token in zip(before, branch, strict=True)]
            sides.append((of_target, int((before.argmax(-1) == torch.tensor(branch)).sum())))
        found.append(sides)
    return found


def written_by(model: Any, prompt: str, length: int) -> Example:
    """A row whose answer is the model's own first choice at every token but the last."""
    ids = list(example(prompt, "").prompt)
    for _ in range(length):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    ids.append((ids[-1] + 1) % 256)
    return replace(example(prompt, ""), ids=tuple(ids))


def test_bug_15_supervised_metrics_are_those_of_the_rows(uneven: list[Example]) -> None:
    model = model_for("sft")
    rows = [*uneven, written_by(model, "What then?", 7)]
    values = evaluate(model, HeldOut("valid", SftObjective(plain_layout()), rows), Plan(10, 10, 3, 1, 1, 1))
    tokens = sum(row.n_targets for row in rows)
    answers = [side for sides in scored(model, rows) for side in sides]
    expected = -sum(sum(of_target) for of_target, _ in answers) / tokens
    assert values["valid_loss"] == pytest.approx(expected, rel=1e-5)
    right = sum(first for _, first in answers)
    assert 7 <= right < tokens
    assert values["valid_mean_token_accuracy"] == pytest.approx(right / tokens)
    assert "valid_entropy" not in values  # nobody reads it outside training


def test_bug_15_preference_metrics_are_those_of_the_pairs(uneven_pairs: list[PairExample]) -> None:
    model = model_for("dpo")
    reference = reference_of(tiny_model(), uneven_pairs)
    recipe = PreferenceRecipe(beta=0.5)
    objective = PreferenceObjective(plain_layout(), recipe, reference)
    values = evaluate(model, HeldOut("valid", objective, uneven_pairs), Plan(9, 9, 2, 1, 1, 1))
    rewards = [
        [0.5 * (now - then) for now, then in zip(sides, reference[row.pair.key], strict=True)]
        for row, sides in zip(uneven_pairs, row_log_probs(model, uneven_pairs), strict=True)
    ]
    margins = torch.tensor([chosen - rejected for chosen, rejected in rewards])
    assert values["valid_loss"] == pytest.approx(float(-logsigmoid(margins).mean()), abs=1e-5)
    assert values["valid_rewards/margins"] == pytest.approx(float(margins.mean()), abs=1e-5)
    assert values["valid_rewards/chosen"] == pytest.approx(sum(c for c, _ in rewards) / 9, abs=1e-5)
    right = float((margins > 0).float().mean())
    assert 0 < right < 1  # a model that is no use at it
    assert values["val_pref_acc"] == values["valid_rewards/accuracies"] == pytest.approx(right)
    assert values["val_pref_ties"] == 0


def test_bug_15_an_untrained_model_scores_one_half(uneven_pairs: list[PairExample]) -> None:
    """Every pair is a tie: neither right nor wrong, and half a point each."""
    model = tiny_model()
    reference = reference_of(model, uneven_pairs)
    objective = PreferenceObjective(plain_layout(), PreferenceRecipe(), reference)
    values = evaluate(model, HeldOut("valid", objective, uneven_pairs), TOGETHER)
    assert (values["val_pref_acc"], values["val_pref_ties"]) == (0.5, 1.0)
    assert values["valid_loss"] == pytest.approx(math.log(2), abs=1e-6)
    other = evaluate(model, HeldOut("pairs", objective, uneven_pairs), TOGETHER)
    assert (other["pairs_pref_acc"], other["pairs_pref_ties"]) == (0.5, 1.0)


@pytest.mark.parametrize("cut", [{"micro_rows": 1}, {"micro_batches": 4}, {"micro_positions": 60}], ids=str)
def test_bug_15_how_an_evaluation_is_cut_does_not_show(
    uneven_pairs: list[PairExample], cut: dict[str, int]
) -> None:
    model = model_for("dpo")
    held_out = HeldOut("valid", objective_for("dpo", plain_layout(), uneven_pairs), uneven_pairs)
    whole = evaluate(model, held_out, TOGETHER)
    assert evaluate(model, held_out, replace(TOGETHER, **cut)) == pytest.approx(whole, rel=1e-5, abs=1e-5)


def test_nothing_held_out_is_no_metric() -> None:
    assert evaluate(tiny_model(), HeldOut("valid", SftObjective(plain_layout()), []), TOGETHER) == {}
