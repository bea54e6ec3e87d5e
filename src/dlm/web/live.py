"""What changes, told to every open page at once: one watcher asks the store, any number of pages listen.

The watcher is a thread with a connection of its own. It asks SQLite several times a second whether anything was
committed (microseconds), and only then what. Pages hold an event stream; each event has an id, so that a page whose
connection broke gets what it missed, or is told to read everything anew when that is gone.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Hashable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from dlm.curves import Series
from dlm.errors import DlmError
from dlm.store import Store
from dlm.web.commands import Trainers
from dlm.web.desk import Desk
from dlm.workflow.project import runs_as_they_are

__all__ = ["Feed", "Watcher", "router"]

POLL_S = 0.1
_LIVENESS_S = 0.5  # between two looks at whether a run's process lives
_NO_STORE_S = 1.0  # between two looks at whether there is a store by now
_KEPT = 600  # events for pages that come back
_HEARTBEAT_S = 15.0

router = APIRouter()


class Feed:
    """Events for pages, with ids. Publish from any thread; `stream` belongs to the server's loop."""

    def __init__(self) -> None:
        self._boot = secrets.token_hex(4)  # ids of another run of the server mean nothing
        self._events: deque[tuple[int, str]] = deque(maxlen=_KEPT)
        self._number = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakers: set[asyncio.Event] = set()
        self._ended = False
        self.listeners = 0

    @property
    def position(self) -> str:
        """The id of the newest event: a page that is made now has seen everything up to it."""
        return f"{self._boot}-{self._number}"

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin; `loop` is the server's."""
        self._loop = loop

    def publish(self, data: dict[str, Any]) -> None:
        """Tell every page; from any thread. Before `open` and after `end` nobody listens."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._append, json.dumps(data, separators=(",", ":")))

    def end(self) -> None:
        """Let every stream end, so that the server can; also from a signal handler."""
        self._ended = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    async def stream(self, last_id: str) -> AsyncIterator[str]:
        """The events after `last_id` ("" for a new page), as an event stream."""
        waker = asyncio.Event()
        self._wakers.add(waker)
        self.listeners += 1
        try:
            seen, lost = self._place_of(last_id)
            yield "retry: 1000\n\n"
            yield self._told("reset" if lost else "hello", "{}", self._number if lost else seen)
            while not self._ended:
                waker.clear()
                if self._events and seen < self._events[0][0] - 1:  # a page too slow for what happened
                    seen = self._number
                    yield self._told("reset", "{}", seen)
                for number, text in [event for event in self._events if event[0] > seen]:
                    seen = number
                    yield self._told("change", text, number)
                try:
                    await asyncio.wait_for(waker.wait(), _HEARTBEAT_S)
                except TimeoutError:
                    yield ": still here\n\n"
        finally:
            self._wakers.discard(waker)
            self.listeners -= 1

    def _place_of(self, last_id: str) -> tuple[int, bool]:
        """The number after which a page wants events, and whether some of them are gone."""
        boot, _, number = last_id.partition("-")
        if not last_id:
            return self._number, False
        if boot != self._boot or not (number.isascii() and number.isdecimal() and len(number) < 16):
            return self._number, True
        oldest = self._events[0][0] if self._events else self._number + 1
        seen = int(number)
        return (seen, False) if oldest - 1 <= seen <= self._number else (self._number, True)

    def _told(self, kind: str, text: str, number: int) -> str:
        return f"id: {self._boot}-{number}\nevent: {kind}\ndata: {text}\n\n"

    def _append(self, text: str) -> None:
        self._number += 1
        self._events.append((self._number, text))
        self._wake()

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()


class Watcher(threading.Thread):
    """Looks at the store and publishes what changed: `runs` (one began, ended or died), `events` (a checkpoint, a warning, a promotion, a gate's verdict),
    `data` (signals, pairs, the document) and the `points` of the run that goes on.
    """

    def __init__(self, desk: Desk, feed: Feed, trainers: Trainers) -> None:
        super().__init__(name="store watcher", daemon=True)
        self._desk, self._feed, self._trainers = desk, feed, trainers
        self._asked_to_end = threading.Event()
        self.has_looked = threading.Event()  # what changes from then on is told
        self._statuses: Hashable = None
        self._states: Hashable = None
        self._signals: Hashable = None
        self._run_id: int | None = None
        self._steps: dict[str, int] = {}
        self._document: Hashable = None

    def end(self) -> None:
        """Ask for the end and wait for it."""
        self._asked_to_end.set()
        self.join(timeout=5)

    def run(self) -> None:
        absent = False  # the store, before the first training
        while not self._asked_to_end.is_set():
            try:
                store = self._desk.find_store()
            except DlmError:
                store = None  # pages say what is wrong with it
            if store is None:
                absent = True
                self._tell_faults()
                self._asked_to_end.wait(_NO_STORE_S)
                continue
            appeared, absent = absent, False
            with store:
                try:
                    self._follow(store, appeared=appeared)
                except DlmError as fault:  # moved away, damaged, disk full: look again from the start
                    self._feed.publish({"runs": True, "fault": fault.message})
                    self._asked_to_end.wait(_NO_STORE_S)

    def _follow(self, store: Store, *, appeared: bool) -> None:
        number, looked = -1, 0.0
        while not self._asked_to_end.wait(POLL_S):
            now = time.monotonic()
            change = store.following.change_number()
            if change != number or now - looked >= _LIVENESS_S:
                told = self._look(store, committed=change != number)
                number, looked = change, now
                self.has_looked.set()
                if appeared:  # told after the first look, so that what comes after a page read the store differs from it
                    told |= {"runs": True, "data": True}
                    appeared = False
                if told:
                    self._feed.publish(told)
                if not store.folder.exists():
                    return
            self._tell_faults()

    def _look(self, store: Store, *, committed: bool) -> dict[str, Any]:
        told: dict[str, Any] = {}
        running = self._run_id
        if committed or running is not None:  # a process that died commits nothing
            runs = runs_as_they_are(store)
            running = next((run.id for run, status in runs if status == "running"), None)
            statuses = tuple((run.id, status, run.finished_at) for run, status in runs)
            if statuses != self._statuses:
                told["runs"] = self._statuses is not None
                self._statuses = statuses
            states = store.following.states()
            if states != self._states:
                told["events"] = self._states is not None
                self._states = states
        points = self._new_points(store) if committed else {}  # to the last one of a run that has just ended
        if points:
            told["points"] = {"run": self._run_id, "series": points}
        if running != self._run_id:
            self._meet(store, running)
        if committed:
            signals = store.following.signals()
            if signals != self._signals or (not points and self._run_id is None):
                told["data"] = self._signals is not None
                self._signals = signals
        document = self._document_mark()
        if document != self._document:
            told["data"] = told["document"] = self._document is not None
            self._document = document
        return {name: value for name, value in told.items() if value}

    def _meet(self, store: Store, run_id: int | None) -> None:
        """Follow another run from now on: pages that hear of it read what it has by now."""
        self._run_id = run_id
        found = {} if run_id is None else store.following.points_since(run_id, {})
        self._steps = {name: int(series.steps[-1]) for name, series in found.items()}

    def _new_points(self, store: Store) -> dict[str, Any]:
        """What the run that is followed logged since it was asked last: by name steps, values and times."""
        if self._run_id is None:
            return {}
        found = store.following.points_since(self._run_id, self._steps)
        told = {}
        for name, series in found.items():
            known = self._steps.get(name)
            self._steps[name] = int(series.steps[-1])
            if len(series) > 1 or known != series.steps[0]:
                told[name] = _as_json(series)
        return told

    def _document_mark(self) -> Hashable:
        try:
            stat = self._desk.path.stat()
        except OSError:
            return ()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _tell_faults(self) -> None:
        for text in self._trainers.faults():
            self._feed.publish({"runs": True, "fault": text})


def _as_json(series: Series) -> dict[str, list[Any]]:
    return {
        "steps": series.steps.tolist(),
        "values": [value if math.isfinite(value) else None for value in series.values.tolist()],
        "times": [time if math.isfinite(time) else None for time in series.times.tolist()],
    }


@router.get("/live", response_class=StreamingResponse)
async def live(
    request: Request,
    last_event_id: Annotated[str, Header(max_length=64)] = "",
    after: Annotated[str, Query(max_length=64)] = "",
) -> StreamingResponse:
    """The event stream of a page: `hello` or `reset`, then `change` after `change`.

    `after` is the last event that a page knew when it closed its stream, as hidden pages do.
    """
    feed: Feed = request.app.state.feed
    return StreamingResponse(feed.stream(last_event_id or after), media_type="text/event-stream")
