"""Runs: one row for each training, mining or evaluation, with all that is needed to explain or repeat it.

    running ──► complete | failed | interrupted | stopped
    interrupted | stopped ──► running (resume) | failed (discarded)

A run is `running` only while its process holds the store's lock; whoever takes the lock next turns what was left
`running` by a dead process into `interrupted`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from dlm.errors import MissingRecordError, StoreError, UsageError
from dlm.store.database import Database, from_json, plain_text, to_json, utc_now

__all__ = ["RUN_KINDS", "RUN_STATUSES", "Run", "RunEvent", "RunSpec", "Runs"]

RUN_KINDS = ("sft", "preference", "reward", "rft", "mine", "eval")
RUN_STATUSES = ("running", "complete", "failed", "interrupted", "stopped")
_RESUMABLE = ("interrupted", "stopped")
_MAY_BECOME = {
    "running": ("complete", "failed", "interrupted", "stopped"),
    "interrupted": ("failed",),
    "stopped": ("failed",),
}


@dataclass(frozen=True)
class RunSpec:
    """What is known of a run when it starts."""

    kind: str
    method: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    parent_version: str | None = None
    data_hash: str = ""
    base: str = ""
    base_fingerprint: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)
    threads: int = 0
    layout: str = ""
    seed: int = 0
    document_sha256: str = ""
    planned_steps: int = 0


@dataclass(frozen=True)
class Run(RunSpec):
    """A run as the store knows it. Times are ISO 8601 in UTC; `version` is the one made at its own
    end, not one of an earlier checkpoint that was promoted later: of its versions that of the highest step, the first."""

    id: int = 0
    status: str = "running"
    started_at: str = ""
    finished_at: str | None = None
    message: str = ""
    version: str | None = None
    imported: Mapping[str, Any] | None = None  # where it was trained, for a run that `dlm import` brought

    @property
    def resumable(self) -> bool:
        """Whether the run may go on from its newest checkpoint."""
        return self.status in _RESUMABLE and self.imported is None


@dataclass(frozen=True)
class RunEvent:
    """Something that happened in a run: a warning, an automatic choice, a probe's answer."""

    id: int
    run_id: int
    kind: str
    data: Mapping[str, Any]
    at: str


_SPEC_COLUMNS = tuple(item.name for item in fields(RunSpec))
_JSON_COLUMNS = ("recipe", "libraries")
_SELECT = "SELECT runs.*, (SELECT name FROM versions WHERE run_id = runs.id ORDER BY step DESC, number LIMIT 1) AS version FROM runs"


class Runs:
    """The runs of one store. `require_lock` raises unless this process holds the store's lock."""

    def __init__(self, database: Database, require_lock: Callable[[str], None]) -> None:
        self._database = database
        self._require_lock = require_lock

    def start(self, spec: RunSpec) -> Run:
        """Record a new run as `running`.

        Raises:
            RuntimeError: the store's lock is not held; without it the next process would call this run dead.
            MissingRecordError: no such parent version.
        """
        self._require_lock("start a run")
        if spec.kind not in RUN_KINDS:
            raise ValueError(f"run kind {spec.kind!r} is none of {', '.join(RUN_KINDS)}")
        values = {name: getattr(spec, name) for name in _SPEC_COLUMNS}
        values |= {name: to_json(dict(values[name])) for name in _JSON_COLUMNS}
        values |= {"status": "running", "started_at": utc_now()}
        with self._database.transaction() as connection:
            parent = spec.parent_version
            if (
                parent
                and not connection.execute("SELECT 1 FROM versions WHERE name = ?", (parent,)).fetchone()
            ):
                raise MissingRecordError(f"no version {parent} in this store", next_step="dlm show DOCUMENT")
            cursor = connection.execute(
                f"INSERT INTO runs ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
                tuple(values.values()),
            )
        return self.get(int(cursor.lastrowid or 0))

    def record(
        self,
        spec: RunSpec,
        *,
        status: str,
        started_at: str = "",
        finished_at: str | None = None,
        message: str = "",
        imported: Mapping[str, Any] | None = None,
    ) -> Run:
        """Record a run that is over: no process works on it, so that it takes no lock. Times are now where none is given.

        `imported` is where it was trained, if not here.
        """
        if spec.kind not in RUN_KINDS or status not in RUN_STATUSES or status == "running":
            raise ValueError(f"no run that is over: {spec.kind!r}, {status!r}")
        now = utc_now()
        values = {name: getattr(spec, name) for name in _SPEC_COLUMNS}
        values |= {name: to_json(dict(values[name])) for name in _JSON_COLUMNS}
        values |= {
            "status": status,
            "started_at": started_at or now,
            "finished_at": finished_at or started_at or now,
            "message": plain_text(message),
            "imported": None if imported is None else to_json(dict(imported)),
        }
        with self._database.transaction() as connection:
            cursor = connection.execute(
                f"INSERT INTO runs ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
                tuple(values.values()),
            )
        return self.get(int(cursor.lastrowid or 0))

    def get(self, run_id: int) -> Run:
        """One run.

        Raises:
            MissingRecordError: no such run; the newest one is named.
        """
        row = self._database.row(f"{_SELECT} WHERE id = ?", (run_id,))
        if row is None:
            newest = self.latest()
            raise MissingRecordError(
                f"no run {run_id} in this store",
                expected=f"a number from 1 to {newest.id}" if newest else "",
                found="" if newest else "there are no runs yet",
                next_step="dlm show DOCUMENT lists the runs"
                if newest
                else "dlm train DOCUMENT makes the first",
            )
        return self._run(row)

    def list(self) -> tuple[Run, ...]:
        """Every run, oldest first."""
        return tuple(self._run(row) for row in self._database.rows(f"{_SELECT} ORDER BY id"))

    def latest(self, kind: str | None = None, status: str | None = None) -> Run | None:
        """The newest run, of one kind and in one status where these are given."""
        row = self._database.row(
            f"{_SELECT} WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR status = ?2) ORDER BY id DESC LIMIT 1",
            (kind, status),
        )
        return None if row is None else self._run(row)

    def finish(self, run_id: int, status: str, message: str = "") -> Run:
        """Record how a run ended. Ending it again with the same status does nothing.

        Raises:
            MissingRecordError: no such run.
            StoreError: the run is in a status that cannot become this one.
        """
        if status not in RUN_STATUSES or status == "running":
            raise ValueError(f"{status!r} is no way to finish a run")
        with self._database.transaction() as connection:
            before = self.get(run_id)
            if before.status == status:
                return before
            if status not in _MAY_BECOME.get(before.status, ()):
                raise StoreError(f"run {run_id} is {before.status} and cannot become {status}")
            connection.execute(
                "UPDATE runs SET status = ?, message = ?, finished_at = ? WHERE id = ?",
                (status, plain_text(message), utc_now(), run_id),
            )
        return self.get(run_id)

    def resume(self, run_id: int) -> Run:
        """Set an interrupted or stopped run `running` again, with an event that says so.

        Raises:
            RuntimeError: the store's lock is not held.
            MissingRecordError: no such run.
            UsageError: the run ended, so there is nothing to resume.
        """
        self._require_lock("resume a run")
        with self._database.transaction() as connection:
            before = self.get(run_id)
            if not before.resumable:
                raise UsageError(
                    f"run {run_id} is {before.status}: there is nothing to resume",
                    next_step="dlm train DOCUMENT starts a new run",
                )
            connection.execute(
                "UPDATE runs SET status = 'running', message = '', finished_at = NULL WHERE id = ?", (run_id,)
            )
            _add_event(connection, run_id, "resumed", {"was": before.status, "since": before.finished_at})
        return self.get(run_id)

    def mark_interrupted(self, last_sign: Callable[[int], float | None]) -> tuple[Run, ...]:
        """Turn runs left `running` by dead processes into `interrupted`; returns them. For whoever took the lock.

        `last_sign(run_id)` tells when the run was last heard of (seconds since 1970): that is its end.
        """
        self._require_lock("mark runs as interrupted")
        left = [run.id for run in self.list() if run.status == "running"]
        for run_id in left:
            heard = last_sign(run_id)
            with self._database.transaction() as connection:
                connection.execute(
                    "UPDATE runs SET status = 'interrupted', message = ?,"
                    " finished_at = COALESCE(strftime('%Y-%m-%dT%H:%M:%fZ', ?, 'unixepoch'), started_at) WHERE id = ?",
                    ("its process ended without a word", heard, run_id),
                )
                _add_event(connection, run_id, "interrupted", {"noticed_at": utc_now()})
        return tuple(self.get(run_id) for run_id in left)

    def event(self, run_id: int, kind: str, data: Mapping[str, Any]) -> None:
        """Record an event of a run; `data` is whatever JSON can hold.

        Raises:
            MissingRecordError: no such run.
        """
        with self._database.transaction() as connection:
            self.get(run_id)
            _add_event(connection, run_id, kind, data)

    def events(self, run_id: int, kind: str | None = None) -> tuple[RunEvent, ...]:
        """The events of a run in their order, of one kind where it is given.

        Raises:
            MissingRecordError: no such run.
        """
        self.get(run_id)
        rows = self._database.rows(
            "SELECT * FROM events WHERE run_id = ?1 AND (?2 IS NULL OR kind = ?2) ORDER BY id", (run_id, kind)
        )
        path = self._database.path
        return tuple(
            RunEvent(r["id"], r["run_id"], r["kind"], from_json(r["data"], path), r["at"]) for r in rows
        )

    def _run(self, row: sqlite3.Row) -> Run:
        values = {item.name: row[item.name] for item in fields(Run)}
        known = (*_JSON_COLUMNS, *(["imported"] if values["imported"] is not None else []))
        values |= {name: from_json(values[name], self._database.path) for name in known}
        return Run(**values)


def _add_event(connection: sqlite3.Connection, run_id: int, kind: str, data: Mapping[str, Any]) -> None:
    connection.execute(
        "INSERT INTO events (run_id, kind, data, at) VALUES (?, ?, ?, ?)",
        (run_id, kind, to_json(dict(data)), utc_now()),
    )
