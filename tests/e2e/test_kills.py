"""SIGKILL at random moments of a training; two trainings at once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time

import pytest

from command_line import Cli, ten_questions

pytestmark = [pytest.mark.torch, pytest.mark.process]
KNOBS = ("--max-steps", "40", "--set", "save_every_steps=3")


def kill_and_check(cli: Cli, delay_s: float) -> str:
    """Start a training, kill it after `delay_s`, and look at what is left. Returns the newest run's status."""
    process = cli.start("train", "ten.dlm", *KNOBS)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=delay_s)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    shown = cli.json("show", "ten.dlm")
    for version in cli.home.glob("store/*/versions/v*"):
        assert (version / "adapter_model.safetensors").stat().st_size > 0
        assert (version / "adapter_config.json").stat().st_size > 0
    runs = shown["runs"]
    return str(runs[-1]["status"] if runs else "none")


def campaign(cli: Cli, kills: int, seed: int) -> None:
    (cli.folder / "ten.dlm").write_text(ten_questions(), encoding="utf-8")
    began = time.monotonic()
    cli.run("train", "ten.dlm", *KNOBS)
    whole_s = time.monotonic() - began
    draw = random.Random(seed)
    for _ in range(kills):
        status = kill_and_check(cli, draw.uniform(0.05, 1.1) * whole_s)
        assert status in ("complete", "interrupted", "none")
    versions_before = len(list(cli.home.glob("store/*/versions/v*")))
    current_before = json.dumps(cli.json("show", "ten.dlm")["current"])
    assert "v0" in current_before
    cli.run("train", "ten.dlm", *KNOBS)
    assert len(list(cli.home.glob("store/*/versions/v*"))) == versions_before + 1
    assert not list(cli.home.glob("store/*/versions/.*"))  # nothing half-made is left


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
