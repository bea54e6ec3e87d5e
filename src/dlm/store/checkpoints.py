"""Checkpoints as the store sees them: which were saved, which are left, and a version made of one.

Training writes them and prunes them; here they are only listed and copied. What was saved is remembered as an event of
the run, so that a curve can show where a checkpoint once was after its files went.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dlm.errors import MissingRecordError, UsageError
from dlm.store.files import disk_faults
from dlm.store.layout import StoreLayout
from dlm.store.runs import Run, Runs
from dlm.store.upkeep import checkpoint_step
from dlm.store.versions import ADAPTER_FILES, Version, Versions, VersionSpec

__all__ = ["SAVED", "SavedCheckpoint", "list_checkpoints", "publish_checkpoint"]

SAVED = "checkpoint"  # the kind of the event that remembers one
_WITHOUT = ("mine", "eval")  # kinds of runs that train nothing


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint that a run saved. `is_there`: its files have not been pruned. `saved_at`: ISO 8601, UTC."""

    run_id: int
    step: int
    saved_at: str
    folder: Path
    is_there: bool


def list_checkpoints(layout: StoreLayout, runs: Runs, run_id: int) -> tuple[SavedCheckpoint, ...]:
    """Every checkpoint of a run, by step, those that are gone too. Makes nothing.

    Of one that no event remembers (its process was killed just then, or an older dlm saved it) the time is its folder's.

    Raises:
        MissingRecordError: no such run.
    """
    saved = {int(event.data["step"]): event.at for event in runs.events(run_id, SAVED)}
    folder = layout.run_checkpoints(run_id)
    there: dict[int, Path] = {}
    with disk_faults(folder):
        for path in folder.iterdir() if folder.is_dir() else ():
            step = checkpoint_step(path.name)
            if step is not None:
                there[step] = path
                saved.setdefault(step, _changed_at(path))
    return tuple(
        SavedCheckpoint(run_id, step, saved[step], there.get(step, folder), step in there)
        for step in sorted(saved)
    )


def publish_checkpoint(
    layout: StoreLayout, runs: Runs, versions: Versions, run_id: int, step: int
) -> Version:
    """The version that is the checkpoint of a step: made now, or the one that was made of it before. Promotes nothing.

    Its parent, phase, recipe and data are those of the run.

    Raises:
        RuntimeError: the store's lock is not held.
        MissingRecordError: no such run, or no checkpoint of that step; those that are there are named.
        UsageError: a run of that kind leaves no policy behind.
        StoreError: the checkpoint is damaged, or the disk refuses.
    """
    run = runs.get(run_id)
    _require_policy(run)
    made = [one for one in versions.list() if (one.run_id, one.step) == (run_id, step)]
    if made:
        return versions.verify(made[-1])
    checkpoint = _find(list_checkpoints(layout, runs, run_id), run, step)
    staging = versions.staging()
    with disk_faults(checkpoint.folder):
        for name in ADAPTER_FILES:
            if (checkpoint.folder / name).exists():  # what is missing is told by publish
                shutil.copyfile(checkpoint.folder / name, staging / name)
    spec = VersionSpec(
        run_id=run.id,
        parent=run.parent_version,
        phase=run.kind,
        step=step,
        base=run.base,
        base_fingerprint=run.base_fingerprint,
        recipe=run.recipe,
        data_hash=run.data_hash,
    )
    return versions.publish(staging, spec, promote=False, reason="")


def _require_policy(run: Run) -> None:
    if run.kind in _WITHOUT:
        raise UsageError(
            f"run {run.id} is a {run.kind} run: it trained nothing and has no checkpoints",
            next_step="dlm show DOCUMENT lists the runs",
        )
    if run.kind == "reward":
        raise UsageError(
            f"run {run.id} trained a reward model: it scores answers and gives none, so it cannot be current",
            next_step="dlm show DOCUMENT lists the runs",
        )


def _find(saved: Sequence[SavedCheckpoint], run: Run, step: int) -> SavedCheckpoint:
    """The checkpoint of a step.

    Raises:
        MissingRecordError: it was not saved, or pruned.
    """
    there = [one.step for one in saved if one.is_there]
    for one in saved:
        if one.step == step and one.is_there:
            return one
    pruned = any(one.step == step for one in saved)
    before = [other for other in there if other < step]
    near = before[-1] if before else there[0] if there else None
    raise MissingRecordError(
        f"run {run.id} has no checkpoint of step {step}: "
        + ("it was pruned" if pruned else "none was saved there"),
        expected=", ".join(map(str, there)) or "none is left",
        next_step=f"dlm promote DOCUMENT --run-id {run.id} --step {near}"
        if near is not None
        else "dlm train DOCUMENT --keep-best keeps the best one of a run",
    )


def _changed_at(path: Path) -> str:
    """When a folder was last changed, as the store writes times."""
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return changed.isoformat(timespec="milliseconds").replace("+00:00", "Z")
