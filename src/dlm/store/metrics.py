"""Metrics: the numbers of a run, step by step, written off the training thread and read back as `Series`.

Points arrive as rows, so that other processes see a running curve, and come to rest as numeric blobs, so that a
million of them are read in milliseconds. A point is known by (run, name, step): logging a step again, as a resumed
run does, replaces it.
"""

from __future__ import annotations

import math
import queue
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlm.curves import Series, unit_of
from dlm.errors import MissingRecordError, StoreError
from dlm.store.database import Database, damaged

__all__ = ["MetricWriter", "Metrics", "points_from"]

COMPACT_ROWS = 4096  # rows of one series before they become a blob; below that, rows read fast enough
_FLUSH_SECONDS = 0.5
_FLUSH_POINTS = 256
_QUEUE_STEPS = 8192
_BUSY_TIMEOUT_S = 60.0


class _Point(NamedTuple):
    name: str
    step: int
    value: float
    time: float


class _Points(NamedTuple):
    """Arrays of one series, (N,) each, steps increasing."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    times: NDArray[np.float64]

    def up_to(self, count: int) -> _Points:
        """The first `count` points."""
        return _Points(self.steps[:count], self.values[:count], self.times[:count])


class Metrics:
    """The metrics of every run of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def writer(self, run_id: int) -> MetricWriter:
        """A writer for a running run; use it as a context manager. One at a time per run.

        Raises:
            MissingRecordError: no such run.
        """
        self._require_run(run_id)
        return MetricWriter(self._database, run_id)

    def names(self, run_id: int) -> tuple[str, ...]:
        """The names a run has points of, sorted."""
        rows = self._database.rows(
            "SELECT name FROM metric_names AS n"
            " WHERE EXISTS (SELECT 1 FROM metric_rows WHERE run_id = ?1 AND name_id = n.id)"
            " OR EXISTS (SELECT 1 FROM metric_blobs WHERE run_id = ?1 AND name_id = n.id) ORDER BY name",
            (run_id,),
        )
        return tuple(row["name"] for row in rows)

    def read(self, run_id: int, names: Sequence[str] | None = None) -> dict[str, Series]:
        """The series of a run by name, all of them or those of `names` that it has; a running run as far as it is.

        Raises:
            MissingRecordError: no such run.
        """
        self._require_run(run_id)
        found = {}
        with self._database.snapshot():
            for name in self.names(run_id):
                if names is None or name in names:
                    points = _read_points(self._database, run_id, self._name_id(name))
                    found[name] = Series(name, unit_of(name), points.steps, points.values, points.times)
        return found

    def add_series(self, run_id: int, series: Series) -> None:
        """Give a run that is over a whole curve at once, in place of what it has of that name; steps must rise.

        Raises:
            MissingRecordError: no such run.
        """
        self._require_run(run_id)
        if len(series) and not np.all(series.steps[1:] > series.steps[:-1]):
            raise ValueError("the steps of a series rise")
        with self._database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO metric_names (name) VALUES (?)", (series.name,))
            name_id = self._name_id(series.name)
            _replace(connection, run_id, name_id, _Points(series.steps, series.values, series.times))

    def last_time(self, run_id: int) -> float | None:
        """When the newest point of a run was logged, in seconds since 1970; None without points."""
        times = [series.times[-1] for series in self.read(run_id).values() if len(series)]
        return float(max(times)) if times else None

    def drop_after(self, run_id: int, step: int) -> None:
        """Forget every point after `step`: a run that resumes from its checkpoint of that step logs them anew.

        Call it before the writer is opened.
        """
        self._require_run(run_id)
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM metric_rows WHERE run_id = ? AND step > ?", (run_id, step))
            later = connection.execute(
                "SELECT DISTINCT name_id FROM metric_blobs WHERE run_id = ? AND last_step > ?", (run_id, step)
            ).fetchall()
            for (name_id,) in later:
                points = _read_points(self._database, run_id, name_id)
                keep = int(np.searchsorted(points.steps, step, side="right"))
                _replace(connection, run_id, name_id, points.up_to(keep))

    def compact(self, run_id: int) -> None:
        """Bring every series of a run into one blob each. Done when a writer closes; harmless at any time."""
        ids = self._database.rows(
            "SELECT name_id FROM metric_rows WHERE run_id = ?1 GROUP BY name_id UNION"
            " SELECT name_id FROM metric_blobs WHERE run_id = ?1 GROUP BY name_id HAVING COUNT(*) > 1",
            (run_id,),
        )
        for (name_id,) in ids:
            with self._database.transaction() as connection:
                _replace(connection, run_id, name_id, _read_points(self._database, run_id, name_id))

    def _name_id(self, name: str) -> int:
        row = self._database.row("SELECT id FROM metric_names WHERE name = ?", (name,))
        return -1 if row is None else int(row["id"])

    def _require_run(self, run_id: int) -> None:
        if self._database.row("SELECT 1 FROM runs WHERE id = ?", (run_id,)) is None:
            raise MissingRecordError(
                f"no run {run_id} in this store", next_step="dlm show DOCUMENT lists the runs"
            )


class MetricWriter:
    """Writes the points of one run from a thread and a connection of its own.

    `log` returns at once; it waits only when the disk has fallen thousands of steps behind. A fault in the thread
    is raised by the next `log`, `flush` or `close`, so that no point is lost unnoticed.
    """

    def __init__(self, database: Database, run_id: int) -> None:
        self._database = database
        self._run_id = run_id
        # An Event in the queue is a flush that somebody waits for; None is the end.
        self._queue: queue.Queue[list[_Point] | threading.Event | None] = queue.Queue(_QUEUE_STEPS)
        self._fault: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"metrics of run {run_id}", daemon=True)
        self._thread.start()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hand over the values of one step; any float, NaN and infinities too.

        Raises:
            StoreError: an earlier point could not be written.
            ValueError: the writer is closed.
        """
        self._require_open()
        if not -(2**63) <= step < 2**63:
            raise ValueError(f"step {step} is no 64-bit integer")
        now = time.time()
        self._put([_Point(name, int(step), float(value), now) for name, value in values.items()])

    def flush(self) -> None:
        """Return when everything logged so far can be read by others (before a checkpoint is called complete).

        Raises:
            StoreError: something could not be written.
        """
        self._require_open()
        done = threading.Event()
        self._put(done)
        while not done.wait(0.05):
            if not self._thread.is_alive():
                break
        self._raise_fault()

    def close(self) -> None:
        """Write what is left, compact the series, end the thread. Closing twice does nothing.

        Raises:
            StoreError: something could not be written.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._put(None)
        finally:
            self._thread.join()
        self._raise_fault()

    def __enter__(self) -> MetricWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except StoreError as fault:
            if error is None:
                raise
            error.add_note(f"metrics could not be written either: {fault}")

    def _put(self, item: list[_Point] | threading.Event | None) -> None:
        while True:
            self._raise_fault()
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("the metrics writer is closed")

    def _raise_fault(self) -> None:
        alive = self._thread.is_alive()  # asked first: the thread leaves its fault, then ends
        if self._fault is not None:
            raise self._fault
        if not self._closed and not alive:
            raise RuntimeError("the thread that writes metrics has died")

    def _work(self) -> None:
        try:
            database = self._database.sibling(busy_timeout_s=_BUSY_TIMEOUT_S, every_commit_to_disk=False)
            try:
                self._drain(_Batch(database, self._run_id))
                Metrics(database).compact(self._run_id)
            finally:
                database.close()
        except (
            StoreError,
            sqlite3.Error,
            MemoryError,
        ) as fault:  # carried to the thread that logs, and raised there
            self._fault = fault

    def _drain(self, batch: _Batch) -> None:
        """Move points from the queue to the database until the end is asked for."""
        deadline = math.inf  # of the oldest point that is not written yet
        while True:
            try:
                wait = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
                item = self._queue.get(timeout=wait)
            except queue.Empty:
                item = []
            if isinstance(item, list):
                batch.points.extend(item)
                if batch.points and deadline == math.inf:
                    deadline = time.monotonic() + _FLUSH_SECONDS
                if len(batch.points) < _FLUSH_POINTS and time.monotonic() < deadline:
                    continue
            batch.write()
            deadline = math.inf
            if isinstance(item, threading.Event):
                item.set()
            elif item is None:
                return


class _Batch:
    """Points on their way into the database, with what the writer's thread has to remember between batches."""

    def __init__(self, database: Database, run_id: int) -> None:
        self.points: list[_Point] = []
        self._database = database
        self._run_id = run_id
        self._name_ids: dict[str, int] = {}
        left = database.rows(
            "SELECT name_id, COUNT(*) FROM metric_rows WHERE run_id = ? GROUP BY name_id", (run_id,)
        )
        self._rows: Counter[int] = Counter({row[0]: row[1] for row in left})

    def write(self) -> None:
        """Write the points in one short transaction; series that have grown long become blobs in one each."""
        if not self.points:
            return
        with self._database.transaction() as connection:
            known = self._known_names(connection)
            connection.executemany(
                "INSERT OR REPLACE INTO metric_rows (run_id, name_id, step, value, time) VALUES (?, ?, ?, ?, ?)",
                [(self._run_id, known[p.name], p.step, p.value, p.time) for p in self.points],
            )
        self._name_ids = known
        self._rows.update(known[point.name] for point in self.points)
        self.points.clear()
        for name_id, count in self._rows.items():
            if count >= COMPACT_ROWS:
                with self._database.transaction() as connection:
                    rows = _read_rows(self._database, self._run_id, name_id)
                    _insert_blob(connection, self._run_id, name_id, rows)
                    _delete_rows(connection, self._run_id, name_id)
                self._rows[name_id] = 0

    def _known_names(self, connection: sqlite3.Connection) -> dict[str, int]:
        known = dict(self._name_ids)
        for name in {point.name for point in self.points} - known.keys():
            connection.execute("INSERT OR IGNORE INTO metric_names (name) VALUES (?)", (name,))
            row = connection.execute("SELECT id FROM metric_names WHERE name = ?", (name,)).fetchone()
            known[name] = int(row[0])
        return known


def _read_points(database: Database, run_id: int, name_id: int) -> _Points:
    """One series: its blobs in their order, then its rows; on equal steps what comes later wins."""
    blobs = database.rows(
        'SELECT count, steps, "values", times FROM metric_blobs WHERE run_id = ? AND name_id = ? ORDER BY id',
        (run_id, name_id),
    )
    parts = [_from_blob(database, row) for row in blobs]
    rows = _read_rows(database, run_id, name_id)
    if len(rows.steps) or not parts:
        parts.append(rows)
    if len(parts) == 1:
        return parts[0]
    steps, values, times = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if np.all(steps[1:] > steps[:-1]):  # the usual case: nothing was logged twice
        return _Points(steps, values, times)
    order = np.argsort(steps, kind="stable")
    ordered = steps[order]
    last_of_equals = np.append(ordered[1:] != ordered[:-1], True)
    chosen = order[last_of_equals]
    return _Points(steps[chosen], values[chosen], times[chosen])


def points_from(database: Database, run_id: int, name_id: int, step: int | None) -> _Points:
    """One series from `step` on, that step included; None: all of it. Blobs are read only where they reach that far."""
    if step is not None:
        reaching = database.row(
            "SELECT 1 FROM metric_blobs WHERE run_id = ? AND name_id = ? AND last_step >= ?",
            (run_id, name_id, step),
        )
        if reaching is None:
            return _read_rows(database, run_id, name_id, step)
    points = _read_points(database, run_id, name_id)
    first = 0 if step is None else int(np.searchsorted(points.steps, step))
    return _Points(points.steps[first:], points.values[first:], points.times[first:])


def _read_rows(database: Database, run_id: int, name_id: int, step: int = -(2**63)) -> _Points:
    rows = database.rows(
        "SELECT step, value, time FROM metric_rows WHERE run_id = ? AND name_id = ? AND step >= ? ORDER BY step",
        (run_id, name_id, step),
    )
    if not rows:
        return _Points(np.empty(0, np.int64), np.empty(0), np.empty(0))
    steps, values, times = zip(*rows, strict=True)
    # float64 of None is NaN, which is how NULL is meant
    return _Points(np.array(steps, np.int64), np.array(values, np.float64), np.array(times, np.float64))


def _from_blob(database: Database, row: sqlite3.Row) -> _Points:
    if any(len(row[name]) != 8 * row["count"] for name in ("steps", "values", "times")):
        raise damaged(database.path, "a series of metrics has the wrong length")
    return _Points(
        np.frombuffer(row["steps"], "<i8").astype(np.int64, copy=False),
        np.frombuffer(row["values"], "<f8").astype(np.float64, copy=False),
        np.frombuffer(row["times"], "<f8").astype(np.float64, copy=False),
    )


def _replace(connection: sqlite3.Connection, run_id: int, name_id: int, points: _Points) -> None:
    """Make `points` the whole of a series, as one blob."""
    connection.execute("DELETE FROM metric_blobs WHERE run_id = ? AND name_id = ?", (run_id, name_id))
    _delete_rows(connection, run_id, name_id)
    _insert_blob(connection, run_id, name_id, points)


def _delete_rows(connection: sqlite3.Connection, run_id: int, name_id: int) -> None:
    connection.execute("DELETE FROM metric_rows WHERE run_id = ? AND name_id = ?", (run_id, name_id))


def _insert_blob(connection: sqlite3.Connection, run_id: int, name_id: int, points: _Points) -> None:
    if not len(points.steps):
        return
    connection.execute(
        'INSERT INTO metric_blobs (run_id, name_id, count, last_step, steps, "values", times)'
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            run_id,
            name_id,
            len(points.steps),
            int(points.steps[-1]),
            points.steps.astype("<i8", copy=False).tobytes(),
            points.values.astype("<f8", copy=False).tobytes(),
            points.times.astype("<f8", copy=False).tobytes(),
        ),
    )
