"""`python:FILE`: a person's own `grade(sample, item) -> float`, in a process that can be ended.

    sample   {"output_text": …, "output_json": the same parsed, or None, "finish_reason": "stop" or "length"}
    item     {"prompt": …, "reference": … or None, and every fact of the case by its name}

It returns a number from 0 to 1. An endless loop, too much memory, an exception, an exit, a crash, NaN: each costs the
sample it happened on, as a grader error, and the next sample gets a process that is well. `raise SampleParseError("why")`
says that the answer, not the grader, is at fault. One process serves many samples; whatever a file keeps between two of
them, it may lose at any time.

The bytes that run are those that were read when the grader was made, so that consent given for them stays true.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dlm.children import Child, ChildEndedError, ChildTimeoutError, OutputLimitError
from dlm.errors import GradingError, reason_of
from dlm.grading.grader import Dimension, Grade, GradeItem, graded, not_graded
from dlm.grading.limits import Limits

__all__ = ["PythonGrader"]

_WORKER: Final = Path(__file__).with_name("worker.py")


class _NoAnswerError(Exception):
    """Why one call gave no answer, in words."""


class PythonGrader:
    """See the module. The process is started at the first item, and again after it was ended.

    Raises:
        GradingError: the file is not there or is no text; at the first item: it cannot be loaded or has no `grade`.
    """

    dimensions = (Dimension("python", 1.0),)

    def __init__(self, path: Path, name: str, limits: Limits, pass_threshold: float | None = None) -> None:
        self.name = name
        self.pass_threshold = 0.8 if pass_threshold is None else pass_threshold
        self._path = path.absolute()
        self._limits = limits
        try:
            self._source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise GradingError(
                f"the grader's file cannot be read: {reason_of(error)}",
                expected="a Python file with grade(sample, item); of a document, beside it",
                where=str(path),
                next_step="mend python:FILE, or write the file (docs/grading.md shows one)",
            ) from None
        self._child: Child | None = None
        self._asked = 0
        self.isolation: tuple[str, ...] | None = None
        """What was taken from the process beside memory: `network`, `processes`. None before the first item."""

    def grade(self, items: Sequence[GradeItem]) -> list[Grade]:
        """See `Grader.grade`.

        Raises:
            GradingError: the file cannot be loaded: no item could be graded.
        """
        return [self._one(item) for item in items]

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _one(self, item: GradeItem) -> Grade:
        try:
            answer = self._ask(item)
        except _NoAnswerError as error:
            self.close()
            return not_graded(item, str(error))
        if answer.get("spent"):
            self.close()
        if "error" in answer:
            return not_graded(item, str(answer["error"]))
        if "sample_parse" in answer:
            return graded(
                item,
                0.0,
                {"python": 0.0},
                threshold=self.pass_threshold,
                error="sample_parse",
                message=str(answer["sample_parse"]),
            )
        score = float(answer["score"])
        return graded(item, score, {"python": score}, threshold=self.pass_threshold)

    def _ask(self, item: GradeItem) -> dict[str, Any]:
        if self._child is not None and self._unusable(self._child):
            self.close()
        child = self._child = self._child or self._start()
        self._asked += 1
        request = {"id": self._asked, "sample": _sample(item), "item": _case(item)}
        answer = self._exchange(child, request, self._limits.timeout_s)
        if answer.get("id") != self._asked:
            raise _NoAnswerError("the grader's process answered another sample")
        return answer

    def _start(self) -> Child:
        network = "network" if self._limits.network else "alone"
        child = Child((sys.executable, "-I", "-B", str(_WORKER), network), self._path.parent)
        first = {"source": self._source, "path": str(self._path), "memory_mb": self._limits.memory_mb}
        try:
            answer = self._exchange(child, first, self._limits.start_timeout_s)
        except _NoAnswerError as error:
            child.stop()
            raise self._cannot_be_loaded(str(error)) from None
        if not answer.get("ready"):
            child.stop()
            raise self._cannot_be_loaded(str(answer.get("error", "")))
        self.isolation = tuple(str(name) for name in answer["taken"])
        return child

    def _cannot_be_loaded(self, found: str) -> GradingError:
        return GradingError(
            "the grader's file cannot be used",
            expected="def grade(sample, item) -> float",
            found=found,
            where=str(self._path),
        )

    @staticmethod
    def _unusable(child: Child) -> bool:
        """Whether it ended, or said something, since its last answer."""
        try:
            return child.has_unread_output()
        except OutputLimitError:
            return True

    @staticmethod
    def _exchange(child: Child, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        try:
            answer = json.loads(child.line(json.dumps(request).encode("ascii") + b"\n", timeout_s))
        except ChildTimeoutError:
            raise _NoAnswerError(f"no score within {timeout_s:g} s") from None
        except OutputLimitError:
            raise _NoAnswerError("more output than an answer may have") from None
        except ChildEndedError:
            code = child.stop()
            words = child.last_words.rpartition("\n")[2]
            raise _NoAnswerError(f"its process ended with {code}{f': {words}' if words else ''}") from None
        except ValueError:
            raise _NoAnswerError("its process did not answer with a score") from None
        if not isinstance(answer, dict):
            raise _NoAnswerError("its process did not answer with a score")
        return answer


def _sample(item: GradeItem) -> dict[str, Any]:
    try:
        parsed = json.loads(item.output)
    except (ValueError, RecursionError):
        parsed = None
    reason = "length" if item.truncated else "stop"
    return {"output_text": item.output, "output_json": parsed, "finish_reason": reason}


def _case(item: GradeItem) -> dict[str, Any]:
    return {**item.facts, "prompt": item.prompt, "reference": item.reference}
