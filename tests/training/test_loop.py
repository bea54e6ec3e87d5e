"""The loop: schedules, stopping, the best step, and what happens to numbers that are not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dlm.errors import NonFiniteError
from dlm.recipe import Recipe
from dlm.training import checkpoints
from dlm.training.checkpoints import Progress
from dlm.training.examples import Example
from dlm.training.loop import make_optimizer, run_loop
from dlm.training.objectives import Outcome, SftObjective
from dlm.training.optimizer import learning_rate
from dlm.training.pairs import PairExample
from dlm.training.planning import Plan, Sampler
from dlm.training.scoring import Selection
from tiny_runs import PLAN, objective_of, run, weights
from tiny_training import Recorder, example, plain_layout, tiny_model

pytestmark = pytest.mark.torch
OBJECTIVE = SftObjective(plain_layout())


def test_bug_10_every_trainable_tensor_moves_and_nothing_else(uneven: list[Example], tmp_path: Path) -> None:
    """Bug 10: two steps, because the first one moves only B (A's gradient is multiplied by B = 0)."""
    before = tiny_model()
    frozen = {name: p.clone() for name, p in before.named_parameters() if not p.requires_grad}
    after, _ = run(uneven, tmp_path, Recorder(), plan=Plan(9, 4, 2, 2, 9, 9), dropout=0.0)
    for name, parameter in after.named_parameters():
        if parameter.requires_grad:
            assert not torch.equal(parameter, dict(before.named_parameters())[name]), name
        else:
            assert torch.equal(parameter, frozen[name]), name


def test_evaluations_and_checkpoints_come_when_planned(uneven: list[Example], tmp_path: Path) -> None:
    _, result = run(uneven, tmp_path, recorder := Recorder())
    assert [step for step, values in recorder.history.items() if "valid_loss" in values] == [5, 10, 14]
    assert recorder.saved == [3, 6, 9, 12, 14]
    assert checkpoints.saved_steps(tmp_path) == [12, 14]  # keep_last=2
    assert result.last["valid_loss"] == recorder.history[14]["valid_loss"]
    assert recorder.history[14]["num_tokens"] > recorder.history[13]["num_tokens"]


def test_the_loss_falls(uneven: list[Example], tmp_path: Path) -> None:
    plan = Plan(9, 9, 9, 60, 60, 60)
    _, _ = run(
        uneven, tmp_path, recorder := Recorder(), plan=plan, recipe=Recipe(learning_rate=3e-2), dropout=0.0
    )
    assert recorder.history[60]["train_loss"] < 0.97 * recorder.history[1]["train_loss"]


@pytest.mark.parametrize(("scheduler", "middle"), [("constant", 1.0), ("linear", 0.5), ("cosine", 0.5)])
def test_schedules_by_hand(scheduler: str, middle: float) -> None:
    recipe = Recipe(learning_rate=2.0, lr_scheduler=scheduler, warmup_ratio=0.1)
    rates = [learning_rate(step, 110, recipe) for step in range(1, 111)]
    assert rates[:11] == pytest.approx([2.0 * step / 11 for step in range(1, 12)])
    assert rates[11] == 2.0
    half = 2.0 * middle
    assert learning_rate(11 + 50, 110, recipe) == pytest.approx(half, abs=0.04)
    assert rates == sorted(rates[:12]) + sorted(rates[12:], reverse=True)
    assert rates[-1] > 0


def test_no_warm_up_starts_at_the_peak() -> None:
    recipe = Recipe(learning_rate=1.0, lr_scheduler="linear", warmup_ratio=0.0)
    assert learning_rate(1, 4, recipe) == 1.0
    assert [learning_rate(step, 4, recipe) for step in (1, 2, 3, 4)] == [1.0, 0.75, 0.5, 0.25]


def test_clipping_limits_what_reaches_the_optimiser(uneven: list[Example], tmp_path: Path) -> None:
    free, _ = run(
        uneven, tmp_path / "a", a := Recorder(), recipe=Recipe(max_grad_norm=0.0, learning_rate=1e-2)
    )
    tight, _ = run(
        uneven, tmp_path / "b", b := Recorder(), recipe=Recipe(max_grad_norm=1e-3, learning_rate=1e-2)
    )
    assert a.history[1]["grad_norm"] == pytest.approx(b.history[1]["grad_norm"])  # reported before clipping
    assert a.history[1]["grad_norm"] > 1e-3
    assert any(not torch.equal(v, weights(tight)[name]) for name, v in weights(free).items())


# --- numbers that are not finite ---------------------------------------------------------------------------------


def poisoned(value: float) -> torch.nn.Module:
    """A model whose embedding of the letter z is not a number."""
    model = tiny_model()
    model.get_input_embeddings().weight.data[ord("z")] = value
    return model


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("micro_rows", [1, 4])
def test_bug_2_a_row_whose_loss_is_not_a_number_is_named_and_nothing_else(
    tmp_path: Path, value: float, micro_rows: int
) -> None:
    """The rows of its micro-batch and of its window are not to blame; the checkpoint and the weights before stay."""
    rows = [example("q" * line, "fizz" if line == 7 else "bus", line) for line in range(1, 9)]
    plan = Plan(8, 4, micro_rows, 100, 100, 1)
    order = Sampler(plan, Recipe().seed)
    step = next(step for step in (1, 2) if 6 in order.window(step))
    model = poisoned(value)
    optimizer = make_optimizer(model, Recipe())
    with pytest.raises(NonFiniteError) as fault:
        run_loop(model, OBJECTIVE, rows, [], Recipe(), plan, optimizer, Progress(), Recorder(), tmp_path)
    assert f"step {step}:" in fault.value.message
    assert fault.value.found == "rows doc.dlm:7"
    assert checkpoints.saved_steps(tmp_path) == list(range(1, step))
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(model).values())


def test_a_gradient_that_is_not_a_number_although_every_loss_is(tmp_path: Path) -> None:
    class Overflowing(SftObjective):
        def forward(self, model: Any, rows: Sequence[Any]) -> Outcome:
            outcome = super().forward(model, rows)
            loss = outcome.loss["tokens"]
            # the derivative of a root is infinite at 0
            return Outcome({"tokens": loss + (loss - loss.detach()).abs().sqrt()}, outcome.sums)

    rows = [example("q", "bus", line) for line in range(1, 5)]
    model, plan = tiny_model(), Plan(4, 4, 2, 9, 9, 1)
    before = weights(model)
    with pytest.raises(NonFiniteError, match="their gradient is not finite") as fault:
        run_loop(
            model,
            Overflowing(plain_layout()),
            rows,
            [],
            Recipe(),
            plan,
            make_optimizer(model, Recipe()),
            Progress(),
            Recorder(),
            tmp_path,
        )
    assert fault.value.found == "rows doc.dlm:1, doc.dlm:2, doc.dlm:3, doc.dlm:4"
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(model).items())


def test_an_adapter_that_breaks_is_seen_at_the_next_step(uneven: list[Example], tmp_path: Path) -> None:
    model = tiny_model()
    poison = next(p for name, p in model.named_parameters() if "lora_B" in name)

    class Poison(Recorder):
        def checkpoint_saved(self, step: int) -> None:
            super().checkpoint_saved(step)
            poison.data.fill_(math.nan)

    optimizer = make_optimizer(model, Recipe())
    with pytest.raises(NonFiniteError) as fault:
        run_loop(model, OBJECTIVE, uneven, [], Recipe(), PLAN, optimizer, Progress(), Poison(), tmp_path)
    assert "step 4" in fault.value.message
    assert "doc.dlm:1" in fault.value.found
    assert checkpoints.saved_steps(tmp_path) == [3]


def test_neftune_adds_noise_only_while_training(uneven: list[Example], tmp_path: Path) -> None:
    """The same weights, held still by a tiny rate: another training loss, the same held-out loss."""
    short = Plan(9, 9, 9, 2, 2, 2)
    still, noise = Recipe(learning_rate=1e-12), Recipe(learning_rate=1e-12, neftune_alpha=5.0)
    run(uneven, tmp_path / "a", a := Recorder(), plan=short, recipe=still, dropout=0.0)
    noisy, _ = run(uneven, tmp_path / "b", b := Recorder(), plan=short, recipe=noise, dropout=0.0)
    assert a.history[1]["train_loss"] != b.history[1]["train_loss"]
    assert a.history[2]["valid_loss"] == pytest.approx(b.history[2]["valid_loss"], abs=1e-6)
    assert not noisy.get_input_embeddings()._forward_hooks


@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_neftunes_scale_is_that_of_the_rows_whatever_the_layout(
    uneven: list[Example], tmp_path: Path, layout: str
) -> None:
    """A row of T tokens gets noise of alpha / sqrt(T · d) at most; packed, the stream is many rows long."""
    model = tiny_model()
    trunk = model.get_base_model().model
    seen: dict[str, torch.Tensor] = {}

    def ids(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        seen.setdefault("ids", inputs[0])

    def embedded(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        seen.setdefault("embedded", inputs[0])

    trunk.embed_tokens.register_forward_pre_hook(ids)
    trunk.layers[0].input_layernorm.register_forward_pre_hook(embedded)
    recipe, objective = Recipe(neftune_alpha=5.0), objective_of(uneven, layout)
    plan, optimizer = Plan(9, 9, 9, 1, 1, 1), make_optimizer(model, recipe)
    run_loop(model, objective, uneven, [], recipe, plan, optimizer, Progress(), Recorder(), tmp_path)
    noise = seen["embedded"] - trunk.embed_tokens.weight[seen["ids"]]
    length = sum(len(row.ids) for row in uneven) / 9
    scale = 5.0 / math.sqrt(length * 16)
    assert 0.95 * scale < float(noise.abs().max()) <= scale * 1.001


def test_bug_2_weights_that_are_not_numbers_are_never_saved(uneven: list[Example], tmp_path: Path) -> None:
    """Bug 2: the update of the last step can overflow although its loss and gradient were finite."""
    model = tiny_model()
    poison = next(p for name, p in model.named_parameters() if "lora_B" in name)

    class Overflow(Recorder):
        def metrics(self, step: int, values: Mapping[str, float]) -> None:
            poison.data[0, 0] = math.inf

    plan, optimizer = Plan(9, 4, 2, 1, 1, 1), make_optimizer(model, Recipe())
    with pytest.raises(NonFiniteError, match="not finite"):
        run_loop(model, OBJECTIVE, uneven, [], Recipe(), plan, optimizer, Progress(), Overflow(), tmp_path)
    assert checkpoints.saved_steps(tmp_path) == []


def test_a_stop_asked_for_before_the_first_step_takes_none(uneven: list[Example], tmp_path: Path) -> None:
    class Stopping(Recorder):
        def stop_requested(self) -> str:
            return "SIGINT"

    _, result = run(uneven, tmp_path, recorder := Stopping())
    assert result.stopped == "SIGINT"
    assert recorder.history == {}


# --- better, best, and when to stop ------------------------------------------------------------------------------


class Scripted(SftObjective):
    """An objective whose held-out losses are written down: what is decided from them is what is tested."""

    losses: list[float]

    def forward(self, model: Any, rows: Sequence[Any]) -> Outcome:
        outcome = super().forward(model, rows)
        if model.training:
            return outcome
        loss = torch.tensor(self.losses.pop(0) * self.counts(rows)["tokens"])
        return Outcome({"tokens": loss}, outcome.sums)


def scripted(*losses: float) -> Scripted:
    objective = Scripted(plain_layout())
    object.__setattr__(objective, "losses", list(losses))
    return objective


EVERY_STEP = Plan(9, 4, 2, total_steps=9, eval_every=1, save_every=3)


def test_early_stopping_counts_evaluations_without_a_better_one(
    uneven: list[Example], tmp_path: Path
) -> None:
    objective = scripted(3.0, 2.0, 2.5, 2.25, 1.5, 1.5, 1.75, 9.0)
    recipe = Recipe(early_stopping=3)
    _, result = run(uneven, tmp_path, Recorder(), plan=EVERY_STEP, recipe=recipe, objective=objective)
    assert result.progress.step == 8  # two without a better one at 3 and 4 do not count any more
    assert (result.best_step, result.best) == (5, {"valid_loss": 1.5})
    assert result.stopped == "nothing got better in 3 evaluations since step 5 (valid_loss 1.5)"
    assert not result.interrupted
    assert checkpoints.saved_steps(tmp_path)[-1] == 8


def test_without_early_stopping_a_run_takes_all_its_steps(uneven: list[Example], tmp_path: Path) -> None:
    objective = scripted(*[3.0] * 9)
    _, result = run(uneven, tmp_path, Recorder(), plan=EVERY_STEP, objective=objective)
    assert (result.progress.step, result.stopped, result.interrupted) == (9, "", False)
    assert result.best_step == 1


def test_a_run_that_ends_as_planned_did_not_stop_early(uneven: list[Example], tmp_path: Path) -> None:
    recipe, objective = Recipe(early_stopping=8), scripted(1.0, *[3.0] * 8)
    _, result = run(uneven, tmp_path, Recorder(), plan=EVERY_STEP, recipe=recipe, objective=objective)
    assert (result.progress.step, result.stopped) == (9, "")
    assert result.progress.without_better == 8


def test_a_stop_from_outside_is_an_interruption(uneven: list[Example], tmp_path: Path) -> None:
    _, result = run(uneven, tmp_path, Recorder(stop_after=2))
    assert (result.stopped, result.interrupted) == ("the test", True)


def test_numbers_that_are_not_finite_are_never_better(uneven: list[Example], tmp_path: Path) -> None:
    recipe, objective = Recipe(early_stopping=2), scripted(math.nan, math.inf)
    _, result = run(uneven, tmp_path, Recorder(), plan=EVERY_STEP, recipe=recipe, objective=objective)
    assert (result.best_step, result.best) == (None, {})
    assert result.stopped == "nothing got better in 2 evaluations from the start"


def test_no_selection_keeps_no_best_step_and_never_stops_early(uneven: list[Example], tmp_path: Path) -> None:
    recipe = Recipe(early_stopping=1, keep_best=True)
    _, result = run(uneven, tmp_path, Recorder(), plan=EVERY_STEP, recipe=recipe, selection=None)
    assert (result.progress.step, result.best_step, result.stopped) == (9, None, "")


def test_the_best_checkpoint_is_kept_beside_the_newest(uneven: list[Example], tmp_path: Path) -> None:
    """Each better step is saved when it is found, and gives its place to the next better one."""
    objective = scripted(3.0, 2.0, 2.5, 1.0, 4.0, 4.0, 4.0, 4.0, 4.0)
    kept: list[list[int]] = []

    class Counting(Recorder):
        def checkpoint_saved(self, step: int) -> None:
            kept.append(checkpoints.saved_steps(tmp_path))

    recipe = Recipe(keep_best=True, keep_last=1, learning_rate=1e-2)
    _, result = run(uneven, tmp_path, Counting(), plan=EVERY_STEP, recipe=recipe, objective=objective)
    assert kept == [[1], [2], [2, 3], [4], [4, 6], [4, 9]]
    assert result.best_step == 4
    best = tiny_model(dropout=0.3)
    checkpoints.load_adapter_of(tmp_path, 4, best)
    then, _ = run(
        uneven, tmp_path / "4", Recorder(stop_after=4), plan=EVERY_STEP, recipe=recipe, selection=None
    )
    assert all(torch.equal(tensor, weights(best)[name]) for name, tensor in weights(then).items())


BY_PAIRS = Selection((("val_pref_acc", "max"), ("valid_loss", "min")))


@pytest.mark.parametrize(
    ("accuracy", "loss", "better"),
    [
        (0.9, 9.0, True),
        (0.8, 0.4, True),
        (0.8, 0.5, False),
        (0.8, 0.6, False),
        (0.7, 0.1, False),
        (0.9, math.nan, False),
    ],
)
def test_the_first_metric_that_differs_decides(accuracy: float, loss: float, better: bool) -> None:
    values = {"val_pref_acc": accuracy, "valid_loss": loss, "probe_loss": 1.0}
    assert BY_PAIRS.is_better(values, {"val_pref_acc": 0.8, "valid_loss": 0.5}) is better
    assert BY_PAIRS.read({"valid_loss": 0.5}) is None


# --- pairs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["plain", "packed_shared"])
def test_preference_training_separates_the_pairs(
    uneven_pairs: list[PairExample], tmp_path: Path, layout: str
) -> None:
    objective = objective_of(uneven_pairs, layout, beta=0.5)
    plan, recorder = Plan(9, 9, 4, 30, 30, 30), Recorder()
    recipe = Recipe(learning_rate=2e-2)
    _, result = run(
        uneven_pairs, tmp_path, recorder, plan=plan, recipe=recipe, objective=objective, dropout=0.0
    )
    first, last = recorder.history[1], recorder.history[30]
    assert first["train_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert last["train_loss"] < 0.3
    assert last["rewards/accuracies"] == 1
    assert result.last["val_pref_acc"] == 1
    assert {"logps/chosen", "logps/rejected", "train_mean_token_accuracy"} <= last.keys()


@pytest.mark.parametrize("kind", ["sft", "dpo"])
@pytest.mark.parametrize(
    "cut", [{"micro_batches": 1}, {"micro_batches": 4}, {"micro_positions": 40}], ids=str
)
def test_bug_1_a_run_does_not_depend_on_its_micro_batches(
    uneven: list[Example], uneven_pairs: list[PairExample], tmp_path: Path, kind: str, cut: dict[str, int]
) -> None:
    rows: Sequence[Any] = uneven if kind == "sft" else uneven_pairs
    objective = objective_of(rows, beta=0.5)
    short = replace(PLAN, total_steps=5)
    # AdamW's default epsilon makes steps of gradients that are rounding noise
    recipe = Recipe(learning_rate=1e-2, adam_epsilon=1e-3)
    whole, _ = run(
        rows, tmp_path / "a", a := Recorder(), recipe=recipe, objective=objective, plan=short, dropout=0.0
    )
    plan = replace(short, **cut)
    parts, _ = run(
        rows, tmp_path / "b", b := Recorder(), recipe=recipe, objective=objective, plan=plan, dropout=0.0
    )
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], tensor, rtol=1e-6, atol=1e-6, msg=name)
    for step, values in a.history.items():
        assert b.history[step]["train_loss"] == pytest.approx(values["train_loss"], abs=1e-6)
        assert b.history[step]["grad_norm"] == pytest.approx(values["grad_norm"], rel=1e-4)
