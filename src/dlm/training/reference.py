"""Reference log-probs: what the model a run starts from thinks of each answer, computed once and kept on disk.

A run compares its policy with where it started, at every step and evaluation; the reference never moves, so each answer
is scored once, with dropout off, and found again by what decides its score: the tokens of prompt and answer (row and
template show in them), the base, the adapter, and the arithmetic. One changed byte in any of them misses; order, batch,
epoch, run and document do not matter.
"""

from __future__ import annotations

import hashlib
import math
import os
import sqlite3
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from dlm.errors import NonFiniteError
from dlm.model import Policy
from dlm.training.adapters import adapter_hash
from dlm.training.layout import Layout
from dlm.training.objectives import Reference
from dlm.training.pairs import PairExample
from dlm.training.world import current

__all__ = ["CachedAnswer", "ReferenceCache", "ReferenceReport", "Scorer", "compute_reference"]

T = TypeVar("T")

_FILE = "reference.sqlite"
_FORMAT = 1
_BUSY_S = 10.0
_KEYS_PER_QUERY = 500  # SQLite takes 999 variables in a statement, or more
_BATCH_POSITIONS = 8192  # of one pass without gradients
_TABLE = (
    "CREATE TABLE IF NOT EXISTS answers "
    "(key BLOB PRIMARY KEY, logprobs BLOB NOT NULL, total REAL NOT NULL, seal BLOB NOT NULL) WITHOUT ROWID"
)


@dataclass(frozen=True)
class Scorer:
    """Everything beside the tokens that decides a log-prob. `adapter` is empty where the base speaks alone."""

    base: str  # fingerprint
    adapter: str  # see `adapter_hash`
    precision: str
    products: str
    device: str  # cpu, cuda, mps: their kernels round differently

    @classmethod
    def of(cls, policy: Policy, model: Any, products: str, *, with_adapter: bool) -> Scorer:
        """The model as it is now, with its adapter or without."""
        adapter = adapter_hash(model) if with_adapter else ""
        device = policy.device.value.partition(":")[0]
        return cls(policy.fingerprint, adapter, policy.dtype.value, products, device)

    def key(self, prompt: Sequence[int], answer: Sequence[int]) -> bytes:
        """32 bytes that name one answer's log-probs."""
        digest = hashlib.sha256(
            f"{_FORMAT}\0{self.base}\0{self.adapter}\0{self.precision}\0{self.products}\0{self.device}\0"
            f"{len(prompt)}\0".encode()
        )
        digest.update(array("q", [*prompt, *answer]).tobytes())
        return digest.digest()


@dataclass(frozen=True)
class CachedAnswer:
    """Log-probs of one answer: per token (C,) in fp32, nats, and their sum as the training step takes it."""

    logprobs: np.ndarray[Any, np.dtype[np.float32]]
    total: float


class ReferenceCache:
    """Log-probs of answers in a small database in `folder`; several processes may read and write it at once.

    It can always be computed anew, so nothing that happens to it stops a run: a damaged file is replaced, one that
    cannot be used is done without, and `notes` says so.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self.notes: list[str] = []

    def read(self, keys: Sequence[bytes]) -> dict[bytes, CachedAnswer]:
        """Those of the answers that are kept; one whose bytes changed on the disk is not."""
        if not os.path.exists(self._path):  # False, and no error, where the folder cannot be looked into
            return {}
        found: dict[bytes, CachedAnswer] = {}
        spoilt = 0
        for key, blob, total, seal in self._try(lambda: self._select(keys)) or []:
            if _seal(key, blob, total) == seal:
                found[key] = CachedAnswer(np.frombuffer(blob, "<f4"), total)
            else:
                spoilt += 1
        if spoilt:
            self.notes.append(f"{spoilt} kept reference log-probs were damaged on the disk: computed anew")
        return found

    def write(self, answers: Mapping[bytes, CachedAnswer]) -> None:
        """Keep answers; those that are there already are replaced."""
        rows = []
        for key, answer in answers.items():
            blob = answer.logprobs.astype("<f4").tobytes()
            total = answer.total + 0.0  # SQLite has no -0.0
            rows.append((key, blob, total, _seal(key, blob, total)))
        if rows:
            self._try(lambda: self._insert(rows))

    def _select(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes, float, bytes]]:
        rows: list[tuple[bytes, bytes, float, bytes]] = []
        with closing(self._connect()) as database:
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                some = keys[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, logprobs, total, seal FROM answers WHERE key IN ({marks})"
                rows += database.execute(query, some).fetchall()
        return rows

    def _insert(self, rows: Sequence[tuple[bytes, bytes, float, bytes]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as database, database:
            database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", rows)

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=_BUSY_S)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            with database:
                database.execute(_TABLE)
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _try(self, work: Callable[[], T]) -> T | None:
        """Do `work`; None where the file cannot be used. A damaged file is removed and the work done on a new one."""
        try:
            return work()
        except (
            sqlite3.OperationalError,
            OSError,
        ) as error:  # locked, full, not allowed: the file may be sound
            self._do_without(error)
            return None
        except sqlite3.DatabaseError as error:
            self.notes.append(f"the cache of reference log-probs was damaged ({error}): it is built anew")
        try:
            for name in (_FILE, f"{_FILE}-wal", f"{_FILE}-shm"):
                self._path.with_name(name).unlink(missing_ok=True)
            return work()
        except (sqlite3.Error, OSError) as error:
            self._do_without(error)
            return None

    def _do_without(self, error: Exception) -> None:
        self.notes.append(f"reference log-probs are not kept for the next run: {self._path}: {error}")


def _seal(key: bytes, blob: bytes, total: float) -> bytes:
    """Eight bytes that change when a stored row does."""
    return hashlib.sha256(key + blob + np.float64(total).tobytes()).digest()[:8]


@dataclass(frozen=True)
class ReferenceReport:
    """Where a reference came from: answers found in the cache, and answers scored now."""

    reused: int
    computed: int


def compute_reference(
    model: Any,
    layout: Layout,
    examples: Sequence[PairExample],
    cache: ReferenceCache | None,
    scorer: Scorer,
) -> tuple[Reference, ReferenceReport]:
    """Log-probs of both answers of every pair under the model as `scorer` describes it, in the layout of the run.

    Call it before a checkpoint is loaded: the reference is the adapter the run starts from, not where it stands. Several
    processes share the work.

    Raises:
        NonFiniteError: a log-prob is not a finite number; the pairs are named.
    """
    world = current()
    keys = {
        example.pair.key: [scorer.key(example.prompt, answer) for answer in example.branches]
        for example in examples
    }
    wanted = list(dict.fromkeys(key for both in keys.values() for key in both))
    kept = cache.read(wanted) if cache is not None else {}
    known = world.from_main({key: answer.total for key, answer in kept.items()})
    missing = [example for example in examples if any(key not in known for key in keys[example.pair.key])]
    mine: dict[bytes, CachedAnswer] = {}
    for batch in _batches(world.share(_in_order(missing, layout)), layout, model):
        answers = _score(model, layout, batch, use_adapter=bool(scorer.adapter))
        mine |= zip([key for example in batch for key in keys[example.pair.key]], answers, strict=True)
    scored = {key: answer for part in world.gather(mine) for key, answer in part.items() if key not in known}
    if cache is not None and world.is_main:
        cache.write(scored)
    totals = known | {key: answer.total for key, answer in scored.items()}
    logps = {pair: (totals[chosen], totals[rejected]) for pair, (chosen, rejected) in keys.items()}
    return logps, ReferenceReport(reused=len(known), computed=len(scored))


def _in_order(examples: Sequence[PairExample], layout: Layout) -> list[PairExample]:
    """Each pair once, those of like length together; the same whatever order they come in."""
    distinct = {example.pair.key: example for example in examples}
    return sorted(distinct.values(), key=lambda one: (layout.positions([one]), one.pair.key))


def _batches(examples: Sequence[PairExample], layout: Layout, model: Any) -> Iterator[Sequence[PairExample]]:
    budget = _BATCH_POSITIONS
    if not layout.headless:  # there every position has logits over the vocabulary
        budget = budget * 4096 // max(4096, model.get_input_embeddings().weight.shape[0])
    batch: list[PairExample] = []
    for example in examples:
        if batch and layout.positions([*batch, example]) > budget:
            yield batch
            batch = []
        batch.append(example)
    if batch:
        yield batch


def _score(
    model: Any, layout: Layout, batch: Sequence[PairExample], *, use_adapter: bool
) -> list[CachedAnswer]:
    """Every answer of a batch, pair by pair, chosen first."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), nullcontext() if use_adapter else model.disable_adapter():
            scores = layout.scores(model, batch)
    finally:
        model.train(training)
    totals = scores.sums().tolist()
    if not all(map(math.isfinite, totals)):
        bad = sorted({batch[i // 2].pair.place for i, total in enumerate(totals) if not math.isfinite(total)})
        raise NonFiniteError(
            "the reference gives log-probs that are not finite numbers",
            found=f"pairs {', '.join(bad)}",
            next_step="look at those pairs, or start from another version or base",
        )
    pieces = scores.logprobs.cpu().split(scores.lengths.tolist())
    return [CachedAnswer(piece.numpy(), total) for piece, total in zip(pieces, totals, strict=True)]
