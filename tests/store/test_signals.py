"""Signals: one observation once, wherever its truth lies; votes, preferences, the log of what runs consumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dlm import review
from dlm.errors import MissingRecordError, StoreError, TextError, UsageError
from dlm.store import (
    FLAGS,
    DocumentPair,
    Home,
    NewSignal,
    RunSpec,
    SignalFilter,
    Store,
    count_signals,
    facets,
    find_signals,
    membership,
    pair_key,
    signal_key,
)
from dlm.store import database as database_module
from mined_pairs import mine

from .conftest import DLM_ID

PAIR = NewSignal("pair", "hand", "Where do laptops go?", "To the shelf.", "Behind the printer.")
SCALAR = NewSignal(
    "scalar", "grader", "Where do laptops go?", "To the shelf.", chosen_score=7.5, scale="1-10"
)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "notes.dlm"
    path.write_text(f"---\ndlm_id: {DLM_ID}\nbase_model: pocket\n---\n\nSome prose.\n", encoding="utf-8")
    return path


def count(store: Store, tab: str = "preference", **more: object) -> int:
    return count_signals(store.signals.index, replace(SignalFilter(tab), **more))  # type: ignore[arg-type]


def found(store: Store, tab: str = "preference", **more: object) -> list[str]:
    wanted = replace(SignalFilter(tab, order="oldest"), **more)  # type: ignore[arg-type]
    return [signal.chosen for signal in find_signals(store.signals.index, wanted)]


def preference_run(store: Store, method: str = "orpo") -> int:
    return store.runs.record(RunSpec("preference", method), status="complete").id


def test_a_pair_has_the_key_that_training_gives_it() -> None:
    assert PAIR.key == pair_key(PAIR.prompt, PAIR.chosen, PAIR.rejected)
    assert SCALAR.key == signal_key("scalar", SCALAR.prompt, SCALAR.chosen) != PAIR.key


def test_adding_again_changes_nothing_and_another_judge_is_another_observation(store: Store) -> None:
    first = store.signals.add([PAIR, SCALAR, PAIR])
    assert (len(first.ids), first.known) == (2, 1)
    assert first.counts == {"pair hand": 1, "scalar grader": 1}
    assert store.signals.add([PAIR, SCALAR]).known == 2
    other = replace(PAIR, judge="evaluator", chosen_score=8.9, rejected_score=5.4)
    assert len(store.signals.add([other, replace(SCALAR, chosen_score=7.0)]).ids) == 2
    assert (count(store), count(store, "reward")) == (2, 2)
    assert store.signals.get(first.ids[0]).created_at


@pytest.mark.parametrize(
    ("signal", "error"),
    [
        (replace(PAIR, chosen="a\x00b"), TextError),
        (replace(PAIR, prompt="\ud800"), TextError),
        (replace(PAIR, rejected=""), TextError),
        (replace(PAIR, source="rumour"), ValueError),
        (replace(PAIR, kind="triple"), ValueError),
        (replace(PAIR, chosen_score=float("nan")), ValueError),
        (replace(SCALAR, chosen_score=None), ValueError),
    ],
)
def test_what_no_document_could_hold_is_refused_and_nothing_is_written(
    store: Store, signal: NewSignal, error: type[Exception]
) -> None:
    with pytest.raises(error):
        store.signals.add([SCALAR, signal])
    assert count(store, "reward") == 0


def test_tabs_are_what_the_contract_says(store: Store) -> None:
    kept = replace(PAIR, source="experiment")
    store.signals.add([PAIR, replace(PAIR, source="mined"), replace(PAIR, source="grader"), kept, SCALAR])
    store.signals.vote("Who?", "Everybody.", 1)
    assert [count(store, tab) for tab in ("preference", "reward", "dpo", "orpo")] == [3, 2, 1, 0]
    store.signals.log_use(preference_run(store, "dpo"), [PAIR])
    assert count(store, "orpo") == 0
    store.signals.log_use(preference_run(store), [PAIR, kept])
    assert [count(store, tab) for tab in ("preference", "reward", "dpo", "orpo")] == [3, 2, 1, 2]
    assert count(store, "") == 6
    with pytest.raises(UsageError):
        membership("rlhf")


def test_a_vote_is_the_last_word_and_what_was_said_before_stays_known(store: Store) -> None:
    before = store.signals.as_of_now()
    up = store.signals.vote("Who?", "Everybody.", 1)
    assert up is not None
    assert (up.source, up.chosen_score, up.scale) == ("vote", 1.0, "vote")
    assert store.signals.vote("Who?", "Everybody.", 1) == up
    then = store.signals.as_of_now()
    down = store.signals.vote("Who?", "Everybody.", -1)
    assert down is not None
    assert down.id != up.id
    assert store.signals.votes([("Who?", "Everybody."), ("Who?", "Nobody.")]) == {("Who?", "Everybody."): -1}
    assert [one.chosen_score for one in store.signals.stored("scalar")] == [-1.0]
    assert [one.chosen_score for one in store.signals.stored("scalar", (then[0], up.created_at))] == [1.0]
    assert store.signals.stored("scalar", before) == ()
    assert store.signals.vote("Who?", "Everybody.", 0) is None
    assert count(store, "reward") == 0
    with pytest.raises(ValueError, match="vote"):
        store.signals.vote("Who?", "Everybody.", 2)


def test_voting_needs_no_lock(home: Home, store: Store) -> None:
    with store.lock("dlm train"), home.store(DLM_ID) as other:
        assert other.signals.vote("Who?", "Everybody.", 1) is not None


def test_a_preference_is_staged_and_never_a_pair_to_train_on(store: Store, document: Path) -> None:
    pair = store.signals.prefer("Who?", "Everybody.", "Nobody.")
    assert pair.status == "staged"
    assert store.signals.stored("pair") == ()
    again = store.signals.prefer("Who?", "Somebody.", "Nobody.")
    assert again.run_id == pair.run_id
    assert store.runs.get(pair.run_id).method == "browser"
    assert [signal.source for signal in find_signals(store.signals.index, SignalFilter())] == ["vote", "vote"]
    review.accept(store, [pair.id])
    review.apply(store, document, [pair.id])
    assert "Everybody." in document.read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="same"):
        store.signals.prefer("Who?", "Nobody.", "Nobody.")


def test_staged_pairs_are_followed_through_review(store: Store, document: Path) -> None:
    first, second, third = mine(store, document)
    assert count(store) == count(store, standing="staged") == 3
    review.accept(store, [first.id])
    review.reject(store, [second.id])
    review.edit(store, third.id, chosen="On the shelf.")
    assert (count(store), count(store, standing="turned-down"), count(store, standing="accepted")) == (
        2,
        1,
        1,
    )
    assert found(store, search="shelf") == ["On the shelf."]
    review.put_back(store, second.id, "staged")
    assert count(store) == 3
    signal = store.signals.get(store.signals.of_staged_pair(third.id))
    assert signal.key == pair_key(third.prompt, "On the shelf.", third.rejected)
    assert signal.reviewable
    with pytest.raises(UsageError):
        review.put_back(store, first.id, "applied")
    with pytest.raises(MissingRecordError):
        store.signals.of_staged_pair(99)


def mirrored(pair: NewSignal, line: int = 7) -> DocumentPair:
    return DocumentPair(pair, line, "0123456789abcdef")


def test_the_document_s_pairs_are_an_index_whose_rows_keep_their_numbers(store: Store) -> None:
    other = replace(PAIR, prompt="Who waters the plants?")
    store.signals.mirror_document("one", [mirrored(PAIR), mirrored(other, 12)])
    before = {one.prompt: one.id for one in find_signals(store.signals.index, SignalFilter())}
    store.signals.mirror_document("two", [mirrored(other, 3)])
    (left,) = find_signals(store.signals.index, SignalFilter())
    assert (left.id, left.line, left.home) == (before[other.prompt], 3, "document")
    assert store.signals.mirrored() == "two"
    assert found(store, search="laptops") == []


def test_one_observation_in_two_homes_is_listed_once(store: Store) -> None:
    (number,) = store.signals.add([PAIR]).ids
    store.signals.mirror_document("one", [mirrored(PAIR)])
    assert [one.home for one in find_signals(store.signals.index, SignalFilter())] == ["document"]
    assert store.signals.add([PAIR]).known == 1
    assert store.signals.document_lines([number]) == {number: 7}
    store.signals.mirror_document("two", [])
    assert [one.home for one in find_signals(store.signals.index, SignalFilter())] == ["store"]


def test_an_applied_pair_whose_section_was_edited_gives_way_to_the_document(
    store: Store, document: Path
) -> None:
    first = mine(store, document)[0]
    review.apply(store, document, [first.id])
    texts = NewSignal(
        "pair", "mined", first.prompt, first.chosen, first.rejected, 0.82, 0.31, judge=first.judge_name
    )
    store.signals.mirror_document("one", [mirrored(texts)])
    listed = find_signals(store.signals.index, SignalFilter(standing="document"))
    assert [(one.home, one.staged_id) for one in listed] == [("mined", first.id)]
    store.signals.mirror_document("two", [mirrored(replace(texts, chosen="Short."))])
    listed = find_signals(store.signals.index, SignalFilter(standing="document"))
    assert [(one.home, one.chosen) for one in listed] == [("document", "Short.")]


def test_the_log_outlives_its_pairs_and_is_no_data_of_its_own(store: Store) -> None:
    store.signals.mirror_document("one", [mirrored(PAIR)])
    run_id = preference_run(store)
    assert store.signals.log_use(run_id, [PAIR, PAIR]) == 1
    assert store.signals.log_use(run_id, [PAIR]) == 0
    (listed,) = find_signals(store.signals.index, SignalFilter("orpo"))
    assert listed.home == "document"
    assert store.signals.used_by([listed.id]) == {listed.id: (run_id,)}
    store.signals.mirror_document("two", [])
    (listed,) = find_signals(store.signals.index, SignalFilter("orpo"))
    assert listed.home == "log"
    assert count(store) == 0
    assert store.signals.stored("pair") == ()
    assert count(store, "orpo", run=run_id) == 1
    with pytest.raises(MissingRecordError):
        store.signals.log_use(99, [PAIR])


def test_filters_and_orders(store: Store) -> None:
    wide = replace(PAIR, prompt="One?", chosen="a b c", chosen_score=9.0, rejected_score=1.0, judge="strict")
    close = replace(PAIR, prompt="Two?", chosen="abcdefgh " * 9, chosen_score=5.0, rejected_score=4.5)
    ids = store.signals.add([PAIR, wide, close]).ids
    store.signals.set_flags({ids[0]: ["topic_drift"], ids[1]: [], ids[2]: ["leading_space", "topic_drift"]})
    assert count(store, flag="topic_drift") == count(store, flag="any") == 2
    assert count(store, flag="leading_space") == 1
    assert count(store, judge="strict") == 1
    assert count(store, min_margin=0.5) == 2
    assert count(store, source="mined") == 0
    assert count(store, standing="store") == 3
    assert found(store, order="widest")[0] == "a b c"
    assert found(store, order="narrowest")[0] == close.chosen
    assert found(store, order="longer")[0] == close.chosen
    assert found(store, order="best")[0] == "a b c"
    assert store.signals.get(ids[2]).flags == ("leading_space", "topic_drift")
    assert facets(store.signals.index, "preference").flags == {"topic_drift": 2, "leading_space": 1}
    page = find_signals(store.signals.index, SignalFilter(order="oldest"), limit=2, offset=2)
    assert [one.id for one in page] == [ids[2]]
    for bad in ({"standing": "x"}, {"flag": "x"}, {"source": "x"}, {"order": "x"}):
        with pytest.raises(UsageError, match="there is no"):
            find_signals(store.signals.index, SignalFilter(**bad))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("search", "hits"),
    [
        ("laptops", 1), ("LAPTOPS shelf", 1), ("lap", 1), ("lap shelf", 0), ("shelf lap", 1), ("printer.", 1),
        ("nothing", 0), ("", 1), ("   ", 1), ('"', 0), ("*", 0), ("NEAR(", 0), ("shelf OR x", 0), ("prompt:laptops", 0),
        ("a\x00b", 0), ("'; DROP TABLE signals; --", 0),
    ],
)  # fmt: skip
def test_a_search_is_words_and_never_a_language(store: Store, search: str, hits: int) -> None:
    store.signals.add([PAIR])
    assert count(store, search=search) == hits


def test_flags_are_forgotten_when_texts_change_or_the_measure_does(store: Store, document: Path) -> None:
    first = mine(store, document)[0]
    number = store.signals.of_staged_pair(first.id)
    assert len(store.signals.to_look_at(10)) == 3
    store.signals.set_flags({one.id: FLAGS[:1] for one in store.signals.to_look_at(10)})
    assert store.signals.to_look_at(10) == ()
    review.edit(store, first.id, chosen="Other.")
    assert [one.id for one in store.signals.to_look_at(10)] == [number]
    store.signals.look_again(12)
    assert len(store.signals.to_look_at(10)) == 3
    assert store.signals.measured_by() == 12


def test_what_is_not_listed_is_not_looked_at(store: Store) -> None:
    store.signals.add([PAIR, SCALAR])
    store.signals.log_use(preference_run(store), [PAIR, replace(PAIR, prompt="Gone?")])
    assert (
        store.signals.not_looked_at() == len(store.signals.to_look_at(10)) == 2
    )  # the pair, and what is left in the log
    store.signals.set_flags({one.id: [] for one in store.signals.to_look_at(10)})
    assert store.signals.not_looked_at() == 0


def test_a_store_of_before_gains_signals_of_what_was_staged(
    home: Home, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with home.store(DLM_ID) as store:
        mine(store, document)
    path = home.find(DLM_ID).folder / "store.sqlite3"  # type: ignore[union-attr]
    old = database_module.Database.open(path)
    signals = next(
        i for i, sql in enumerate(database_module._migrations()) if "CREATE TABLE signals (" in sql
    )
    with old.transaction() as connection:  # back to the schema before signals
        for kind, name in connection.execute(
            "SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view') OR (type = 'table' AND name IN"
            " ('signals', 'signal_uses', 'signals_text')) ORDER BY type = 'table', name = 'signals'"
        ).fetchall():
            connection.execute(f"DROP {kind} IF EXISTS {name}")
        connection.execute("ALTER TABLE runs DROP COLUMN imported")
        connection.execute(f"PRAGMA user_version = {signals}")
    old.close()
    monkeypatch.setattr(database_module, "_migrations", lambda: scripts[: signals + 1])
    scripts = _scripts()
    with home.store(DLM_ID) as store:
        assert count(store, standing="staged") == 3
        assert found(store, search="shelf") == ["To the shelf."]


def _scripts() -> tuple[str, ...]:
    return tuple(
        path.read_text(encoding="utf-8")
        for path in sorted((Path(database_module.__file__).parent / "migrations").glob("*.sql"))
    )


def test_a_store_that_cannot_be_written_is_searched_in_a_copy(
    home: Home, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.signals.add([PAIR])
    store.close()
    refuse: Callable[..., bool] = lambda *_: False  # noqa: E731
    monkeypatch.setattr("dlm.store.database.os.access", refuse)
    with home.find(DLM_ID) as reader:  # type: ignore[union-attr]
        reader.signals.mirror_document("one", [mirrored(replace(PAIR, prompt="New?"))])
        assert count(reader) == 2
        with pytest.raises(StoreError, match="read-only"):
            reader.signals.vote("Who?", "Everybody.", 1)
    with home.find(DLM_ID) as reader:  # type: ignore[union-attr]
        assert count(reader) == 1


def test_an_imported_run_is_over_and_never_resumed(store: Store) -> None:
    run = store.runs.record(RunSpec("preference", "dpo"), status="interrupted", imported={"ref": "a"})
    assert run.imported == {"ref": "a"}
    assert not run.resumable
    assert store.runs.list()[-1] == run
    with pytest.raises(ValueError, match="over"):
        store.runs.record(RunSpec("preference"), status="running")
