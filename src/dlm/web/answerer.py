"""The server's side of the process that answers questions: started at the first one, asked by line, ended with the server."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

__all__ = ["Answerer", "can_answer"]

_STDERR_LINES = 20
_MOST_WAITING = 8  # questions, beyond which a page is asked to wait


def can_answer() -> bool:
    """Whether the training extra is installed; looked up, not imported."""
    return all(find_spec(name) is not None for name in ("torch", "transformers", "peft"))


class Answerer:
    """One process for all pages. Its methods belong to the server's loop, but for `end`."""

    def __init__(self, document: Path) -> None:
        self._document = document
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[str] | None = None
        self._waiting: dict[int, asyncio.Queue[dict[str, Any]]] = {}
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._lock = threading.Lock()

    async def ask(
        self, question: str, versions: Sequence[str | None], settings: dict[str, Any], seed: int
    ) -> AsyncIterator[dict[str, Any]]:
        """What happens until every version has answered. Leaving the iteration early cancels the question."""
        if len(self._waiting) >= _MOST_WAITING:
            yield {"kind": "fault", "message": "too many questions are waiting already"}
            return
        number = next(self._numbers)
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._waiting[number] = events
        request = {
            "id": number,
            "versions": list(versions),
            "question": question,
            "settings": settings,
            "seed": seed,
        }
        ended = False
        try:
            if not self._is_running():
                yield {"kind": "starting"}
            try:
                self._send(request)
            except OSError:  # it ended a moment ago, idle for long
                self._send(request)
            while not ended:
                event = await events.get()
                ended = event["kind"] in ("end", "gone")
                event.pop("id", None)
                if event["kind"] == "gone":
                    event = {"kind": "fault", "message": event["message"]}
                yield event
        finally:
            self._waiting.pop(number, None)
            if not ended:
                with suppress(OSError):
                    self._send({"cancel": number})

    def end(self) -> None:
        """End the process."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(timeout=5)

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _send(self, told: dict[str, Any]) -> None:
        with self._lock:
            if not self._is_running():
                if "cancel" in told:
                    return
                self._start()
            assert self._process is not None
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()

    def _start(self) -> None:
        self._stderr.clear()
        process = subprocess.Popen(
            [sys.executable, "-m", "dlm.workflow.answering", str(self._document)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is the server's: it ends this process itself
        )
        self._process = process
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(process, loop), daemon=True).start()
        threading.Thread(target=self._read_errors, args=(process.stderr,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str], loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: events to the questions they belong to; when the process ends, each is told."""
        assert process.stdout is not None
        for line in process.stdout:
            self._tell(loop, json.loads(line))
        code = process.wait()
        last = self._stderr[-1] if self._stderr else f"it ended with {code}"
        self._tell(loop, {"kind": "gone", "message": f"the process that answers has ended: {last}"})

    def _tell(self, loop: asyncio.AbstractEventLoop, event: dict[str, Any]) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server ends
            loop.call_soon_threadsafe(self._deliver, event)

    def _deliver(self, event: dict[str, Any]) -> None:
        if event["kind"] == "gone":
            for events in self._waiting.values():
                events.put_nowait(dict(event))
        elif (events_of_one := self._waiting.get(event.get("id", 0))) is not None:
            events_of_one.put_nowait(event)

    def _read_errors(self, stream: IO[str] | None) -> None:
        for line in stream or ():
            if line.strip():
                self._stderr.append(line.strip())
