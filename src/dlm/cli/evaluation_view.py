"""What a person sees while versions answer their suites."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any

from dlm.cli.output import Output, is_terminal

__all__ = ["EvaluationProgress"]

_LINE_EVERY_S = 10.0  # where stderr is no terminal


class EvaluationProgress:
    """An `EvalView` for people: a moving line on a terminal, a plain one now and then elsewhere."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._status: Any = None
        self._next_line_at = time.monotonic() + _LINE_EVERY_S

    def __enter__(self) -> EvaluationProgress:
        if is_terminal(sys.stderr):
            from rich.console import Console

            self._status = Console(stderr=True, highlight=False).status("loading the version …")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def note(self, text: str) -> None:
        """A remark."""
        self._output.note(text)

    def warn(self, text: str) -> None:
        """A warning; it is also in the `warnings` of `--json`."""
        self._output.warn(text)

    def answered(self, suite: str, version: str, done: int, of: int) -> None:
        """So many answers are graded and kept."""
        text = f"{suite}, {version}: {done} of {of} answers"
        if self._status is not None:
            self._status.update(text)
        elif done == of or time.monotonic() >= self._next_line_at:
            self._output.note(text)
            self._next_line_at = time.monotonic() + _LINE_EVERY_S

    def stopping(self) -> None:
        """A stop was asked for. From a signal handler, so straight to the descriptor."""
        os.write(2, b"\nstopping; what is done is kept (once more: at once)\n")
