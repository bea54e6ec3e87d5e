"""The table of rules: what each one says, for which kinds of run, and with which thresholds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dlm.curves.run import RunKind

__all__ = ["RULES", "Rule"]


@dataclass(frozen=True)
class Rule:
    """One rule. `says`: when it fires, in words; `thresholds`: names of `Thresholds` it reads; `at_end`: it judges
    how a run ends, so that on a running one it stays undecided.
    """

    name: str
    title: str
    says: str
    kinds: tuple[RunKind, ...]
    thresholds: tuple[str, ...]
    at_end: bool = False
    check: Callable[..., object] | None = None


RULES: tuple[Rule, ...] = ()
