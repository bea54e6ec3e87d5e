"""Keeping a store tidy: mending what a killed process left, and freeing space on request.

Both run under the store's lock, so no other process is half-way through anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlm.errors import UsageError
from dlm.store.database import Database
from dlm.store.files import disk_faults, folder_bytes, remove
from dlm.store.layout import StoreLayout
from dlm.store.metrics import Metrics
from dlm.store.runs import Run, Runs
from dlm.store.versions import VERSION_FILE, Versions

__all__ = ["PruneReport", "PrunedItem", "Recovery", "checkpoint_step", "prune", "recover"]

_CHECKPOINT = re.compile(r"[a-z]+-?([0-9]+)")


@dataclass(frozen=True)
class PrunedItem:
    """One thing that prune removed (or would): `kind` is checkpoint, cache, leftover or version; size in bytes."""

    kind: str
    path: Path
    bytes: int


@dataclass(frozen=True)
class Recovery:
    """What taking the lock mended: runs whose process had died, and half-made things that were removed."""

    interrupted: tuple[Run, ...] = ()
    removed: tuple[PrunedItem, ...] = ()


@dataclass(frozen=True)
class PruneReport:
    """What prune did, or would do when `dry_run`."""

    items: tuple[PrunedItem, ...]
    dry_run: bool

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)


def checkpoint_step(name: str) -> int | None:
    """The step of a checkpoint by its folder's name (`step-000120`); None for anything else."""
    match = _CHECKPOINT.fullmatch(name)
    return int(match[1]) if match else None


def recover(
    database: Database, layout: StoreLayout, runs: Runs, metrics: Metrics, versions: Versions
) -> Recovery:
    """Mend what a killed process left behind: runs become `interrupted`, half-made folders go."""
    interrupted = runs.mark_interrupted(metrics.last_time)
    for run in interrupted:
        metrics.compact(run.id)
    with disk_faults(layout.folder):
        half_made = [*_entries(layout.staging), *_unpublished(database, layout, versions)]
        removed = tuple(PrunedItem("leftover", path, folder_bytes(path)) for path in half_made)
        for path in half_made:
            remove(path, layout.staging)
    return Recovery(interrupted, removed)


def _unpublished(database: Database, layout: StoreLayout, versions: Versions) -> Iterator[Path]:
    """Version folders that were moved into place, but whose process died before the database knew of them.

    Only those whose version.json names a run of this store. Any other folder was put there by someone: it stays.
    """
    known = {version.name for version in versions.list()}
    pruned = {version.name for version in versions.list(removed=True)} - known
    for folder in _entries(layout.versions):
        if folder.name in pruned:
            yield folder  # prune had recorded it and was killed before it moved the folder
        elif folder.name not in known:
            try:
                about = json.loads((folder / VERSION_FILE).read_text(encoding="utf-8"))
                run_id = int(about["run_id"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if database.row("SELECT 1 FROM runs WHERE id = ?", (run_id,)) is not None:
                yield folder


def prune(
    layout: StoreLayout,
    runs: Runs,
    versions: Versions,
    *,
    keep_last: int,
    unwanted: Sequence[str],
    dry_run: bool,
    recovered: Sequence[PrunedItem] = (),
) -> PruneReport:
    """Free space: old checkpoints, cached reference log-probs, leftovers, versions named in `unwanted`.

    `recovered` is what taking the lock removed already; the report counts it.

    Raises:
        UsageError: an unwanted version is the current one or an ancestor of it; nothing was removed then.
        MissingRecordError: no such version.
    """
    doomed = [version for name in dict.fromkeys(unwanted) if not (version := versions.get(name)).removed_at]
    current = versions.current_name()
    needed = {version.name for version in versions.lineage(current)} if current else set()
    for version in doomed:
        if version.name in needed:
            role = (
                "the current version"
                if version.name == current
                else f"an ancestor of the current version {current}"
            )
            raise UsageError(
                f"{version.name} is {role} and stays", next_step="dlm show DOCUMENT shows the lineage"
            )
    with disk_faults(layout.folder):
        items = [
            PrunedItem("checkpoint", path, folder_bytes(path))
            for path in _old_checkpoints(layout, runs, keep_last)
        ]
        items += [PrunedItem("cache", path, folder_bytes(path)) for path in _cached(layout, runs)]
        items += [PrunedItem("leftover", path, folder_bytes(path)) for path in _leftovers(layout, runs)]
        items += [
            PrunedItem("version", v.folder, folder_bytes(v.folder)) for v in doomed if v.folder.exists()
        ]
        if not dry_run:
            for version in doomed:  # recorded first: a version that the database offers is always there
                versions.mark_removed(version.name)
            for item in items:
                remove(item.path, layout.staging)
            for run in runs.list():
                run_folder = layout.run_checkpoints(run.id)
                if run.status != "running" and run_folder.is_dir() and not _entries(run_folder):
                    run_folder.rmdir()
    return PruneReport((*recovered, *items), dry_run)


def _old_checkpoints(layout: StoreLayout, runs: Runs, keep_last: int) -> Iterator[Path]:
    """Checkpoints beyond the newest `keep_last` of each run; a run that can be resumed keeps at least its newest."""
    for run in runs.list():
        folder = layout.run_checkpoints(run.id)
        if run.status == "running":
            continue
        by_age = sorted(
            (step, path) for path in _entries(folder) if (step := checkpoint_step(path.name)) is not None
        )
        keep = max(keep_last, 1) if run.resumable else keep_last
        yield from (path for _, path in by_age[: max(0, len(by_age) - keep)])


def _cached(layout: StoreLayout, runs: Runs) -> Iterator[Path]:
    """What can be computed again. A run that can be resumed goes on with the very numbers that it began with."""
    if not any(run.kind == "preference" and run.resumable for run in runs.list()):
        yield from _entries(layout.references)


def _leftovers(layout: StoreLayout, runs: Runs) -> Iterator[Path]:
    """Checkpoints that were being written when their process died. (What it left in staging went with the lock.)"""
    for run in runs.list():
        if run.status != "running":
            yield from (
                path for path in _entries(layout.run_checkpoints(run.id)) if path.name.startswith(".")
            )


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
