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
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

__all__ = ["Answerer", "can_answer"]

_STDERR_LINES = 20
_MOST_WAITING = 8  # questions, beyond which a page is asked to wait

_Process = subprocess.Popen[str]


@dataclass
class _Asked:
    """A question that waits: what happens to it, and the process that was asked (None before that)."""

    events: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    of: _Process | None = None


def can_answer() -> bool:
    """Whether the training extra is installed; looked up, not imported."""
    return all(find_spec(name) is not None for name in ("torch", "transformers", "peft"))


class Answerer:
    """One process for all pages. Its methods belong to the server's loop, but for `end`."""

    def __init__(self, document: Path) -> None:
        self._document = document
        self._numbers = itertools.count(1)
        self._process: _Process | None = None
        self._waiting: dict[int, _Asked] = {}
        self._lock = threading.Lock()

    async def ask(
        self, question: str, versions: Sequence[str | None], settings: dict[str, Any], seed: int
    ) -> AsyncIterator[dict[str, Any]]:
        """What happens until every version has answered. Leaving the iteration early cancels the question."""
        if len(self._waiting) >= _MOST_WAITING:
            yield {"kind": "fault", "message": "too many questions are waiting already"}
            return
        number = next(self._numbers)
        asked = self._waiting[number] = _Asked()
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
                try:
                    asked.of = self._send(request)
                except OSError:  # it ended a moment ago, idle for long: another one starts
                    asked.of = self._send(request)
            except OSError as fault:
                ended = True
                yield {"kind": "fault", "message": f"the process that answers cannot be asked: {fault}"}
            while not ended:
                event = await asked.events.get()
                ended = event["kind"] in ("end", "gone")
                event.pop("id", None)
                if event["kind"] == "gone":
                    event = {"kind": "fault", "message": event["message"]}
                yield event
        finally:
            self._waiting.pop(number, None)
            if not ended and asked.of is not None and asked.of is self._process:
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

    def _send(self, told: dict[str, Any]) -> _Process | None:
        """Tell the process, starting one where none runs. Returns it; None for a question that nobody needs to cancel.

        Raises:
            OSError: it cannot be started, or has ended; the next call starts another one.
        """
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None:
                if "cancel" in told:
                    return None
                process = self._process = self._start()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(told) + "\n")
                process.stdin.flush()
            except OSError:
                self._process = None
                process.kill()  # it reads no more
                raise
            return process

    def _start(self) -> _Process:
        process = subprocess.Popen(
            [sys.executable, "-m", "dlm.workflow.answering", str(self._document)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is the server's: it ends this process itself
        )
        assert process.stderr is not None
        loop = asyncio.get_running_loop()
        said: deque[str] = deque(maxlen=_STDERR_LINES)
        errors = threading.Thread(target=_read_errors, args=(process.stderr, said), daemon=True)
        errors.start()

        def read() -> None:
            self._read(process, loop)
            errors.join(timeout=1.0)  # the last words; a child that it leaves behind may keep the stream open
            last = said[-1] if said else f"it ended with {process.returncode}"
            self._tell(
                loop, process, {"kind": "gone", "message": f"the process that answers has ended: {last}"}
            )

        threading.Thread(target=read, daemon=True).start()
        return process

    def _read(self, process: _Process, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread, until the process ends: events to the questions they belong to."""
        assert process.stdout is not None
        assert process.stdin is not None
        with process.stdout as told:
            for line in told:
                self._tell(loop, process, json.loads(line))
        process.wait()
        with self._lock, suppress(OSError):  # what it never read is lost
            process.stdin.close()

    def _tell(self, loop: asyncio.AbstractEventLoop, process: _Process, event: dict[str, Any]) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server ends
            loop.call_soon_threadsafe(self._deliver, process, event)

    def _deliver(self, process: _Process, event: dict[str, Any]) -> None:
        """To the questions that this process was asked: its end is none of those that its successor was."""
        for number, asked in self._waiting.items():
            if asked.of is process and (event["kind"] == "gone" or event.get("id") == number):
                asked.events.put_nowait(dict(event))


def _read_errors(stream: IO[str], said: deque[str]) -> None:
    with stream:
        for line in stream:
            if line.strip():
                said.append(line.strip())
