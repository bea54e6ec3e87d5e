"""Signals as rows: what a signal is made of, and how it is read from and written to the table `signals`.

For the store room; other rooms come in through `dlm.store`.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from dlm.errors import TextError
from dlm.store.database import Database, from_json, plain_text, to_json, utc_now
from dlm.store.mining import malformed, pair_key

__all__ = [
    "BROWSER",
    "FLAGS",
    "SIGNAL_KINDS",
    "SIGNAL_SOURCES",
    "Added",
    "DocumentPair",
    "NewSignal",
    "Signal",
    "check_signal",
    "identical",
    "identity_of",
    "insert_signal",
    "read_signals",
    "signal_key",
]

SIGNAL_KINDS: Final = ("pair", "scalar")
SIGNAL_SOURCES: Final = ("hand", "mined", "vote", "grader", "experiment")
BROWSER: Final = "browser"
"""The judge of what a person said in the browser, and the method of the run that such preferences are staged in."""

FLAGS: Final = (
    "only_white_space",
    "line_endings",
    "final_newline",
    "trailing_space",
    "leading_space",
    "topic_drift",
)
"""What is worth a look about a pair, by the place of its bit in the column `flags`."""


def signal_key(kind: str, prompt: str, chosen: str, rejected: str = "") -> str:
    """64 hex digits of a signal's texts; a pair's is its `pair_key`, so that it is the key of the pair in training."""
    if kind == "pair":
        return pair_key(prompt, chosen, rejected)
    content = json.dumps(["scalar", prompt, chosen], ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class NewSignal:
    """A signal before the store gave it a number.

    Of a scalar, `chosen` is the answer, `chosen_score` its score, and `rejected` is empty. Scores are raw, the higher
    the better; `scale` says in the judge's words what they range over. `created_at` is ISO 8601, "" for now.
    """

    kind: str
    source: str
    prompt: str
    chosen: str
    rejected: str = ""
    chosen_score: float | None = None
    rejected_score: float | None = None
    scale: str = ""
    judge: str = ""
    reason: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    created_at: str = ""

    @property
    def key(self) -> str:
        """The signal's `signal_key`."""
        return signal_key(self.kind, self.prompt, self.chosen, self.rejected)

    @property
    def margin(self) -> float | None:
        """By how much the chosen answer's score is the higher one; None without two scores."""
        if self.chosen_score is None or self.rejected_score is None:
            return None
        return self.chosen_score - self.rejected_score


@dataclass(frozen=True)
class Signal(NewSignal):
    """A signal as the store knows it; `home` is where its truth lies: store, mined, document or log."""

    id: int = 0
    home: str = "store"
    status: str = ""
    status_at: str = ""
    staged_id: int | None = None
    line: int | None = None
    section_id: str | None = None
    flags: tuple[str, ...] | None = None  # None: not looked at yet

    @property
    def reviewable(self) -> bool:
        """Whether it is a staged pair that a person may decide about."""
        return self.home == "mined"


@dataclass(frozen=True)
class DocumentPair:
    """A pair of the document, with the place of its section."""

    signal: NewSignal
    line: int
    section_id: str


@dataclass(frozen=True)
class Added:
    """What became of signals that were handed over: numbers of the new ones, how many of each kind and source they are
    ("pair hand"), and how many were known already.
    """

    ids: tuple[int, ...]
    counts: Mapping[str, int]
    known: int


_NEW_COLUMNS = tuple(item.name for item in fields(NewSignal))
_COLUMNS = tuple(item.name for item in fields(Signal))


def read_signals(
    database: Database, where: str, parameters: Sequence[Any], limit: int | None = None, order: str = "id"
) -> tuple[Signal, ...]:
    """Signals by a condition in SQL; for the store room alone."""
    end = "" if limit is None else f" LIMIT {int(limit)}"
    rows = database.rows(
        f"SELECT {', '.join(_COLUMNS)} FROM signals WHERE {where} ORDER BY {order}{end}", parameters
    )
    return tuple(_signal(row, database) for row in rows)


def _signal(row: sqlite3.Row, database: Database) -> Signal:
    values = dict(row)
    bits = values["flags"]
    values["flags"] = None if bits is None else tuple(name for i, name in enumerate(FLAGS) if bits >> i & 1)
    values["provenance"] = from_json(values["provenance"], database.path)
    return Signal(**values)


def insert_signal(connection: sqlite3.Connection, signal: NewSignal, *, home: str, **more: Any) -> int:
    values = {name: getattr(signal, name) for name in _NEW_COLUMNS} | more
    values |= {
        "home": home,
        "key": signal.key,
        "provenance": to_json(dict(signal.provenance)),
        "judge": plain_text(signal.judge),
        "created_at": signal.created_at or utc_now(),
    }
    cursor = connection.execute(
        f"INSERT INTO signals ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
        tuple(values.values()),
    )
    return int(cursor.lastrowid or 0)


def identity_of(connection: sqlite3.Connection, signal: NewSignal) -> str:
    """The column `identity` of a signal, spelled by SQLite, whose `quote` writes the numbers."""
    row = connection.execute(
        "SELECT ? || ' ' || ? || ' ' || ? || ' ' || quote(?) || ' ' || quote(?) || ' ' || ? || ' ' || ?",
        (
            signal.kind, signal.source, signal.key, signal.chosen_score, signal.rejected_score, signal.scale,
            plain_text(signal.judge),
        ),
    ).fetchone()  # fmt: skip
    return str(row[0])


def identical(connection: sqlite3.Connection, signal: NewSignal, where: str) -> int:
    """The number of a row that is the same observation, 0 where there is none."""
    row = connection.execute(
        f"SELECT id FROM signals WHERE identity = ? AND {where} ORDER BY id LIMIT 1",
        (identity_of(connection, signal),),
    ).fetchone()
    return int(row[0]) if row else 0


def check_signal(signal: NewSignal) -> None:
    if signal.kind not in SIGNAL_KINDS:
        raise ValueError(f"signal kind {signal.kind!r} is none of {', '.join(SIGNAL_KINDS)}")
    if signal.source not in SIGNAL_SOURCES:
        raise ValueError(f"signal source {signal.source!r} is none of {', '.join(SIGNAL_SOURCES)}")
    texts = {"the prompt": signal.prompt, "the answer": signal.chosen}
    if signal.kind == "pair":
        texts["the rejected answer"] = signal.rejected
    for name, text in texts.items():
        fault = malformed(text)
        if fault:
            raise TextError(f"{name} {'is' if fault == 'empty' else 'has'} {fault}; no document can hold it")
    scores = [signal.chosen_score, signal.rejected_score]
    if any(score is not None and not math.isfinite(score) for score in scores):
        raise ValueError("scores are finite")
    if signal.kind == "scalar" and (signal.chosen_score is None or signal.rejected):
        raise ValueError("a scalar is one answer with a score")
