"""Several processes: the same run as one process takes, and each process's part in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import two_processes
from dlm.errors import TrainingError
from dlm.training import sharding, world
from dlm.training.loop import LoopResult
from dlm.training.world import World
from tiny_runs import weights
from tiny_training import Recorder, tiny_model

pytestmark = pytest.mark.torch
process = pytest.mark.process


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what two processes found, started as a user would."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, two_processes.__file__, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def told(two: Path, name: str, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((two / f"{name}-{rank}.json").read_text())
    return found


def relative(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Norm of the difference over the norm of what is expected, all tensors together."""
    far = torch.cat([(found[name] - tensor).flatten() for name, tensor in expected.items()])
    return float(far.norm() / torch.cat([tensor.flatten() for tensor in expected.values()]).norm())


@process
@pytest.mark.parametrize(
    "scenario", [two_processes.sft, two_processes.by_positions, two_processes.dpo, two_processes.early]
)
def test_two_processes_train_as_one(
    two: Path, tmp_path: Path, scenario: Callable[[Path, Recorder], tuple[torch.nn.Module, LoopResult]]
) -> None:
    """Weights after the run and every metric of every step, to rounding; windows with fewer rows than processes too."""
    model, result = scenario(tmp_path, watch := Recorder())
    assert scenario is not two_processes.early or result.stopped
    both = told(two, scenario.__name__)
    assert relative(load_file(two / f"{scenario.__name__}-0.safetensors"), weights(model)) <= 1e-6
    assert (both["step"], both["best_step"], both["stopped"], both["interrupted"]) == (
        result.progress.step,
        result.best_step,
        result.stopped,
        result.interrupted,
    )
    assert list(map(int, both["history"])) == list(watch.history)
    for step, values in watch.history.items():
        found = both["history"][str(step)]
        assert found.keys() == values.keys()
        for name in values.keys() - {"tokens_per_second", "peak_memory_mb"}:
            assert found[name] == pytest.approx(values[name], rel=1e-5, abs=2e-6), (step, name)


@process
@pytest.mark.parametrize("name", [scenario.__name__ for scenario in two_processes.SCENARIOS])
def test_both_processes_end_with_the_same_bits_and_one_of_them_writes(two: Path, name: str) -> None:
    first, second = (load_file(two / f"{name}-{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())
    main, other = told(two, name), told(two, name, 1)
    assert other["history"] == {}  # the main process alone is told
    assert main["saved"] == other["saved"] != []
    for part in ("step", "best_step", "stopped", "interrupted"):
        assert main[part] == other[part], part


@process
def test_bug_12_two_processes_resume_bit_equal(two: Path) -> None:
    """Bug 12, with live dropout: what a process draws follows from the seed, the step and its rank."""
    whole, again = (load_file(two / f"{name}-0.safetensors") for name in ("dropout", "resumed"))
    assert all(torch.equal(tensor, whole[key]) for key, tensor in again.items())
    full, rest = told(two, "dropout")["history"], told(two, "resumed")["history"]
    assert list(rest) == [str(step) for step in range(6, 15)]
    assert all(values["train_loss"] == full[step]["train_loss"] for step, values in rest.items())


@process
def test_a_stop_asked_of_one_process_stops_both(two: Path) -> None:
    for rank in (0, 1):
        found = told(two, "stopped", rank)
        assert (found["step"], found["stopped"], found["interrupted"]) == (4, "the second process", True)


@process
def test_a_row_of_any_process_is_named_by_both(two: Path) -> None:
    found = [told(two, "not_finite", rank) for rank in (0, 1)]
    assert found[0] == found[1]
    assert found[0]["found"] == "rows doc.dlm:10"


@process
def test_a_spread_base_trains_as_a_whole_one(two: Path, tmp_path: Path) -> None:
    """FSDP2 over the frozen weights: windows of one row, and processes with unequal micro-batches, included."""
    model, _ = two_processes.dpo(tmp_path, watch := Recorder())
    assert relative(load_file(two / "spread-0.safetensors"), weights(model)) <= 1e-6
    history = told(two, "spread")["history"]
    for step, values in watch.history.items():
        assert history[str(step)]["train_loss"] == pytest.approx(values["train_loss"], rel=1e-5)
    assert history["14"]["valid_loss"] == pytest.approx(watch.history[14]["valid_loss"], rel=1e-5)


def test_rows_are_dealt_out_once_each() -> None:
    rows = list(range(7))
    for size in (1, 2, 3, 8):
        shares = [World(rank, size).share(rows) for rank in range(size)]
        assert sorted(row for share in shares for row in share) == rows
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with world.setup() as here:
        assert here == world.current() == World()
        assert here.is_main
        assert not torch.distributed.is_initialized()
    assert here.gather("x") == ["x"]
    assert here.agree("why", "cpu") == "why"


def test_one_process_has_nobody_to_spread_a_base_over() -> None:
    with pytest.raises(TrainingError, match="there is one only"):
        sharding.shard(tiny_model(), "cpu")


@pytest.mark.parametrize(
    ("variable", "value", "asked"),
    [
        ("ACCELERATE_USE_FSDP", "true", True),
        ("DLM_FSDP", "1", True),
        ("DLM_FSDP", "0", False),
        ("ACCELERATE_USE_FSDP", "false", False),
    ],
)
def test_a_launch_can_ask_for_a_spread_base(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, asked: bool
) -> None:
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    monkeypatch.delenv("DLM_FSDP", raising=False)
    assert not sharding.wanted()
    monkeypatch.setenv(variable, value)
    assert sharding.wanted() is asked
