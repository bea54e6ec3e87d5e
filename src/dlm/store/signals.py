"""Signals: every observation of quality that a document's store knows, with its provenance and the runs that used it.

A signal is a pair (of two answers to a prompt, the better one) or a scalar (one answer with a score). Imports, votes and
experiments write their rows here; staged pairs are followed by triggers in the database; pairs of the document are an
index of the file, renewed when its hash differs. docs/signals.md tells where each truth lies and why.

Every write is one short transaction and takes no lock of the store, so that a person votes while a training runs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dlm.errors import MissingRecordError, UsageError
from dlm.store.database import Database, utc_now
from dlm.store.mining import Mining, NewCandidate, NewPair, StagedPair
from dlm.store.runs import Runs, RunSpec
from dlm.store.signal_rows import (
    BROWSER,
    FLAGS,
    Added,
    DocumentPair,
    NewSignal,
    Signal,
    check_signal,
    identical,
    identity_of,
    insert_signal,
    read_signals,
    signal_key,
)

__all__ = ["Signals"]

NOT_LOOKED_AT = "flags IS NULL AND kind = 'pair' AND shown = 1"  # as the index of that name has it


class Signals:
    """The signals of one store: what is written. `dlm.store.signal_search` finds them."""

    def __init__(self, database: Database, runs: Runs, mining: Mining) -> None:
        self.database = database
        self._runs = runs
        self._mining = mining
        self._copy: Database | None = None

    @property
    def index(self) -> Database:
        """Where signals are found: the store's own database, or a copy in memory where that cannot be written.

        The index of the document's pairs and the flags live here; votes and imports are written to `database` alone.
        """
        if not self.database.read_only:
            return self.database
        if self._copy is None:
            self._copy = self.database.in_memory()
        return self._copy

    def get(self, signal_id: int) -> Signal:
        """One signal.

        Raises:
            MissingRecordError: no such signal.
        """
        found = read_signals(self.index, "id = ?", (signal_id,))
        if not found:
            raise MissingRecordError(
                f"no signal {signal_id} in this store",
                next_step="dlm ui DOCUMENT shows what is there",
            )
        return found[0]

    def add(self, signals: Iterable[NewSignal]) -> Added:
        """Record signals, all or none. One that any home knows already, with the same scores and judge, changes nothing.

        Raises:
            TextError: a text that no document could hold.
            ValueError: a kind or source that is none, a score that is not finite, a pair without two answers.
        """
        ids: list[int] = []
        counts: Counter[str] = Counter()
        known = 0
        with self.database.transaction() as connection:
            for signal in signals:
                check_signal(signal)
                if identical(connection, signal, "home != 'log' AND status != 'withdrawn'"):
                    known += 1
                else:
                    ids.append(insert_signal(connection, signal, home="store"))
                    counts[f"{signal.kind} {signal.source}"] += 1
        return Added(tuple(ids), counts, known)

    def vote(
        self, prompt: str, answer: str, score: int, *, provenance: Mapping[str, Any] | None = None
    ) -> Signal | None:
        """A person's word on an answer: 1 for good, -1 for bad, 0 to take it back. The last word stands.

        What was said before is withdrawn, not changed: a run that used it can be repeated.

        Raises:
            TextError: a text that no document could hold.
        """
        if score not in (-1, 0, 1):
            raise ValueError(f"a vote is 1, -1 or 0, not {score!r}")
        new = NewSignal(
            "scalar", "vote", prompt, answer, chosen_score=float(score), scale="vote", judge=BROWSER,
            provenance=provenance or {},
        )  # fmt: skip
        check_signal(new)
        with self.database.transaction() as connection:
            now = utc_now()
            mine = "key = ? AND source = 'vote' AND judge = ? AND +home = 'store' AND status = ''"
            standing = connection.execute(
                f"SELECT id, chosen_score FROM signals WHERE {mine}", (new.key, BROWSER)
            ).fetchall()
            for row in standing:
                if row["chosen_score"] == score:
                    return self.get(row["id"])
            for row in standing:
                connection.execute(
                    "UPDATE signals SET status = 'withdrawn', status_at = ? WHERE id = ?", (now, row["id"])
                )
            signal_id = insert_signal(connection, new, home="store") if score else 0
        return self.get(signal_id) if signal_id else None

    def votes(self, answers: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """The standing votes of this browser's person on (prompt, answer)s, those that have one."""
        found = {}
        for prompt, answer in answers:
            row = self.database.row(
                "SELECT chosen_score FROM signals WHERE key = ? AND source = 'vote' AND judge = ? AND +home = 'store'"
                " AND status = ''",
                (signal_key("scalar", prompt, answer), BROWSER),
            )
            if row is not None:
                found[prompt, answer] = int(row["chosen_score"])
        return found

    def prefer(
        self,
        prompt: str,
        chosen: str,
        rejected: str,
        *,
        version: str | None = None,
        document_sha256: str = "",
    ) -> StagedPair:
        """A person's preference between two answers: staged for review like a mined pair, and never trained on as it is.

        Args:
            version: the one that was asked (of two versions, the one whose answer is preferred).

        Raises:
            UsageError: both answers are the same.
            TextError: a text that no document could hold.
        """
        if chosen == rejected:
            raise UsageError("both answers are the same: there is nothing to prefer")
        check_signal(NewSignal("pair", "vote", prompt, chosen, rejected))
        known = [run for run in self._runs.list() if (run.kind, run.method, run.parent_version) == ("mine", BROWSER, version)]  # fmt: skip
        now = utc_now()
        run = known[-1] if known else self._runs.record(
            RunSpec("mine", BROWSER, parent_version=version, document_sha256=document_sha256), status="complete"
        )  # fmt: skip
        question = hashlib.sha256(prompt.encode()).hexdigest()[:16]
        with self._mining.exclusively():
            seen = len(self._mining.candidates(run.id, question))
            texts = (chosen, rejected)
            better, worse = self._mining.add_candidates(
                run.id,
                [
                    NewCandidate(question, prompt, seen + place, 0, text, 0, "stop")
                    for place, text in enumerate(texts)
                ],
            )
            for candidate, score in ((better, 1.0), (worse, -1.0)):
                self._mining.record_judgement(candidate.id, score=score, reasoning="preferred in the browser")
            pair = NewPair(question, prompt, chosen, rejected, better.id, worse.id, 1.0, -1.0, BROWSER, now)
            return self._mining.stage(run.id, [pair])[0]

    def log_use(self, run_id: int, signals: Iterable[NewSignal]) -> int:
        """Record what a run consumes, as it is now; again, it changes nothing. Returns how much of it was new.

        Raises:
            MissingRecordError: no such run.
        """
        self._runs.get(run_id)
        count = 0
        with self.database.transaction() as connection:
            for signal in signals:
                logged = identical(connection, signal, "home = 'log'")
                signal_id = logged or insert_signal(connection, signal, home="log")
                count += connection.execute(
                    "INSERT OR IGNORE INTO signal_uses (signal_id, run_id) VALUES (?, ?)", (signal_id, run_id)
                ).rowcount
        return count

    def used_by(self, signal_ids: Sequence[int]) -> dict[int, tuple[int, ...]]:
        """The runs that consumed signals, in their order; signals that none did are left out. A few hundred at most."""
        rows = self.index.rows(
            "SELECT s.id, u.run_id FROM signals AS s JOIN signal_uses AS u ON u.signal_id = s.logged"
            f" WHERE s.id IN ({_marks(signal_ids)}) ORDER BY u.run_id",
            signal_ids,
        )
        found: dict[int, tuple[int, ...]] = {}
        for row in rows:
            found[row["id"]] = (*found.get(row["id"], ()), row["run_id"])
        return found

    def document_lines(self, signal_ids: Sequence[int]) -> dict[int, int]:
        """Where signals stand in the document, as it was when the index was last renewed; those that do."""
        rows = self.index.rows(
            "SELECT s.id, MIN(d.line) AS line FROM signals AS s JOIN signals AS d ON d.identity = s.identity"
            f" AND +d.home = 'document' WHERE s.id IN ({_marks(signal_ids)}) GROUP BY s.id",
            signal_ids,
        )
        return {row["id"]: row["line"] for row in rows}

    def of_staged_pair(self, staged_id: int) -> int:
        """The number of the signal that follows a staged pair.

        Raises:
            MissingRecordError: no such pair.
        """
        row = self.index.row("SELECT id FROM signals WHERE home = 'mined' AND staged_id = ?", (staged_id,))
        if row is None:
            raise MissingRecordError(f"no pair {staged_id} in this store")
        return int(row["id"])

    def stored(self, kind: str, as_of: tuple[int, str] | None = None) -> tuple[Signal, ...]:
        """Signals whose truth lies in the store, of one kind, in their order: what training reads beside the document.

        Args:
            as_of: (newest number, ISO time) of a run that goes on: the signals as they stood when it began.
        """
        if as_of is None:
            return read_signals(self.database, "home = 'store' AND kind = ? AND status = ''", (kind,))
        return read_signals(
            self.database,
            "home = 'store' AND kind = ? AND id <= ? AND (status = '' OR status_at > ?)",
            (kind, *as_of),
        )

    def as_of_now(self) -> tuple[int, str]:
        """The state of the store's signals, for `stored`: the highest number given so far, and the time."""
        row = self.database.row("SELECT MAX(id) AS id FROM signals")
        return int(row["id"] or 0) if row else 0, utc_now()

    def mirrored(self) -> str:
        """The stamp of the document that the index of its pairs was made of; "" before the first time."""
        row = self.index.row("SELECT value FROM store_facts WHERE key = 'signals_document'")
        return "" if row is None else str(row["value"])

    def mirror_document(self, stamp: str, pairs: Sequence[DocumentPair]) -> None:
        """Bring the index of the document's pairs in line with the document: rows that stay keep their numbers."""
        with self.index.transaction() as connection:
            old: dict[str, list[int]] = {}
            for row in connection.execute(
                "SELECT id, identity FROM signals WHERE home = 'document' ORDER BY line DESC"
            ):
                old.setdefault(row["identity"], []).append(row["id"])
            for pair in pairs:
                same = old.get(identity_of(connection, pair.signal))
                place = (pair.line, pair.section_id)
                if same:
                    connection.execute(
                        "UPDATE signals SET line = ?, section_id = ? WHERE id = ?", (*place, same.pop())
                    )
                else:
                    insert_signal(
                        connection, pair.signal, home="document", line=place[0], section_id=place[1]
                    )
            connection.executemany(
                "DELETE FROM signals WHERE id = ?", [(gone,) for ids in old.values() for gone in ids]
            )
            connection.execute("INSERT OR REPLACE INTO store_facts VALUES ('signals_document', ?)", (stamp,))

    def to_look_at(self, limit: int) -> tuple[Signal, ...]:
        """Listed pairs whose flags are not known yet, at most `limit` of them."""
        return read_signals(self.index, NOT_LOOKED_AT, (), limit)

    def not_looked_at(self) -> int:
        """How many listed pairs have no flags yet."""
        row = self.index.row(f"SELECT COUNT(*) AS n FROM signals WHERE {NOT_LOOKED_AT}")
        return int(row["n"]) if row else 0

    def measured_by(self) -> int:
        """By how many questions the flags were measured; 0 before the first time."""
        row = self.index.row("SELECT value FROM store_facts WHERE key = 'signals_questions'")
        return 0 if row is None else int(row["value"])

    def set_flags(self, flags: Mapping[int, Iterable[str]]) -> None:
        """Record what was found about pairs, by their numbers."""
        with self.index.transaction() as connection:
            connection.executemany(
                "UPDATE signals SET flags = ? WHERE id = ?",
                [(sum(1 << FLAGS.index(name) for name in names), key) for key, names in flags.items()],
            )

    def look_again(self, questions: int) -> None:
        """Forget all flags: they will be measured by so many questions."""
        with self.index.transaction() as connection:
            connection.execute("UPDATE signals SET flags = NULL WHERE flags IS NOT NULL")
            connection.execute(
                "INSERT OR REPLACE INTO store_facts VALUES ('signals_questions', ?)", (str(questions),)
            )

    def questions(self, limit: int) -> tuple[str, ...]:
        """The different prompts of pairs that are shown, the newest `limit` of them."""
        rows = self.index.rows(
            "SELECT prompt FROM signals WHERE shown = 1 AND kind = 'pair' GROUP BY prompt ORDER BY MAX(id) DESC LIMIT ?",
            (limit,),
        )
        return tuple(row["prompt"] for row in rows)

    def close(self) -> None:
        """Let go of the copy in memory, where there is one."""
        if self._copy is not None:
            self._copy.close()


def _marks(values: Sequence[int]) -> str:
    return ", ".join("?" * len(values))
