"""What a card of the RL DATA tab shows: a signal with its votes, its lineage in words, and what a person may do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlm.review import DiffPart, Topics, Trace, trace, word_diff
from dlm.store import FLAGS, Run, Signal, Store
from dlm.workflow.signals import questions_of

__all__ = ["FLAG_WORDS", "Card", "Details", "card_of", "cards_of", "details_of"]

FLAG_WORDS: Mapping[str, str] = {
    "only_white_space": "only white space differs",
    "line_endings": "line ends differ",
    "final_newline": "one ends with a line end",
    "trailing_space": "one ends with a space",
    "leading_space": "one begins with white space",
    "topic_drift": "topic drift",
}
assert set(FLAG_WORDS) == set(FLAGS)

_STATUS_WORDS: Mapping[str, str] = {
    "staged": "waits for review",
    "accepted": "accepted",
    "rejected": "rejected",
    "applied": "in the document",
    "reverted": "reverted",
}


@dataclass(frozen=True)
class Card:
    """A signal as it is listed. Votes are this person's: 1, -1 or 0."""

    signal: Signal
    chosen_vote: int
    rejected_vote: int
    used_by: tuple[int, ...]
    line: int | None  # in the document

    @property
    def is_pair(self) -> bool:
        return self.signal.kind == "pair"

    @property
    def standing(self) -> str:
        """Where it stands, in words."""
        if self.signal.home == "mined":
            return _STATUS_WORDS[self.signal.status]
        return {"document": "in the document", "store": "in the store", "log": "only in the log of a run"}[
            self.signal.home
        ]

    @property
    def badge(self) -> str:
        """The colour of `standing`."""
        return {"staged": "busy", "accepted": "good", "rejected": "bad", "reverted": "warn"}.get(
            self.signal.status, ""
        )

    @property
    def flags(self) -> tuple[str, ...]:
        return self.signal.flags or ()

    @property
    def may_accept(self) -> bool:
        return self.signal.reviewable and self.signal.status in ("staged", "rejected", "reverted")

    @property
    def may_reject(self) -> bool:
        return self.signal.reviewable and self.signal.status in ("staged", "accepted", "reverted")

    @property
    def may_edit(self) -> bool:
        return self.signal.reviewable and self.signal.status in ("staged", "accepted")

    @property
    def may_put_back(self) -> bool:
        return self.signal.reviewable and self.signal.status in ("accepted", "rejected")

    @property
    def before(self) -> str:
        """What an undo makes of it: it waits for review again, or is reverted again where it once stood in the document."""
        return "staged" if self.signal.section_id is None else "reverted"

    @property
    def length_words(self) -> str:
        """How the answers' lengths compare, in words of text."""
        chosen, rejected = len(self.signal.chosen.split()), len(self.signal.rejected.split())
        if chosen == rejected:
            return f"both {chosen} words"
        return f"{chosen} against {rejected} words ({chosen - rejected:+d})"


@dataclass(frozen=True)
class Details:
    """A pair looked at closely. `diff` is None where the answers are too long to compare."""

    card: Card
    diff: Sequence[DiffPart] | None
    origin: Mapping[str, str]  # what is known of where it comes from, name → value
    reasons: Mapping[str, str]  # the judge's words on each answer
    drift: str  # why it is flagged for drift, "" when it is not
    edited: bool
    mined: tuple[str, str] | None  # the answers as they were mined, when a person edited them


def card_of(store: Store, signal_id: int) -> Card:
    """One card.

    Raises:
        MissingRecordError: no such signal.
    """
    return cards_of(store, [store.signals.get(signal_id)])[0]


def cards_of(store: Store, signals: Sequence[Signal]) -> list[Card]:
    """Signals with what a list says about them."""
    ids = [signal.id for signal in signals]
    used, lines = store.signals.used_by(ids), store.signals.document_lines(ids)
    answers = [
        (signal.prompt, text) for signal in signals for text in (signal.chosen, signal.rejected) if text
    ]
    votes = store.signals.votes(answers)
    return [
        Card(
            signal,
            votes.get((signal.prompt, signal.chosen), 0),
            votes.get((signal.prompt, signal.rejected), 0),
            used.get(signal.id, ()),
            lines.get(signal.id, signal.line if signal.home == "document" else None),
        )
        for signal in signals
    ]


def details_of(store: Store, path: Path, signal_id: int) -> Details:
    """A signal looked at closely.

    Raises:
        MissingRecordError: no such signal.
    """
    card = card_of(store, signal_id)
    signal = card.signal
    found = trace(store, signal.staged_id) if signal.staged_id is not None else None
    drift = ""
    if "topic_drift" in card.flags:
        measured = Topics(questions_of(store, path)).measure(signal.prompt, signal.chosen, signal.rejected)
        if measured is not None:
            drift = (
                f"the rejected answer takes up {measured.own:.0%} of its question's words, weighed by how rare they are; "
                f"the chosen one {measured.chosen:.0%}"
            )
            if measured.question:
                drift += f". It fits another question better ({measured.other:.0%}): {measured.question}"
    edited = found is not None and found.pair.edited
    return Details(
        card=card,
        diff=word_diff(signal.chosen, signal.rejected) if card.is_pair else None,
        origin=_origin(store, card, found),
        reasons=_reasons(signal, found),
        drift=drift,
        edited=edited,
        mined=(found.chosen.text, found.rejected.text) if found is not None and edited else None,
    )


def _reasons(signal: Signal, found: Trace | None) -> dict[str, str]:
    if found is None:
        return {"reason": signal.reason} if signal.reason else {}
    both = {"chosen": found.chosen.reasoning, "rejected": found.rejected.reasoning}
    return {side: text for side, text in both.items() if text}


def _origin(store: Store, card: Card, found: Trace | None) -> dict[str, str]:
    """The chain from a signal back to where it comes from."""
    signal = card.signal
    items = {"source": signal.source}
    if signal.judge:
        items["judge"] = signal.judge
    if signal.scale:
        items["scale"] = signal.scale
    if card.line is not None:
        items["document"] = f"line {card.line}" + (
            f", section {signal.section_id}" if signal.section_id else ""
        )
    if found is not None:
        run = found.run
        items["sampled by"] = run.parent_version or "the base"
        items["mine run"] = f"{run.id}, {run.status}"
        for side, one in (("chosen", found.chosen), ("rejected", found.rejected)):
            if one.n_tokens:
                ended = "cut off" if one.finish_reason == "length" else "ended by itself"
                items[f"{side} sample"] = f"{one.sample}, seed {one.seed}, {one.n_tokens} tokens, {ended}"
    for name, value in signal.provenance.items():
        items.setdefault(name.replace("_", " "), str(value))
    items["used by"] = "; ".join(_named(store.runs.get(run)) for run in card.used_by) or "no run yet"
    items["since"] = signal.created_at
    items["key"] = f"{signal.key[:16]}…"
    return items


def _named(run: Run) -> str:
    made = f", {run.version}" if run.version else ""
    return f"run {run.id} ({run.kind}{f' {run.method}' if run.method else ''}{made})"
