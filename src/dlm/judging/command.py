"""Commands as judges: `cli:` starts one for each answer, `cli-stream:` keeps one and gives it a line for each.

In:   {"prompt": …, "candidate": …}      with `cli-stream:` also "id", a number that differs for every line
Out:  {"score": a finite number, "reasoning": optional text}      with `cli-stream:` "id" may be given back

No shell reads the command; it runs in the context's folder, with a minimal environment (see `child.environment`). One
call has `timeout_s`; then the command and all it started are ended. An exit code other than 0, output that is no such
object, a score that is not finite, and more than 1 MiB of output are failures. After a failure the answer is tried once
more (a crash or a busy service may pass), in `cli-stream:` by a new process; then it is given up and the next one follows.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dlm.children import Child, ChildEndedError, ChildTimeoutError, OutputLimitError
from dlm.errors import UsageError
from dlm.judging.judge import Failure, Item, JudgeSpec, Verdict

__all__ = ["CommandJudge", "StreamJudge"]

_TRIES = 2
_SHOWN = 200  # characters of wrong output in a message


class _NoScoreError(Exception):
    """One call that gave no score."""

    def __init__(self, kind: Failure, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Commands:
    """What both kinds of command share."""

    default_threshold = 0.1  # of a scale that is taken to run from 0 to 1
    scale = "the command's own; 0 to 1 suits the default threshold"

    def __init__(self, spec: JudgeSpec, *, timeout_s: float, folder: Path) -> None:
        """Raises `UsageError` when the program is not there, or a timeout is no time."""
        if not (timeout_s > 0 and math.isfinite(timeout_s)):
            raise UsageError(
                "the judge's timeout is no time", expected="seconds above 0", found=str(timeout_s)
            )
        program = spec.argv[0]
        path = str(folder / program) if os.sep in program else program
        if shutil.which(path) is None:
            raise UsageError(
                "the judge's program cannot be found, or is not executable",
                found=program,
                where=str(folder) if os.sep in program else "",
                next_step=f"name a program that a terminal opened in {folder} would find",
            )
        self.name = spec.text
        self._argv = (path, *spec.argv[1:])
        self._timeout_s = timeout_s
        self._folder = folder

    def _start(self) -> Child:
        try:
            return Child(self._argv, self._folder)
        except OSError as error:
            raise _NoScoreError("crashed", f"cannot be started: {error.strerror}") from None

    def _slow(self) -> _NoScoreError:
        return _NoScoreError("timed_out", f"gave no score within {self._timeout_s:g} s")


class CommandJudge(_Commands):
    """`cli:<command>`: a process for each answer."""

    def score(self, items: Sequence[Item]) -> Iterator[Verdict]:
        """See `Judge.score`."""
        for item in items:
            yield _verdict(partial(self._ask, item))

    def close(self) -> None:
        """Nothing runs between two answers."""

    def _ask(self, item: Item) -> tuple[float, str | None]:
        child = self._start()
        try:
            output, code = child.whole(_request(item), self._timeout_s)
        except ChildTimeoutError:
            raise self._slow() from None
        except OutputLimitError:
            raise _too_much() from None
        finally:
            child.stop()
        if code != 0:
            raise _crash(code, child)
        return _read(output)[:2]


class StreamJudge(_Commands):
    """`cli-stream:<command>`: one process for all answers, started at the first and again whenever it fails."""

    def __init__(self, spec: JudgeSpec, *, timeout_s: float, folder: Path) -> None:
        super().__init__(spec, timeout_s=timeout_s, folder=folder)
        self._child: Child | None = None
        self._ids = itertools.count(1)

    def score(self, items: Sequence[Item]) -> Iterator[Verdict]:
        """See `Judge.score`."""
        for item in items:
            yield _verdict(partial(self._ask, item))

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _ask(self, item: Item) -> tuple[float, str | None]:
        if self._child is not None and self._unusable(self._child):
            self.close()
        child = self._child = self._child or self._start()
        number = next(self._ids)
        done = False
        try:
            score, reasoning, echo = _read(child.line(_request(item, number), self._timeout_s))
            if echo is not None and echo != number:
                raise _NoScoreError("malformed", f"answered line {echo!r} when asked line {number}")
            done = True
        except ChildTimeoutError:
            raise self._slow() from None
        except OutputLimitError:
            raise _too_much() from None
        except ChildEndedError:
            self._child = None
            raise _crash(child.stop(), child) from None
        finally:
            if not done:
                self.close()  # whatever it says next would answer another line
        return score, reasoning

    @staticmethod
    def _unusable(child: Child) -> bool:
        """Whether it has ended, or said more than it was asked: its next line would be read as another's answer."""
        try:
            return child.has_unread_output()
        except OutputLimitError:
            return True


def _verdict(ask: Callable[[], tuple[float, str | None]]) -> Verdict:
    """Ask, and once more after a failure."""
    start = time.monotonic()
    failures: list[Failure] = []
    error = ""
    for _ in range(_TRIES):
        try:
            score, reasoning = ask()
        except _NoScoreError as failure:
            failures.append(failure.kind)
            error = f"the judge's command {failure}"
        else:
            return Verdict(score, reasoning, None, time.monotonic() - start, tuple(failures))
    return Verdict(None, None, error, time.monotonic() - start, tuple(failures))


def _request(item: Item, number: int | None = None) -> bytes:
    """One line: JSON in ASCII, in which every line break and every odd character of the texts is spelt out."""
    content: dict[str, Any] = {} if number is None else {"id": number}
    content |= {"prompt": item.prompt, "candidate": item.candidate}
    return json.dumps(content).encode("ascii") + b"\n"


def _read(output: bytes) -> tuple[float, str | None, Any]:
    """Score, reasoning and id of an answer."""
    try:
        content = json.loads(output.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _malformed("printed what is not one JSON object", output) from None
    if not isinstance(content, dict) or "score" not in content:
        raise _malformed('printed no object with a "score"', output)
    score, reasoning = content["score"], content.get("reasoning")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise _malformed('printed a "score" that is no number', output)
    if not (reasoning is None or isinstance(reasoning, str)):
        raise _malformed('printed a "reasoning" that is no text', output)
    try:
        number = float(score)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _NoScoreError("non_finite", f"printed a score that is not finite: {str(score)[:_SHOWN]}")
    # JSON can spell what no UTF-8 text can hold
    words = None if reasoning is None else reasoning.encode("utf-8", "replace").decode().replace("\0", "?")
    return number, words, content.get("id")


def _malformed(message: str, output: bytes) -> _NoScoreError:
    shown = output[: 4 * _SHOWN].decode("utf-8", "replace").strip()[:_SHOWN]
    return _NoScoreError("malformed", f"{message}: {shown!r}" if shown else f"{message}: it printed nothing")


def _too_much() -> _NoScoreError:
    return _NoScoreError("malformed", "printed more than 1 MiB")


def _crash(code: int, child: Child) -> _NoScoreError:
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    words = child.last_words
    return _NoScoreError("crashed", f"{how}: {words}" if words else f"{how} and said nothing on stderr")
