"""The plan that mining staged, and what a person decides about it: accept, reject, edit.

A decision is a short transaction in the store and touches no document; `apply` and `revert` do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlm.document import Document, load
from dlm.errors import MissingRecordError, UsageError
from dlm.review.matching import Places, locate
from dlm.store import Candidate, Run, StagedPair, Store

__all__ = [
    "Batch",
    "Decision",
    "Trace",
    "accept",
    "batches",
    "edit",
    "pick",
    "put_back",
    "reconcile",
    "reject",
    "reverted_keys",
    "trace",
]


@dataclass(frozen=True)
class Batch:
    """The pairs of one mine run, in the order in which they were staged."""

    run: Run
    pairs: tuple[StagedPair, ...]


@dataclass(frozen=True)
class Trace:
    """Where a pair comes from: its two candidates, and the run that sampled and judged them.

    The run names the version that answered (`parent_version`) and the document it was asked about (`document_sha256`).
    """

    pair: StagedPair
    chosen: Candidate
    rejected: Candidate
    run: Run


@dataclass(frozen=True)
class Decision:
    """The numbers of the pairs that have a new status, and of those that had it already."""

    changed: tuple[int, ...]
    unchanged: tuple[int, ...]


def batches(store: Store, run_id: int | None = None) -> tuple[Batch, ...]:
    """Every mine run with its pairs, oldest first; only one where its number is given.

    Raises:
        MissingRecordError: no such run, or it mined nothing because it is of another kind.
    """
    runs = [run for run in store.runs.list() if run.kind == "mine"]
    if run_id is not None:
        runs = [_mine_run(store, run_id)]
    return tuple(Batch(run, store.mining.pairs(run.id)) for run in runs)


def trace(store: Store, pair_id: int) -> Trace:
    """Where a pair comes from.

    Raises:
        MissingRecordError: no such pair.
    """
    pair = store.mining.pair(pair_id)
    return Trace(
        pair,
        store.mining.candidate(pair.chosen_candidate),
        store.mining.candidate(pair.rejected_candidate),
        store.runs.get(pair.run_id),
    )


def pick(
    store: Store, ids: Sequence[int] = (), batch: int | None = None, status: str | Iterable[str] | None = None
) -> tuple[StagedPair, ...]:
    """The pairs with these numbers, each once and in their order; without numbers, those of a batch and status.

    Raises:
        MissingRecordError: no such pair or batch.
        UsageError: numbers and a batch, when some of them are of another batch.
    """
    if batch is not None:
        _mine_run(store, batch)
    if not ids:
        return store.mining.pairs(batch, status)
    found = tuple(store.mining.pair(pair_id) for pair_id in sorted(set(ids)))
    strangers = [pair.id for pair in found if batch is not None and pair.run_id != batch]
    if strangers:
        raise UsageError(f"{_name(strangers)} not of batch {batch}", next_step="dlm preference list DOCUMENT")
    return found


def accept(store: Store, ids: Sequence[int] = (), *, batch: int | None = None) -> Decision:
    """Mark pairs as good: those with these numbers, else every staged one (of a batch, where it is given).

    Rejected and reverted pairs are taken up again when their numbers are given.

    Raises:
        UsageError: there is nothing to accept.
        MissingRecordError: no such pair or batch.
    """
    return _decide(store, "accepted", ids, batch, unchanged=("accepted", "applied"))


def reject(store: Store, ids: Sequence[int] = (), *, batch: int | None = None) -> Decision:
    """Turn pairs down for good, so that mining never offers them again: by number, else every staged one.

    Raises:
        UsageError: there is nothing to reject, or a pair stands in the document and must be reverted first.
        MissingRecordError: no such pair or batch.
    """
    return _decide(store, "rejected", ids, batch, unchanged=("rejected",))


def put_back(store: Store, pair_id: int, status: str) -> StagedPair:
    """Undo a decision: the pair is what it was before. What stands in the document is `revert`'s business.

    Raises:
        UsageError: the pair stands in the document, or never was what is asked for.
        MissingRecordError: no such pair.
    """
    with store.mining.exclusively():
        pair = store.mining.pair(pair_id)
        before = (
            ("staged", "accepted", "rejected")
            if pair.applied_at is None
            else ("accepted", "reverted", "rejected")
        )
        if pair.status == "applied" or status not in before:
            raise UsageError(
                f"pair {pair_id} is {pair.status} and cannot be {status} again",
                next_step="dlm preference list DOCUMENT shows what is there",
            )
        if pair.status != status:
            store.mining.set_status([pair_id], status)
    return store.mining.pair(pair_id)


def edit(store: Store, pair_id: int, *, chosen: str | None = None, rejected: str | None = None) -> StagedPair:
    """Give a pair that waits for review other answers; the one that is not given stays.

    Raises:
        UsageError: the pair does not wait for review, or both answers would be the same.
        TextError: a text that no document can hold.
        MissingRecordError: no such pair.
    """
    with store.mining.exclusively():
        pair = store.mining.pair(pair_id)
        if pair.status not in ("staged", "accepted"):
            step = {
                "applied": f"edit its section in the document, or: dlm preference revert DOCUMENT {pair_id}",
                "rejected": f"dlm preference accept DOCUMENT {pair_id}",
                "reverted": f"dlm preference accept DOCUMENT {pair_id}",
            }[pair.status]
            raise UsageError(
                f"pair {pair_id} is {pair.status}; only staged and accepted pairs can be edited",
                next_step=step,
            )
        better = pair.chosen if chosen is None else chosen
        worse = pair.rejected if rejected is None else rejected
        if better == worse:
            raise UsageError("the chosen and the rejected answer would be the same text")
        return store.mining.edit(pair_id, better, worse)


def reverted_keys(store: Store) -> frozenset[str]:
    """The `pair_key` of every pair that was reverted or rejected and stands in the document under no other number.

    A mined section with one of these keys was pasted back, and is not to be trained on. Rejected pairs count, for
    `reject` by number takes reverted ones, too.
    """
    pairs = store.mining.pairs(status=("reverted", "rejected", "applied"))
    applied = {pair.content_key for pair in pairs if pair.status == "applied"}
    return frozenset(pair.content_key for pair in pairs) - applied


def reconcile(store: Store, path: Path) -> tuple[Document, Places]:
    """Read the document and bring the store in line with what a killed apply or revert left there.

    A pair whose section stands in the document is applied; one whose revert began and whose section is gone is
    reverted. A store that cannot be written stays as it is.

    Raises:
        DlmError: the document cannot be read.
    """
    document = load(path)
    pairs = store.mining.pairs()
    places = locate(document, pairs)
    if store.mining.read_only or not _unrecorded(pairs, places):
        return document, places
    with store.mining.exclusively():  # read again: another process may have been about to record the same
        document = load(path)
        pairs = store.mining.pairs()
        places = locate(document, pairs)
        for pair_id, status in _unrecorded(pairs, places).items():
            section = places.of(pair_id)
            store.mining.set_status([pair_id], status, section_id=section.id if section else None)
    return document, places


def _unrecorded(pairs: Iterable[StagedPair], places: Places) -> dict[int, str]:
    """What the document says and the store does not: numbers of pairs and their true statuses."""
    found = {}
    for pair in pairs:
        if pair.status in ("staged", "accepted") and pair.id in places.exact:
            found[pair.id] = "applied"
        elif pair.status == "applied" and pair.reverting and places.of(pair.id) is None:
            found[pair.id] = "reverted"
    return found


def _decide(
    store: Store, status: str, ids: Sequence[int], batch: int | None, unchanged: Sequence[str]
) -> Decision:
    verb = {"accepted": "accept", "rejected": "reject"}[status]
    with store.mining.exclusively():
        pairs = pick(store, ids, batch, None if ids else "staged")
        if not pairs:
            where = f" in batch {batch}" if batch is not None else ""
            raise UsageError(
                f"there is nothing to {verb}: no pair is staged{where}",
                next_step="dlm preference list DOCUMENT shows what is there",
            )
        applied = [pair.id for pair in pairs if pair.status == "applied"]
        if status == "rejected" and applied:
            raise UsageError(
                f"{_name(applied)} applied; nothing was rejected",
                next_step=f"dlm preference revert DOCUMENT {' '.join(map(str, applied))}",
            )
        same = tuple(pair.id for pair in pairs if pair.status in unchanged)
        changed = tuple(pair.id for pair in pairs if pair.status not in unchanged)
        store.mining.set_status(changed, status)
    return Decision(changed, same)


def _mine_run(store: Store, run_id: int) -> Run:
    run = store.runs.get(run_id)
    if run.kind != "mine":
        known = [str(run.id) for run in store.runs.list() if run.kind == "mine"]
        raise MissingRecordError(
            f"run {run_id} is no batch: it is a {run.kind} run",
            expected=f"one of the mine runs {', '.join(known)}" if known else "nothing has been mined yet",
            next_step="dlm preference list DOCUMENT" if known else "dlm preference mine DOCUMENT",
        )
    return run


def _name(ids: Sequence[int]) -> str:
    return f"pair {ids[0]} is" if len(ids) == 1 else f"pairs {', '.join(map(str, ids))} are"
