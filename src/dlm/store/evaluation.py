"""Graded answers of evaluation runs, and the verdicts of gates.

A row is written once and never changed: an answer that is there is neither sampled nor graded again, so that a run that was
killed loses no case and grades none twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from dlm.errors import MissingRecordError
from dlm.store.database import Database, from_json, plain_text, to_json, utc_now

__all__ = ["TOO_LONG", "VERDICTS", "EvalResult", "Evaluations", "GateVerdict"]

TOO_LONG = "prompt_too_long"
VERDICTS = ("pass", "fail", "unreachable", "missing")


@dataclass(frozen=True)
class EvalResult:
    """One answer to one case, graded. `case_index`: the case's place in its suite; `repeat`: which answer to it.

    `error` is `sample_parse` (the answer is of no form the grader reads, and counts as 0), `grader` (it was not judged) or
    `prompt_too_long` (the base has no room for an answer, and none was sampled); the score of the last two must not be used.
    """

    case_index: int
    repeat: int
    case_key: str
    place: str
    prompt: str
    output: str
    score: float
    dimensions: Mapping[str, float]
    flags: tuple[str, ...]
    passed: bool
    error: str | None
    message: str
    finish_reason: str
    n_tokens: int

    @property
    def scored(self) -> bool:
        """Whether the score says something about the answer."""
        return self.error in (None, "sample_parse")

    @property
    def answered(self) -> bool:
        """Whether the version answered at all."""
        return self.error != TOO_LONG


@dataclass(frozen=True)
class GateVerdict:
    """What a gate said of a candidate against a baseline. `details`: each condition with its numbers, the evaluation runs
    they come from, how their answers were made (`settings`, which older records lack), and the candidate's lineage."""

    candidate: str
    baseline: str
    verdict: str
    reason: str
    gate_hash: str
    details: Mapping[str, Any] = field(default_factory=dict)
    document_sha256: str = ""
    id: int = 0
    at: str = ""


_COLUMNS = tuple(item.name for item in fields(EvalResult))


class Evaluations:
    """Graded answers and verdicts of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, run_id: int, results: Sequence[EvalResult]) -> None:
        """Record graded answers, all or none. One that is there already stays as it is.

        Raises:
            MissingRecordError: no such run.
        """
        marks = ", ".join("?" * (len(_COLUMNS) + 1))
        with self._database.transaction() as connection:
            if not connection.execute("SELECT 1 FROM runs WHERE id = ?", (run_id,)).fetchone():
                raise MissingRecordError(f"no run {run_id} in this store")
            connection.executemany(
                f"INSERT INTO eval_results (run_id, {', '.join(_COLUMNS)}) VALUES ({marks}) ON CONFLICT DO NOTHING",
                [(run_id, *_values(result)) for result in results],
            )

    def results(self, run_id: int) -> tuple[EvalResult, ...]:
        """The graded answers of a run, by case and repeat."""
        rows = self._database.rows(
            "SELECT * FROM eval_results WHERE run_id = ? ORDER BY case_index, repeat", (run_id,)
        )
        return tuple(self._result(row) for row in rows)

    def done(self, run_id: int) -> frozenset[tuple[int, int]]:
        """(case, repeat) of every answer that is there."""
        rows = self._database.rows("SELECT case_index, repeat FROM eval_results WHERE run_id = ?", (run_id,))
        return frozenset((row["case_index"], row["repeat"]) for row in rows)

    def record_verdict(self, verdict: GateVerdict) -> GateVerdict:
        """Record what a gate said; returns it as stored.

        Raises:
            ValueError: no such verdict.
        """
        if verdict.verdict not in VERDICTS:
            raise ValueError(f"{verdict.verdict!r} is none of {', '.join(VERDICTS)}")
        names = ("candidate", "baseline", "verdict", "gate_hash", "document_sha256")
        values = {name: getattr(verdict, name) for name in names}
        values |= {
            "reason": plain_text(verdict.reason),
            "details": to_json(dict(verdict.details)),
            "at": utc_now(),
        }
        with self._database.transaction() as connection:
            cursor = connection.execute(
                f"INSERT INTO gate_verdicts ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
                tuple(values.values()),
            )
        return next(one for one in self.verdicts() if one.id == cursor.lastrowid)

    def verdicts(self, candidate: str | None = None) -> tuple[GateVerdict, ...]:
        """Every verdict, on one version where it is given, oldest first."""
        rows = self._database.rows(
            "SELECT * FROM gate_verdicts WHERE ?1 IS NULL OR candidate = ?1 ORDER BY id", (candidate,)
        )
        path = self._database.path
        return tuple(
            GateVerdict(
                **{item.name: row[item.name] for item in fields(GateVerdict) if item.name != "details"},
                details=from_json(row["details"], path),
            )
            for row in rows
        )

    def _result(self, row: sqlite3.Row) -> EvalResult:
        values = {name: row[name] for name in _COLUMNS}
        path = self._database.path
        values["dimensions"] = from_json(values["dimensions"], path)
        values["flags"] = tuple(from_json(values["flags"], path))
        values["passed"] = bool(values["passed"])
        return EvalResult(**values)


def _values(result: EvalResult) -> tuple[Any, ...]:
    values = {name: getattr(result, name) for name in _COLUMNS}
    values["dimensions"] = to_json(dict(result.dimensions))
    values["flags"] = to_json(dict.fromkeys(result.flags, 1))
    for name in ("place", "prompt", "output", "message"):
        values[name] = plain_text(values[name])
    return tuple(values.values())
