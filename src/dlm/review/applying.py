"""Staged pairs into the document, and out of it again.

Applying appends one `::preference::` section a pair, with its provenance; the text is made and read back before the
file is touched, the file is replaced only if it still is what was read, and the store learns of it in the same
transaction. Killed between the two, the next command sees the sections and records them (`plan.reconcile`).
Reverting removes those sections and nothing else, so that apply, revert and apply come back to the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlm.document import Document, Section, append, parse, remove, render_preference, save
from dlm.document.parser import MAX_BYTES
from dlm.errors import ConflictError, DlmError, UsageError
from dlm.review.matching import Places, provenance_of
from dlm.review.plan import pick, reconcile
from dlm.store import StagedPair, Store, pair_key

__all__ = [
    "ApplyPlan",
    "ApplyReport",
    "LeftOut",
    "RevertReport",
    "Written",
    "apply",
    "carry_out",
    "plan_apply",
    "revert",
]


@dataclass(frozen=True)
class LeftOut:
    """A pair that was not applied or reverted, and why."""

    pair_id: int
    reason: str


@dataclass(frozen=True)
class Written:
    """A pair and its section; `line` is the section's in the document with it (apply) or before (revert)."""

    pair_id: int
    section_id: str
    line: int


@dataclass(frozen=True)
class ApplyPlan:
    """What applying would do to a document, to look at first; `carry_out` does it, on this very document or not at all."""

    path: Path
    document_sha256: str  # of the document as it was read
    text: str  # the document's text with the new sections
    pairs: tuple[StagedPair, ...]
    sections: tuple[Written, ...]  # one for each of `pairs`
    already: tuple[int, ...]  # pairs that stand in the document already
    left_out: tuple[LeftOut, ...]
    waiting: tuple[int, ...]  # staged pairs that were not asked for


@dataclass(frozen=True)
class ApplyReport:
    """What was applied. `document_sha256` is the document's hash now; `waiting` are staged pairs that were left."""

    written: tuple[Written, ...]
    already: tuple[int, ...]
    left_out: tuple[LeftOut, ...]
    waiting: tuple[int, ...]
    document_sha256: str


@dataclass(frozen=True)
class RevertReport:
    """What was reverted. `gone`: pairs whose sections somebody had removed before; they count as reverted now."""

    removed: tuple[Written, ...]
    gone: tuple[int, ...]
    edited: tuple[Written, ...]  # left as they are: their sections were edited by hand
    left_out: tuple[LeftOut, ...]
    document_sha256: str


def apply(store: Store, path: Path, ids: Sequence[int] = (), *, batch: int | None = None) -> ApplyReport:
    """Write pairs into the document: those with these numbers; else all accepted ones, or all staged where none is.

    Pairs with a number are written although they were reverted; rejected ones never. Again, it changes nothing: staged
    pairs left behind when accepted ones were applied wait until they are accepted or named.

    Raises:
        UsageError: there is nothing to apply, and nothing was applied before.
        ConflictError: somebody saved the document meanwhile: nothing was written.
        CopiedDocumentError: the store belongs to another file with the same id.
        DlmError: the document cannot be read or written.
    """
    store.attach(path)
    reconcile(
        store, path
    )  # outside the transaction below, so that it counts even when there is nothing to apply
    with store.mining.exclusively():
        return carry_out(store, plan_apply(store, path, ids, batch=batch))


def plan_apply(store: Store, path: Path, ids: Sequence[int] = (), *, batch: int | None = None) -> ApplyPlan:
    """What `apply` would do. Writes nothing.

    Raises:
        UsageError: there is nothing to apply, and nothing was applied before.
        DlmError: the document cannot be read.
    """
    document, places = reconcile(store, path)
    pool = _pool(store, ids, batch)
    by_hand = {
        pair_key(triple.prompt, triple.chosen, triple.rejected): triple.line
        for section in document.sections
        for triple in section.triples
    }
    pairs: dict[str, StagedPair] = {}
    already: list[int] = []
    left_out: list[LeftOut] = []
    for pair in pool:
        reason = _reason_against(pair, places, by_hand, pairs)
        if pair.id in places.exact or pair.id in places.edited:
            already.append(pair.id)
        elif reason:
            left_out.append(LeftOut(pair.id, reason))
        else:
            pairs[pair.content_key] = pair
    if not pairs and not already:
        if not ids and not left_out:  # all there is may have been applied before
            already = [pair.id for pair in store.mining.pairs(batch, "applied")]
        if not already:
            raise _nothing_to_apply(store, left_out, batch)
    asked = {pair.id for pair in pool}
    waiting = () if ids else (pair.id for pair in store.mining.pairs(batch, "staged") if pair.id not in asked)
    text, sections = _with_sections(document, list(pairs.values()))
    return ApplyPlan(
        path=path,
        document_sha256=document.sha256,
        text=text,
        pairs=tuple(pairs.values()),
        sections=sections,
        already=tuple(already),
        left_out=tuple(left_out),
        waiting=tuple(waiting),
    )


def carry_out(store: Store, plan: ApplyPlan) -> ApplyReport:
    """Do what was planned, if document and pairs are still those that the plan was made of.

    Raises:
        ConflictError: the document or a pair has changed since: nothing was written.
        DlmError: the document cannot be written.
    """
    sha256 = plan.document_sha256
    with store.mining.exclusively():
        for pair in plan.pairs:
            if store.mining.pair(pair.id) != pair:
                raise ConflictError(
                    f"pair {pair.id} was changed by someone else meanwhile; nothing was written",
                    next_step="run the same command again",
                )
        if plan.pairs:
            sha256 = save(plan.path, plan.text, plan.document_sha256)
        for section in plan.sections:
            store.mining.set_status([section.pair_id], "applied", section_id=section.section_id)
        store.mining.pass_over(plan.waiting)  # else the same command again would write them
    return ApplyReport(plan.sections, plan.already, plan.left_out, plan.waiting, sha256)


def revert(
    store: Store,
    path: Path,
    ids: Sequence[int] = (),
    *,
    batch: int | None = None,
    force: bool = False,
) -> RevertReport:
    """Take applied pairs out of the document: those with these numbers, else all (of a batch, where it is given).

    A section that was edited by hand is left where it is unless `force`. Reverted pairs that somebody pasted back
    go too.

    Raises:
        UsageError: there is nothing to revert.
        ConflictError: somebody saved the document meanwhile: nothing was written.
        CopiedDocumentError: the store belongs to another file with the same id.
        DlmError: the document cannot be read or written.
    """
    store.attach(path)
    document, places = reconcile(store, path)
    removed, edited, gone, left_out = _sort_out(store, places, ids, batch, force)
    if not removed and not gone:
        raise _nothing_to_revert(edited, left_out, batch)
    text = remove(document, list(removed.values())) if removed else document.text
    # The store notes first that a revert began: whatever ends this process after the file was replaced, the next
    # command then knows that a pair without its section was reverted and not cut out by a person.
    store.mining.begin_revert([*removed, *gone])
    sha256 = save(path, text, document.sha256) if removed else document.sha256
    store.mining.set_status([*removed, *gone], "reverted")
    return RevertReport(
        removed=_written(removed),
        gone=tuple(gone),
        edited=_written(edited),
        left_out=tuple(left_out),
        document_sha256=sha256,
    )


def _pool(store: Store, ids: Sequence[int], batch: int | None) -> tuple[StagedPair, ...]:
    """The pairs that an apply is about."""
    if ids:
        return pick(store, ids, batch)
    return pick(store, (), batch, "accepted") or tuple(
        pair for pair in pick(store, (), batch, "staged") if not pair.passed_over
    )


def _reason_against(
    pair: StagedPair, places: Places, by_hand: dict[str, int], chosen: dict[str, StagedPair]
) -> str:
    """Why a pair is not to be written, "" when it is."""
    if pair.status == "rejected":
        return "it was rejected; accept it first"
    if pair.content_key in chosen:
        return f"it says the same as pair {chosen[pair.content_key].id}"
    if pair.content_key in by_hand:
        return f"the document says the same already, at line {by_hand[pair.content_key]}"
    return ""


def _with_sections(document: Document, pairs: Sequence[StagedPair]) -> tuple[str, tuple[Written, ...]]:
    """The document's text with a section for each pair at its end, read back and compared."""
    if not pairs:
        return document.text, ()
    blocks = [
        render_preference([(pair.prompt, pair.chosen, pair.rejected)], provenance=provenance_of(pair))
        for pair in pairs
    ]
    text = append(document, blocks)
    size = len(text.encode()) + 3  # a byte order mark goes in front where the file has one
    if size > MAX_BYTES:
        raise DlmError(
            f"with {'this pair' if len(pairs) == 1 else f'these {len(pairs)} pairs'} the document would have {size:,} bytes",
            expected=f"at most {MAX_BYTES:,}",
            next_step="dlm preference apply DOCUMENT ID … writes some of them",
        )
    sections = parse(text).sections
    old, new = sections[: len(document.sections)], sections[len(document.sections) :]
    same = [_identity(section) for section in old] == [_identity(section) for section in document.sections]
    if not same or [_pair_of(section) for section in new] != [
        ((pair.prompt, pair.chosen, pair.rejected), dict(provenance_of(pair).values)) for pair in pairs
    ]:
        raise RuntimeError("the document does not read back as it was written; it was left as it is")
    return text, tuple(
        Written(pair.id, section.id, section.line) for pair, section in zip(pairs, new, strict=True)
    )


def _identity(section: Section) -> tuple[object, ...]:
    return section.kind, section.adapter, section.provenance, section.id, section.content


def _pair_of(section: Section) -> tuple[tuple[str, str, str], dict[str, str]] | None:
    if len(section.triples) != 1 or section.provenance is None:
        return None
    triple = section.triples[0]
    return (triple.prompt, triple.chosen, triple.rejected), dict(section.provenance.values)


def _sort_out(
    store: Store, places: Places, ids: Sequence[int], batch: int | None, force: bool
) -> tuple[dict[int, Section], dict[int, Section], list[int], list[LeftOut]]:
    """What a revert is about: sections to remove, edited sections to leave, pairs without a section, pairs left out."""
    removed: dict[int, Section] = {}
    edited: dict[int, Section] = {}
    gone: list[int] = []
    left_out: list[LeftOut] = []
    for pair in pick(store, ids, batch, None if ids else ("applied", "reverted")):
        section, changed = places.of(pair.id), pair.id in places.edited
        if pair.status not in ("applied", "reverted"):
            left_out.append(LeftOut(pair.id, f"it is {pair.status} and not in the document"))
        elif section is not None:
            (edited if changed and not force else removed)[pair.id] = section
        elif pair.status == "applied":
            gone.append(pair.id)
        elif ids:
            left_out.append(LeftOut(pair.id, "it is reverted already"))
    return removed, edited, gone, left_out


def _written(sections: dict[int, Section]) -> tuple[Written, ...]:
    return tuple(Written(pair_id, section.id, section.line) for pair_id, section in sections.items())


def _nothing_to_apply(store: Store, left_out: Sequence[LeftOut], batch: int | None) -> UsageError:
    """Why an apply has nothing to do, and what to type."""
    if left_out:
        return UsageError(
            "there is nothing to apply: " + _reasons(left_out),
            next_step="dlm preference list DOCUMENT shows what is there",
        )
    pairs = store.mining.pairs(batch)
    where = f" in batch {batch}" if batch is not None else ""
    if not pairs:
        return UsageError(
            f"there is nothing to apply: no pairs have been mined{where}",
            next_step="dlm preference mine DOCUMENT",
        )
    counts = {
        status: sum(pair.status == status for pair in pairs) for status in ("staged", "rejected", "reverted")
    }
    told = " and ".join(f"{count} {status}" for status, count in counts.items() if count)
    if counts["staged"]:
        return UsageError(
            f"there is nothing to apply{where}: staged pairs were left by an earlier apply ({told})",
            next_step="dlm preference accept DOCUMENT ID … takes them up",
        )
    reverted = [str(pair.id) for pair in pairs if pair.status == "reverted"]
    again = f"dlm preference apply DOCUMENT {' '.join(reverted)} writes the reverted ones again"
    return UsageError(
        f"there is nothing to apply{where}: every pair was decided on ({told})",
        next_step=again if reverted else "dlm preference mine DOCUMENT",
    )


def _nothing_to_revert(
    edited: dict[int, Section], left_out: Sequence[LeftOut], batch: int | None
) -> UsageError:
    """Why a revert has nothing to do, and what to type."""
    if edited:
        places = ", ".join(f"pair {pair_id} at line {section.line}" for pair_id, section in edited.items())
        return UsageError(
            f"nothing was reverted: edited by hand since they were written: {places}",
            next_step="the same command with --force removes them all the same",
        )
    if left_out:
        return UsageError(
            "there is nothing to revert: " + _reasons(left_out),
            next_step="dlm preference list DOCUMENT shows what is there",
        )
    where = f" of batch {batch}" if batch is not None else ""
    return UsageError(
        f"there is nothing to revert: no pair{where} is in the document",
        next_step="dlm preference list DOCUMENT shows what is there",
    )


def _reasons(left_out: Sequence[LeftOut]) -> str:
    return "; ".join(f"pair {item.pair_id}: {item.reason}" for item in left_out)
