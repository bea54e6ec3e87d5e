"""Runs as the TRAINING tab lists them: what a person wants to know of each at a glance."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import UTC, datetime

from dlm.curves import ROLES, Series
from dlm.store import Run, Store
from dlm.web.series_cache import SeriesCache
from dlm.workflow.project import runs_as_they_are
from dlm.workflow.run_curves import TRAINED

__all__ = ["STATUS_WORDS", "RunRow", "RunRows", "duration"]

LAST_TENTH = 0.1
"""Of the steps: what a smoothed final figure is the mean of."""

STATUS_WORDS = {
    "running": "RUNNING",
    "complete": "COMPLETE",
    "failed": "FAILED",
    "interrupted": "INTERRUPTED",
    "stopped": "INTERRUPTED",  # by a person; resumable like any other interruption
}


@dataclass(frozen=True)
class RunRow:
    """One run. Losses in nats; accuracies are shares; `held_out_reward` is the newest; `elapsed_s` runs from the start to the
    end."""

    run: Run
    status: str
    steps: int
    loss: float | None
    last_loss: float | None
    accuracy: float | None
    last_accuracy: float | None
    reward: float | None
    last_reward: float | None
    held_out_reward: float | None
    elapsed_s: float | None
    tokens_per_second: float | None
    remaining_s: float | None
    is_current: bool
    resumable: bool

    @property
    def word(self) -> str:
        return STATUS_WORDS.get(self.status, self.status.upper())

    @property
    def title(self) -> str:
        """`preference · dpo`."""
        method = self.run.method
        return f"{self.run.kind} · {method}" if method and method != self.run.kind else self.run.kind

    @property
    def parent(self) -> str | None:
        """The version it started from, None for the base; of an imported run as it was named where it trained."""
        imported = self.run.imported or {}
        return self.run.parent_version or imported.get("parent_version")

    @property
    def progress(self) -> float | None:
        """The share of the planned steps that is done, None without a plan."""
        planned = self.run.planned_steps
        return min(1.0, self.steps / planned) if planned else None


class RunRows:
    """The rows of one store's runs. What ended is computed once."""

    def __init__(self, cache: SeriesCache) -> None:
        self._cache = cache
        self._ended: dict[Hashable, RunRow] = {}
        self._lock = threading.Lock()

    def all(self, store: Store) -> list[RunRow]:
        """The runs that trained, newest first."""
        current = store.versions.current_name()
        runs = [(run, status) for run, status in runs_as_they_are(store) if run.kind in TRAINED]
        newest_resumable = {
            run.kind: run.id
            for run, status in runs
            if status in ("interrupted", "stopped") and run.imported is None
        }
        return [
            self._row(
                store,
                run,
                status,
                current=run.version is not None and run.version == current,
                resumable=newest_resumable.get(run.kind) == run.id,
            )
            for run, status in reversed(runs)
        ]

    def _row(self, store: Store, run: Run, status: str, *, current: bool, resumable: bool) -> RunRow:
        loss = self._series(store, run.id, "train_loss")
        pace = self.pace(store, run)
        key = (run.id, status, run.finished_at, run.version, len(pace) if pace else 0, current, resumable)
        with self._lock:
            found = self._ended.get(key)
        if found is not None:
            return found
        accuracy = self._series(store, run.id, "train_accuracy")
        reward = self._series(store, run.id, "train_reward")
        held_out = self._series(store, run.id, "valid_reward")
        speed = self._series(store, run.id, "tokens_per_second") if status == "running" else None
        row = RunRow(
            run=run,
            status=status,
            steps=0 if pace is None else int(pace.steps[-1]),
            loss=_smoothed(loss),
            last_loss=_last(loss),
            accuracy=_smoothed(accuracy),
            last_accuracy=_last(accuracy),
            reward=_smoothed(reward),
            last_reward=_last(reward),
            held_out_reward=_last(held_out),
            elapsed_s=_elapsed(run, status, pace),
            tokens_per_second=_smoothed(speed),
            remaining_s=_remaining(run, pace) if status == "running" else None,
            is_current=current,
            resumable=resumable,
        )
        if status != "running":
            with self._lock:
                self._ended[key] = row
        return row

    def pace(self, store: Store, run: Run) -> Series | None:
        """What a run logs at every step: its loss, or in rft, where a step that learnt nothing has none, its reward."""
        reward = self._series(store, run.id, "train_reward") if run.kind == "rft" else None
        return reward or self._series(store, run.id, "train_loss")

    def _series(self, store: Store, run_id: int, role: str) -> Series | None:
        for name in ROLES.get(role, (role,)):
            series = self._cache.read(store, run_id, name)
            if series is not None and len(series):
                return series
        return None


def duration(seconds: float | None) -> str:
    """Wall time for people: `0.8 s`, `39 min`, `2 h 05 min`; "–" for none."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"


def _smoothed(series: Series | None) -> float | None:
    return None if series is None or not len(series) else series.tail_mean(LAST_TENTH)


def _last(series: Series | None) -> float | None:
    return None if series is None or not len(series) else float(series.values[-1])


def _elapsed(run: Run, status: str, pace: Series | None) -> float | None:
    """From the run's start to its end, to now, or (of one whose process died) to its last word."""
    started = datetime.fromisoformat(run.started_at).timestamp()
    if run.finished_at:
        return max(0.0, datetime.fromisoformat(run.finished_at).timestamp() - started)
    if status == "running":
        return max(0.0, datetime.now(UTC).timestamp() - started)
    if pace is not None and len(pace) and math.isfinite(pace.times[-1]):
        return max(0.0, float(pace.times[-1]) - started)
    return None


def _remaining(run: Run, pace: Series | None) -> float | None:
    """Seconds to the planned end, at the pace of the last fifty steps."""
    if pace is None or len(pace) < 2 or not run.planned_steps:
        return None
    recent = slice(-50, None)
    steps, times = pace.steps[recent], pace.times[recent]
    step_s = float(times[-1] - times[0]) / max(1, int(steps[-1] - steps[0]))
    left = run.planned_steps - int(steps[-1])
    since = max(0.0, time.time() - float(times[-1]))
    return max(0.0, left * step_s - since) if math.isfinite(step_s) else None
