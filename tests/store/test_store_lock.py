"""The lock between real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dlm.errors import LockedError, StoreError
from dlm.store import Holder, Home, RunSpec, Store

ID = "01J9Z3W5E8RT2Y4VQ7NDPXK6MA"
WORKER = Path(__file__).with_name("worker.py")


@contextmanager
def other_process(mode: str, home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A worker that has said its first line; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, str(WORKER), mode, str(home), ID], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_the_second_is_told_who_holds_it(home: Home, store: Store) -> None:
    with other_process("hold", home.root) as (process, _):
        with pytest.raises(LockedError) as caught, store.lock("dlm train notes.dlm"):
            pass
        assert re.fullmatch(
            rf"the store is held by process {process.pid} \(dlm train notes\.dlm\), since \d\d:\d\d:\d\d",
            caught.value.message,
        )
        assert f"kill -INT {process.pid}" in caught.value.next_step
        seen = store.holder()
        assert seen is not None
        assert (seen.pid, seen.command) == (process.pid, "dlm train notes.dlm")
        assert store.runs.list() == ()  # readers are not kept out


def test_a_killed_holder_lets_go(home: Home, store: Store) -> None:
    with other_process("hold", home.root) as (process, _):
        process.kill()
        process.wait()
        assert store.holder() is None
        assert (store.folder / "lock").read_bytes() != b""  # what it wrote is still there, and means nothing
        with store.lock("mine"):
            seen = store.holder()
            assert seen is not None
            assert seen.pid == os.getpid()
    assert store.holder() is None


def test_a_forked_child_does_not_keep_it(home: Home, store: Store) -> None:
    with other_process("fork", home.root) as (process, child):
        process.kill()
        process.wait()
        try:
            with store.lock("mine"):
                pass
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_a_started_child_does_not_keep_it(home: Home, store: Store) -> None:
    with store.lock("first"):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    try:
        with store.lock("second"):
            pass
    finally:
        child.kill()
        child.wait()


def test_one_process_cannot_hold_it_twice_by_two_stores(home: Home, store: Store) -> None:
    again = home.store(ID)
    with store.lock("first"), pytest.raises(LockedError, match=str(os.getpid())), again.lock("second"):
        pass
    with again.lock("second"):
        pass
    again.close()


def test_within_the_lock_it_may_be_taken_again(store: Store) -> None:
    with store.lock("outer"):
        run = store.runs.start(RunSpec("sft"))
        with store.lock("inner") as recovery:
            assert recovery.interrupted == ()  # our own run is alive
        seen = store.holder()
        assert seen is not None
        assert seen.command == "outer"
        assert store.runs.get(run.id).status == "running"
    assert store.holder() is None


def test_it_is_released_when_the_block_raises(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.lock("a"):
        raise ZeroDivisionError
    with store.lock("b"):
        pass


def test_a_watching_reader_never_makes_a_training_fail(home: Home) -> None:
    """`holder` has the lock for a moment; taking it must survive that, many times."""
    code = (
        "import sys, time; from pathlib import Path; from dlm.store import Home\n"
        "store = Home.open(Path(sys.argv[1])).find(sys.argv[2]); print('on', flush=True)\n"
        "while True: store.holder()"
    )
    home.store(ID).close()
    watcher = subprocess.Popen(
        [sys.executable, "-c", code, str(home.root), ID], stdout=subprocess.PIPE, text=True
    )
    try:
        assert watcher.stdout is not None
        watcher.stdout.readline()
        with home.store(ID) as store:
            lock = store.folder / "lock"
            for _ in range(100):
                lock.write_text(
                    '{"pid": 1, "host": "", "command": "", "since": ""}'
                )  # as a dead process leaves it
                with store.lock("train"):
                    pass
    finally:
        watcher.kill()
        watcher.wait()
        assert watcher.stdout is not None
        watcher.stdout.close()


@pytest.mark.parametrize("content", [b"garbage", b"[]", b'{"pid": "x"}', b"\xff\xfe"])
def test_an_unreadable_entry_does_not_hide_that_it_is_held(store: Store, content: bytes) -> None:
    with store.lock("mine"):
        (store.folder / "lock").write_bytes(content)
        assert str(store.holder()) == "another process"
    assert store.holder() is None


def test_the_message_names_day_and_host_when_they_differ() -> None:
    text = str(Holder(7, "elsewhere", "dlm train x", "2020-01-02T10:00:00.000Z"))
    assert text.startswith("process 7 on elsewhere (dlm train x), since 2020-01-0")
    assert str(Holder(7, "elsewhere", "c", "long ago")) == "process 7 on elsewhere (c)"


def test_the_entry_says_what_it_must(store: Store) -> None:
    with store.lock("dlm mine"):
        entry = json.loads((store.folder / "lock").read_text())
    assert set(entry) == {"pid", "host", "command", "since"}
    assert (store.folder / "lock").read_text() == ""  # released in order: readers need not ask the kernel


def test_acts_that_need_the_lock_say_so(store: Store) -> None:
    with pytest.raises(RuntimeError, match="start a run"):
        store.runs.start(RunSpec("sft"))
    with pytest.raises(RuntimeError, match="stage a version"):
        store.versions.staging()


def test_giving_up_does_not_take_long(home: Home, store: Store) -> None:
    with home.store(ID) as again, store.lock("first"):
        begin = time.monotonic()
        with pytest.raises(StoreError), again.lock("second"):
            pass
        assert time.monotonic() - begin < 3
