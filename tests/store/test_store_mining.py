"""What mining remembers: candidates, judgements, staged pairs, and what became of them."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.errors import MissingRecordError, StoreError, TextError
from dlm.store import (
    PAIR_STATUSES,
    Candidate,
    Home,
    NewCandidate,
    NewPair,
    RunSpec,
    Store,
    malformed,
    pair_key,
)
from dlm.store import database as database_module

from .conftest import DLM_ID

NEW = NewCandidate("q1", "Why?", 0, -(2**63), "Because.", 3, "stop")


def mine_run(store: Store) -> int:
    with store.lock("test"):
        return store.runs.start(RunSpec("mine", "sway")).id


def two(store: Store, run_id: int, question: str = "q1") -> tuple[Candidate, ...]:
    rows = [replace(NEW, question_key=question, sample=i, text=f"answer {i}") for i in range(2)]
    return store.mining.add_candidates(run_id, rows)


def pair_of(better: Candidate, worse: Candidate) -> NewPair:
    return NewPair(
        better.question_key, better.prompt, better.text, worse.text, better.id, worse.id,
        0.75, -1e-300, "cli:x", "2026-04-23T18:42:11Z",
    )  # fmt: skip


def test_candidates_come_back_as_they_went_in_and_survive_the_process(home: Home, store: Store) -> None:
    run_id = mine_run(store)
    stored = store.mining.add_candidates(
        run_id, [NEW, replace(NEW, sample=1, seed=2**63 - 1, text="\r\n\u200f😀")]
    )
    assert [(c.id, c.run_id, c.attempts, c.score, c.skip) for c in stored] == [
        (1, run_id, 0, None, None),
        (2, run_id, 0, None, None),
    ]
    store.close()
    with home.store(DLM_ID) as again:
        assert again.mining.candidates(run_id) == stored
        assert again.mining.candidates(run_id, "q2") == ()
        assert again.mining.candidate(2) == stored[1]
        assert (stored[1].text, stored[1].seed, stored[0].seed) == ("\r\n\u200f😀", 2**63 - 1, -(2**63))


def test_adding_again_changes_nothing_and_a_bad_row_takes_none(store: Store) -> None:
    run_id = mine_run(store)
    first = two(store, run_id)
    store.mining.record_judgement(first[0].id, score=1.0)
    again = two(store, run_id)
    assert [c.id for c in again] == [1, 2]
    assert again[0].score == 1.0
    with pytest.raises(sqlite3.IntegrityError):
        store.mining.add_candidates(run_id, [replace(NEW, sample=7), replace(NEW, sample=None)])  # type: ignore[arg-type]
    assert len(store.mining.candidates(run_id)) == 2


@pytest.mark.parametrize(
    ("text", "fault"), [("", "empty"), ("a\x00b", "a NUL"), ("a\udcffb", "a lone surrogate")]
)
def test_text_that_no_document_holds_is_kept_apart(text: str, fault: str, store: Store) -> None:
    assert malformed(text) == fault
    run_id = mine_run(store)
    (stored,) = store.mining.add_candidates(run_id, [replace(NEW, text=text)])
    assert stored.skip == "malformed"
    assert store.mining.unjudged(run_id) == ()
    pair = pair_of(*two(store, run_id, "q2"))
    for name in ("prompt", "chosen", "rejected"):
        with pytest.raises(TextError, match=fault):
            store.mining.stage(run_id, [pair, replace(pair, **{name: text})])
    assert store.mining.pairs() == ()


def test_each_candidate_is_judged_once_and_failures_are_asked_once_more(store: Store) -> None:
    run_id = mine_run(store)
    mining = store.mining
    ids = [c.id for q in ("a", "b") for c in two(store, run_id, q)]
    mining.record_judgement(ids[0], score=0.5, reasoning="short \udc80 and right", seconds=0.25)
    mining.record_judgement(ids[1], error="timed out", seconds=1.0)
    mining.skip_candidates({ids[2]: "duplicate"}, {ids[2]: ids[0]})
    mining.record_judgement(ids[1], error="NaN", seconds=1.0)
    assert [c.id for c in mining.unjudged(run_id)] == [ids[3]]
    one, failed, skipped, _ = mining.candidates(run_id)
    assert (one.score, one.reasoning, one.attempts) == (0.5, "short \\udc80 and right", 1)
    assert (failed.score, failed.judge_error, failed.attempts, failed.judge_seconds) == (None, "NaN", 2, 2.0)
    assert (skipped.skip, skipped.duplicate_of) == ("duplicate", ids[0])
    mining.record_judgement(ids[3], error="crashed")
    mining.record_judgement(ids[3], score=-2.0)
    last = mining.candidate(ids[3])
    assert (last.score, last.judge_error, last.attempts) == (-2.0, None, 2)


@pytest.mark.parametrize(
    "verdict", [{}, {"score": math.nan}, {"score": math.inf}, {"score": 1.0, "error": "both"}], ids=str
)
def test_a_judgement_is_a_finite_score_or_an_error(verdict: dict[str, float], store: Store) -> None:
    run_id = mine_run(store)
    (first, _) = two(store, run_id)
    with pytest.raises(ValueError, match="finite score or an error"):
        store.mining.record_judgement(first.id, **verdict)  # type: ignore[arg-type]
    assert store.mining.candidate(first.id).attempts == 0


def test_pairs_are_staged_once_and_followed(home: Home, store: Store) -> None:
    run_id = mine_run(store)
    new = pair_of(*two(store, run_id))
    (pair,) = store.mining.stage(run_id, [new])
    for name in NewPair.__dataclass_fields__:
        assert getattr(pair, name) == getattr(new, name), name
    assert (pair.id, pair.run_id, pair.status, pair.section_id, pair.edited) == (
        1,
        run_id,
        "staged",
        None,
        False,
    )
    assert pair.margin == 0.75
    assert store.mining.stage(run_id, [new]) == (pair,)
    store.mining.set_status([pair.id], "applied", section_id="ab" * 8)
    assert store.mining.stage(run_id, [new])[0].status == "applied"
    store.mining.begin_revert([pair.id])
    assert store.mining.pair(1).reverting
    store.mining.set_status([pair.id], "reverted")
    store.close()
    with home.store(DLM_ID) as again:
        kept = again.mining.pair(1)
        assert (kept.status, kept.section_id, kept.reverting) == ("reverted", "ab" * 8, False)
        assert kept.applied_at
        assert again.mining.pairs(run_id, "reverted") == again.mining.pairs(status=PAIR_STATUSES) == (kept,)
        assert again.mining.pairs(run_id + 1) == again.mining.pairs(status="staged") == ()


@pytest.mark.parametrize(
    "bad", [{"chosen_score": math.nan}, {"rejected_score": -math.inf}, {"mined_at": "noon"}], ids=str
)
def test_a_pair_that_could_not_be_written_is_not_staged(bad: dict[str, float], store: Store) -> None:
    run_id = mine_run(store)
    with pytest.raises(ValueError, match=r"finite|isoformat"):
        store.mining.stage(run_id, [replace(pair_of(*two(store, run_id)), **bad)])  # type: ignore[arg-type]
    assert store.mining.pairs() == ()


def test_an_edit_keeps_the_status_and_both_contents_are_remembered(store: Store) -> None:
    run_id = mine_run(store)
    new = pair_of(*two(store, run_id))
    (pair,) = store.mining.stage(run_id, [new])
    store.mining.set_status([pair.id], "accepted")
    edited = store.mining.edit(pair.id, "better", new.rejected)
    assert (edited.chosen, edited.status, edited.edited) == ("better", "accepted", True)
    assert store.mining.candidate(edited.chosen_candidate).text == new.chosen
    store.mining.set_status([pair.id], "rejected")
    (kept,) = store.mining.pairs(status="rejected")
    assert kept.mined_key == pair_key("Why?", new.chosen, new.rejected)
    assert kept.content_key == pair_key("Why?", "better", new.rejected)
    assert store.mining.stage(run_id, [new])[0].id == pair.id  # known by what was mined
    assert not store.mining.edit(pair.id, new.chosen, new.rejected).edited
    with pytest.raises(TextError):
        store.mining.edit(pair.id, "", "x")


def test_unknown_numbers_are_told_with_the_known_ones(store: Store) -> None:
    with pytest.raises(MissingRecordError, match="no pairs have been mined yet"):
        store.mining.pair(3)
    run_id = mine_run(store)
    store.mining.stage(run_id, [pair_of(*two(store, run_id))])
    with pytest.raises(MissingRecordError, match="from 1 to 1"):
        store.mining.set_status([1, 3], "accepted")
    assert store.mining.pair(1).status == "staged"
    with pytest.raises(MissingRecordError, match="candidate 9"):
        store.mining.candidate(9)
    with pytest.raises(ValueError, match="lost"):
        store.mining.set_status([1], "lost")


def test_all_inside_exclusively_counts_or_none(store: Store) -> None:
    run_id = mine_run(store)
    store.mining.stage(run_id, [pair_of(*two(store, run_id))])

    def fail_half_way() -> None:
        with store.mining.exclusively():
            store.mining.set_status([1], "accepted")
            store.mining.edit(1, "a", "b")
            store.mining.pair(99)

    with pytest.raises(MissingRecordError):
        fail_half_way()
    assert store.mining.pair(1).status == "staged"
    assert not store.mining.pair(1).edited
    with store.mining.exclusively():
        store.mining.set_status([1], "accepted")
    assert store.mining.pair(1).status == "accepted"


def test_a_tally_counts_what_is_stored(store: Store) -> None:
    run_id = mine_run(store)
    mining = store.mining
    assert mining.tally(run_id).candidates == mining.tally(run_id).judge_seconds == 0
    first = two(store, run_id, "a")
    second = two(store, run_id, "b")
    mining.add_candidates(run_id, [replace(NEW, question_key="c", text="\x00")])
    mining.skip_candidates({second[1].id: "truncated"})
    mining.record_judgement(first[0].id, score=2.0, seconds=0.5)
    mining.record_judgement(first[1].id, error="crashed", seconds=0.5)
    mining.record_judgement(first[1].id, score=1.0, seconds=0.5)
    mining.record_judgement(second[0].id, error="crashed", seconds=0.5)
    mining.stage(run_id, [pair_of(*first)])
    tally = mining.tally(run_id)
    assert (tally.questions, tally.candidates, tally.judged, tally.judge_failed) == (3, 5, 2, 1)
    assert (tally.judge_calls, tally.judge_seconds, tally.tokens) == (4, 2.0, 15)
    assert tally.skipped_candidates == {"malformed": 1, "truncated": 1}
    assert tally.pairs == {"staged": 1, "accepted": 0, "rejected": 0, "applied": 0, "reverted": 0}


def test_a_store_of_the_first_schema_gains_the_tables(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    both = database_module._migrations()
    monkeypatch.setattr(database_module, "_migrations", lambda: both[:1])
    with home.store(DLM_ID) as old, old._database.transaction() as connection:
        connection.execute(
            "INSERT INTO runs (kind, method, status, recipe, data_hash, base, base_fingerprint, libraries, threads, layout,"
            " seed, document_sha256, planned_steps, started_at)"
            " VALUES ('mine', 'sway', 'complete', '{}', '', '', '', '{}', 1, '', 0, '', 0, '2026-01-31T10:03:11.042Z')"
        )
    monkeypatch.undo()
    run_id = 1
    with home.store(DLM_ID) as store:
        assert store.runs.get(run_id).kind == "mine"
        assert len(two(store, run_id)) == 2


def test_a_store_that_cannot_be_written_still_reads(
    home: Home, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = mine_run(store)
    store.mining.stage(run_id, [pair_of(*two(store, run_id))])
    store.close()

    def refuse(path: object, mode: int) -> bool:
        return False

    monkeypatch.setattr("dlm.store.database.os.access", refuse)
    with home.find(DLM_ID) as found:  # type: ignore[union-attr]
        assert found.mining.read_only
        assert found.mining.pair(1).status == "staged"
        with pytest.raises(StoreError, match="read-only"):
            found.mining.set_status([1], "accepted")


@pytest.mark.torch
@given(st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]))] * 3))
def test_a_pair_has_the_key_that_training_gives_it(texts: tuple[str, str, str]) -> None:
    from dlm.training import Pair

    assert pair_key(*texts) == Pair(*texts, origin="notes.dlm", line=1).key
