"""The server's side of the process that answers: what a page is told when that process goes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dlm.web.answerer import Answerer

pytestmark = pytest.mark.process

END = "import json, os, sys, time\ndef end(): print(json.dumps({'id': json.loads(told)['id'], 'kind': 'end'}), flush=True)\n"
ANSWERS = END + "for told in sys.stdin: time.sleep(.3); end()"
HANGS_UP = END + "told = sys.stdin.readline(); os.close(0); end(); time.sleep(60)"  # lives, and reads no more
DIES = "import sys; sys.stdin.readline(); sys.exit('out of memory')"


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Answerer]]:
    """`answering(program, …)`: its processes run these programs, one after the other; then none can be started."""
    made: list[Answerer] = []
    popen = subprocess.Popen

    def answerer(*programs: str) -> Answerer:
        left = list(programs)

        def start(_: list[str], **options: Any) -> subprocess.Popen[str]:
            if not left:
                raise OSError("no more processes")
            return popen([sys.executable, "-c", left.pop(0)], **options)

        monkeypatch.setattr(subprocess, "Popen", start)
        made.append(Answerer(tmp_path / "notes.dlm"))
        return made[-1]

    yield answerer
    for one in made:
        one.end()


def told(answerer: Answerer, questions: int) -> list[list[str]]:
    """What is told of each of so many questions, one after the other: kinds, and messages of faults."""

    async def ask() -> list[list[str]]:
        return [
            [event.get("message", event["kind"]) async for event in answerer.ask("Who?", [None], {}, 0)]
            for _ in range(questions)
        ]

    async def in_time() -> list[list[str]]:
        return await asyncio.wait_for(ask(), 30)

    # in a thread of its own: the browser tests leave a running loop in theirs
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(in_time())).result()


def test_its_end_is_told_with_its_last_words(answering: Callable[..., Answerer]) -> None:
    [[starting, fault]] = told(answering(DIES), 1)
    assert starting == "starting"
    assert "out of memory" in fault


def test_another_one_starts_and_the_end_of_the_first_is_not_its_own(
    answering: Callable[..., Answerer],
) -> None:
    assert told(answering(HANGS_UP, ANSWERS), 3) == [["starting", "end"], ["end"], ["end"]]


def test_that_no_other_one_can_start_is_told(answering: Callable[..., Answerer]) -> None:
    [_, [fault]] = told(answering(HANGS_UP), 2)
    assert "cannot be asked: no more processes" in fault
