"""Bytes in, document out; or every problem of the file at once, each at its true line and column.

The whole file is always read: characters, header and body report into one list.
"""

from __future__ import annotations

import hashlib
import re
import stat
from pathlib import Path
from typing import Final

from dlm.document.body import Body, line_at
from dlm.document.characters import read_characters
from dlm.document.header_reader import read_header
from dlm.document.sections import Document, Section
from dlm.errors import DlmError, DocumentError, Problem, UsageError, reason_of

__all__ = ["check", "check_headerless", "load", "parse", "parse_body", "read_bytes"]

MAX_BYTES: Final = 64 * 1024 * 1024

# Keys by which a header is known as a document's, broken or not; the front matter of other tools has none of them.
_OWN_KEY: Final = re.compile(r"^[ \t\"'{]*(?:dlm_id|dlm_version|base_model)\b", re.MULTILINE)


def load(path: str | Path) -> Document:
    """Read and parse the document at `path`.

    Raises:
        DocumentError: with all problems of the file.
        UsageError: there is no such file.
        DlmError: the file cannot be read.
    """
    return parse(read_bytes(Path(path)), Path(path))


def check(path: str | Path) -> tuple[Document | None, tuple[Problem, ...], tuple[Problem, ...]]:
    """The document at `path` (None when it has problems), its problems and its warnings.

    Raises:
        UsageError: there is no such file.
        DlmError: the file cannot be read.
    """
    reading = _Reading(read_bytes(Path(path)), Path(path))
    problems = tuple(sorted(reading.problems))
    warnings = tuple(sorted(reading.warnings))
    return (None if problems else reading.document()), problems, warnings


def parse(data: bytes | str, path: Path | None = None) -> Document:
    """Parse a document from its bytes (or its text).

    Raises:
        DocumentError: with all problems; nothing else, whatever the bytes are.
    """
    reading = _Reading(data, path)
    if not reading.problems:
        return reading.document()
    raise DocumentError(
        reading.problems,
        str(path) if path else "<text>",
        next_step=f"dlm init --adopt {path or 'FILE'}" if reading.headerless else reading.next_step,
    )


def parse_body(text: str) -> tuple[Section, ...]:
    """Parse text that is a body only, as the writer makes it; spans count from its start.

    Raises:
        DocumentError: with all problems.
    """
    body = Body(text, 0, 1)
    if body.problems:
        raise DocumentError(body.problems)
    return tuple(body.sections)


def check_headerless(data: bytes, path: Path) -> tuple[str, str]:
    """Make sure that `data` needs nothing but a header to be a document; its hash and its line end.

    Raises:
        UsageError: it has a header already, or begins as if it had one.
        DocumentError: with the problems of its text, at their lines without a header.
    """
    reading = _Reading(data, path)
    if reading.foreign:
        raise DocumentError(reading.problems, str(path), next_step=reading.next_step)
    if not reading.headerless and not reading.own_header:
        raise UsageError(
            f"{path} begins with ---, which is read as a header, but has no key of a document; nothing was written",
            next_step="put an empty line at its top, so that all of it is text (or take out the lines from --- to ---), "
            f"then: dlm init --adopt {path}",
        )
    if not reading.headerless:
        raise UsageError(f"{path} has a header already", next_step=f"dlm check {path}")
    problems = [problem for problem in reading.problems if problem.code != "no-header"]
    if problems:
        raise DocumentError(
            problems, str(path), next_step=f"mend the lines above, then: dlm init --adopt {path}"
        )
    return reading.sha256, reading.newline


def read_bytes(path: Path) -> bytes:
    """The bytes of the file at `path`, with file faults turned into errors that say what to do."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
            raise UsageError(f"{path} is not a file")
        if status.st_size > MAX_BYTES:
            raise DlmError(
                f"{path} is larger than {MAX_BYTES // 1024 // 1024} MiB",
                next_step="put long texts into files and name them in training.sources",
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}", next_step=f"dlm init {path}") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise DlmError(f"{path} cannot be read: {reason_of(error)}") from None


class _Reading:
    """One reading of a whole file."""

    def __init__(self, data: bytes | str, path: Path | None) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        self.sha256 = hashlib.sha256(raw).hexdigest()
        characters = read_characters(data, path)
        self.problems += characters.problems
        self.foreign, self.next_step = characters.foreign, characters.next_step
        self.text, clean = characters.text, characters.clean
        if characters.marked:
            self.warnings.append(
                Problem(1, 1, "bom", "the file starts with a byte order mark; it is ignored")
            )
        if self.foreign:  # its header and sections would be accidents
            self.headerless = self.own_header = False
            return
        header_start, header_end, self.body_start = self._find_header(clean)
        self.headerless = header_start == 0
        self.own_header = bool(_OWN_KEY.search(clean, header_start, header_end))
        first_feed = clean.find("\n")
        self.newline = "\r\n" if first_feed > 0 and clean[first_feed - 1] == "\r" else "\n"
        reading = read_header(clean[header_start:header_end], 2)
        if not self.headerless:
            self.problems += reading.problems
        self.warnings += reading.warnings
        self.header, self.places = reading.header, reading.places
        body = Body(clean, self.body_start, 1 + clean.count("\n", 0, self.body_start))
        self.problems += body.problems
        self.warnings += body.warnings
        self.sections = body.sections

    def document(self) -> Document:
        """The document, when there was no problem."""
        if self.header is None:
            raise DocumentError(self.problems, str(self.path or "<text>"))
        return Document(
            path=self.path,
            text=self.text,
            sha256=self.sha256,
            newline=self.newline,
            header=self.header,
            sections=tuple(self.sections),
            warnings=tuple(sorted(self.warnings)),
            body_start=self.body_start,
            places=self.places,
        )

    def _find_header(self, text: str) -> tuple[int, int, int]:
        """Offsets of the header's text (start, end) and of the body; (0, 0, 0) for a file without a header."""
        first, after = line_at(text, 0)
        if first != "---":
            if first.strip() != "---":
                message = "this file has no header: line 1 is not `---`"
                self.problems.append(Problem(1, 1, "no-header", message))
                return 0, 0, 0
            self.problems.append(Problem(1, 1, "header-fence", "line 1 must be exactly `---`", "---"))
        place = after
        while place < len(text):
            close = text.find("---", place)
            if close < 0:
                break
            place = line_at(text, close)[1]
            if close != after and text[close - 1] != "\n":
                continue
            line, end = line_at(text, close)
            if line == "---":
                return after, close, end
            if line.rstrip(" \t") == "---":
                number = 1 + text.count("\n", 0, close)
                self.problems.append(
                    Problem(
                        number, 4, "header-fence", "the header's closing line must be exactly `---`", "---"
                    )
                )
                return after, close, end
        self.problems.append(
            Problem(1, 1, "header-fence", "the header is never closed: no later line is exactly `---`")
        )
        # What looks like a header is read as one: up to the first blank line or fence.
        stop = re.compile(r"^(?:[ \t]*\r?$|::)", re.MULTILINE).search(text, after)
        end = stop.start() if stop else len(text)
        return after, end, end
