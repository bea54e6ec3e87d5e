"""The supervised phase before and around the loop: the plan, the pre-flight, the estimate, and whole runs by it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bases_on_the_spot import make_base, spec_of
from dlm.errors import TrainingError, UsageError
from dlm.model import Policy, load_policy
from dlm.recipe import Choice, Recipe
from dlm.training import (
    Prepared,
    Row,
    add_adapter,
    estimate,
    make_optimizer,
    prepare_sft,
    score_held_out,
    train_sft,
)
from dlm.training.checkpoints import Progress
from dlm.training.examples import Example
from dlm.training.layout import choose_micro_batch
from dlm.training.loop import Plan
from dlm.training.losses import Outcome, SftObjective
from dlm.training.phases import _plan
from tiny_training import Recorder

pytestmark = pytest.mark.torch

VOCABULARY = 322


def examples(count: int, tokens: int = 20) -> list[Example]:
    row = Row("chat", "q", "a", "doc.dlm", 1)
    return [Example(row, tuple(range(tokens)), 5) for _ in range(count)]


def plan_of(count: int, **knobs: Any) -> tuple[Plan, Choice[int], Choice[float]]:
    return _plan(examples(count), Recipe(**knobs), VOCABULARY)


# --- the plan ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "rows_per_step", "micro_rows"),
    [
        ({}, 8, 8),
        ({"micro_batch_size": 1}, 8, 1),
        ({"micro_batch_size": 3}, 8, 3),
        ({"micro_batch_size": 12}, 12, 12),
        ({"grad_accum": 1}, 8, 8),
        ({"grad_accum": 2}, 8, 4),
        ({"grad_accum": 3}, 8, 3),
        ({"grad_accum": 16}, 16, 1),
        ({"micro_batch_size": 2, "grad_accum": 3}, 6, 2),
        ({"micro_batch_size": 1, "grad_accum": 1}, 1, 1),
        ({"micro_batch_size": 64, "grad_accum": 2}, 40, 40),
    ],
)
def test_rows_per_step(knobs: Mapping[str, int], rows_per_step: int, micro_rows: int) -> None:
    """One of the two knobs alone changes memory; a step still reads eight rows."""
    plan, micro, _ = plan_of(40, **knobs)
    assert (plan.rows_per_step, plan.micro_rows, micro.value) == (rows_per_step, micro_rows, micro_rows)
    if "grad_accum" in knobs and "micro_batch_size" not in knobs:
        assert math.ceil(plan.rows_per_step / plan.micro_rows) == knobs["grad_accum"]


def test_a_short_document_is_one_step_an_epoch() -> None:
    plan, micro, _ = plan_of(3)
    assert (plan.rows_per_step, plan.micro_rows, plan.steps_per_epoch) == (3, 3, 1)
    assert micro.value == 3


def test_epochs_alone() -> None:
    plan, _, epochs = plan_of(20, num_epochs=3)
    assert plan.total_steps == 9
    assert epochs == Choice(3.0, "num_epochs")


def test_min_steps_add_whole_epochs_and_say_so() -> None:
    plan, _, epochs = plan_of(20, num_epochs=1, min_steps=10)
    assert plan.total_steps == 12
    assert epochs.value == 4
    assert epochs.reason == "raised from 1 so that the run has at least min_steps = 10 steps"
    assert plan_of(20, num_epochs=4, min_steps=12)[2] == Choice(4.0, "num_epochs")


def test_max_steps_cut_short_and_say_so() -> None:
    plan, _, epochs = plan_of(20, num_epochs=3, max_steps=4)
    assert plan.total_steps == 4
    assert epochs == Choice(4 / 3, "cut short by max_steps = 4")
    assert plan_of(20, num_epochs=3, min_steps=50, max_steps=4)[0].total_steps == 4
    assert plan_of(20, num_epochs=3, max_steps=9)[2].reason == "num_epochs"  # nothing is cut


def test_about_ten_evaluations_with_checkpoints_at_each() -> None:
    plan, _, _ = plan_of(8, num_epochs=200)
    assert (plan.total_steps, plan.eval_every, plan.save_every) == (200, 20, 20)
    assert plan_of(8, num_epochs=3)[0].eval_every == 1
    knobs = {"eval_every_steps": 7}
    assert (plan_of(8, **knobs)[0].eval_every, plan_of(8, **knobs)[0].save_every) == (7, 7)
    both = plan_of(8, eval_every_steps=7, save_every_steps=2)[0]
    assert (both.eval_every, both.save_every) == (7, 2)
    assert plan_of(8, num_epochs=200, save_every_steps=3)[0].eval_every == 20


@given(
    st.integers(1, 60),
    st.integers(1, 5),
    st.integers(0, 90),
    st.none() | st.integers(1, 90),
    st.none() | st.integers(1, 20),
    st.none() | st.integers(1, 20),
)
def test_any_plan_is_sound(
    count: int, epochs: int, least: int, most: int | None, micro: int | None, accum: int | None
) -> None:
    plan, chosen, shown = plan_of(
        count,
        num_epochs=epochs,
        min_steps=least,
        max_steps=most,
        micro_batch_size=micro or "auto",
        grad_accum=accum or "auto",
    )
    assert 1 <= plan.micro_rows <= plan.rows_per_step <= count
    assert chosen.value == plan.micro_rows
    assert plan.total_steps >= 1
    assert most is None or plan.total_steps <= most
    assert plan.total_steps >= min(least, most or least)
    assert shown.value * plan.steps_per_epoch == pytest.approx(plan.total_steps)
    assert plan.eval_every >= 1
    assert plan.save_every >= 1


def test_micro_batches_shrink_with_length_and_vocabulary() -> None:
    assert choose_micro_batch([1024], 8, VOCABULARY).value == 8
    assert choose_micro_batch([20, 4096], 8, VOCABULARY).value == 2
    assert choose_micro_batch([100_000], 8, VOCABULARY).value == 1
    assert choose_micro_batch([1024], 8, 32_768).value == 1
    assert "8,192 padded tokens" in choose_micro_batch([1024], 8, VOCABULARY).reason


# --- prepared on a base ------------------------------------------------------------------------------------------


def chat(prompt: str, answer: str, line: int = 1, probe: bool = False) -> Row:
    return Row("chat", prompt, answer, "doc.dlm", line, probe)


ROWS = [chat(f"What is number {i}?", "It is " * (i % 5) + f"{i * 7}.", i) for i in range(1, 25)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("phases") / "llama", "llama")


def fresh(base: Path, recipe: Recipe, system_prompt: str | None = None) -> tuple[Policy, Any]:
    policy = load_policy(spec_of(base), device="cpu", system_prompt=system_prompt)
    return policy, add_adapter(policy, recipe)


def prepare(base: Path, rows: Sequence[Row], system_prompt: str | None = None, **knobs: Any) -> Prepared:
    recipe = Recipe(**knobs)
    policy, model = fresh(base, recipe, system_prompt)
    return prepare_sft(rows, policy, model, recipe)


def test_the_pre_flight_counts_what_there_is(base: Path) -> None:
    rows = [
        *ROWS,
        chat("Which?", "This one.", 90, probe=True),
        Row("prose", None, "Long prose. " * 80, "doc.dlm", 91),
        chat("Say <|end|> now.", "No.", 92),
        chat("Too long?", "Yes, it is. " * 80, 93),
    ]
    recipe = Recipe(lora_r=4)
    policy, model = fresh(base, recipe)
    prepared = prepare_sft(rows, policy, model, recipe)
    flight = prepared.preflight
    assert flight.rows["probes"] == 1
    assert flight.rows["train"] + flight.rows["validation"] == 27
    lengths = sorted(len(example.ids) for example in prepared.train)
    assert (flight.tokens_min, flight.tokens_max, flight.tokens_total) == (
        lengths[0],
        lengths[-1],
        sum(lengths),
    )
    assert flight.tokens_median == lengths[len(lengths) // 2]
    assert flight.max_len == Choice(256, "the base's context")
    assert [(one.row.line, "the limit is 256" in one.reason) for one in flight.skipped] == [(93, True)]
    assert flight.split_prose == 1
    assert flight.special_tokens == [("doc.dlm:92", "<|end|>")]
    assert flight.plan == prepared.plan
    assert flight.micro.value == prepared.plan.micro_rows
    assert flight.trainable_parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert flight.trainable_parameters < flight.total_parameters == sum(p.numel() for p in model.parameters())
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name for name, _ in model.named_parameters() if "lora_" in name
    }


def test_sequence_len_below_the_context_is_the_limit(base: Path) -> None:
    prepared = prepare(base, [*ROWS, chat("Long?", "Yes, it is. " * 12, 93)], sequence_len=64)
    assert prepared.preflight.max_len == Choice(64, "sequence_len")
    assert [one.row.line for one in prepared.preflight.skipped] == [93]
    with pytest.raises(TrainingError, match="rows do not fit") as fault:
        prepare(base, [chat("Long?", "Yes, it is. " * 12, 93), *ROWS[:4]], sequence_len=64)
    assert "raise sequence_len" in fault.value.next_step
    with pytest.raises(TrainingError, match="no row fits"):
        prepare(base, [chat("Long?", "Yes, it is. " * 12, 93)], sequence_len=64)


def test_nothing_to_train_on(base: Path) -> None:
    with pytest.raises(UsageError, match="nothing to train on"):
        prepare(base, [chat("Which?", "This.", probe=True)])


def test_a_stored_plan_is_used_as_it_is(base: Path) -> None:
    stored = {
        "n_examples": 24,
        "rows_per_step": 5,
        "micro_rows": 2,
        "total_steps": 77,
        "eval_every": 9,
        "save_every": 4,
    }
    recipe = Recipe(val_fraction=0.0)
    policy, model = fresh(base, recipe)
    prepared = prepare_sft(ROWS, policy, model, recipe, stored)
    assert prepared.plan == Plan(**stored)
    assert prepared.preflight.micro == Choice(2, "as the run began")


def test_the_fingerprint_sees_every_token(base: Path) -> None:
    rows = [*ROWS, chat("Which?", "This one.", 90, probe=True)]
    whole = prepare(base, rows)
    assert prepare(base, rows).fingerprint == whole.fingerprint
    assert prepare(base, [replace(row, line=row.line + 5) for row in rows]).fingerprint == whole.fingerprint
    assert prepare(base, rows, system_prompt="Be brief.").fingerprint != whole.fingerprint
    for part in ("train", "validation", "probes"):
        before: Sequence[Example] = getattr(whole, part)
        assert before, part
        one = before[0]
        changed = replace(one, ids=(*one.ids[:-1], one.ids[-1] + 1))
        shifted = replace(one, first_target=one.first_target + 1)
        for other in (changed, shifted):
            assert replace(whole, **{part: [other, *before[1:]]}).fingerprint != whole.fingerprint
        assert replace(whole, **{part: before[1:]}).fingerprint != whole.fingerprint
    moved = replace(whole, train=[*whole.train, *whole.validation], validation=[])
    assert moved.fingerprint != whole.fingerprint


def test_the_estimate_leaves_no_trace(base: Path) -> None:
    recipe = Recipe(micro_batch_size=2)
    policy, model = fresh(base, recipe)
    prepared = prepare_sft(ROWS, policy, model, recipe)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measured = estimate(prepared, model)
    assert measured.seconds > 0
    assert measured.peak_memory_mb > 1
    assert all(parameter.grad is None for parameter in model.parameters())
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_micro_batch_that_does_not_fit_the_memory_is_told_with_a_way_out(base: Path) -> None:
    class Full(SftObjective):
        def forward(self, model: Any, examples: Sequence[Example]) -> Outcome:
            raise torch.OutOfMemoryError

    recipe = Recipe(micro_batch_size=6)
    policy, model = fresh(base, recipe)
    prepared = prepare_sft(ROWS, policy, model, recipe)
    full = replace(prepared, objective=Full(prepared.objective.layout, "cpu"))
    with pytest.raises(TrainingError, match="a micro-batch of 6 rows") as fault:
        estimate(full, model)
    assert "micro_batch_size=3" in fault.value.next_step


# --- whole runs --------------------------------------------------------------------------------------------------


def run(
    base: Path, folder: Path, *, measure: bool = False, **knobs: Any
) -> tuple[dict[str, torch.Tensor], Recorder]:
    recipe = Recipe(learning_rate=1e-2, max_steps=6, lora_dropout=0.0, **knobs)
    policy, model = fresh(base, recipe)
    prepared = prepare_sft(ROWS, policy, model, recipe)
    if measure:
        estimate(prepared, model)
    optimizer = make_optimizer(model, recipe)
    train_sft(prepared, model, recipe, optimizer, Progress(), recorder := Recorder(), folder)
    recorder.history[0] = score_held_out(prepared, model)
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}, recorder


SPLITS: list[dict[str, Any]] = [
    {"micro_batch_size": 1},
    {"micro_batch_size": 2},
    {"micro_batch_size": 4},
    {"grad_accum": 3},
    {"grad_accum": 8},
    {"micro_batch_size": 2, "grad_accum": 4},
]


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_accumulation_is_exact_through_a_whole_run(base: Path, tmp_path: Path, split: dict[str, Any]) -> None:
    """Bug 1: rows of uneven length, six steps; how a step is cut into micro-batches does not show in the weights."""
    whole, seen = run(base, tmp_path / "whole", micro_batch_size=8)
    parts, also = run(base, tmp_path / "parts", **split)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-5, msg=name)
    for step, values in seen.history.items():
        for name in ("train_loss", "valid_loss", "full_valid_loss", "train_mean_token_accuracy", "entropy"):
            assert also.history[step].get(name) == pytest.approx(values.get(name), abs=1e-5), (step, name)


def test_the_estimate_does_not_change_the_run(base: Path, tmp_path: Path) -> None:
    plain, _ = run(base, tmp_path / "a")
    measured, _ = run(base, tmp_path / "b", measure=True)
    assert all(torch.equal(measured[name], value) for name, value in plain.items())


def test_a_fresh_adapter_follows_from_the_seed_alone_and_changes_nothing_yet(base: Path) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    policy = load_policy(spec_of(base), device="cpu")
    with torch.no_grad():
        bare = policy.model(ids).logits.clone()
    made = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        _, model = fresh(base, Recipe(seed=7))
        with torch.no_grad():
            assert torch.equal(model.eval()(ids).logits, bare)  # B = 0
        made.append({name: p.detach() for name, p in model.named_parameters() if p.requires_grad})
    assert all(torch.equal(made[0][name], value) for name, value in made[1].items())
    _, other = fresh(base, Recipe(seed=8))
    assert any(not torch.equal(made[0][n], p) for n, p in other.named_parameters() if "lora_A" in n)
