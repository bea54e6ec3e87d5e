"""`select`: which checkpoint to keep, or which two or three to try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dlm.curves.run import Checkpoint, CurveRun
from dlm.curves.thresholds import Thresholds

__all__ = ["Candidate", "Role", "Selection", "select"]

Role = Literal[
    "lowest validation loss",
    "peak validation reward",
    "best held-out accuracy",
    "final",
    "middle",
]


@dataclass(frozen=True)
class Candidate:
    """A checkpoint worth having. `step`: where the curve says so; `saved_step`: the saved step at or before it (at
    equal worth), None where the run names saved steps and none is early enough, or names none at all; then `step` is
    what to look for. `values`: the figures that decided it, by series name.
    """

    step: int
    saved_step: int | None
    role: Role
    reason: str
    values: Mapping[str, float] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True)
class Selection:
    """The candidates, the recommended one first, and why; no candidates where nothing can be said, with the reason."""

    candidates: tuple[Candidate, ...]
    reason: str

    @property
    def best(self) -> Candidate | None:
        """The recommended candidate."""
        return self.candidates[0] if self.candidates else None


def select(run: CurveRun, thresholds: Thresholds | None = None) -> Selection:
    """Choose checkpoints: by validation loss (SFT and unknown), by held-out accuracy, then margin, then length drift
    (preference, reward), or two to three candidates that are to be tried on the task itself (rft).
    """
    return Selection((), "nothing was looked at yet")
