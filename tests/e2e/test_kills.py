"""SIGKILL at random moments of a training, gone on with: the weights of one that was never killed. Two trainings at once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from hashlib import sha256
from pathlib import Path

import pytest
from safetensors.torch import load_file

from command_line import Cli, brevity_pairs, ten_questions
from dlm.document import render_preference
from dlm.store import Home

pytestmark = [pytest.mark.torch, pytest.mark.process]
DLM_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
THINGS = ("release notes", "a memo", "an error message", "a status report", "minutes", "a changelog")
CHECKPOINTS = "store/*/checkpoints/run-*/step-*"
KNOBS = {
    # the layout is set: two runs that measure which one is fastest may choose differently
    "sft": ("--max-steps", "40", "--set", "save_every_steps=3", "--set", "layout=packed"),
    "preference": (
        *("--max-steps", "40", "--set", "save_every_steps=3", "--set", "layout=packed_shared"),
        *("--set", "preference.num_epochs=20", "--set", "preference.learning_rate=1e-3"),
    ),
    "rft": (
        *("--prompts", "prompts.jsonl", "--grader", "length:1-12 words", "--set", "layout=packed_shared"),
        *("--set", "rft.steps=12", "--set", "rft.prompts_per_step=2", "--set", "rft.group_size=4"),
        *("--set", "rft.max_new_tokens=24", "--set", "save_every_steps=3", "--set", "rft.updates=2"),
    ),
}


def wait_for_a_checkpoint(process: subprocess.Popen[str], cli: Cli, known: set[Path]) -> bool:
    """Wait until the process has written its first checkpoint; False when it ended without one."""
    while process.poll() is None:
        if set(cli.home.glob(CHECKPOINTS)) - known:
            return True
        time.sleep(0.005)
    return False


def kill(cli: Cli, phase: str, delay_s: float, *, after_checkpoint: bool) -> str:
    """Start a training and kill it; the newest run's status, or "" when it had not begun.

    The clock of `delay_s` starts with the process, or with its first checkpoint.
    """
    known, before = set(cli.home.glob(CHECKPOINTS)), look(cli)
    process = cli.start("train", "ten.dlm", "--phase", phase, *KNOBS[phase])
    if after_checkpoint:
        assert wait_for_a_checkpoint(process, cli, known), process.communicate()[1]
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=delay_s)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0), errors
    assert look(cli)[: len(before)] == before  # nothing that was there is lost or changed
    runs = [run for run in cli.json("show", "ten.dlm")["runs"] if run["kind"] == phase]
    return str(runs[-1]["status"]) if runs else ""


def look(cli: Cli) -> list[tuple[str, str]]:
    """The versions with the hashes of their weights, once every one is seen to be whole and readable."""
    store = Home.open(cli.home).find(DLM_ID)
    if store is None:
        return []
    found = []
    with store:
        store.versions.current()  # verifies every file's size
        for version in store.versions.list():
            store.versions.verify(version)
            recorded = json.loads((version.folder / "version.json").read_text(encoding="utf-8"))["files"]
            for name, about in recorded.items():
                assert sha256((version.folder / name).read_bytes()).hexdigest() == about["sha256"]
            for tensor in load_file(version.folder / "adapter_model.safetensors").values():
                assert bool(tensor.isfinite().all())
            found.append((version.name, recorded["adapter_model.safetensors"]["sha256"]))
    return found


def prepare(cli: Cli, phase: str) -> tuple[Path, str, float, float]:
    """A home to start from, the weights of the run that is never killed, and how long it takes to its first checkpoint
    and from there to its end."""
    document = ten_questions(DLM_ID) + "\n" + render_preference(brevity_pairs()) + "\n"
    (cli.folder / "ten.dlm").write_text(document, encoding="utf-8")
    prompts = [{"prompt": f"How should {thing} read?"} for thing in THINGS]
    lines = "".join(json.dumps(prompt) + "\n" for prompt in prompts)
    (cli.folder / "prompts.jsonl").write_text(lines, encoding="utf-8")
    if phase == "preference":
        cli.run("train", "ten.dlm", "--phase", "sft", *KNOBS["sft"])
    else:
        cli.run("train", "ten.dlm", "--phase", "sft", "--max-steps", "1")
    start = cli.home.with_name("start")
    shutil.copytree(cli.home, start)
    known, began = set(cli.home.glob(CHECKPOINTS)), time.monotonic()
    process = cli.start("train", "ten.dlm", "--phase", phase, *KNOBS[phase])
    assert wait_for_a_checkpoint(process, cli, known)
    startup_s = time.monotonic() - began
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return start, look(cli)[-1][1], startup_s, time.monotonic() - began - startup_s


def campaign(cli: Cli, phase: str, kills: int, seed: int) -> None:
    """Kill in turn after the first checkpoint and during the start-up, go on, and compare the weights, each time."""
    start, expected, startup_s, rest_s = prepare(cli, phase)
    draw = random.Random(seed)
    seen = []
    for number in range(kills):
        shutil.rmtree(cli.home)
        shutil.copytree(start, cli.home)
        late = number % 2 == 0
        delay_s = draw.uniform(0.0, rest_s) if late else draw.uniform(0.05, startup_s)
        status = kill(cli, phase, delay_s, after_checkpoint=late)
        seen.append(status)
        if status == "interrupted":
            cli.run("train", "ten.dlm", "--resume")
        elif len(look(cli)) == 1:  # killed before the run was recorded
            cli.run("train", "ten.dlm", "--phase", phase, *KNOBS[phase])
        versions = look(cli)
        assert [name for name, _ in versions] == ["v0001", "v0002"], f"kill {number}"
        assert versions[-1][1] == expected, f"kill {number}, {delay_s:.3f} s"
        assert {path.name for path in cli.home.glob("store/*/versions/*")} == {"v0001", "v0002"}
    assert "interrupted" in seen  # or no kill came in time, and nothing was tested


@pytest.mark.parametrize(("phase", "kills"), [("sft", 2), ("preference", 3), ("rft", 3)])
def test_some_kills(cli: Cli, phase: str, kills: int) -> None:
    campaign(cli, phase, kills, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("phase", ["sft", "preference", "rft"])
def test_fifty_kills(cli: Cli, phase: str) -> None:
    campaign(cli, phase, 50, seed=2)


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
