"""What the curves recommend, in words that can be acted on: which checkpoint, why, and the command that takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dlm.cli.output import typed

if TYPE_CHECKING:
    from dlm.curves import Candidate, CurveRun
    from dlm.store import Store

__all__ = ["StoredRun", "candidate_line", "versions_of"]


@dataclass(frozen=True)
class StoredRun:
    """Which run of which document a curve belongs to, the version at its end, and every version made of it by its step.

    What comes from a file has none.
    """

    document: Path
    run_id: int
    version: str | None
    made: Mapping[int, str] = field(default_factory=dict)


def versions_of(store: Store, run_id: int) -> dict[int, str]:
    """The versions made of a run, by step; of several of one step the first."""
    made: dict[int, str] = {}
    for one in store.versions.list():
        if one.run_id == run_id:
            made.setdefault(one.step, one.name)
    return made


def candidate_line(run: CurveRun, candidate: Candidate, stored: StoredRun | None) -> str:
    """`step 40, lowest validation loss: why; what to do`."""
    return (
        f"step {candidate.step}, {candidate.role}: {candidate.reason}; {_what_to_do(run, candidate, stored)}"
    )


def _what_to_do(run: CurveRun, candidate: Candidate, stored: StoredRun | None) -> str:
    """How to get hold of it."""
    saved = candidate.saved_step
    if stored is not None and candidate.step in stored.made:
        return f"it is {stored.made[candidate.step]}"
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
        if saved in stored.made:
            return f"the checkpoint before it is {stored.made[saved]}"
        words = ("dlm", "promote", str(stored.document), "--run-id", str(stored.run_id), "--step", str(saved))
        return f"{where}: {typed(*words)}"
    model = candidate.checkpoint.model if candidate.checkpoint is not None else ""
    return f"{where}: {model}" if model else where
