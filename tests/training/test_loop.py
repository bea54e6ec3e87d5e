"""The loop: schedules, order, stopping, and a resumed run that is bit-equal to one that never stopped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlm.errors import NonFiniteError
from dlm.recipe import Recipe
from dlm.training import checkpoints
from dlm.training.checkpoints import Progress
from dlm.training.examples import Example
from dlm.training.loop import HeldOut, LoopResult, learning_rate, make_optimizer, run_loop
from dlm.training.objectives import SftObjective
from dlm.training.planning import Plan, Sampler, derived_seed
from tiny_training import Recorder, plain_layout, tiny_model

pytestmark = pytest.mark.torch
OBJECTIVE = SftObjective(plain_layout())
PLAN = Plan(n_examples=9, rows_per_step=4, micro_rows=2, total_steps=14, eval_every=5, save_every=3)


def run(
    rows: list[Example],
    folder: Path,
    recorder: Recorder,
    *,
    recipe: Recipe | None = None,
    resume: bool = False,
    plan: Plan = PLAN,
    dropout: float = 0.3,
    dora: bool = False,
) -> tuple[torch.nn.Module, LoopResult]:
    model = tiny_model(dropout=dropout, dora=dora)
    settings = recipe or Recipe(learning_rate=1e-2, keep_last=2)
    optimizer = make_optimizer(model, settings)
    progress = checkpoints.load_newest(folder, model, optimizer, pytest.fail) if resume else Progress()
    held_out = [HeldOut("valid", OBJECTIVE, rows[:2])]
    done = run_loop(model, OBJECTIVE, rows, held_out, settings, plan, optimizer, progress, recorder, folder)
    return model, done


def trainable(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("stop_after", [1, 4, 9, 13])
@pytest.mark.parametrize("dora", [False, True])
def test_a_resumed_run_is_bit_equal(
    uneven: list[Example], tmp_path: Path, stop_after: int, dora: bool
) -> None:
    """Bug 12: weights, metrics and the optimiser after a stop and a resume, with live dropout."""
    whole, seen = run(uneven, tmp_path / "a", full := Recorder(), dora=dora)
    first = Recorder(stop_after=stop_after)
    _, stopped = run(uneven, tmp_path / "b", first, dora=dora)
    assert stopped.stopped == "the test"
    assert stopped.progress.step == stop_after
    rest = Recorder()
    resumed, result = run(uneven, tmp_path / "b", rest, resume=True, dora=dora)
    assert sorted(rest.history) == list(range(stop_after + 1, 15))
    for name, value in trainable(whole).items():
        assert torch.equal(value, trainable(resumed)[name]), name
    exact = ("train_loss", "grad_norm", "learning_rate", "valid_loss", "num_tokens", "entropy")
    for step, values in rest.history.items():
        assert [values.get(name) for name in exact] == [full.history[step].get(name) for name in exact]
    assert result.progress.num_tokens == seen.progress.num_tokens
    a = (tmp_path / "a" / "step-00000014" / "optimizer.safetensors").read_bytes()
    assert a == (tmp_path / "b" / "step-00000014" / "optimizer.safetensors").read_bytes()


def test_every_trainable_tensor_moves_and_nothing_else(uneven: list[Example], tmp_path: Path) -> None:
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


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32))
def test_an_epoch_reads_every_row_once(n: int, rows_per_step: int, seed: int) -> None:
    plan = Plan(n, rows_per_step, 1, 10**6, 1, 1)
    for epoch in range(2):
        steps = range(epoch * plan.steps_per_epoch + 1, (epoch + 1) * plan.steps_per_epoch + 1)
        read = Counter(index for step in steps for index in Sampler(plan, seed).window(step))
        assert read == Counter(range(n))


def test_epochs_differ_and_seeds_differ() -> None:
    plan = Plan(50, 50, 1, 10, 1, 1)
    assert len({tuple(Sampler(plan, seed).window(step)) for step in (1, 2) for seed in (1, 7)}) == 4


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
    assert any(not torch.equal(v, trainable(tight)[name]) for name, v in trainable(free).items())


def test_a_loss_that_is_not_a_number_names_its_rows_and_keeps_the_checkpoint(
    uneven: list[Example], tmp_path: Path
) -> None:
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
    run(uneven, tmp_path / "a", a := Recorder(), recipe=Recipe(), dropout=0.0)
    noisy, _ = run(uneven, tmp_path / "b", b := Recorder(), recipe=Recipe(neftune_alpha=5.0), dropout=0.0)
    assert a.history[1]["train_loss"] != b.history[1]["train_loss"]
    first = Recipe(neftune_alpha=5.0, learning_rate=1e-12)
    _, _ = run(uneven, tmp_path / "c", c := Recorder(), recipe=first, dropout=0.0)
    still = Recipe(learning_rate=1e-12)
    _, _ = run(uneven, tmp_path / "d", d := Recorder(), recipe=still, dropout=0.0)
    assert c.history[14]["valid_loss"] == pytest.approx(d.history[14]["valid_loss"], abs=1e-6)
    embedding = noisy.get_input_embeddings()
    assert not embedding._forward_hooks


def test_weights_that_are_not_numbers_are_never_saved(uneven: list[Example], tmp_path: Path) -> None:
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


@pytest.mark.parametrize("file", ["optimizer.safetensors", "adapter_model.safetensors", "progress.json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    uneven: list[Example], tmp_path: Path, file: str
) -> None:
    whole, _ = run(uneven, tmp_path / "a", Recorder())
    run(uneven, tmp_path / "b", Recorder(stop_after=7))
    damaged = checkpoints.step_folder(tmp_path / "b", 7) / file
    damaged.write_bytes(damaged.read_bytes()[:-9])
    said: list[str] = []
    model = tiny_model(dropout=0.3)
    recipe = Recipe(learning_rate=1e-2, keep_last=2)
    optimizer = make_optimizer(model, recipe)
    progress = checkpoints.load_newest(tmp_path / "b", model, optimizer, said.append)
    assert progress.step == 6
    assert "step 7" in said[0]
    run_loop(model, OBJECTIVE, uneven, [], recipe, PLAN, optimizer, progress, Recorder(), tmp_path / "b")
    for name, value in trainable(whole).items():
        assert torch.equal(value, trainable(model)[name]), name


def test_a_checkpoint_of_another_model_is_not_used(uneven: list[Example], tmp_path: Path) -> None:
    run(uneven, tmp_path, Recorder(), plan=Plan(9, 4, 2, 3, 9, 9))
    other = tiny_model(dora=True)
    said: list[str] = []
    assert (
        checkpoints.load_newest(tmp_path, other, make_optimizer(other, Recipe()), said.append) == Progress()
    )
    assert "step 3" in said[0]


def test_a_stop_asked_for_before_the_first_step_takes_none(uneven: list[Example], tmp_path: Path) -> None:
    class Stopping(Recorder):
        def stop_requested(self) -> str:
            return "SIGINT"

    _, result = run(uneven, tmp_path, recorder := Stopping())
    assert result.stopped == "SIGINT"
    assert recorder.history == {}


@pytest.mark.parametrize("seed", [0, 2**62, 2**63 - 1])
def test_every_seed_of_the_recipe_works(seed: int) -> None:
    plan = Plan(50, 50, 1, 10, 1, 1)
    assert sorted(Sampler(plan, seed).window(1)) == list(range(50))
    assert Sampler(plan, seed).window(2) != Sampler(plan, seed + 1 if seed < 2**63 - 1 else 0).window(1)
    torch.manual_seed(derived_seed(seed, "step", 10**9))


def test_a_half_written_checkpoint_is_not_seen(uneven: list[Example], tmp_path: Path) -> None:
    (tmp_path / ".partial-3").mkdir(parents=True)
    assert checkpoints.saved_steps(tmp_path) == []
    run(uneven, tmp_path, Recorder(), plan=Plan(9, 4, 2, 3, 9, 9))
    assert checkpoints.saved_steps(tmp_path) == [3]
    assert not list(tmp_path.glob(".partial-*"))
