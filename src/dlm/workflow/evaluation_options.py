"""What an evaluation is asked for, who watches it, and what it reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dlm.errors import UsageError
from dlm.evaluation import Summary, TeacherForced

__all__ = ["EvalOptions", "EvalReport", "EvalView"]


class EvalView(Protocol):
    """Who shows an evaluation to a person."""

    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def answered(self, suite: str, version: str, done: int, of: int) -> None: ...
    def stopping(self) -> None:
        """A stop was asked for. Called from a signal handler: no locks, no buffered streams."""


@dataclass(frozen=True)
class EvalOptions:
    """What the caller asks for beyond the document.

    Attributes:
        suites: names; empty: all of the document's.
        versions: names, or "base"; empty: the current one, or the base where nothing is trained.
        candidates: also the checkpoints that the curves of run `run_id` propose (None: the newest), each as a version.
        repeats: answers to each case.
        temperature: None: greedy for one answer a case, 1 for several.
        max_new_tokens: instead of the suites' own budgets.
        allowed_errors: share of answers that the grader may fail on before the run stops.
        again: ask anew although the same was evaluated before.
        allow: called with what a consent is for, before a Python grader that the document names is run; it raises when it
            may not.
    """

    suites: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    candidates: bool = False
    run_id: int | None = None
    repeats: int = 1
    temperature: float | None = None
    top_p: float = 1.0
    seed: int = 0
    max_new_tokens: int | None = None
    allowed_errors: float = 0.1
    again: bool = False
    device: str = "auto"
    allow: Callable[[Sequence[str]], None] = field(default=lambda argv: None)

    def __post_init__(self) -> None:
        faults = [
            (self.repeats < 1, "repeats", "1 or more", self.repeats),
            (not 0 <= self.allowed_errors <= 1, "allowed_errors", "0 to 1", self.allowed_errors),
            (
                self.repeats > 1 and self.temperature == 0,
                "temperature",
                "above 0 with several repeats: greedy answers are all the same",
                self.temperature,
            ),
        ]
        for wrong, name, expected, found in faults:
            if wrong:
                raise UsageError(f"{name} is out of range", expected=expected, found=repr(found))

    @property
    def heat(self) -> float:
        """The temperature that is used."""
        return self.temperature if self.temperature is not None else float(self.repeats > 1)

    @property
    def sampling(self) -> dict[str, float]:
        """How the answers are drawn, as an evaluation run's recipe names it. A gate's are drawn with the defaults."""
        return {
            "temperature": self.heat,
            "top_p": self.top_p,
            "repeats": self.repeats,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class EvalReport:
    """One suite and version. `references`: what the version makes of them when they are given, None where there are none;
    `repeated`: it had been evaluated before, and nothing was asked."""

    suite: str
    version: str
    run_id: int
    grader: str
    settings: Mapping[str, Any]
    summary: Summary
    ceiling: Mapping[str, Any] | None
    references: TeacherForced | None
    repeated: bool
