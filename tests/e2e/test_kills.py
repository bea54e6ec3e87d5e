"""SIGKILL at random moments of a training; two trainings at once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from hashlib import sha256
from pathlib import Path

import pytest
from safetensors.torch import load_file

from command_line import Cli, ten_questions
from dlm.store import Home

pytestmark = [pytest.mark.torch, pytest.mark.process]
KNOBS = ("--max-steps", "40", "--set", "save_every_steps=3")
DLM_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
CHECKPOINTS = "store/*/checkpoints/run-*/step-*"


def wait_for_a_checkpoint(process: subprocess.Popen[str], cli: Cli, known: set[Path]) -> bool:
    """Wait until the process has written its first checkpoint; False when it ended without one."""
    while process.poll() is None:
        if set(cli.home.glob(CHECKPOINTS)) - known:
            return True
        time.sleep(0.005)
    return False


def kill_and_check(cli: Cli, delay_s: float, *, after_checkpoint: bool) -> str:
    """Start a training, kill it, and look at what is left. Returns the newest run's status.

    The clock of `delay_s` starts with the process, or with its first checkpoint.
    """
    before, known = current_version(cli), set(cli.home.glob(CHECKPOINTS))
    process = cli.start("train", "ten.dlm", *KNOBS)
    if after_checkpoint:
        assert wait_for_a_checkpoint(process, cli, known)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=delay_s)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0), errors
    assert current_version(cli) >= before  # nothing that was promoted is lost
    runs = cli.json("show", "ten.dlm")["runs"]
    status = str(runs[-1]["status"])
    assert status in (("complete",) if process.returncode == 0 else ("complete", "interrupted"))
    return status


def current_version(cli: Cli) -> str:
    """The current version's name, once the store has opened and the version is seen to be complete and readable."""
    store = Home.open(cli.home).find(DLM_ID)
    assert store is not None
    with store:
        current = store.versions.current()  # verifies every file's size
        assert current is not None
        for version in store.versions.list():
            store.versions.verify(version)
            recorded = json.loads((version.folder / "version.json").read_text(encoding="utf-8"))["files"]
            for name, about in recorded.items():
                assert sha256((version.folder / name).read_bytes()).hexdigest() == about["sha256"]
        for tensor in load_file(current.folder / "adapter_model.safetensors").values():
            assert bool(tensor.isfinite().all())
        return current.name


def campaign(cli: Cli, kills: int, seed: int) -> None:
    """Kill in turn during the start-up and after the first checkpoint, up to the end of the run and beyond."""
    (cli.folder / "ten.dlm").write_text(ten_questions(DLM_ID), encoding="utf-8")
    began = time.monotonic()
    first = cli.start("train", "ten.dlm", *KNOBS)
    assert wait_for_a_checkpoint(first, cli, set())
    startup_s = time.monotonic() - began
    _, errors = first.communicate(timeout=300)
    assert first.returncode == 0, errors
    rest_s = time.monotonic() - began - startup_s
    draw = random.Random(seed)
    seen = []
    for number in range(kills):
        late = number % 2 == 0
        delay_s = draw.uniform(0.0, 1.1 * rest_s) if late else draw.uniform(0.05, startup_s)
        seen.append(kill_and_check(cli, delay_s, after_checkpoint=late))
    assert "interrupted" in seen  # or no kill came in time, and nothing was tested
    before = current_version(cli)
    cli.run("train", "ten.dlm", *KNOBS)
    assert current_version(cli) > before
    store = Home.open(cli.home).find(DLM_ID)
    assert store is not None
    with store:
        known = {version.name for version in store.versions.list()}
        assert {path.name for path in (store.folder / "versions").iterdir()} == known
        complete = [run for run in store.runs.list() if run.status == "complete"]
        assert len(complete) == len(known)


def test_three_kills(cli: Cli) -> None:
    campaign(cli, 3, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_kills(cli: Cli) -> None:
    campaign(cli, 50, seed=2)


def test_the_second_training_says_who_holds_the_lock(cli: Cli) -> None:
    (cli.folder / "ten.dlm").write_text(ten_questions(), encoding="utf-8")
    first = cli.start("train", "ten.dlm", "--set", "min_steps=100000")
    try:
        while first.poll() is None and not list(cli.home.glob("store/*/checkpoints/run-*")):
            os.sched_yield()
        refused = cli.run("train", "ten.dlm", expect=1)
        assert str(first.pid) in refused.stderr
        assert "dlm train ten.dlm" in refused.stderr
        shown = cli.json("show", "ten.dlm")  # readers are not kept out
        assert shown["runs"][-1]["status"] == "running"
    finally:
        first.kill()
        first.communicate()
    assert cli.json("show", "ten.dlm")["runs"][-1]["status"] == "interrupted"
