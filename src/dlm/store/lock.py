"""The lock of one store: one process trains, mines or evaluates at a time; readers are never kept out.

It is the kernel's `flock` on the file `lock`, so a process that dies lets go by dying, and there is no stale lock to
break. What the file says (who, since when) is only there to be shown. The file is never deleted: a lock on a
deleted file would keep nobody out.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import weakref
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from dlm.errors import LockedError, StoreError
from dlm.store.database import utc_now

__all__ = ["Holder", "StoreLock", "holder"]

_PATIENCE_S = 0.5  # a reader that asks `holder` has the lock for microseconds; that must not fail a training


@dataclass(frozen=True)
class Holder:
    """Who holds a lock. `pid` 0: someone whose entry cannot be read."""

    pid: int
    host: str
    command: str
    since: str

    def __str__(self) -> str:
        """`process 123 (dlm train notes.dlm), since 10:03:11`, in local time; the date and the host when they differ."""
        if not self.pid:
            return "another process"
        place = f" on {self.host}" if self.host != socket.gethostname() else ""
        try:
            since = datetime.fromisoformat(self.since).astimezone()
        except ValueError:
            return f"process {self.pid}{place} ({self.command})"
        today = since.date() == datetime.now(since.tzinfo).date()
        shown = since.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")
        return f"process {self.pid}{place} ({self.command}), since {shown}"


class StoreLock:
    """The lock of the store at `path`, free or held by this object."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        _locks.add(self)

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self, command: str) -> None:
        """Take the lock and write down who has it.

        Raises:
            LockedError: another process (or another lock object of this one) holds it; its entry is in the message.
            StoreError: the file cannot be written.
        """
        try:
            descriptor = self._wait_for_it()
            if descriptor is None:
                raise _locked(self.path)
            entry = Holder(os.getpid(), socket.gethostname(), command, utc_now())
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(entry)).encode(), 0)
        except OSError as error:
            raise StoreError(
                f"the store's lock cannot be taken: {error.strerror}",
                where=str(self.path),
                next_step="make the folder writable, or set DLM_HOME to another one",
            ) from error
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go; does nothing when the lock is not held."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def _wait_for_it(self) -> int | None:
        """An open descriptor with the lock, or None when someone else keeps it."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            # os.open is not inherited over exec; forked children are dealt with below.
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                    return descriptor
            except (BlockingIOError, FileNotFoundError):
                pass  # held by someone, or the whole store was moved away meanwhile
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            if time.monotonic() > deadline:
                return None
            time.sleep(0.02)

    def _forget(self) -> None:
        """In a forked child: close the copy, so that a child who outlives its parent does not keep the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)  # not LOCK_UN, which would take the lock from the parent
            self._descriptor = None


_locks: weakref.WeakSet[StoreLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_locks):
        lock._forget()


os.register_at_fork(after_in_child=_forget_all)


def holder(path: Path) -> Holder | None:
    """Who holds the lock at `path`, or None. Never waits; works on read-only stores."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None  # no lock file, no holder
    try:
        text = os.read(descriptor, 65536)
        if not text:
            return None  # released in order; most queries end here, without touching the lock
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _parse(text)
        return None  # what the file says is from a process that died
    finally:
        os.close(descriptor)


def _parse(text: bytes) -> Holder:
    try:
        entry = json.loads(text)
        return Holder(int(entry["pid"]), str(entry["host"]), str(entry["command"]), str(entry["since"]))
    except (ValueError, KeyError, TypeError):
        return Holder(0, "", "", "")


def _locked(path: Path) -> LockedError:
    who = _read_entry(path)
    same_host = who.pid and who.host == socket.gethostname()
    return LockedError(
        f"the store is held by {who}",
        where=str(path.parent),
        next_step="wait until it ends, or stop it"
        + (f" with: kill -INT {who.pid} (a stopped training can be resumed)" if same_host else ""),
    )


def _read_entry(path: Path) -> Holder:
    try:
        return _parse(path.read_bytes())
    except OSError:
        return Holder(0, "", "", "")
