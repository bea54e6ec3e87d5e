"""What the curves recommend, in words that can be acted on: which checkpoint, why, and the command that takes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlm.cli.output import typed

if TYPE_CHECKING:
    from dlm.curves import Candidate, CurveRun

__all__ = ["StoredRun", "candidate_line"]


@dataclass(frozen=True)
class StoredRun:
    """Which run of which document a curve belongs to, and the version it made. What comes from a file has none."""

    document: Path
    run_id: int
    version: str | None
    version_step: int | None


def candidate_line(run: CurveRun, candidate: Candidate, stored: StoredRun | None) -> str:
    """`step 40, lowest validation loss: why; what to do`."""
    return (
        f"step {candidate.step}, {candidate.role}: {candidate.reason}; {_what_to_do(run, candidate, stored)}"
    )


def _what_to_do(run: CurveRun, candidate: Candidate, stored: StoredRun | None) -> str:
    """How to get hold of it."""
    saved = candidate.saved_step
    if stored is not None and stored.version and candidate.step == stored.version_step:
        return f"it is {stored.version}"
    if saved is None:
        if stored is not None:
            return "no checkpoint is left of it or before it (--keep-best keeps the best one of a run)"
        if run.saved_steps:
            return "no checkpoint was saved there or before it"
        return "the file names no saved checkpoints"
    where = (
        "its checkpoint is saved" if saved == candidate.step else f"the checkpoint before it is step {saved}"
    )
    if stored is not None:
        if saved == stored.version_step:
            return f"the checkpoint before it is {stored.version}"
        words = ("dlm", "promote", str(stored.document), "--run-id", str(stored.run_id), "--step", str(saved))
        return f"{where}: {typed(*words)}"
    model = candidate.checkpoint.model if candidate.checkpoint is not None else ""
    return f"{where}: {model}" if model else where
