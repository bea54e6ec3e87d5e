"""Signals of a document and its store together: the index of the document's pairs, flags, and what training reads.

Light: the browser and the commands about data come in here without torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dlm.document import Document, Provenance, load
from dlm.document.surface import white_space_flags
from dlm.errors import DocumentError
from dlm.review import Topics, reconcile
from dlm.store import BROWSER, DocumentPair, NewSignal, Signal, Store

__all__ = [
    "NOTHING_STORED",
    "Refreshed",
    "StoredSignals",
    "look_at_pairs",
    "pairs_in",
    "questions_of",
    "refresh",
    "stored_signals",
]

AT_ONCE = 500  # pairs looked at between two writes, about a tenth of a second
QUESTIONS = 5000  # by which drift is measured at most: their words are weighed as well as those of more


@dataclass(frozen=True)
class Refreshed:
    """What the index holds now. `current` is false where the document has problems: its pairs are those of before."""

    current: bool
    not_looked_at: int  # pairs whose flags are not known yet


@dataclass(frozen=True)
class StoredSignals:
    """What training reads of the store beside the document; `as_of` names that state, so that a run can go on from it."""

    pairs: tuple[Signal, ...] = ()
    scalars: tuple[Signal, ...] = ()
    as_of: tuple[int, str] | None = None


NOTHING_STORED: Final = StoredSignals()


def refresh(store: Store, path: Path, *, look_at: int | None = None) -> Refreshed:
    """Bring the index of signals in line with the document, and look at pairs whose flags are not known.

    Cheap where nothing changed: one look at the file's size and time.

    Args:
        look_at: at most so many pairs are looked at now; None: all.

    Raises:
        DlmError: the document cannot be read.
    """
    current = True
    status = path.stat() if path.exists() else None
    stamp = "" if status is None else f"{status.st_mtime_ns} {status.st_size} {os.path.abspath(path)}"
    if status is not None and store.signals.mirrored() != stamp:
        try:
            document, _ = reconcile(store, path)  # an apply that was killed is recorded first
        except DocumentError:
            current = False
        else:
            store.signals.mirror_document(stamp, pairs_in(document))
    left = look_at_pairs(store, path, look_at)
    return Refreshed(current, left)


def pairs_in(document: Document) -> list[DocumentPair]:
    """The pairs of a document as signals, with their places.

    A mined section's judge and scores are those of its provenance; a preference that was given in the browser is a vote.
    """
    found = []
    for section in document.sections:
        for triple in section.triples:
            known = _mined(section.provenance) if section.auto_mined and section.provenance else None
            signal = NewSignal(
                "pair",
                known.source if known else "hand",
                triple.prompt,
                triple.chosen,
                triple.rejected,
                known.chosen_score if known else None,
                known.rejected_score if known else None,
                judge=known.judge if known else "",
                provenance=known.provenance if known else {},
                created_at=known.created_at if known else "",
            )
            found.append(DocumentPair(signal, triple.line, section.id))
    return found


def _mined(provenance: Provenance) -> NewSignal:
    """What a section's provenance says, in a signal without texts."""
    values = provenance.values
    return NewSignal(
        "pair",
        "vote" if values["judge_name"] == BROWSER else "mined",
        "",
        "",
        chosen_score=float(values["judge_score_chosen"]),
        rejected_score=float(values["judge_score_rejected"]),
        judge=values["judge_name"],
        provenance={"mined_run_id": int(values["mined_run_id"])},
        created_at=values["mined_at"],
    )


def look_at_pairs(store: Store, path: Path, limit: int | None = None) -> int:
    """Set the flags of pairs that have none yet, at most `limit` of them; returns how many are left.

    Drift is measured by the questions known at that time; when there are twice as many, all pairs are looked at again.
    """
    if not store.signals.to_look_at(1):
        return 0
    questions = questions_of(store, path)
    if len(questions) >= 2 * store.signals.measured_by():
        store.signals.look_again(len(questions))
    topics = Topics(questions)
    done = 0
    while limit is None or done < limit:
        batch = store.signals.to_look_at(AT_ONCE if limit is None else min(AT_ONCE, limit - done))
        if not batch:
            return 0
        store.signals.set_flags({pair.id: _flags(pair, topics) for pair in batch})
        done += len(batch)
    return store.signals.not_looked_at()


def _flags(pair: NewSignal, topics: Topics) -> Sequence[str]:
    drift = topics.measure(pair.prompt, pair.chosen, pair.rejected)
    drifts = ("topic_drift",) if drift is not None and drift.drifts else ()
    return (*white_space_flags(pair.chosen, pair.rejected), *drifts)


def questions_of(store: Store, path: Path) -> tuple[str, ...]:
    """The questions that drift is measured by: the document's own first, then those of signals."""
    try:
        sections = load(path).sections
    except DocumentError:
        sections = ()
    own = [question.prompt for section in sections for question in section.questions]
    return tuple(dict.fromkeys([*own, *store.signals.questions(QUESTIONS)]))[:QUESTIONS]


def stored_signals(store: Store, as_of: tuple[int, str] | None = None) -> StoredSignals:
    """Pairs and scalars whose truth lies in the store: imported ones, votes, experiments.

    Args:
        as_of: the state that a run which goes on began with; None: now.
    """
    state = as_of or store.signals.as_of_now()
    return StoredSignals(store.signals.stored("pair", state), store.signals.stored("scalar", state), state)
