"""An evaluation that kills its own process at a chosen moment: SIGKILL, in a process forked from a server (see
`killed_training`)."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOMENTS = (
    "block 1 is recorded",
    "block 2 is graded",  # and not recorded
    "the last block is recorded",  # no reference is read, and the run is not complete
    "the second references are read",  # and not recorded
)


def evaluate_and_die(home: Path, document: Path, moment: str, block: int) -> int:
    """Evaluate in a process of its own that dies at `moment`; returns its exit code (−9 = killed)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dlm.workflow.evaluating"])
    process = context.Process(target=_evaluate, args=(home, document, moment, block))
    process.start()
    process.join(timeout=240)
    return process.exitcode if process.exitcode is not None else 0


class _Doomed:
    def __init__(self, moment: str) -> None:
        self._moment, self._recorded = moment, 0

    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def stopping(self) -> None: ...

    def answered(self, suite: str, version: str, done: int, of: int) -> None:
        self._recorded += 1
        last = done == of and self._moment.startswith("the last block")
        if last or self._moment == f"block {self._recorded} is recorded":
            os.kill(os.getpid(), signal.SIGKILL)


def _evaluate(home: Path, document: Path, moment: str, block: int) -> None:
    from dlm.store.evaluation import Evaluations
    from dlm.store.runs import Runs
    from dlm.workflow import evaluating, evaluation_run
    from dlm.workflow.instruments import REFERENCES

    os.environ["DLM_HOME"] = str(home)
    evaluation_run.BLOCK = block
    if moment == "block 2 is graded":
        Evaluations.record = _dying(Evaluations.record, at=2)  # type: ignore[method-assign]
    if moment == "the second references are read":
        Runs.event = _dying(Runs.event, at=2, kind=REFERENCES)  # type: ignore[method-assign]
    evaluating.evaluate(document, evaluating.EvalOptions(device="cpu", repeats=2), _Doomed(moment))


def _dying(record: Callable[..., None], at: int, kind: str = "") -> Any:
    """A method that kills at its call number `at`; of those with `kind` among their arguments, where it is given."""
    calls = 0

    def dying(self: Any, *args: Any) -> None:
        nonlocal calls
        calls += not kind or kind in args
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        record(self, *args)

    return dying
