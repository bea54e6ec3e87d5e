"""What a training is asked, what it tells while it runs, and what it leaves behind: plain data, and who watches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from dlm.evaluation import ProbeAnswer
from dlm.recipe import Choice, ResolvedRecipe
from dlm.training import Estimate, Preflight

__all__ = ["Briefing", "ProbePair", "TrainOptions", "TrainReport", "TrainView"]


@dataclass(frozen=True)
class TrainOptions:
    """What the caller asks for beyond the document. `knobs` are recipe fields that override header and base."""

    phase: Literal["all", "sft"] = "all"
    knobs: Mapping[str, Any] = field(default_factory=dict)
    rows_files: Sequence[Path] = ()
    resume: bool = False
    fresh: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class Briefing:
    """Everything known before the first step."""

    run_id: int
    resumed_at: int
    document: Path
    base: str
    device: Choice[str]
    dtype: Choice[str]
    threads: Choice[int]
    sections: Mapping[str, int]
    resolved: ResolvedRecipe
    preflight: Preflight
    estimate: Estimate


@dataclass(frozen=True)
class ProbePair:
    """One probe, answered by the base and by the new version."""

    before: ProbeAnswer
    after: ProbeAnswer


@dataclass(frozen=True)
class TrainReport:
    """What a finished run left behind. Losses in nats per target token; `smoothed_loss` is the mean of the last tenth."""

    run_id: int
    version: str
    promoted: bool
    steps: int
    elapsed_s: float
    last: Mapping[str, float]
    smoothed_loss: float
    probes: Sequence[ProbePair]
    skipped_rows: int


class TrainView(Protocol):
    """Who shows a training to a person."""

    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def briefing(self, briefing: Briefing) -> None: ...
    def step(self, step: int, total: int, values: Mapping[str, float]) -> None: ...
    def checkpoint(self, step: int) -> None: ...
    def stopping(self) -> None:
        """A stop was asked for. Called from a signal handler: no locks, no buffered streams."""
