"""Processes killed at random moments: the store opens, `current` is complete, nothing readable is lost."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlm.store import Home, RunSpec, Store

ID = "01J9Z3W5E8RT2Y4VQ7NDPXK6MA"
WORKER = Path(__file__).with_name("worker.py")


def work_and_kill(mode: str, home: Path, dlm_id: str, seconds: float) -> list[str]:
    """Let a worker do its first thing, then kill it `seconds` later; returns what it had said by then."""
    process = subprocess.Popen(
        [sys.executable, str(WORKER), mode, str(home), dlm_id], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(seconds)
    process.kill()
    rest, _ = process.communicate()
    assert first, "the worker failed by itself"
    return (first + rest).split()


def check_whole(store: Store, *, published: int) -> None:
    """Everything a reader can see fits together, before and after recovery."""
    for recovered in (False, True):
        if recovered:
            with store.lock("check"):
                pass
        current = store.versions.current()  # verifies the files' sizes
        assert current is not None
        names = {version.name for version in store.versions.list()}
        assert len(names) >= published
        for version in store.versions.list():
            store.versions.verify(version)
            run_id = json.loads((version.folder / "adapter_config.json").read_text())["run"]
            weights = (version.folder / "adapter_model.safetensors").read_bytes()
            assert weights == run_id.to_bytes(4, "big") * 50_000
            assert (version.run_id, store.runs.get(run_id).status) == (run_id, "complete")
        running = [run.id for run in store.runs.list() if run.status == "running"]
        assert len(running) <= (0 if recovered else 1)
        if recovered:
            folders = {path.name for path in (store.folder / "versions").iterdir()}
            assert folders == names
            assert list((store.folder / "staging").iterdir()) == []


def kills(few: int, many: int) -> list[object]:
    """A handful for every day, a campaign for the slow tier."""
    return [*range(few), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(few, many))]


@pytest.mark.parametrize("seed", kills(3, 60))
def test_killed_while_publishing(home: Home, seed: int) -> None:
    chance = random.Random(seed)
    published = 0
    for _ in range(2):
        said = work_and_kill("publish", home.root, ID, chance.uniform(0, 0.3))
        published += len(said)
        with home.store(ID) as store:
            check_whole(store, published=published)
    with home.store(ID) as store, store.lock("after"):
        assert store.runs.start(RunSpec("sft")).id == store.runs.list()[-1].id


@pytest.mark.parametrize("seed", kills(2, 30))
def test_killed_while_logging(home: Home, seed: int) -> None:
    """What `flush` had promised is there, and the rest is a whole beginning of what was logged."""
    said = work_and_kill("log", home.root, ID, random.Random(seed).uniform(0, 0.5))
    promised = int(said[-1])
    with home.store(ID) as store:
        for recovered in (False, True):
            if recovered:
                with store.lock("after") as recovery:
                    assert [run.id for run in recovery.interrupted] == [1]
            series = store.metrics.read(1)
            loss, odd = series["train_loss"], series["odd"]
            assert len(loss) == len(odd) > promised
            assert loss.steps.tolist() == list(range(len(loss)))
            assert loss.values.tolist() == [float(step) for step in range(len(loss))]
            assert all(
                math.isnan(value) if step % 2 else value == math.inf for step, value in enumerate(odd.values)
            )
        store.metrics.drop_after(1, promised)
        with store.lock("resume"):
            store.runs.resume(1)
            with store.metrics.writer(1) as writer:
                writer.log(promised + 1, {"train_loss": -1.0})
        assert store.metrics.read(1)["train_loss"].values[-2:].tolist() == [float(promised), -1.0]


@pytest.mark.parametrize("seed", kills(2, 30))
def test_killed_while_making_stores(home: Home, seed: int) -> None:
    said = work_and_kill("create", home.root, ID, random.Random(seed).uniform(0, 0.3))
    for number in range(len(said) + 1):
        with home.store(f"{ID}-{number}") as store, store.lock("after"):
            assert store.runs.start(RunSpec("sft")).id == 1
