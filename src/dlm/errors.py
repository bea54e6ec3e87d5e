"""The one error tree.

Every fault a user can cause or must act on is a `DlmError`; the command line prints it without a traceback
and exits with its `exit_code`. Anything else that escapes is a bug and shows its traceback.

    DlmError                     1  something failed
    ├── UsageError               2  misuse, or nothing to do
    ├── DocumentError            1  one or more problems in a document, each with line and column
    ├── ConflictError            1  a file changed under us: nothing was written
    ├── TextError                1  text that no UTF-8 file can hold (NUL, lone surrogates)
    ├── StoreError               1  the store cannot be used as asked
    │   ├── LockedError          1  another process holds the store
    │   ├── ForeignFolderError   1  the folder belongs to another tool
    │   ├── CopiedDocumentError  1  two files carry one dlm_id
    │   └── MissingRecordError   1  no such run, version or checkpoint
    ├── BaseModelError           1  a base that is missing, unreachable or incompatible
    ├── ContextLengthError       1  more tokens than the base can read
    ├── MissingExtraError        1  an optional part of dlm is not installed
    ├── TrainingError            1  a run that cannot start or go on
    │   └── NonFiniteError       1  a loss or gradient that is not a number
    ├── CurveFileError           1  a file of curves that cannot be read
    ├── ConsentError             1  a command that a document names and nobody has allowed
    ├── GradingError             1  a grader that cannot be used, or that failed too often
    ├── GateError                3  a version that has not passed its document's gate
    └── InterruptedRunError    130  stopped from outside; the run can be resumed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "BaseModelError",
    "ConflictError",
    "ConsentError",
    "ContextLengthError",
    "CopiedDocumentError",
    "CurveFileError",
    "DlmError",
    "DocumentError",
    "ForeignFolderError",
    "GateError",
    "GradingError",
    "InterruptedRunError",
    "LockedError",
    "MissingExtraError",
    "MissingRecordError",
    "NonFiniteError",
    "Problem",
    "StoreError",
    "TextError",
    "TrainingError",
    "UsageError",
    "reason_of",
]


class DlmError(Exception):
    """A fault to show to the user: what is wrong, what was expected and found, where, and what to type next."""

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        expected: str = "",
        found: str = "",
        where: str = "",
        next_step: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.expected = expected
        self.found = found
        self.where = where
        self.next_step = next_step

    def lines(self) -> list[str]:
        """The error as plain lines, most important first; empty parts are left out."""
        head = f"{self.where}: {self.message}" if self.where else self.message
        parts = [("expected", self.expected), ("found", self.found), ("next", self.next_step)]
        return [head, *(f"  {name}: {text}" for name, text in parts if text)]

    def __str__(self) -> str:
        return "\n".join(self.lines())


class UsageError(DlmError):
    """Misuse of a command, or nothing to do."""

    exit_code = 2


@dataclass(frozen=True, order=True)
class Problem:
    """One fault at one place of a document. Lines and columns count from 1; columns count characters."""

    line: int
    column: int
    code: str
    message: str
    fix: str = ""

    def at(self, path: str) -> str:
        """The problem as one or two lines of text, `path:line:column: message [code]`."""
        text = f"{path}:{self.line}:{self.column}: {self.message} [{self.code}]"
        return f"{text}\n    write: {self.fix}" if self.fix else text


class DocumentError(DlmError):
    """A document with problems; all of them, in the order of their places.

    Where so many were found that `problems` sums some of them up, `count` is the number found.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        path: str = "<text>",
        *,
        next_step: str = "",
        count: int | None = None,
    ) -> None:
        self.problems = tuple(sorted(problems))
        self.path = path
        count = len(self.problems) if count is None else count
        super().__init__(
            f"{path} has {count:,} problem{'' if count == 1 else 's'}",
            next_step=next_step or f"mend the lines above, then: dlm check {path}",
        )

    def lines(self) -> list[str]:
        """Every problem first, the count and the next step last."""
        return [*(problem.at(self.path) for problem in self.problems), *super().lines()]


class ConflictError(DlmError):
    """A file is not what it was when it was read; nothing was written."""


class TextError(DlmError):
    """Text that no UTF-8 file can hold: it has a NUL or a lone surrogate."""


class StoreError(DlmError):
    """The store cannot be used as asked."""


class LockedError(StoreError):
    """Another process holds the store; the message names it."""


class ForeignFolderError(StoreError):
    """A folder that is not dlm's own; it is left as it is."""


class CopiedDocumentError(StoreError):
    """Two files carry one dlm_id."""


class MissingRecordError(StoreError):
    """No such run, version or checkpoint in this store."""


class BaseModelError(DlmError):
    """A base that is missing, unreachable, incompatible or damaged."""


class ContextLengthError(DlmError):
    """More tokens than the base can read."""


class MissingExtraError(DlmError):
    """An optional part of dlm is not installed."""


class TrainingError(DlmError):
    """A run that cannot start or go on."""


class NonFiniteError(TrainingError):
    """A loss or gradient that is not a finite number; the rows of that step are named."""


class CurveFileError(DlmError):
    """A file of curves that is missing, empty, damaged or of no known format; `where` has line and column."""


class ConsentError(DlmError):
    """A command that a document names, and that nobody has allowed; it was not run."""


class GradingError(DlmError):
    """A grader that cannot be used, or that failed on too many answers."""


class GateError(DlmError):
    """A version that has not passed its document's gate."""

    exit_code = 3


class InterruptedRunError(DlmError):
    """Stopped from outside; what was saved can be resumed."""

    exit_code = 130


def reason_of(error: OSError | ValueError) -> str:
    """Why a file could not be read or written, in words: the system's reason without its number and the path again."""
    return getattr(error, "strerror", None) or str(error)
