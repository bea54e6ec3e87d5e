"""Checkpoints: a resumed run is bit-equal to one that never stopped, and a damaged checkpoint does no harm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dlm.errors import StoreError
from dlm.recipe import Recipe
from dlm.training import checkpoints
from dlm.training.checkpoints import Progress
from dlm.training.examples import Example
from dlm.training.loop import make_optimizer, run_loop
from dlm.training.pairs import PairExample
from dlm.training.planning import Plan
from tiny_runs import PLAN, RECIPE, assert_same_weights, objective_of, run
from tiny_training import Recorder, example, tiny_model

pytestmark = pytest.mark.torch

EXACT = ("train_loss", "grad_norm", "learning_rate", "valid_loss", "num_tokens", "entropy", "rewards/margins")


def assert_resumes_bit_equal(rows: Sequence[Any], folder: Path, stop_after: int, **settings: Any) -> None:
    """Weights, optimiser, progress and metrics after a stop and a resume, against a run that never stopped."""
    whole, expected = run(rows, folder / "whole", full := Recorder(), **settings)
    _, stopped = run(rows, folder / "parts", Recorder(stop_after=stop_after), **settings)
    assert (stopped.stopped, stopped.progress.step) == ("the test", stop_after)
    resumed, result = run(rows, folder / "parts", rest := Recorder(), resume=True, **settings)
    assert sorted(rest.history) == list(range(stop_after + 1, expected.progress.step + 1))
    assert_same_weights(resumed, whole)
    for step, values in rest.history.items():
        assert [values.get(name) for name in EXACT] == [full.history[step].get(name) for name in EXACT]
    for part in ("step", "num_tokens", "best_step", "best", "without_better"):
        assert getattr(result.progress, part) == getattr(expected.progress, part), part
    assert (result.stopped, result.interrupted) == (expected.stopped, False)
    last = checkpoints.step_folder(Path(), expected.progress.step)
    for file in ("optimizer.safetensors", "adapter_model.safetensors"):
        found, wanted = (folder / name / last / file for name in ("parts", "whole"))
        assert found.read_bytes() == wanted.read_bytes(), file


@pytest.mark.parametrize("stop_after", [1, 4, 9, 13])
@pytest.mark.parametrize("dora", [False, True])
def test_bug_12_a_resumed_run_is_bit_equal(
    uneven: list[Example], tmp_path: Path, stop_after: int, dora: bool
) -> None:
    """Bug 12, with live dropout; three steps are an epoch, so most stops are in the middle of one."""
    assert_resumes_bit_equal(uneven, tmp_path, stop_after, dora=dora)


METHODS = [
    ("dpo", {"method": "dpo", "beta": 0.5, "sft_weight": 0.2}),
    ("ipo", {"method": "dpo", "loss_type": "ipo"}),
    ("orpo", {"method": "orpo"}),
    ("simpo", {"method": "simpo"}),
]


@pytest.mark.parametrize(("method", "knobs"), METHODS, ids=[name for name, _ in METHODS])
@pytest.mark.parametrize("layout", ["plain", "packed_shared"])
def test_bug_12_a_resumed_preference_run_is_bit_equal(
    uneven_pairs: list[PairExample], tmp_path: Path, method: str, knobs: dict[str, Any], layout: str
) -> None:
    objective = objective_of(uneven_pairs, layout, **knobs)
    plan = Plan(9, 4, 2, total_steps=8, eval_every=3, save_every=3, micro_positions=90)
    assert_resumes_bit_equal(uneven_pairs, tmp_path, 5, objective=objective, plan=plan)


def test_bug_12_a_run_in_length_order_resumes_bit_equal(tmp_path: Path) -> None:
    rows = [example("q", "a" * (1 + i * 7 % 23), i) for i in range(30)]
    plan = Plan(30, 4, 4, total_steps=12, eval_every=5, save_every=5, micro_positions=60, by_length=True)
    assert_resumes_bit_equal(rows, tmp_path, 7, plan=plan)


@pytest.mark.parametrize("since_best", [0, 2, 5])
def test_bug_12_what_early_stopping_counts_survives_a_stop(
    uneven: list[Example], tmp_path: Path, since_best: int
) -> None:
    """A rate far too high: the held-out loss soon gets worse. Stopped while evaluations without a better one are being
    counted, the run goes on to stop at the same step, for the same reason."""
    recipe = Recipe(learning_rate=0.5, early_stopping=6, keep_best=True, keep_last=1, warmup_ratio=0.0)
    plan = Plan(9, 4, 2, total_steps=60, eval_every=1, save_every=4)
    settings: dict[str, Any] = {"plan": plan, "recipe": recipe}
    _, expected = run(uneven, tmp_path / "whole", Recorder(), **settings)
    assert expected.best_step is not None
    stop_after = expected.best_step + since_best
    assert stop_after < expected.progress.step < 60
    assert_resumes_bit_equal(uneven, tmp_path / "again", stop_after, **settings)
    parts = checkpoints.saved_steps(tmp_path / "again" / "parts")
    assert parts == [expected.best_step, expected.progress.step]


def test_a_run_that_stopped_early_takes_no_step_when_it_goes_on(
    uneven: list[Example], tmp_path: Path
) -> None:
    """As after a kill between the last checkpoint and the publication."""
    recipe = Recipe(learning_rate=0.5, early_stopping=2, warmup_ratio=0.0)
    plan = Plan(9, 4, 2, total_steps=60, eval_every=1, save_every=4)
    first, expected = run(uneven, tmp_path, Recorder(), plan=plan, recipe=recipe)
    again, result = run(uneven, tmp_path, rest := Recorder(), plan=plan, recipe=recipe, resume=True)
    assert rest.history == {}
    assert result.stopped == expected.stopped != ""
    assert (result.progress, result.interrupted) == (expected.progress, False)
    assert_same_weights(again, first)


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
    optimizer = make_optimizer(model, RECIPE)
    progress = checkpoints.load_newest(tmp_path / "b", model, optimizer, said.append)
    assert progress.step == 6
    assert "step 7" in said[0]
    objective = objective_of(uneven)
    run_loop(model, objective, uneven, [], RECIPE, PLAN, optimizer, progress, Recorder(), tmp_path / "b")
    assert_same_weights(model, whole)


def test_a_checkpoint_of_another_model_is_not_used(uneven: list[Example], tmp_path: Path) -> None:
    run(uneven, tmp_path, Recorder(), plan=Plan(9, 4, 2, 3, 9, 9))
    other = tiny_model(dora=True)
    said: list[str] = []
    optimizer = make_optimizer(other, Recipe())
    assert checkpoints.load_newest(tmp_path, other, optimizer, said.append) == Progress()
    assert "step 3" in said[0]


def test_a_half_written_checkpoint_is_not_seen(uneven: list[Example], tmp_path: Path) -> None:
    (tmp_path / ".partial-3").mkdir(parents=True)
    assert checkpoints.saved_steps(tmp_path) == []
    run(uneven, tmp_path, Recorder(), plan=Plan(9, 4, 2, 3, 9, 9))
    assert checkpoints.saved_steps(tmp_path) == [3]
    assert not list(tmp_path.glob(".partial-*"))


def test_the_adapter_of_one_step_is_put_in_place_alone(uneven: list[Example], tmp_path: Path) -> None:
    then, _ = run(uneven, tmp_path, Recorder(stop_after=6))
    run(uneven, tmp_path, Recorder(stop_after=2), resume=True)
    model = tiny_model(dropout=0.3)
    checkpoints.load_adapter_of(tmp_path, 6, model)
    assert_same_weights(model, then)
    with pytest.raises(StoreError, match="the checkpoint of step 5 cannot be read"):
        checkpoints.load_adapter_of(tmp_path, 5, model)


def test_the_counts_of_the_fused_optimiser_go_where_it_keeps_them(
    uneven: list[Example], tmp_path: Path
) -> None:
    run(uneven, tmp_path, Recorder(stop_after=3))
    model = tiny_model()
    optimizer = make_optimizer(model, RECIPE)
    checkpoints.load_newest(tmp_path, model, optimizer, pytest.fail)
    for parameter, state in optimizer.state.items():
        assert float(state["step"]) == 3
        assert state["step"].dtype == torch.float32
        assert state["exp_avg"].device == parameter.device
