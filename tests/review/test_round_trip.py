"""Any answer through the store, into the document, and back: exact, with the rest of the file untouched."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlm import review
from dlm.document import load, parse
from dlm.store import NewCandidate, NewPair, RunSpec, Store
from hostile_text import documents, texts, writable
from mined_pairs import Texts, mine

from .conftest import BODY, HEADER

HOSTILE = (
    "```python\nprint('never closed')",
    "~~~~\n```\n~~~",
    "A list:\n\n::instruction::\n### Q\nWho?\n### A\nMe.",
    '::preference#tone::\n<!-- dlm-auto-mined: judge_name="x" -->',
    "one\n### Rejected\ntwo\n### Chosen\n### Prompt",
    "\\::prose::\n\\\\### A\n\\",
    "windows\r\nlines\r\n\r\nand\ra lone one\r",
    "\u200fשלום\u200e \u202eright to left\u202c \u2067x\u2069",
    "\n\n  blank edges \t\n\n",
    " ",
    "---\n---\n",
    "\ufeffmark, \u2028, \x0b, \x1b[31m, \x85",
    "-->",
)


def stage(
    store: Store, run_id: int, pairs: Sequence[Texts], judge: str, scores: tuple[float, float]
) -> list[int]:
    """The pairs, staged as mining stages them; returns their numbers."""
    ids = []
    for number, (prompt, chosen, rejected) in enumerate(pairs):
        made = [
            NewCandidate(f"q{number}", prompt, sample, sample, text, 1, "stop")
            for sample, text in enumerate((chosen, rejected))
        ]
        better, worse = (candidate.id for candidate in store.mining.add_candidates(run_id, made))
        new = NewPair(
            f"q{number}", prompt, chosen, rejected, better, worse, *scores, judge, "2026-04-23T18:42:11Z"
        )
        ids += [pair.id for pair in store.mining.stage(run_id, [new])]
    return ids


def forget(store: Store) -> None:
    """Empty the mining tables, so that the last of two thousand examples takes no longer than the first."""
    with store.mining.exclusively(), store.mining._writing() as connection:
        connection.execute("DELETE FROM signals")  # those that follow staged pairs; no other are made here
        connection.execute("DELETE FROM staged_pairs")
        connection.execute("DELETE FROM candidates")


@pytest.mark.parametrize("feed", ["\n", "\r\n"])
@pytest.mark.parametrize("answer", HOSTILE, ids=ascii)
def test_hostile_answers_by_example(answer: str, feed: str, store: Store, document: Path) -> None:
    before = (HEADER + BODY).replace("\n", feed).encode()
    document.write_bytes(before)
    pairs = [("p", answer, "short"), ("p", "short", answer), (answer, "a", "b")]
    mine(store, document, pairs, judge=f"cli:{answer}")
    review.apply(store, document)
    check_written(before, document.read_bytes(), pairs)
    review.revert(store, document)
    assert document.read_bytes() == before


@pytest.mark.big
def test_a_megabyte_comes_back(store: Store, document: Path) -> None:
    answer = "".join(itertools.islice(itertools.cycle("\n".join(HOSTILE) + "ß"), 1_000_000))
    before = document.read_bytes()
    pairs = [("p", answer, "r"), ("p", "```\n" * 50_000, "::prose::\n" * 20_000)]
    mine(store, document, pairs)
    review.apply(store, document)
    check_written(before, document.read_bytes(), pairs)
    review.revert(store, document)
    assert document.read_bytes() == before


def check_written(before: bytes, after: bytes, pairs: Sequence[Texts]) -> None:
    """Every byte of before is still there, every section has its id, and the new ones say exactly the pairs."""
    assert after.startswith(before)
    old, new = parse(before).sections, parse(after).sections
    assert [section.id for section in new[: len(old)]] == [section.id for section in old]
    added = new[len(old) :]
    assert all(section.auto_mined and len(section.triples) == 1 for section in added)
    assert [(t.prompt, t.chosen, t.rejected) for section in added for t in section.triples] == list(pairs)


@pytest.fixture
def run_id(store: Store, monkeypatch: pytest.MonkeyPatch) -> int:
    """A mine run, in a store that does not wait for the disk: nothing here depends on a power cut."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    store.mining._database.rows("PRAGMA synchronous = OFF")
    with store.lock("test"):
        return store.runs.start(RunSpec("mine")).id


ONE_DOCUMENT = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]

some_pairs = st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=3, unique=True)


@settings(suppress_health_check=ONE_DOCUMENT)
@given(
    documents,
    some_pairs,
    st.one_of(writable, texts),
    st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2),
)
def test_apply_revert_apply_of_anything(
    run_id: int,
    store: Store,
    document: Path,
    text: str,
    pairs: list[Texts],
    judge: str,
    scores: tuple[float, float],
) -> None:
    before = text.encode()
    document.write_bytes(before)
    forget(store)
    ids = stage(store, run_id, pairs, judge, scores)
    review.apply(store, document)
    after = document.read_bytes()
    check_written(before, after, pairs)
    review.revert(store, document)
    assert document.read_bytes() == before
    review.apply(store, document, ids)
    assert document.read_bytes() == after


@settings(suppress_health_check=ONE_DOCUMENT, max_examples=settings().max_examples // 10)
@given(documents, some_pairs, st.randoms(use_true_random=False))
def test_in_any_order_one_by_one(
    run_id: int, store: Store, document: Path, text: str, pairs: list[Texts], random: Random
) -> None:
    before = text.encode()
    document.write_bytes(before)
    forget(store)
    ids = stage(store, run_id, pairs, "x", (1.0, 0.0))
    ours = [section.id for section in parse(before).sections]
    for pair_id in ids:
        review.apply(store, document, [pair_id])
    after = document.read_bytes()
    check_written(before, after, pairs)
    random.shuffle(ids)
    for pair_id in ids:
        review.revert(store, document, [pair_id])
        assert [section.id for section in load(document).sections][: len(ours)] == ours
    assert document.read_bytes() == before
    review.apply(store, document, ids)
    assert document.read_bytes() == after
