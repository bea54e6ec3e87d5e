"""What a training is asked, what it tells while it runs, and what it leaves behind: plain data, and who watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from dlm.curves import CurveRun, Diagnosis, Selection
from dlm.evaluation import ProbeAnswer
from dlm.recipe import Choice, ResolvedRecipe
from dlm.stats import Estimate as Interval
from dlm.training import Estimate, Finding, Preflight

__all__ = [
    "Accuracy",
    "Briefing",
    "Part",
    "Phase",
    "Preview",
    "ProbePair",
    "RewardChange",
    "RunReport",
    "SeenRow",
    "TrainOptions",
    "TrainReport",
    "TrainView",
]

Phase = Literal["sft", "preference", "reward", "rft"]


@dataclass(frozen=True)
class TrainOptions:
    """What the caller asks for beyond the document.

    `knobs` are recipe fields that override header and base, those of one phase by names such as `preference.beta`.
    `suite` names the evaluation suite whose prompts and grader the rft phase takes, `grader` another grader; `allow` is
    called with the arguments of code that the document names, before it runs, and raises where it must not. `start` names
    the version that the first phase moves on from, or `base`; None: sft starts from the base, the others from the current one.
    """

    phase: Literal["all", "sft", "preference", "reward", "rft"] = "all"
    knobs: Mapping[str, Any] = field(default_factory=dict)
    rows_files: Sequence[Path] = ()
    pairs_files: Sequence[Path] = ()
    scalars_files: Sequence[Path] = ()
    prompts_files: Sequence[Path] = ()
    suite: str | None = None
    grader: str | None = None
    start: str | None = None
    allow: Callable[[Sequence[str]], None] = lambda argv: None
    stored: bool = True  # use the store's own signals: imported pairs, votes, experiments
    resume: bool = False
    fresh: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class Briefing:
    """Everything known before the first step. A dry run has no run, and neither trains nor measures: no estimate."""

    phase: Phase
    method: str
    start: Choice[str]  # the version the run starts from, or the base
    run_id: int | None
    resumed_at: int
    document: Path
    base: str
    device: Choice[str]
    dtype: Choice[str]
    threads: Choice[int]
    layout: Choice[str]
    products: Choice[str]
    sections: Mapping[str, int]
    resolved: ResolvedRecipe
    preflight: Preflight
    findings: Sequence[Finding]
    estimate: Estimate | None


@dataclass(frozen=True)
class ProbePair:
    """One probe, answered by what the run started from (SFT: the base) and by the new version."""

    before: ProbeAnswer
    after: ProbeAnswer


@dataclass(frozen=True)
class Accuracy:
    """The share of held-out pairs that are ranked right, ties counting half; `ties` is the share of ties."""

    right: Interval
    ties: float


@dataclass(frozen=True)
class RewardChange:
    """Mean rewards on held-out prompts of what an rft run started from and of its version, answered with the same noise,
    and the mean of the differences by prompt. Prompts whose answers the grader failed on are left out."""

    before: Interval
    after: Interval
    change: Interval


@dataclass(frozen=True)
class RunReport:
    """What a finished run of one phase left behind.

    Losses are in nats, per target token or per pair; `smoothed_loss` is the mean of the last tenth (NaN: no step had a
    loss, as in an rft run none of whose groups has spread). `before` and `after` hold the held-out metrics of what the run
    started from (not measured of an SFT run) and of the version; `reward` is what an rft run earned. `diagnosis` and
    `selection` are what the rules say of its `curves`.
    """

    phase: Phase
    method: str
    run_id: int
    version: str
    parent: str | None
    promoted: bool
    steps: int
    elapsed_s: float
    last: Mapping[str, float]
    smoothed_loss: float
    before: Mapping[str, float]
    after: Mapping[str, float]
    accuracy: Accuracy | None
    reward: RewardChange | None
    probes: Sequence[ProbePair]
    skipped: int
    curves: CurveRun
    diagnosis: Diagnosis
    selection: Selection


@dataclass(frozen=True)
class TrainReport:
    """One invocation's runs, in the order of their phases."""

    runs: Sequence[RunReport]


@dataclass(frozen=True)
class Part:
    """A stretch of a row as the model sees it: for every token its id, what it adds to the text, and whether it is scored."""

    role: Literal["prompt", "answer", "chosen", "rejected"]
    ids: Sequence[int]
    tokens: Sequence[str]
    scored: Sequence[bool]


@dataclass(frozen=True)
class SeenRow:
    """A row or a pair, with the place it comes from."""

    place: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Preview:
    """What a phase would do: its pre-flight, and the first rows of its first step."""

    briefing: Briefing
    rows: Sequence[SeenRow]


class TrainView(Protocol):
    """Who shows a training to a person."""

    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def briefing(self, briefing: Briefing) -> None: ...
    def step(self, step: int, total: int, values: Mapping[str, float]) -> None: ...
    def checkpoint(self, step: int) -> None: ...
    def stopping(self) -> None:
        """A stop was asked for. Called from a signal handler: no locks, no buffered streams."""
