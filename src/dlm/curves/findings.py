"""What a diagnosis consists of: findings with their evidence and action, what could not be decided, the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "BANDS",
    "Band",
    "Diagnosis",
    "Evidence",
    "Final",
    "Finding",
    "Level",
    "RatioPoint",
    "Severity",
    "Undecided",
    "Verdict",
]

Severity = Literal["info", "warn", "severe"]
Level = Literal["unknown", "healthy", "info", "warn", "severe"]
Band = Literal["healthy", "mild", "moderate", "severe"]
BANDS: tuple[Band, ...] = ("healthy", "mild", "moderate", "severe")


@dataclass(frozen=True)
class Evidence:
    """Which values say so. `steps` and `values` belong together, pair by pair; both are short (at most a dozen).

    `series` is the curve's name in the run, or "" where the evidence is a stated figure or a count.
    """

    text: str
    series: str = ""
    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Finding:
    """A rule that fires. `rule` is its name in `RULES`; `title` one line; `action` what to do, one or two sentences."""

    rule: str
    severity: Severity
    title: str
    evidence: tuple[Evidence, ...]
    action: str


@dataclass(frozen=True)
class Undecided:
    """A rule that applies but cannot say yet. `have` points of `needed`; both 0 where something else is missing."""

    rule: str
    reason: str
    have: int = 0
    needed: int = 0


@dataclass(frozen=True)
class RatioPoint:
    """The overfitting ratio at one validation: validation loss over smoothed training loss, and its band."""

    step: int
    train_loss: float
    valid_loss: float
    ratio: float
    band: Band


@dataclass(frozen=True)
class Final:
    """How a curve ends: its last value (one batch, as a rule) beside the mean of its last tenth, with standard error."""

    last: float
    smoothed: float
    standard_error: float


@dataclass(frozen=True)
class Verdict:
    """The diagnosis in one line. `level` is the worst severity, "healthy" without findings, "unknown" without data."""

    level: Level
    text: str


@dataclass(frozen=True)
class Diagnosis:
    """What the rules say of a run. Findings are ordered: severe first, then in the order of `RULES`."""

    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    undecided: tuple[Undecided, ...] = ()
    ratios: tuple[RatioPoint, ...] = ()
    finals: Mapping[str, Final] = field(default_factory=dict)
    running: bool = False

    def of(self, rule: str) -> Finding | None:
        """The finding of one rule, None where it did not fire."""
        return next((finding for finding in self.findings if finding.rule == rule), None)

    @property
    def severe(self) -> tuple[Finding, ...]:
        """The findings that are a reason to stop."""
        return tuple(finding for finding in self.findings if finding.severity == "severe")
