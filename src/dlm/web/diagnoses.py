"""What the rules of the curves say of a run, kept while the run's numbers stay as they are.

A run under way is judged anew every few seconds at most; a long series takes a while, and pages do not wait for it:
they ask for the verdict after the charts are drawn.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass

from dlm.curves import ROLES, CurveRun, Diagnosis, Selection, diagnose, select
from dlm.errors import MissingRecordError
from dlm.store import Run, Store
from dlm.workflow.run_curves import curve_run

__all__ = ["Diagnoses", "Judged"]

_AGAIN_S = 3.0
_GROWING = (*ROLES["train_loss"], *ROLES["train_reward"])  # a step of rft that learnt nothing has no loss


@dataclass(frozen=True)
class Judged:
    """A run as the rules read it, what they say, and which checkpoint to keep."""

    curves: CurveRun
    diagnosis: Diagnosis
    selection: Selection


class Diagnoses:
    """The newest diagnosis of each run."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Hashable, float, Judged | None]] = {}
        self._lock = threading.Lock()
        self._judging = threading.Lock()  # one at a time: it is numpy on whole series

    def of(self, store: Store, run: Run, status: str) -> Judged | None:
        """What is to be said of a run now; None of a run without points."""
        points = tuple(store.following.mark(run.id, name) for name in _GROWING)
        mark = (status, run.finished_at, points)
        kept = self._found(run.id, mark, status)
        if kept is not None:
            return kept[2]
        with self._judging:
            kept = self._found(run.id, mark, status)
            if kept is not None:
                return kept[2]
            judged = _judge(store, run, status)
            with self._lock:
                self._kept[run.id] = (mark, time.monotonic(), judged)
        return judged

    def _found(
        self, run_id: int, mark: Hashable, status: str
    ) -> tuple[Hashable, float, Judged | None] | None:
        with self._lock:
            kept = self._kept.get(run_id)
        if kept is None:
            return None
        fresh = kept[0] == mark or (status == "running" and time.monotonic() - kept[1] < _AGAIN_S)
        return kept if fresh else None


def _judge(store: Store, run: Run, status: str) -> Judged | None:
    try:
        curves = curve_run(store, run)
    except MissingRecordError:
        return None  # nothing was logged
    return Judged(curves, diagnose(curves, running=status == "running"), select(curves))
