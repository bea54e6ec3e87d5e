"""A document, `dlm ui` of it, and how figures about it are told: shared by the benchmarks of the web app."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import numpy as np

from dlm.curves import Series
from dlm.store import RunSpec, Store

__all__ = ["DOCUMENT", "ID", "QUESTIONS", "Server", "curve", "project", "record", "row"]

ID = "01J9Z3W5E8RT2Y4VQ7NDPXK6MA"
DOCUMENT = f"---\ndlm_id: {ID}\ndlm_version: 15\nbase_model: pocket\n---\n\n::instruction::\n"
QUESTIONS = "".join(f"### Q\nWhat is number {n}?\n### A\nIt is {n * n}.\n" for n in range(12))


def row(measure: str, unit: str, values: list[float], goal: str = "") -> dict[str, Any]:
    return {
        "measure": measure,
        "unit": unit,
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "n": len(values),
        "goal": goal,
    }


@contextmanager
def project() -> Iterator[Path]:
    """A folder with a document and a home of its own."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DLM_HOME"] = str(Path(folder) / "home")
        document = Path(folder) / "bench.dlm"
        document.write_text(DOCUMENT + QUESTIONS, encoding="utf-8")
        yield document


class Server:
    """`dlm ui` of a document, and a way to ask it."""

    def __init__(self, document: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dlm", "ui", str(document), "--no-browser"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.base = self.url.partition("/?")[0]
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def get(self, path: str) -> bytes:
        with self.opener.open(path if path.startswith("http") else self.base + path, timeout=60) as answer:
            return bytes(answer.read())

    def __enter__(self) -> Server:
        self.get(self.url)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=30)


def curve(n: int, seed: int) -> np.ndarray:
    """A loss that falls, with the noise of single batches."""
    noise = np.random.default_rng(seed).normal(0, 0.08, n)
    return np.asarray(0.3 + 1.7 * np.exp(-np.arange(n) / (n / 6)) + noise)


def record(store: Store, n: int, seed: int) -> int:
    """A complete run with a series of n points, as the store holds them once a run is over."""
    with store.lock("bench"):
        run = store.runs.start(RunSpec("sft", "sft", planned_steps=n))
        store.runs.finish(run.id, "complete")
        steps = np.arange(1, n + 1)
        store.metrics.add_series(
            run.id, Series("train_loss", "nats", steps, curve(n, seed), time.time() - n + steps)
        )
        return run.id
