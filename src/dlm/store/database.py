"""The SQLite database of one store: opening, migrating, transactions, and faults said in words.

Write-ahead logging lets readers (`show`, the web pages) look on while a run writes; every write is one short
transaction. Schema changes are numbered files in `migrations/`, each applied in a transaction of its own together
with its number (`user_version`), so that a process killed half-way leaves the old schema or the new one.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dlm.errors import StoreError

__all__ = ["Database", "damaged", "from_json", "plain_text", "to_json", "utc_now"]

BUSY_TIMEOUT_S = 30.0


def utc_now() -> str:
    """The time now as ISO 8601 in UTC with milliseconds, `2026-01-31T10:03:11.042Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_json(value: Any) -> str:
    """JSON text for a column. NaN and infinities are kept (Python's own spelling), since only we read it; lone
    surrogates, as in file names that are not UTF-8, are kept as escapes.
    """
    return json.dumps(value, separators=(",", ":"))


def from_json(text: str, path: Path) -> dict[str, Any]:
    """The JSON object of a column.

    Raises:
        StoreError: the column holds something else, so the database is damaged.
    """
    try:
        value = json.loads(text)
    except (ValueError, TypeError):
        value = None
    if not isinstance(value, dict):
        raise damaged(path, "a record cannot be read")
    return value


def plain_text(text: str) -> str:
    """A message as a text column can hold it: lone surrogates are spelled out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def damaged(path: Path, detail: str) -> StoreError:
    """The error for a database that is not what we wrote."""
    return StoreError(
        f"the store's database is damaged: {detail}",
        where=str(path),
        next_step=f"put back a copy of it, or move {path.parent} aside and train again "
        "(the document is untouched; each folder under versions/ still loads as a PEFT adapter)",
    )


@cache
def _migrations() -> tuple[str, ...]:
    """The SQL of every migration; the one at index i brings the schema to version i + 1."""
    folder = resources.files("dlm.store") / "migrations"
    files = sorted(
        (item for item in folder.iterdir() if item.name.endswith(".sql")), key=lambda item: item.name
    )
    for number, item in enumerate(files, start=1):
        if int(item.name.split("_")[0]) != number:
            raise RuntimeError(f"migrations are numbered without gaps: {item.name} stands in place {number}")
    return tuple(item.read_text(encoding="utf-8") for item in files)


def _statements(script: str) -> Iterator[str]:
    """The single statements of a script, in order (`executescript` would end our transaction)."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if any(line.strip() and not line.strip().startswith("--") for line in pending.splitlines()):
        raise RuntimeError("a migration ends in the middle of a statement")


class Database:
    """One connection to a store's database; used by the thread that opened it.

    A store in a folder that cannot be written (a copy on a read-only disk) opens for reading.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, *, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
        self._connection = connection

    @classmethod
    def open(
        cls, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S, every_commit_to_disk: bool = True
    ) -> Database:
        """Open the database, made or migrated first where needed.

        `every_commit_to_disk=False` is for metrics: the last half second may be lost in a power cut (not in a crash
        of the process), and nothing that was written before is.

        Raises:
            StoreError: it is damaged, made by a newer dlm, or the disk refuses.
        """
        read_only = not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK))
        with _explained(path):
            connection = _connect(path, read_only, busy_timeout_s)
        database = cls(path, connection, read_only=read_only)
        try:
            with _explained(path):
                connection.row_factory = sqlite3.Row
                connection.execute("PRAGMA foreign_keys = ON")
                _refuse_newer(path, _schema_version(connection))
                if not read_only:
                    _use_write_ahead_log(connection, busy_timeout_s)
                    connection.execute(f"PRAGMA synchronous = {'FULL' if every_commit_to_disk else 'NORMAL'}")
                database._migrate()
        except BaseException:
            connection.close()
            raise
        return database

    def sibling(
        self, *, busy_timeout_s: float = BUSY_TIMEOUT_S, every_commit_to_disk: bool = True
    ) -> Database:
        """A second connection to the same database, for another thread (which must be the one to call this)."""
        return Database.open(
            self.path, busy_timeout_s=busy_timeout_s, every_commit_to_disk=every_commit_to_disk
        )

    def in_memory(self) -> Database:
        """A copy that only this process sees, and that can be written: what a read-only store is indexed in."""
        with _explained(self.path):
            connection = sqlite3.connect(":memory:", isolation_level=None)
            self._connection.backup(connection)
            connection.row_factory = sqlite3.Row
        return Database(self.path, connection, read_only=False)

    def close(self) -> None:
        """Close the connection; closing twice does nothing."""
        with _explained(self.path):
            self._connection.close()

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Every row of a query."""
        with _explained(self.path):
            return self._connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Row | None:
        """The first row of a query, or None."""
        with _explained(self.path):
            found: sqlite3.Row | None = self._connection.execute(sql, parameters).fetchone()
            return found

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: all of it happens, or none.

        Raises:
            StoreError: the store is read-only, the disk is full, or another process writes for longer than we wait.
        """
        if self.read_only:
            raise _read_only(self.path)
        with _explained(self.path), self._block("BEGIN IMMEDIATE"):
            yield self._connection

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Queries inside see one state of the database, whatever others write meanwhile."""
        with _explained(self.path), self._block("BEGIN"):
            yield

    @contextmanager
    def _block(self, begin: str) -> Iterator[None]:
        self._connection.execute(begin)
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # a full disk makes SQLite roll back by itself
                self._connection.execute("ROLLBACK")
            raise

    def _migrate(self) -> None:
        """Bring the schema up to date, one migration and one transaction after the other."""
        scripts = _migrations()
        while _schema_version(self._connection) < len(scripts):
            if self.read_only:
                raise StoreError(
                    "this store was made by an older dlm and cannot be brought up to date: its folder is read-only",
                    where=str(self.path),
                    next_step="copy the folder to a disk that can be written",
                )
            with self.transaction() as connection:
                version = _schema_version(connection)  # another process may have been faster
                if version < len(scripts):
                    for statement in _statements(scripts[version]):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {version + 1}")


def _connect(path: Path, read_only: bool, busy_timeout_s: float) -> sqlite3.Connection:
    address = f"file:{quote(os.fsencode(path))}?mode={'ro' if read_only else 'rwc'}"
    log = path.with_name(path.name + "-wal")
    if read_only and not (log.exists() and log.stat().st_size):
        # Without a log nobody is writing, and SQLite could not make its shared-memory file in this folder.
        address += "&immutable=1"
    return sqlite3.connect(address, uri=True, timeout=busy_timeout_s, isolation_level=None)


def _schema_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _refuse_newer(path: Path, version: int) -> None:
    known = len(_migrations())
    if not 0 <= version <= known:
        raise StoreError(
            "this store was made by a newer dlm",
            expected=f"schema {known} or older",
            found=f"schema {version}",
            where=str(path),
            next_step="pip install --upgrade dlm",
        )


def _use_write_ahead_log(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    """Switch to write-ahead logging, which is kept in the file. SQLite does not wait here by itself."""
    deadline = time.monotonic() + busy_timeout_s
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if _code(error) != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn SQLite's faults that a person can act on into `StoreError`; programming errors pass as they are."""
    try:
        yield
    except sqlite3.Error as error:
        known = _explain(error, path)
        if known is None:
            raise
        raise known from error
    except UnicodeDecodeError as error:  # from text of a damaged page, or SQLite's own message about it
        raise damaged(path, "text that is not UTF-8") from error


def _explain(error: sqlite3.Error, path: Path) -> StoreError | None:
    code, text = _code(error), str(error)
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT")):
        return damaged(path, text)
    if "no such table" in text or "no such column" in text or "Could not decode" in text:
        return damaged(path, text)
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreError(
            "another process has been writing to the store for too long",
            where=str(path),
            next_step="run the command again in a moment",
        )
    if code.startswith("SQLITE_READONLY"):
        return _read_only(path)
    if code.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return StoreError(
            f"the disk refused to write the store: {text}",
            where=str(path),
            next_step="free some space (dlm prune DOCUMENT does), then run the command again",
        )
    if code.startswith(("SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return StoreError(
            f"the store's database cannot be opened: {text}",
            where=str(path),
            next_step="look at the permissions of its folder, or set DLM_HOME to another one",
        )
    return None


def _code(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", ""))


def _read_only(path: Path) -> StoreError:
    return StoreError(
        "the store cannot be written: its folder or database is read-only",
        where=str(path),
        next_step="make it writable, or set DLM_HOME to another folder",
    )
