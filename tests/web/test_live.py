"""The event stream: what a page is told, what it gets when it comes back, and that a dead trainer is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dlm import review
from dlm.store import Home, NewSignal, RunSpec, Store
from dlm.web.commands import Trainers
from dlm.web.desk import Desk
from dlm.web.live import Feed, Watcher
from mined_pairs import mine
from recorded_runs import DLM_ID, record_run, recorded_document
from web_server import wait_until


def events(text: list[str]) -> list[tuple[str, str, Any]]:
    """Chunks of a stream as (event, id, data)."""
    found = []
    for chunk in text:
        fields = dict(line.split(": ", 1) for line in chunk.strip().splitlines() if not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return found


def heard(feed: Feed, last_id: str, publish: list[dict[str, Any]]) -> list[tuple[str, str, Any]]:
    """What a page hears that asks from `last_id`, while these are published."""

    async def listen() -> list[str]:
        feed.open(asyncio.get_running_loop())
        stream = feed.stream(last_id)
        text = [await anext(stream), await anext(stream)]
        for data in publish:
            feed.publish(data)
        with contextlib.suppress(TimeoutError):
            while True:
                text.append(await asyncio.wait_for(anext(stream), 0.2))
        return text

    # In a thread of its own: the browser of other tests keeps a loop running in this one.
    with ThreadPoolExecutor(1) as pool:
        return events(pool.submit(lambda: asyncio.run(listen())).result())


def test_a_page_hears_what_happens_after_it_came() -> None:
    told = heard(Feed(), "", [{"runs": True}, {"data": True}])
    assert [one[0] for one in told] == ["hello", "change", "change"]
    assert [one[2] for one in told[1:]] == [{"runs": True}, {"data": True}]
    numbers = [int(one[1].partition("-")[2]) for one in told]
    assert numbers == sorted(numbers)


def test_a_page_that_comes_back_gets_what_it_missed() -> None:
    feed = Feed()
    told = heard(feed, "", [{"n": 1}, {"n": 2}, {"n": 3}])
    again = heard(feed, told[1][1], [{"n": 4}])
    assert [one[2] for one in again[1:]] == [{"n": 2}, {"n": 3}, {"n": 4}]


@pytest.mark.parametrize("last_id", ["other-1", "nonsense", "-", "x-99999999999999999999"])
def test_a_page_of_another_server_is_told_to_begin_anew(last_id: str) -> None:
    assert [one[0] for one in heard(Feed(), last_id, [])] == ["reset"]


def test_a_page_that_missed_too_much_is_told_to_begin_anew() -> None:
    feed = Feed()
    told = heard(feed, "", [{"n": number} for number in range(700)])
    assert [one[0] for one in told] == ["hello", "reset"]  # it was too slow for seven hundred at once
    assert heard(feed, told[0][1], [])[0][0] == "reset"
    assert heard(feed, told[1][1], [{"n": 700}])[1][2] == {"n": 700}


class Heard(Feed):
    """A feed that keeps what is published."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, Any]] = []

    def publish(self, data: dict[str, Any]) -> None:
        self.told.append(data)

    def points(self, name: str) -> list[int]:
        return [
            step
            for one in self.told
            for step in one.get("points", {}).get("series", {}).get(name, {}).get("steps", [])
        ]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    document = tmp_path / "notes.dlm"
    document.write_text(recorded_document(), encoding="utf-8")
    return Desk(document, DLM_ID, Home.open(tmp_path / "home"))


@pytest.fixture
def feed(desk: Desk) -> Iterator[Heard]:
    """What a watcher tells of a store that it has looked at."""
    with desk.home.store(DLM_ID):
        pass
    heard = Heard()
    watcher = Watcher(desk, heard, Trainers())
    watcher.start()
    assert watcher.has_looked.wait(30)
    yield heard
    watcher.end()
    assert not watcher.is_alive()


def test_a_store_that_appears_is_told(desk: Desk) -> None:
    heard = Heard()
    watcher = Watcher(desk, heard, Trainers())
    watcher.start()
    time.sleep(0.3)  # it finds nothing
    with desk.home.store(DLM_ID):
        wait_until(lambda: {"runs": True, "data": True} in heard.told)
    watcher.end()


def test_a_run_that_begins_just_after_the_store_was_told_is_told_too(desk: Desk) -> None:
    class Begins(Heard):
        """A feed whose first news a page reads at once, and right after that a run begins."""

        def publish(self, data: dict[str, Any]) -> None:
            if not self.told:
                with desk.home.store(DLM_ID) as store, store.lock("dlm train"):
                    store.runs.finish(store.runs.start(RunSpec("sft")).id, "failed")
            super().publish(data)

    heard = Begins()
    watcher = Watcher(desk, heard, Trainers())
    watcher.start()
    time.sleep(0.3)
    with desk.home.store(DLM_ID):
        wait_until(lambda: any(one.get("runs") for one in heard.told[1:]))
    watcher.end()


def test_points_of_a_running_run_are_told_once_each(desk: Desk, feed: Heard) -> None:
    with desk.home.store(DLM_ID) as store, store.lock("dlm train"):
        run = store.runs.start(RunSpec("sft", planned_steps=50))
        with store.metrics.writer(run.id) as writer:
            writer.log(1, {"train_loss": 2.0})
            writer.flush()
            wait_until(lambda: any(one.get("runs") for one in feed.told))
            for step in range(2, 31):
                writer.log(step, {"train_loss": 1.0 / step, "valid_loss": 1.0})
                if step % 10 == 0:
                    writer.flush()
                    wait_until(lambda step=step: step in feed.points("train_loss"))
        # the newest known point comes with the next ones, since a step may be logged again
        assert sorted(set(feed.points("train_loss"))) == [
            one for one in range(1, 31) if one in feed.points("train_loss")
        ]
        assert set(range(3, 31)) <= set(feed.points("train_loss"))
        assert len(feed.points("train_loss")) <= 29 + 6


def test_the_last_points_of_a_run_are_told_though_it_has_ended_by_then(desk: Desk, feed: Heard) -> None:
    with desk.home.store(DLM_ID) as store, store.lock("dlm train"):
        for _ in range(3):  # that both are committed between two looks is likely, not certain
            feed.told.clear()
            run = store.runs.start(RunSpec("sft", planned_steps=2))
            with store.metrics.writer(run.id) as writer:
                writer.log(1, {"train_loss": 2.0})
                writer.flush()
                wait_until(lambda: any(one.get("runs") for one in feed.told))
                writer.log(2, {"train_loss": 1.0, "probe_exact_match": 1.0})
            store.runs.finish(run.id, "complete")
            wait_until(lambda: sum(bool(one.get("runs")) for one in feed.told) == 2)
            assert feed.points("train_loss")[-1] == 2
            assert feed.points("probe_exact_match") == [2]
            assert [one["points"]["run"] for one in feed.told if "points" in one][-1] == run.id


def test_points_that_came_to_rest_between_two_looks_are_told_too(desk: Desk) -> None:
    with desk.home.store(DLM_ID) as store, store.lock("dlm train"):
        run = store.runs.start(RunSpec("sft"))
        with store.metrics.writer(run.id) as writer:
            writer.log(1, {"train_loss": 2.0})
            writer.flush()
            for step in range(2, 5000):  # beyond the rows that become a blob
                writer.log(step, {"train_loss": 1.0})
            writer.flush()
            found = store.following.points_since(run.id, {"train_loss": 4000})
            assert found["train_loss"].steps.tolist() == list(range(4000, 5000))
        assert store.following.points_since(run.id, {"train_loss": 4999})["train_loss"].steps.tolist() == [
            4999
        ]


def test_a_run_whose_process_dies_is_told(desk: Desk, feed: Heard, tmp_path: Path) -> None:
    with desk.home.store(DLM_ID) as store:
        with store.lock("dlm train"):
            store.runs.start(RunSpec("sft"))
            wait_until(lambda: any(one.get("runs") for one in feed.told))
            feed.told.clear()
        # The lock is free and nothing was committed: as after a SIGKILL.
        wait_until(lambda: any(one.get("runs") for one in feed.told))


def test_the_document_and_signals_are_watched(desk: Desk, feed: Heard) -> None:
    with desk.home.store(DLM_ID) as store:
        record_run(store, steps=3)
        wait_until(lambda: any(one.get("events") or one.get("runs") for one in feed.told))
        feed.told.clear()
        store.signals.vote("q", "a", 1)
        wait_until(lambda: any(one.get("data") for one in feed.told))
        feed.told.clear()
        desk.path.write_text(recorded_document() + "\nmore\n", encoding="utf-8")
        wait_until(lambda: any(one.get("document") for one in feed.told))


def test_a_decision_is_told_while_a_run_trains_without_waiting_for_its_next_step(
    desk: Desk, feed: Heard
) -> None:
    with desk.home.store(DLM_ID) as store:
        first, _, _ = mine(store, desk.path)
        with store.lock("dlm train"):
            store.runs.start(RunSpec("sft"))
            wait_until(lambda: any(one.get("runs") for one in feed.told))
            for decide in (review.accept, review.reject):
                time.sleep(0.3)  # what came before has been told
                feed.told.clear()
                decide(store, [first.id])
                wait_until(lambda: any(one.get("data") for one in feed.told), timeout_s=10)


def test_the_mark_of_signals_differs_when_one_is_taken_back_or_consumed(tmp_path: Path) -> None:
    with Home.open(tmp_path / "home").store(DLM_ID) as store:
        marks = [store.following.signals()]
        for score in (1, 0):
            store.signals.vote("q", "a", score)
            marks.append(store.following.signals())
        for _ in range(2):  # the second run consumes what the first one did
            run = store.runs.record(RunSpec("preference", "orpo"), status="complete")
            store.signals.log_use(run.id, [NewSignal("pair", "hand", "q", "a", "b")])
            marks.append(store.following.signals())
        assert len(set(marks)) == 5
        assert store.following.signals() == marks[-1]


def test_a_mark_of_a_series_changes_with_it(tmp_path: Path) -> None:
    with Home.open(tmp_path / "home").store(DLM_ID) as store:
        run_id = record_run(store, steps=4)
        before = store.following.mark(run_id, "train_loss")
        assert before == store.following.mark(run_id, "train_loss")
        store.metrics.drop_after(run_id, 2)
        assert store.following.mark(run_id, "train_loss") != before
        assert store.following.mark(run_id, "none") == ()


def test_change_numbers_see_another_connection(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    with home.store(DLM_ID) as store, home.store(DLM_ID) as other:
        number = store.following.change_number()
        assert store.following.change_number() == number
        _write(other)
        assert store.following.change_number() != number


def _write(store: Store) -> None:
    store.signals.vote("q", "a", -1)
