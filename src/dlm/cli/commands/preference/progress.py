"""What a person sees while answers are sampled and judged. Everything goes to stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from dlm.cli.output import Output, is_terminal

__all__ = ["MiningProgress"]

_LINE_EVERY_S = 10.0  # where stderr is no terminal


class MiningProgress:
    """A `MiningView` for people: a moving line on a terminal, a plain one now and then elsewhere."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._status: Any = None
        self._next_line_at = time.monotonic() + _LINE_EVERY_S

    def __enter__(self) -> MiningProgress:
        if is_terminal(sys.stderr):
            from rich.console import Console

            console = Console(stderr=True, highlight=False)
            self._status = console.status("loading the version …")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to a question while the block runs: the moving line would be written over it."""
        if self._status is not None:
            self._status.stop()
        yield
        if self._status is not None:
            self._status.start()

    def note(self, text: str) -> None:
        """A remark."""
        self._output.note(text)

    def warn(self, text: str) -> None:
        """A warning; it is also in the `warnings` of `--json`."""
        self._output.warn(text)

    def sampled(self, questions: int, of: int) -> None:
        """So many questions have all their answers."""
        self._show(f"sampling: {questions} of {of} questions", questions == of)

    def judged(self, answers: int, of: int) -> None:
        """So many answers have been asked about."""
        self._show(f"judging: {answers} of {of} answers", answers == of)

    def stopping(self) -> None:
        """A stop was asked for. From a signal handler, so straight to the descriptor."""
        os.write(2, b"\nstopping; what is done is kept (once more: at once)\n")

    def _show(self, text: str, last: bool) -> None:
        if self._status is not None:
            self._status.update(text)
        elif last or time.monotonic() >= self._next_line_at:
            self._output.note(text)
            self._next_line_at = time.monotonic() + _LINE_EVERY_S

    def _end(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
