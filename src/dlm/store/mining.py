"""What mining remembers: sampled answers with their scores, and the pairs made of them with what became of each.

    staged ──► accepted ──► applied ──► reverted ──► accepted | applied
    staged | accepted ──► rejected ──► accepted

Every write is one durable transaction, so a job that is killed finds on its next start all that it had sampled and
judged. Nothing is ever deleted: a pair that was turned down is known when it comes up again.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from dlm.errors import MissingRecordError, TextError
from dlm.store.database import Database, plain_text, utc_now

__all__ = [
    "PAIR_STATUSES",
    "Candidate",
    "Mining",
    "NewCandidate",
    "NewPair",
    "StagedPair",
    "Tally",
    "malformed",
    "pair_key",
]

PAIR_STATUSES = ("staged", "accepted", "rejected", "applied", "reverted")

_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")


def malformed(text: str) -> str:
    """Why no document can hold this text ("empty", "a NUL", "a lone surrogate"); "" when one can."""
    if not text:
        return "empty"
    bad = _UNWRITABLE.search(text)
    return "" if bad is None else "a NUL" if bad[0] == "\x00" else "a lone surrogate"


def pair_key(prompt: str, chosen: str, rejected: str) -> str:
    """64 hex digits of a pair's three texts: the `key` of the same pair in training, whatever its scores and place."""
    content = json.dumps(["pair", prompt, chosen, rejected], ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class NewCandidate:
    """One sampled answer, before the store gave it a number. `seed` is an integer of 64 bits with a sign."""

    question_key: str
    prompt: str
    sample: int  # 0, 1, … among the question's samples
    seed: int
    text: str
    n_tokens: int
    finish_reason: str  # "stop" or "length"
    skip: str | None = None  # why it shall be in no pair


@dataclass(frozen=True)
class Candidate(NewCandidate):
    """A sampled answer as the store knows it."""

    id: int = 0
    run_id: int = 0
    duplicate_of: int | None = None  # the candidate that stands for both
    score: float | None = None
    reasoning: str | None = None
    judge_error: str | None = None
    attempts: int = 0
    judge_seconds: float = 0.0


@dataclass(frozen=True)
class NewPair:
    """A pair as mining makes it: two candidates of one question, the better one first."""

    question_key: str
    prompt: str
    chosen: str
    rejected: str
    chosen_candidate: int
    rejected_candidate: int
    chosen_score: float
    rejected_score: float
    judge_name: str
    mined_at: str  # ISO 8601


@dataclass(frozen=True)
class StagedPair(NewPair):
    """A pair as the store knows it. Its batch is the run that mined it."""

    id: int = 0
    run_id: int = 0
    status: str = "staged"
    status_at: str = ""
    section_id: str | None = None  # of the section written for it
    applied_at: str | None = None
    edited: bool = False  # a person changed the texts; the scores are those of the mined ones
    reverting: bool = False  # a revert began and has not been recorded as done
    passed_over: bool = False  # staged, and left behind when accepted ones were applied
    mined_key: str = ""
    content_key: str = ""

    @property
    def margin(self) -> float:
        """By how much the chosen answer's score is the higher one."""
        return self.chosen_score - self.rejected_score


@dataclass(frozen=True)
class Tally:
    """A mine run in numbers, counted from what is stored, so that a resumed run counts like one that was not killed."""

    questions: int
    candidates: int
    judged: int  # with a score
    judge_failed: int  # asked, and without a score
    judge_calls: int
    judge_seconds: float
    tokens: int  # sampled
    skipped_candidates: Mapping[str, int]  # by reason
    pairs: Mapping[str, int]  # by status; every status is there


_CANDIDATE_COLUMNS = tuple(item.name for item in fields(NewCandidate))
_FLAGS = ("edited", "reverting", "passed_over")
_PAIR_COLUMNS = tuple(item.name for item in fields(NewPair))


class Mining:
    """Candidates and staged pairs of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open: sqlite3.Connection | None = None

    @property
    def read_only(self) -> bool:
        """Whether the store lies where nothing can be written."""
        return self._database.read_only

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """One transaction around reads and writes: no other process reviews meanwhile, and all of it counts or none.

        For as long as it takes to write a document; other writers to the store wait for it.
        """
        with self._writing():
            yield

    def add_candidates(self, run_id: int, candidates: Sequence[NewCandidate]) -> tuple[Candidate, ...]:
        """Record sampled answers, all or none; returns them as stored. One that is there already stays as it is.

        Text that no document can hold is recorded with `skip="malformed"`, a lone surrogate spelled out.
        """
        names = ", ".join(("run_id", *_CANDIDATE_COLUMNS))
        marks = ", ".join("?" * (1 + len(_CANDIDATE_COLUMNS)))
        stored: list[Candidate] = []
        with self._writing() as connection:
            for new in candidates:
                values = {name: getattr(new, name) for name in _CANDIDATE_COLUMNS}
                if malformed(new.text):
                    values |= {"text": plain_text(new.text), "skip": "malformed"}
                connection.execute(
                    f"INSERT INTO candidates ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING",
                    (run_id, *values.values()),
                )
                stored += self._candidates(
                    "run_id = ? AND question_key = ? AND sample = ?", (run_id, new.question_key, new.sample)
                )
        return tuple(stored)

    def candidate(self, candidate_id: int) -> Candidate:
        """One candidate.

        Raises:
            MissingRecordError: no such candidate.
        """
        found = self._candidates("id = ?", (candidate_id,))
        if not found:
            raise MissingRecordError(f"no candidate {candidate_id} in this store")
        return found[0]

    def candidates(self, run_id: int, question_key: str | None = None) -> tuple[Candidate, ...]:
        """The candidates of a run, of one question where it is given, in the order in which they were recorded."""
        return self._candidates("run_id = ?1 AND (?2 IS NULL OR question_key = ?2)", (run_id, question_key))

    def unjudged(self, run_id: int) -> tuple[Candidate, ...]:
        """Candidates that may be in a pair and that no judge was asked about."""
        return self._candidates("run_id = ? AND skip IS NULL AND attempts = 0", (run_id,))

    def skip_candidates(
        self, reasons: Mapping[int, str], duplicates: Mapping[int, int] | None = None
    ) -> None:
        """Record why candidates shall be in no pair, all or none; `duplicates` names the candidate that stays for each."""
        with self._writing() as connection:
            connection.executemany(
                "UPDATE candidates SET skip = ?, duplicate_of = ? WHERE id = ?",
                [(reason, (duplicates or {}).get(key), key) for key, reason in reasons.items()],
            )

    def record_judgement(
        self,
        candidate_id: int,
        *,
        score: float | None = None,
        reasoning: str | None = None,
        error: str | None = None,
        seconds: float = 0.0,
    ) -> None:
        """Record one answer of the judge: a finite score, or what went wrong. Each call counts as one attempt.

        Raises:
            ValueError: neither a finite score nor an error, or both.
        """
        if (score is None) == (error is None) or (score is not None and not math.isfinite(score)):
            raise ValueError("a judgement is either a finite score or an error")
        with self._writing() as connection:
            connection.execute(
                "UPDATE candidates SET score = ?, reasoning = ?, judge_error = ?, attempts = attempts + 1,"
                " judge_seconds = judge_seconds + ? WHERE id = ?",
                (score, _plain(reasoning), _plain(error), seconds, candidate_id),
            )

    def stage(self, run_id: int, pairs: Sequence[NewPair]) -> tuple[StagedPair, ...]:
        """Stage the pairs of a run, all or none; returns them as stored. Staging one of them again changes nothing.

        Raises:
            TextError: a text that no document can hold.
            ValueError: a score that is not finite, a time that is none.
        """
        names = ", ".join(("run_id", "mined_key", "content_key", "status", "status_at", *_PAIR_COLUMNS))
        marks = ", ".join("?" * (5 + len(_PAIR_COLUMNS)))
        stored: list[StagedPair] = []
        with self._writing() as connection:
            for new in pairs:
                _check_pair(new)
                key = pair_key(new.prompt, new.chosen, new.rejected)
                values = {name: getattr(new, name) for name in _PAIR_COLUMNS}
                values["judge_name"] = plain_text(new.judge_name)
                connection.execute(
                    f"INSERT INTO staged_pairs ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING",
                    (run_id, key, key, "staged", utc_now(), *values.values()),
                )
                stored += self._pairs("run_id = ? AND mined_key = ?", (run_id, key))
        return tuple(stored)

    def pair(self, pair_id: int) -> StagedPair:
        """One pair.

        Raises:
            MissingRecordError: no such pair; the numbers that exist are named.
        """
        found = self._pairs("id = ?", (pair_id,))
        if not found:
            newest = self._database.row("SELECT MAX(id) AS id FROM staged_pairs")
            known = newest["id"] if newest else None
            raise MissingRecordError(
                f"no pair {pair_id} in this store",
                expected=f"a number from 1 to {known}" if known else "no pairs have been mined yet",
                next_step="dlm preference list DOCUMENT" if known else "dlm preference mine DOCUMENT",
            )
        return found[0]

    def pairs(
        self, run_id: int | None = None, status: str | Iterable[str] | None = None
    ) -> tuple[StagedPair, ...]:
        """Pairs in the order in which they were staged: of one run, in one or some statuses, where these are given."""
        wanted = {status} if isinstance(status, str) else None if status is None else set(status)
        found = self._pairs("?1 IS NULL OR run_id = ?1", (run_id,))
        return tuple(pair for pair in found if wanted is None or pair.status in wanted)

    def set_status(self, pair_ids: Iterable[int], status: str, *, section_id: str | None = None) -> None:
        """Give pairs a status, all or none. What may follow what is for the review room to know.

        `section_id` is remembered of the section that was written, with the time, when the status is "applied".
        """
        if status not in PAIR_STATUSES:
            raise ValueError(f"pair status {status!r} is none of {', '.join(PAIR_STATUSES)}")
        now = utc_now()
        with self._writing() as connection:
            for pair_id in pair_ids:
                self.pair(pair_id)
                connection.execute(
                    "UPDATE staged_pairs SET status = ?, status_at = ?, reverting = 0 WHERE id = ?",
                    (status, now, pair_id),
                )
                if status == "applied":
                    connection.execute(
                        "UPDATE staged_pairs SET section_id = COALESCE(?, section_id), applied_at = ? WHERE id = ?",
                        (section_id, now, pair_id),
                    )

    def pass_over(self, pair_ids: Iterable[int]) -> None:
        """Note that staged pairs were left behind when accepted ones were applied."""
        with self._writing() as connection:
            connection.executemany(
                "UPDATE staged_pairs SET passed_over = 1 WHERE id = ?", [(pair_id,) for pair_id in pair_ids]
            )

    def begin_revert(self, pair_ids: Iterable[int]) -> None:
        """Note that a revert begins, before it touches the document; the next status takes the note back."""
        with self._writing() as connection:
            connection.executemany(
                "UPDATE staged_pairs SET reverting = 1 WHERE id = ?", [(pair_id,) for pair_id in pair_ids]
            )

    def edit(self, pair_id: int, chosen: str, rejected: str) -> StagedPair:
        """Give a pair other answers. Its status stays; the mined texts stay with its candidates.

        Raises:
            TextError: a text that no document can hold.
            MissingRecordError: no such pair.
        """
        for name, text in (("the chosen answer", chosen), ("the rejected answer", rejected)):
            _refuse_malformed(name, text)
        with self._writing() as connection:
            before = self.pair(pair_id)
            key = pair_key(before.prompt, chosen, rejected)
            connection.execute(
                "UPDATE staged_pairs SET chosen = ?, rejected = ?, content_key = ?, edited = ? WHERE id = ?",
                (chosen, rejected, key, int(key != before.mined_key), pair_id),
            )
        return self.pair(pair_id)

    def tally(self, run_id: int) -> Tally:
        """A run in numbers."""
        with self._database.snapshot():
            sums = self._database.rows(
                "SELECT COUNT(DISTINCT question_key) AS questions, COUNT(*) AS candidates, COUNT(score) AS judged,"
                " COALESCE(SUM(score IS NULL AND attempts > 0), 0) AS judge_failed,"
                " COALESCE(SUM(attempts), 0) AS judge_calls, COALESCE(SUM(judge_seconds), 0.0) AS judge_seconds,"
                " COALESCE(SUM(n_tokens), 0) AS tokens FROM candidates WHERE run_id = ?",
                (run_id,),
            )[0]
            skips = self._database.rows(
                "SELECT skip, COUNT(*) AS n FROM candidates WHERE run_id = ? AND skip NOT NULL GROUP BY skip ORDER BY skip",
                (run_id,),
            )
            pairs = self._database.rows(
                "SELECT status, COUNT(*) AS n FROM staged_pairs WHERE run_id = ? GROUP BY status", (run_id,)
            )
        return Tally(
            **dict(sums),
            skipped_candidates={row["skip"]: row["n"] for row in skips},
            pairs=dict.fromkeys(PAIR_STATUSES, 0) | {row["status"]: row["n"] for row in pairs},
        )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """The open transaction, or one of its own."""
        if self._open is not None:
            yield self._open
            return
        with self._database.transaction() as connection:
            self._open = connection
            try:
                yield connection
            finally:
                self._open = None

    def _candidates(self, where: str, parameters: Sequence[Any]) -> tuple[Candidate, ...]:
        rows = self._database.rows(f"SELECT * FROM candidates WHERE {where} ORDER BY id", parameters)
        return tuple(Candidate(**{item.name: row[item.name] for item in fields(Candidate)}) for row in rows)

    def _pairs(self, where: str, parameters: Sequence[Any]) -> tuple[StagedPair, ...]:
        rows = self._database.rows(f"SELECT * FROM staged_pairs WHERE {where} ORDER BY id", parameters)
        found = []
        for row in rows:
            values: dict[str, Any] = {item.name: row[item.name] for item in fields(StagedPair)}
            found.append(StagedPair(**values | {name: bool(values[name]) for name in _FLAGS}))
        return tuple(found)


def _plain(text: str | None) -> str | None:
    return None if text is None else plain_text(text)


def _check_pair(pair: NewPair) -> None:
    for name in ("prompt", "chosen", "rejected"):
        _refuse_malformed(f"the pair's {name}", getattr(pair, name))
    if not (math.isfinite(pair.chosen_score) and math.isfinite(pair.rejected_score)):
        raise ValueError("a pair's scores are finite")
    datetime.fromisoformat(pair.mined_at)  # a ValueError of its own: a document would not take it


def _refuse_malformed(name: str, text: str) -> None:
    fault = malformed(text)
    if fault:
        raise TextError(f"{name} {'is' if fault == 'empty' else 'has'} {fault}; no document can hold it")
