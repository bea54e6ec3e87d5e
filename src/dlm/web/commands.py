"""What a button does goes through the command line, in a process of its own: the very rules that a person who types meets.

Trainings are started in a session of their own, so that they outlive the server and its Ctrl-C.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, Any

from dlm.errors import DlmError, GateError, LockedError, MissingRecordError, TextError, UsageError

__all__ = ["Trainers", "run_command"]

_TIMEOUT_S = 60.0
_EARLY_S = 30.0  # a training that ends within this time without taking the store's lock is told as a fault
_KINDS = {
    kind.__name__: kind for kind in (GateError, LockedError, MissingRecordError, UsageError)
}  # that a page tells apart; all others are plain faults


def run_command(*words: str) -> dict[str, Any]:
    """`dlm WORDS --json`, waited for: the `data` of what it prints.

    Raises:
        TextError: a word that no command line can hold.
        DlmError: what the command said is wrong.
    """
    if any("\0" in word for word in words):
        raise TextError("a text with a NUL cannot be passed on")
    done = subprocess.run(
        [*_DLM, *words, "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=_TIMEOUT_S,
        check=False,
    )
    try:
        told = json.loads(done.stdout)
    except ValueError:
        raise DlmError(f"dlm {words[0]} ended with {done.returncode}: {_last_line(done.stderr)}") from None
    if told.get("data") is None:
        raise _fault(told["error"])
    data: dict[str, Any] = told["data"]
    return data


class Trainers:
    """The trainings that were started from the browser, while they run and just after: so that a fault is told."""

    def __init__(self) -> None:
        self._started: list[tuple[subprocess.Popen[bytes], IO[bytes], float]] = []
        self._lock = threading.Lock()

    def start(self, *words: str) -> None:
        """Start `dlm WORDS`, which goes on when this process ends. What it prints goes to a file without a name, which is
        gone when both are.
        """
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process has ended
        process = subprocess.Popen(
            [*_DLM, *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        with self._lock:
            self._started.append((process, log, time.monotonic()))

    def starting(self) -> bool:
        """Whether one was started a moment ago and still runs."""
        with self._lock:
            return any(
                process.poll() is None and time.monotonic() - since < _EARLY_S
                for process, _, since in self._started
            )

    def faults(self) -> list[str]:
        """What those that ended badly since the last call said at their end."""
        told = []
        with self._lock:
            ended = [one for one in self._started if one[0].poll() is not None]
            self._started = [one for one in self._started if one[0].poll() is None]
        for process, log, _ in ended:
            with log:
                log.seek(0)
                text = log.read().decode("utf-8", "replace")
            if process.returncode not in (0, 130):
                told.append(_error_part(text) or f"the training ended with {process.returncode}")
        return told


_DLM = (sys.executable, "-m", "dlm")


def _fault(error: dict[str, Any]) -> DlmError:
    kind = _KINDS.get(error["type"], DlmError)
    return kind(
        error["message"],
        expected=error["expected"],
        found=error["found"],
        where=error["where"],
        next_step=error["next_step"],
    )


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _error_part(text: str) -> str:
    """From the last `error:` line on, at most a dozen lines."""
    lines = text.strip().splitlines()
    starts = [place for place, line in enumerate(lines) if line.startswith("error:")]
    return "\n".join(lines[starts[-1] :][:12] if starts else lines[-3:])
