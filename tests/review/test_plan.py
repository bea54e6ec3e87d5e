"""Decisions about staged pairs, and where a pair comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlm import review
from dlm.document import load
from dlm.errors import MissingRecordError, TextError, UsageError
from dlm.store import RunSpec, StagedPair, Store, pair_key
from mined_pairs import TEXTS, mine

Staged = tuple[StagedPair, ...]


def statuses(store: Store) -> list[str]:
    return [pair.status for pair in store.mining.pairs()]


def test_accept_and_reject_by_number_then_the_rest(store: Store, staged: Staged) -> None:
    assert review.accept(store, [2, 2]).changed == (2,)
    assert review.reject(store, [1]).changed == (1,)
    assert review.accept(store).changed == (3,)
    assert statuses(store) == ["rejected", "accepted", "accepted"]
    assert review.accept(store, [2, 3]) == review.Decision((), (2, 3))
    with pytest.raises(UsageError, match="no pair is staged"):
        review.reject(store)
    assert review.accept(store, [1]).changed == (1,)  # a number is a new decision


def test_a_batch_is_a_mine_run(store: Store, document: Path, staged: Staged) -> None:
    with store.lock("test"):
        other = store.runs.start(RunSpec("sft")).id
    second = mine(store, document, [("p", "c", "r")])
    batches = review.batches(store)
    assert [[pair.id for pair in batch.pairs] for batch in batches] == [[1, 2, 3], [4]]
    run_id = second[0].run_id
    assert review.batches(store, run_id) == batches[1:]
    assert review.accept(store, batch=run_id).changed == (4,)
    assert statuses(store) == ["staged", "staged", "staged", "accepted"]
    with pytest.raises(UsageError, match="no pair is staged in batch"):
        review.accept(store, batch=run_id)
    with pytest.raises(UsageError, match="pair 2 is not of batch"):
        review.accept(store, [2, 4], batch=run_id)
    with pytest.raises(MissingRecordError, match=f"one of the mine runs 1, {run_id}"):
        review.reject(store, batch=other)
    with pytest.raises(MissingRecordError, match="no run 99"):
        review.batches(store, 99)


def test_one_unknown_number_decides_nothing(store: Store, staged: Staged) -> None:
    with pytest.raises(MissingRecordError, match="from 1 to 3"):
        review.accept(store, [1, 4])
    assert statuses(store) == ["staged"] * 3


def test_rejected_and_reverted_pairs_are_remembered(store: Store, document: Path, staged: Staged) -> None:
    review.reject(store, [1])
    review.apply(store, document)
    review.revert(store, document, [2])
    seen = {pair.content_key: pair.status for pair in store.mining.pairs()}
    assert [seen[pair_key(*texts)] for texts in TEXTS] == ["rejected", "reverted", "applied"]
    assert review.reverted_keys(store) == {pair_key(*TEXTS[0]), pair_key(*TEXTS[1])}
    review.reject(store, [2])  # a pair that was reverted and then turned down is no better for it
    assert review.reverted_keys(store) == {pair_key(*TEXTS[0]), pair_key(*TEXTS[1])}
    review.accept(store, [1, 2])
    assert review.reverted_keys(store) == frozenset()


def test_an_applied_pair_is_not_rejected_in_passing(store: Store, document: Path, staged: Staged) -> None:
    review.accept(store, [1])
    review.apply(store, document)
    with pytest.raises(UsageError, match="pair 1 is applied") as caught:
        review.reject(store, [1, 2])
    assert "revert DOCUMENT 1" in caught.value.next_step
    assert statuses(store) == ["applied", "staged", "staged"]
    assert review.accept(store, [1]).unchanged == (1,)


def test_an_edit_changes_what_is_written_and_not_what_was_mined(
    store: Store, document: Path, staged: Staged
) -> None:
    edited = review.edit(store, 1, chosen="Shorter.\n::instruction::\n")
    assert (edited.chosen, edited.rejected, edited.edited) == (
        "Shorter.\n::instruction::\n",
        TEXTS[0][2],
        True,
    )
    review.edit(store, 2, rejected="Worse.")
    review.apply(store, document, [1, 2])
    written = [
        triple for section in load(document).sections if section.auto_mined for triple in section.triples
    ]
    assert [(triple.chosen, triple.rejected) for triple in written] == [
        (edited.chosen, TEXTS[0][2]),
        (TEXTS[1][1], "Worse."),
    ]
    assert review.trace(store, 1).chosen.text == TEXTS[0][1]


@pytest.mark.parametrize(
    ("texts", "error"),
    [
        ({"chosen": TEXTS[0][2]}, UsageError),
        ({"chosen": "x", "rejected": "x"}, UsageError),
        ({"chosen": ""}, TextError),
        ({"rejected": "a\x00"}, TextError),
        ({"rejected": "\udc80"}, TextError),
    ],
    ids=str,
)
def test_an_edit_that_cannot_be_is_refused(
    texts: dict[str, str], error: type[Exception], store: Store, staged: Staged
) -> None:
    with pytest.raises(error):
        review.edit(store, 1, **texts)
    assert store.mining.pair(1) == staged[0]


def test_only_what_waits_for_review_is_edited(store: Store, document: Path, staged: Staged) -> None:
    review.accept(store, [1])
    assert review.edit(store, 1, chosen="x").status == "accepted"
    review.apply(store, document)
    review.reject(store, [2])
    for pair_id, step in ((1, "revert DOCUMENT 1"), (2, "accept DOCUMENT 2")):
        with pytest.raises(UsageError, match="can be edited") as caught:
            review.edit(store, pair_id, chosen="y")
        assert step in caught.value.next_step
    review.revert(store, document)
    with pytest.raises(UsageError, match="is reverted"):
        review.edit(store, 1, chosen="y")


def test_a_pair_is_traced_to_its_candidates_its_run_and_its_document(
    store: Store, document: Path, staged: Staged
) -> None:
    found = review.trace(store, 2)
    assert found.pair == staged[1]
    assert (found.chosen.text, found.chosen.score, found.chosen.reasoning) == (
        TEXTS[1][1],
        0.82,
        "because of 0.82",
    )
    assert (found.rejected.seed, found.rejected.sample) == (101, 1)
    assert found.run.document_sha256 == load(document).sha256
    with pytest.raises(MissingRecordError):
        review.trace(store, 9)
