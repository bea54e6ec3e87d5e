"""The store of one document, and the home of all stores: the doors through which other rooms come in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from dlm.errors import CopiedDocumentError, StoreError
from dlm.store.checkpoints import SAVED, SavedCheckpoint, list_checkpoints, publish_checkpoint
from dlm.store.database import Database, utc_now
from dlm.store.files import disk_faults
from dlm.store.following import Following
from dlm.store.layout import StoreLayout, create_home, home_exists, home_root
from dlm.store.lock import Holder, StoreLock, holder
from dlm.store.metrics import Metrics
from dlm.store.mining import Mining
from dlm.store.runs import Runs
from dlm.store.signals import Signals
from dlm.store.upkeep import PruneReport, Recovery, prune, recover
from dlm.store.versions import Version, Versions

__all__ = ["Home", "Store"]

_HEADER_BYTES = 4096  # where a dlm_id stands; enough to tell whether a file carries it


@dataclass(frozen=True)
class Home:
    """The folder that holds the store of every document. Opening it writes nothing."""

    root: Path

    @classmethod
    def open(cls, root: Path | None = None) -> Home:
        """The home at `root`, else at `$DLM_HOME`, else in the platform's data folder. It may not exist yet.

        Raises:
            ForeignFolderError: the folder holds something that dlm did not make.
            StoreError: it cannot be read, or a newer dlm made it.
        """
        found = Path(os.path.abspath(root)) if root is not None else home_root()
        home_exists(found)
        return cls(found)

    def store(self, dlm_id: str) -> Store:
        """The store of a document, made if there is none; the home too.

        Raises:
            StoreError: it cannot be made or used.
        """
        create_home(self.root)
        layout = StoreLayout.of(self.root, dlm_id)
        layout.create()
        return Store(layout, dlm_id)

    def find(self, dlm_id: str) -> Store | None:
        """The store of a document, or None when there is none. Makes nothing; works on read-only folders.

        Raises:
            StoreError: it cannot be used.
        """
        layout = StoreLayout.of(self.root, dlm_id)
        with disk_faults(layout.folder):
            exists = layout.database.exists()
        return Store(layout, dlm_id) if exists else None


class Store:
    """What is remembered about one document. Use it in the thread that opened it; a context manager closes it."""

    def __init__(self, layout: StoreLayout, dlm_id: str) -> None:
        self.dlm_id = dlm_id
        self.folder = layout.folder
        self._layout = layout
        self._lock = StoreLock(layout.lock)
        self._lock_depth = 0
        self._database = Database.open(layout.database)
        try:
            self._check_identity()
        except BaseException:
            self._database.close()
            raise
        self.runs = Runs(self._database, self._require_lock)
        self.metrics = Metrics(self._database)
        self.following = Following(self._database)
        self.mining = Mining(self._database)
        self.signals = Signals(self._database, self.runs, self.mining)
        self.versions = Versions(self._database, layout, dlm_id, self._require_lock)

    def close(self) -> None:
        """Close the database; the store cannot be used afterwards."""
        self.signals.close()
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def lock(self, command: str) -> Iterator[Recovery]:
        """Hold the store against other processes; `command` is what they are told. Yields what had to be mended.

        Within the lock, taking it again does nothing.

        Raises:
            LockedError: another process holds it; its pid, command and start are in the message.
        """
        if self._lock_depth == 0:
            self._lock.acquire(command)
        self._lock_depth += 1
        try:
            if self._lock_depth > 1:
                yield Recovery()
            else:
                yield recover(self._database, self._layout, self.runs, self.metrics, self.versions)
        finally:
            self._lock_depth -= 1
            if self._lock_depth == 0:
                self._lock.release()

    def holder(self) -> Holder | None:
        """Who holds the lock now, or None. A run that is `running` while nobody does has died."""
        return holder(self._layout.lock)

    def checkpoints(self, run_id: int) -> Path:
        """The folder for the checkpoints of a run, made if needed. One folder per checkpoint, named `step-NNNNNN`.

        Raises:
            MissingRecordError: no such run.
        """
        folder = self._layout.run_checkpoints(self.runs.get(run_id).id)
        with disk_faults(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def saved_checkpoints(self, run_id: int) -> tuple[SavedCheckpoint, ...]:
        """Every checkpoint that a run saved, by step, pruned ones too. Makes nothing.

        Raises:
            MissingRecordError: no such run.
        """
        return list_checkpoints(self._layout, self.runs, run_id)

    def remember_checkpoints(self, run_id: int, steps: Iterable[int]) -> None:
        """Record that a run saved checkpoints; each step once, so that a run that goes on tells what it would have."""
        known = {event.data["step"] for event in self.runs.events(run_id, SAVED)}
        for step in sorted(set(steps) - known):
            self.runs.event(run_id, SAVED, {"step": step})

    def publish_checkpoint(self, run_id: int, step: int) -> Version:
        """The version that is a run's checkpoint of one step, made unless there is one. Promotes nothing.

        Raises:
            LockedError: another process is at work.
            MissingRecordError: no such run or checkpoint.
            UsageError: a run of that kind leaves no policy behind.
            StoreError: the checkpoint is damaged, or the disk refuses.
        """
        with self.lock("dlm promote"):
            return publish_checkpoint(self._layout, self.runs, self.versions, run_id, step)

    @property
    def references(self) -> Path:
        """The folder for what training computes once and uses again. Anything in it may be missing at any time."""
        return self._layout.references

    def prune(
        self, keep_last: int = 1, *, versions: Sequence[str] = (), dry_run: bool = False
    ) -> PruneReport:
        """Free space. Of each run that ended, all but its newest `keep_last` checkpoints go; so do leftovers, and the
        versions named here, and the cache of reference log-probs. Never the current version, its ancestors, or what a
        run needs that can be resumed: its newest checkpoint, and the cache.

        Raises:
            LockedError: another process is at work.
            UsageError: a named version is needed.
            MissingRecordError: no such version.
        """
        if keep_last < 0:
            raise ValueError("keep_last counts checkpoints: 0 or more")
        with self.lock("dlm prune") as recovery:
            return prune(
                self._layout,
                self.runs,
                self.versions,
                keep_last=keep_last,
                unwanted=versions,
                dry_run=dry_run,
                recovered=recovery.removed,
            )

    def attach(self, document: Path) -> str:
        """Remember where the document lies. Returns a note when it has moved, else "".

        Raises:
            CopiedDocumentError: another file, still there, carries the same dlm_id.
        """
        path = Path(os.path.abspath(document))
        with disk_faults(path):
            inode = path.stat().st_ino
        row = self._database.row("SELECT path, inode FROM document")
        if row is not None and (row["path"], row["inode"]) == (os.fsencode(path), inode):
            return ""
        note = ""
        if row is not None and row["path"] != os.fsencode(path):
            before = Path(os.fsdecode(row["path"]))
            if self._is_other_document(before, path):
                raise CopiedDocumentError(
                    f"two documents carry the dlm_id {self.dlm_id}",
                    expected=f"{before}, which this store belongs to",
                    found=str(path),
                    next_step=f"dlm init --new-id {document}",
                )
            note = f"the document has moved from {before} to {path}"
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO document (id, path, inode, seen_at) VALUES (1, ?, ?, ?)",
                (os.fsencode(path), inode, utc_now()),
            )
        return note

    def document(self) -> Path | None:
        """Where the document was last seen; None before the first `attach`."""
        row = self._database.row("SELECT path FROM document")
        return None if row is None else Path(os.fsdecode(row["path"]))

    def _is_other_document(self, before: Path, now: Path) -> bool:
        """Whether `before` is there, is another file than `now`, and carries our id still."""
        try:
            if os.path.samefile(before, now):  # a link, or another spelling of one path
                return False
            with before.open("rb") as file:
                return self.dlm_id.encode() in file.read(_HEADER_BYTES)
        except OSError:
            return False

    def _require_lock(self, action: str) -> None:
        if not self._lock.held:
            raise RuntimeError(f"hold the store's lock to {action}: with store.lock(command): …")

    def _check_identity(self) -> None:
        """See that the database belongs to this document; write the id into a new one.

        An empty database beside versions means that the real one was lost: going on would number over them.
        """
        row = self._database.row("SELECT value FROM store_facts WHERE key = 'dlm_id'")
        if row is None:
            orphans = sorted(path.name for path in self._layout.versions.glob("v*"))
            if orphans:
                raise StoreError(
                    f"the store's database is empty, but its folder holds versions ({', '.join(orphans[:3])})",
                    where=str(self._layout.database),
                    next_step=f"put back a copy of the database, or move {self.folder} aside and train again",
                )
            if self._database.read_only:
                return
            with self._database.transaction() as connection:
                connection.execute("INSERT OR IGNORE INTO store_facts VALUES ('dlm_id', ?)", (self.dlm_id,))
                connection.execute("INSERT OR IGNORE INTO store_facts VALUES ('created_at', ?)", (utc_now(),))
        elif row["value"] != self.dlm_id:
            raise StoreError(
                "the store in this folder belongs to another document",
                expected=self.dlm_id,
                found=str(row["value"]),
                where=str(self.folder),
                next_step=f"rename the folder to {row['value']}, or move it aside",
            )
