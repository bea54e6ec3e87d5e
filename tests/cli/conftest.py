"""The command line in this process (click's runner) and as the real program, always with a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dlm.cli.main import app
from dlm.document import load
from dlm.store import Home, RunSpec, VersionSpec

DLM_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
HEADER = f"---\ndlm_id: {DLM_ID}\ndlm_version: 15\nbase_model: pocket\n---\n"
BODY = "\n::instruction::\n### Q\nWhy?\n### A\nBecause.\n"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a working folder for every test, and no network."""
    home, folder = tmp_path / "home", tmp_path / "work"
    folder.mkdir()
    monkeypatch.setenv("DLM_HOME", str(home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(folder)
    return home


@pytest.fixture
def document() -> Path:
    """A small document in the working folder."""
    path = Path("notes.dlm")
    path.write_text(HEADER + BODY, encoding="utf-8")
    return path


@dataclass(frozen=True)
class Dlm:
    """Calls commands in this process."""

    def __call__(self, *args: str, expect: int = 0, stdin: str | bytes | None = None) -> Result:
        result = CliRunner().invoke(app, args, input=stdin, prog_name="dlm")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == expect, f"{args} → {result.exit_code}\n{result.output}"
        return result

    def json(self, *args: str, expect: int = 0) -> Any:
        return json.loads(self(*args, "--json", expect=expect).stdout)


@pytest.fixture
def dlm() -> Dlm:
    return Dlm()


def spawn(
    *args: str, env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """The real program; output as bytes."""
    return subprocess.run(
        [sys.executable, "-m", "dlm", *args],
        env={**os.environ, **(env or {})},
        capture_output=True,
        timeout=120,
        check=False,
        **options,
    )


Train = Callable[..., str]


@pytest.fixture
def train(document: Path) -> Train:
    """Record a run as a training would, with metrics and a version of a few bytes; returns the version's name."""

    def record(
        *,
        kind: str = "sft",
        promote: bool = True,
        losses: tuple[float, ...] = (2.0, 1.0, 0.5),
        message: str = "",
        status: str = "complete",
    ) -> str:
        read = load(document)
        with Home.open().store(DLM_ID) as store, store.lock("dlm train notes.dlm"):
            store.attach(document)
            spec = RunSpec(kind, "sft", {"lora_r": 8}, base="pocket", base_fingerprint="f" * 64, seed=42)
            spec = RunSpec(
                **{**vars(spec), "document_sha256": read.sha256, "planned_steps": len(losses), "threads": 2}
            )
            run = store.runs.start(spec)
            with store.metrics.writer(run.id) as writer:
                for step, loss in enumerate(losses, start=1):
                    writer.log(step, {"train_loss": loss, "learning_rate": 1e-3 / step})
                writer.log(len(losses), {"valid_loss": 0.75, "valid_mean_token_accuracy": 0.5})
            checkpoint = store.checkpoints(run.id) / "step-00000001"
            for folder in (checkpoint, checkpoint.with_name("step-00000002")):
                folder.mkdir()
                (folder / "optimizer.safetensors").write_bytes(b"0" * 1000)
            store.runs.event(run.id, "skipped_row", {"place": "notes.dlm:3", "reason": "too long"})
            if status != "complete":
                if status != "running":
                    store.runs.finish(run.id, status, message)
                return ""
            staging = store.versions.staging()
            (staging / "adapter_config.json").write_text("{}")
            (staging / "adapter_model.safetensors").write_bytes(b"weights")
            made = VersionSpec(run.id, None, kind, len(losses), "pocket", "f" * 64, {"lora_r": 8}, "d" * 64)
            return store.versions.publish(staging, made, promote, "test").name

    return record
