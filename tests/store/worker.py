"""A process to be killed: `python worker.py MODE HOME DLM_ID` works until somebody stops it."""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path

from dlm.store import Home, RunSpec, VersionSpec


def hold(home: Path, dlm_id: str) -> None:
    """Hold the lock."""
    with Home.open(home).store(dlm_id) as store, store.lock("dlm train notes.dlm"):
        print("held", flush=True)
        time.sleep(600)


def hold_beside_a_child(home: Path, dlm_id: str) -> None:
    """Hold the lock, with a forked child that outlives this process."""
    with Home.open(home).store(dlm_id) as store, store.lock("dlm train notes.dlm"):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        print(child, flush=True)
        time.sleep(600)


def publish(home: Path, dlm_id: str) -> None:
    """Train and publish versions without end: metrics, a checkpoint, a version with three files."""
    with Home.open(home).store(dlm_id) as store:
        for number in itertools.count():
            with store.lock("dlm train notes.dlm"):
                run = store.runs.start(RunSpec("sft", parent_version=store.versions.current_name()))
                with store.metrics.writer(run.id) as writer:
                    for step in range(20):
                        writer.log(step, {"train_loss": float(step), "learning_rate": 0.1})
                    checkpoint = store.checkpoints(run.id) / f"step-{number:06d}"
                    checkpoint.mkdir()
                    (checkpoint / "state").write_bytes(b"x" * 1000)
                staging = store.versions.staging()
                (staging / "adapter_config.json").write_text(f'{{"run": {run.id}}}')
                (staging / "adapter_model.safetensors").write_bytes(run.id.to_bytes(4, "big") * 50_000)
                (staging / "tokenizer.json").write_text("{}")
                spec = VersionSpec(run.id, store.versions.current_name(), "sft", 20, "pocket", "fingerprint")
                store.versions.publish(staging, spec, number % 3 != 2, "test")
            if number % 4 == 3:
                store.versions.rollback("test")
            if number % 5 == 4:
                store.prune(keep_last=0)
            print(number, flush=True)


def log(home: Path, dlm_id: str) -> None:
    """Log points without end, value == step, and tell which step is known to be readable."""
    with Home.open(home).store(dlm_id) as store, store.lock("dlm train notes.dlm"):
        run = store.runs.start(RunSpec("sft"))
        with store.metrics.writer(run.id) as writer:
            for step in itertools.count():
                writer.log(
                    step, {"train_loss": float(step), "odd": float("nan") if step % 2 else float("inf")}
                )
                if step % 1500 == 0:
                    writer.flush()
                    print(step, flush=True)


def create(home: Path, dlm_id: str) -> None:
    """Make one new store after the other."""
    for number in itertools.count():
        with Home.open(home).store(f"{dlm_id}-{number}") as store:
            store.runs.latest()
        print(number, flush=True)


if __name__ == "__main__":
    modes = {"hold": hold, "fork": hold_beside_a_child, "publish": publish, "log": log, "create": create}
    modes[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])
