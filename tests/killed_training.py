"""A training that kills its own process at a chosen moment: SIGKILL, so that nothing can be tidied up.

It runs in a process forked from a server that has torch loaded but has never computed anything: a process that has
may hold locks of threads that do not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MOMENTS = (
    "briefing",  # before the first step
    "step 2",  # before the first checkpoint
    "step 9",  # between two checkpoints
    "checkpoint 8",  # right after one
    "checkpoint 12",  # right after the last one: all is trained, nothing is published
    "before the version's folder is moved into place",
    "after the version's folder is moved into place",  # but before the database knows of it
)


def train_and_die(home: Path, document: Path, knobs: Mapping[str, Any], moment: str) -> int:
    """Train in a process of its own that dies at `moment`; returns its exit code (−9 = killed)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dlm.workflow.train"])
    process = context.Process(target=_train, args=(home, document, dict(knobs), moment))
    process.start()
    process.join(timeout=240)
    return process.exitcode if process.exitcode is not None else 0


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Doomed:
    """A view that kills the process when its moment comes."""

    def __init__(self, moment: str) -> None:
        self._moment = moment

    def _at(self, moment: str) -> None:
        if moment == self._moment:
            _die()

    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def stopping(self) -> None: ...

    def briefing(self, briefing: Any) -> None:
        self._at("briefing")

    def step(self, step: int, total: int, values: Mapping[str, float]) -> None:
        self._at(f"step {step}")

    def checkpoint(self, step: int) -> None:
        self._at(f"checkpoint {step}")


def _train(home: Path, document: Path, knobs: Mapping[str, Any], moment: str) -> None:
    from dlm.workflow.train import TrainOptions, train

    os.environ["DLM_HOME"] = str(home)
    if "folder" in moment:
        os.rename = _dying_rename(os.rename, dies_first=moment.startswith("before"))
    train(document, TrainOptions(knobs=knobs, device="cpu"), _Doomed(moment))


def _dying_rename(rename: Callable[..., None], *, dies_first: bool) -> Callable[..., None]:
    def move(source: Any, target: Any, **options: Any) -> None:
        is_version = Path(target).parent.name == "versions"
        if is_version and dies_first:
            _die()
        rename(source, target, **options)
        if is_version:
            _die()

    return move
