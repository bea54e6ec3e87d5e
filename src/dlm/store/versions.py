"""Versions: trained adapters as plain PEFT folders, and the pointer that says which one is current.

A version is made in a staging folder, flushed to disk, renamed to `versions/vNNNN`, and only then written into the
database, in the transaction that also ends its run and promotes it. So a version the database knows is complete; a
process killed in between leaves a folder nobody knows, which the next holder of the lock removes.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dlm.errors import MissingRecordError, StoreError, UsageError
from dlm.store.database import Database, damaged, from_json, plain_text, to_json, utc_now
from dlm.store.files import disk_faults, flush, flush_folder, sha256
from dlm.store.layout import StoreLayout

__all__ = ["ADAPTER_FILES", "VERSION_FILE", "Promotion", "Version", "VersionSpec", "Versions"]

VERSION_FILE = "version.json"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")  # what a version must have


@dataclass(frozen=True)
class VersionSpec:
    """What is known of a version when it is published. `step`: optimiser steps of its run behind it."""

    run_id: int
    parent: str | None
    phase: str
    step: int
    base: str
    base_fingerprint: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    data_hash: str = ""


@dataclass(frozen=True)
class Version(VersionSpec):
    """A version as the store knows it; `bytes` is the size of its files, `removed_at` set when prune deleted them."""

    name: str = ""
    folder: Path = Path()
    created_at: str = ""
    removed_at: str | None = None
    files: Mapping[str, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(self.files.values())

    @property
    def answers(self) -> bool:
        """Whether it is a policy, which answers questions. A reward model scores answers, and is never current."""
        return self.phase != "reward"


@dataclass(frozen=True)
class Promotion:
    """One move of the current pointer; `kind` is `promote` or `rollback`."""

    id: int
    version: str
    previous: str | None
    kind: str
    reason: str
    at: str


class Versions:
    """The versions of one store. `require_lock` raises unless this process holds the store's lock."""

    def __init__(
        self, database: Database, layout: StoreLayout, dlm_id: str, require_lock: Callable[[str], None]
    ) -> None:
        self._database = database
        self._layout = layout
        self._dlm_id = dlm_id
        self._require_lock = require_lock

    def staging(self) -> Path:
        """A new empty folder inside the store, to save an adapter into before `publish`."""
        self._require_lock("stage a version")
        with disk_faults(self._layout.staging):
            self._layout.staging.mkdir(exist_ok=True)
            return Path(tempfile.mkdtemp(prefix="version-", dir=self._layout.staging))

    def publish(self, staging: Path, spec: VersionSpec, promote: bool, reason: str) -> Version:
        """Turn a staging folder into the next version; end its run as `complete` if it is running; maybe promote.

        `version.json` is added to the folder, so that a copy of it explains itself.

        Raises:
            RuntimeError: the store's lock is not held.
            MissingRecordError: no such run or parent.
            StoreError: the folder is no complete adapter, or the disk refuses; nothing is published then.
        """
        self._require_lock("publish a version")
        if promote and spec.phase == "reward":
            raise ValueError("a reward model is never current")
        if staging.parent != self._layout.staging:
            raise ValueError(f"{staging} is no staging folder of this store")
        _require_complete(staging, dict.fromkeys(ADAPTER_FILES))
        lineage = self.lineage(spec.parent) if spec.parent else ()
        if self._database.row("SELECT 1 FROM runs WHERE id = ?", (spec.run_id,)) is None:
            raise MissingRecordError(f"no run {spec.run_id} in this store")
        number = self._next_number()
        name, created_at = f"v{number:04d}", utc_now()
        folder = self._layout.versions / name
        described = {item.name: getattr(spec, item.name) for item in fields(VersionSpec)}
        described["recipe"] = dict(spec.recipe)
        with disk_faults(staging):
            files = {
                str(path.relative_to(staging)): {"bytes": path.stat().st_size, "sha256": sha256(path)}
                for path in sorted(staging.rglob("*"))
                if path.is_file() and path.name != VERSION_FILE
            }
            about = {"format": 1, "name": name, "dlm_id": self._dlm_id, "created_at": created_at, **described}
            about |= {"lineage": [_ancestor(version) for version in lineage], "files": files}
            (staging / VERSION_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            staging.chmod(0o755)  # mkdtemp makes it private; a version is as readable as the store around it
            flush_folder(staging)
            os.rename(staging, folder)
            flush(self._layout.versions)
        with self._database.transaction() as connection:
            values = {**described, "recipe": to_json(described["recipe"]), "name": name, "number": number}
            values |= {"files": to_json(files), "created_at": created_at}
            connection.execute(
                f"INSERT INTO versions ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
                tuple(values.values()),
            )
            connection.execute(
                "UPDATE runs SET status = 'complete', finished_at = ? WHERE id = ? AND status = 'running'",
                (created_at, spec.run_id),
            )
            if promote:
                self._move(connection, name, "promote", reason)
        return self.get(name)

    def get(self, name: str) -> Version:
        """One version, whether or not its files are still there (`verify` looks).

        Raises:
            MissingRecordError: no such version; those there are are named.
        """
        row = self._database.row("SELECT * FROM versions WHERE name = ?", (name,))
        if row is None:
            names = [version.name for version in self.list()]
            if not names:
                raise MissingRecordError(
                    f"no version {name}: there are no versions yet",
                    next_step="dlm train DOCUMENT makes the first",
                )
            raise MissingRecordError(
                f"no version {name} in this store",
                expected=", ".join(names[-5:]),
                next_step="dlm show DOCUMENT lists the versions",
            )
        return self._version(row)

    def list(self, *, removed: bool = False) -> tuple[Version, ...]:
        """The versions, oldest first; with `removed` also those whose files were pruned."""
        rows = self._database.rows(
            "SELECT * FROM versions WHERE removed_at IS NULL OR ? ORDER BY number", (removed,)
        )
        return tuple(self._version(row) for row in rows)

    def lineage(self, name: str) -> tuple[Version, ...]:
        """A version and its ancestors, oldest first."""
        chain = [self.get(name)]
        while parent := chain[-1].parent:
            chain.append(self.get(parent))
            if len(chain) > 100_000:
                raise damaged(self._database.path, f"the lineage of {name} runs in a circle")
        return tuple(reversed(chain))

    def verify(self, version: Version) -> Version:
        """The same version, once its files are seen to be there in their full size.

        Raises:
            StoreError: files were pruned, are missing, or were cut short.
        """
        if version.removed_at:
            raise StoreError(
                f"the files of {version.name} were pruned on {version.removed_at[:10]}",
                next_step="dlm show DOCUMENT lists the versions that are left",
            )
        _require_complete(version.folder, version.files, version.name)
        return version

    def current_name(self) -> str | None:
        """The name of the current version, None before the first promotion. Does not look at its files."""
        row = self._database.row("SELECT version FROM promotions ORDER BY id DESC LIMIT 1")
        return None if row is None else str(row["version"])

    def current(self) -> Version | None:
        """The current version, verified; None before the first promotion.

        Raises:
            StoreError: its files are missing or incomplete.
        """
        name = self.current_name()
        return None if name is None else self.verify(self.get(name))

    def promote(self, name: str, reason: str) -> Version:
        """Make a version current. Promoting the current version again records nothing.

        Raises:
            MissingRecordError: no such version.
            StoreError: its files are not complete.
            UsageError: it is a reward model.
        """
        version = self.verify(self.get(name))
        if not version.answers:
            raise UsageError(
                f"{name} is a reward model: it scores answers and gives none, so it cannot be current",
                next_step=f"dlm export DOCUMENT --version {name} --to DIR writes it as a model that scores",
            )
        with self._database.transaction() as connection:
            self._move(connection, name, "promote", reason)
        return version

    def rollback(self, reason: str) -> Version:
        """Make the version current that was so before the present one; again: the one before that.

        Raises:
            UsageError: there is no earlier one.
            StoreError: its files are not complete.
        """
        with self._database.transaction() as connection:
            stack = self._stack()
            if len(stack) < 2:
                only = (
                    f"{stack[-1]} is the first version that was current" if stack else "no version is current"
                )
                raise UsageError(f"nothing to roll back to: {only}", next_step="dlm promote DOCUMENT VERSION")
            version = self.verify(self.get(stack[-2]))
            self._move(connection, version.name, "rollback", reason)
        return version

    def promotions(self) -> tuple[Promotion, ...]:
        """Every move of the pointer, oldest first."""
        rows = self._database.rows(
            "SELECT id, version, previous, kind, reason, at FROM promotions ORDER BY id"
        )
        return tuple(Promotion(*row) for row in rows)

    def mark_removed(self, name: str) -> None:
        """Record that a version's files go away. The caller has seen to it that nothing needs them."""
        with self._database.transaction() as connection:
            if self.current_name() == name:
                raise UsageError(f"{name} is the current version and stays")
            connection.execute("UPDATE versions SET removed_at = ? WHERE name = ?", (utc_now(), name))

    def _move(self, connection: sqlite3.Connection, name: str, kind: str, reason: str) -> None:
        previous = self.current_name()
        if kind == "promote" and previous == name:
            return
        gone = connection.execute("SELECT 1 FROM versions WHERE name = ? AND removed_at IS NOT NULL", (name,))
        if gone.fetchone():
            raise StoreError(f"the files of {name} were pruned")
        connection.execute(
            "INSERT INTO promotions (version, previous, kind, reason, at) VALUES (?, ?, ?, ?, ?)",
            (name, previous, kind, plain_text(reason), utc_now()),
        )

    def _stack(self) -> tuple[str, ...]:
        """The versions one can roll back through, the current one last."""
        removed = {version.name for version in self.list(removed=True) if version.removed_at}
        stack: list[str] = []
        for promotion in self.promotions():
            if promotion.kind == "rollback":
                stack.pop()
                while stack and stack[-1] != promotion.version:  # what was pruned then was jumped over
                    stack.pop()
            else:
                stack.append(promotion.version)
        kept = [name for name in stack if name not in removed]
        return tuple(name for place, name in enumerate(kept) if not place or kept[place - 1] != name)

    def _next_number(self) -> int:
        """One more than any number ever used, by the database or by a folder nobody explains."""
        row = self._database.row("SELECT COALESCE(MAX(number), 0) FROM versions")
        used = [int(row[0]) if row else 0]
        used += [int(path.name[1:]) for path in self._layout.versions.glob("v*") if path.name[1:].isdecimal()]
        return max(used) + 1

    def _version(self, row: sqlite3.Row) -> Version:
        path = self._database.path
        files = {name: int(about["bytes"]) for name, about in from_json(row["files"], path).items()}
        return Version(
            run_id=row["run_id"],
            parent=row["parent"],
            phase=row["phase"],
            step=row["step"],
            base=row["base"],
            base_fingerprint=row["base_fingerprint"],
            recipe=from_json(row["recipe"], path),
            data_hash=row["data_hash"],
            name=row["name"],
            folder=self._layout.versions / row["name"],
            created_at=row["created_at"],
            removed_at=row["removed_at"],
            files=files,
        )


def _require_complete(folder: Path, sizes: Mapping[str, int | None], name: str = "") -> None:
    """Raise unless every file is there, not empty, and of its size where that is known."""
    faults = []
    for file, size in sizes.items():
        try:
            found = (folder / file).stat().st_size
        except OSError:
            faults.append(f"{file} is missing")
            continue
        if size is not None and found != size:
            faults.append(f"{file} has {found} bytes instead of {size}")
        elif not found and file in ADAPTER_FILES:
            faults.append(f"{file} is empty")
    if faults:
        raise StoreError(
            f"{name or 'the adapter'} is not complete: {'; '.join(faults)}",
            where=str(folder),
            next_step="put the files back from a copy, or use another version: "
            "dlm rollback DOCUMENT, dlm promote DOCUMENT VERSION"
            if name
            else "",
        )


def _ancestor(version: Version) -> dict[str, Any]:
    """What version.json tells of an ancestor."""
    names = ("name", "run_id", "phase", "step", "base", "base_fingerprint", "data_hash", "created_at")
    return {name: getattr(version, name) for name in names}
