"""What the document's gate said of a run's versions, as the TRAINING tab shows it. The numbers are those that were recorded;
nothing is asked or computed anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dlm.store import GateVerdict, Store

__all__ = ["Condition", "Verdict", "verdicts_of"]


@dataclass(frozen=True)
class Condition:
    """How one condition ended: PASS, FAIL, UNREACHABLE or MISSING. `gold`: what the references score; `change`: to the
    baseline, paired over `cases` cases, with its 95 % interval, "" where there is none."""

    text: str
    status: str
    metric: str
    value: float | None
    baseline: float | None
    needed: float | None
    gold: float | None
    change: str
    cases: int | None
    detail: str


@dataclass(frozen=True)
class Verdict:
    """One verdict. `word`: PASS, FAIL, UNREACHABLE or MISSING; `is_newest`: of its version, the one that promotion obeys."""

    version: str
    baseline: str
    word: str
    at: str
    reason: str
    is_newest: bool
    conditions: tuple[Condition, ...]

    @property
    def held(self) -> int:
        """Conditions that hold."""
        return sum(one.status == "PASS" for one in self.conditions)


def verdicts_of(store: Store, versions: Collection[str]) -> list[Verdict]:
    """Every verdict on these versions, newest first."""
    found: list[Verdict] = []
    seen: set[str] = set()
    for record in reversed(store.evaluations.verdicts()):
        if record.candidate in versions:
            found.append(_verdict(record, record.candidate not in seen))
            seen.add(record.candidate)
    return found


def _verdict(record: GateVerdict, is_newest: bool) -> Verdict:
    return Verdict(
        record.candidate,
        record.baseline,
        record.verdict.upper(),
        record.at,
        record.reason,
        is_newest,
        tuple(_condition(one) for one in record.details.get("conditions", ())),
    )


def _condition(told: Mapping[str, Any]) -> Condition:
    difference = told.get("difference")
    return Condition(
        text=told["text"],
        status=told["status"],
        metric=told["metric"],
        value=told["value"],
        baseline=told["baseline"],
        needed=told["needed"],
        gold=told["ceiling"],
        change="" if difference is None else _change(**difference),
        cases=None if difference is None else difference["n"],
        detail=told["detail"],
    )


def _change(value: float, low: float, high: float, n: int) -> str:
    interval = "one case" if n < 2 else f"{low:+.4f} to {high:+.4f}"
    return f"{value:+.4f} ({interval})"
