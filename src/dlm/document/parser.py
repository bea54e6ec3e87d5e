"""Bytes in, document out; or every problem of the file at once, each at its true line and column.

One pass over the lines that mean something (`grammar.scan`); ordinary text costs nothing but its slice. After a
problem, reading goes on as if the line said what it was meant to say, so that one slip is reported once.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dlm.document.grammar import (
    KINDS,
    ROLES,
    Fence,
    Heading,
    Mark,
    SectionKind,
    decode_text,
    scan,
    strip_blank_edges,
)
from dlm.document.header import read_header
from dlm.document.provenance import Provenance, looks_like_provenance, read_provenance
from dlm.document.sections import Document, Question, Section, Triple, section_id
from dlm.errors import DlmError, DocumentError, Problem, UsageError

__all__ = ["check", "load", "parse", "parse_body"]

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_ENCODING_PROBLEMS: Final = 100  # then the rest are counted in one line: a binary file has a million

_BAD_CHARACTERS: Final = re.compile("[\ud800-\udfff]+|\x00+")
_BOM: Final = "\ufeff"


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
        next_step=f"dlm init --adopt {path or 'FILE'}" if reading.headerless else "",
    )


def parse_body(text: str) -> tuple[Section, ...]:
    """Parse text that is a body only, as the writer makes it; spans count from its start.

    Raises:
        DocumentError: with all problems.
    """
    body = _Body(text, 0, 1)
    if body.problems:
        raise DocumentError(body.problems)
    return tuple(body.sections)


def check_headerless(data: bytes, path: Path) -> tuple[str, str]:
    """Make sure that `data` needs nothing but a header to be a document; its hash and its line end.

    Raises:
        UsageError: it has a header already.
        DocumentError: with the problems of its text, at their lines without a header.
    """
    reading = _Reading(data, path)
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
        if path.stat().st_size > MAX_BYTES:
            raise DlmError(
                f"{path} is larger than {MAX_BYTES // 1024 // 1024} MiB",
                next_step="put long texts into files and name them in training.sources",
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}", next_step=f"dlm init {path}") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise DlmError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


class _Reading:
    """One reading of a whole file."""

    def __init__(self, data: bytes | str, path: Path | None) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        self.sha256 = hashlib.sha256(raw).hexdigest()
        # surrogateescape: every byte that is not UTF-8 becomes one lone surrogate, so one search finds them all.
        text = data if isinstance(data, str) else data.decode("utf-8", "surrogateescape")
        if text.startswith(_BOM):
            text = text[1:]
            self.warnings.append(
                Problem(1, 1, "bom", "the file starts with a byte order mark; it is ignored")
            )
        self.text = text
        clean = self._mend_characters(
            text, "is not UTF-8" if isinstance(data, bytes) else "is a lone surrogate"
        )
        header_start, header_end, self.body_start = self._find_header(clean)
        self.headerless = header_start == 0
        first_feed = clean.find("\n")
        self.newline = "\r\n" if first_feed > 0 and clean[first_feed - 1] == "\r" else "\n"
        reading = read_header(clean[header_start:header_end], 1 + clean.count("\n", 0, header_start))
        if not self.headerless:
            self.problems += reading.problems
        self.warnings += reading.warnings
        self.header, self.places = reading.header, reading.places
        body = _Body(clean, self.body_start, 1 + clean.count("\n", 0, self.body_start))
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

    def _mend_characters(self, text: str, fault: str) -> str:
        """Report what cannot stand in a text file; put U+FFFD in its place so that all offsets hold."""
        counted, line, found = 0, 1, 0
        for match in _BAD_CHARACTERS.finditer(text):
            found += 1
            if found > MAX_ENCODING_PROBLEMS:
                continue
            line += text.count("\n", counted, match.start())
            counted = match.start()
            column = counted - text.rfind("\n", 0, counted)
            if match[0][0] == "\x00":
                self.problems.append(
                    Problem(line, column, "nul", "a NUL character cannot stand in a document")
                )
            else:
                self.problems.append(Problem(line, column, "not-utf8", f"what stands here {fault}"))
        if not found:
            return text
        if found > MAX_ENCODING_PROBLEMS:
            message = f"and {found - MAX_ENCODING_PROBLEMS:,} more places like this: is this a text file?"
            self.problems.append(Problem(line, column + 1, "not-utf8", message))
        return _BAD_CHARACTERS.sub(lambda match: "\ufffd" * len(match[0]), text)

    def _find_header(self, text: str) -> tuple[int, int, int]:
        """Offsets of the header's text (start, end) and of the body; (0, 0, 0) for a file without a header."""
        first, after = _line_at(text, 0)
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
            place = _line_at(text, close)[1]
            if close != after and text[close - 1] != "\n":
                continue
            line, end = _line_at(text, close)
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


def _line_at(text: str, start: int) -> tuple[str, int]:
    """The line that starts at an offset, without its line end, and where the next one starts."""
    feed = text.find("\n", start)
    if feed < 0:
        return text[start:], len(text)
    return text[start : feed - 1 if feed > start and text[feed - 1] == "\r" else feed], feed + 1


@dataclass(slots=True)
class _Open:
    """The section being read."""

    kind: SectionKind | None  # None after a fence of no known kind: skipped
    adapter: str | None
    start: int  # of the fence line or of the first text
    content: int  # where its content starts
    line: int
    provenance: Provenance | None = None
    headings: list[tuple[Mark, Heading]] = field(default_factory=list)


class _Body:
    """One reading of a body: from offset `start`, which is the start of line number `line`."""

    def __init__(self, text: str, start: int, line: int) -> None:
        self.text = text
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.sections: list[Section] = []
        marks = scan(text, start, line)
        self.escapes = [mark.start for mark in marks if mark.kind == "escaped"]
        self.hidden: list[
            tuple[int, int]
        ] = []  # (opening line, first fence line hidden) of code blocks with fences in them
        current = _Open("prose", None, start, start, line)
        for mark in marks:
            if mark.kind == "code":
                self._note_hidden(mark)
            elif mark.kind == "unclosed":
                self._report_unclosed(mark)
            elif mark.fence and mark.kind != "escaped":
                self._close(current, mark.start)
                current = self._open(mark, mark.fence)
            elif (
                mark.heading
                and mark.kind != "escaped"
                and current.kind
                and mark.heading.role in ROLES[current.kind]
            ):
                if mark.kind == "near-heading":
                    self._near(mark, mark.heading.fix, "near-heading", "this is nearly a heading")
                current.headings.append((mark, mark.heading))
        self._close(current, len(text))
        self._warn_of_leaks()

    def _line_number(self, near: Mark | _Open, offset: int) -> int:
        """The number of the line at an offset at or after `near`."""
        return near.line + self.text.count("\n", near.start, offset)

    def _near(self, mark: Mark, fix: str, code: str, message: str) -> None:
        """Report a line that is nearly something, at the first character that differs."""
        found = self.text[mark.start : mark.end]
        column = next(
            (i for i, (a, b) in enumerate(zip(found, fix, strict=False)) if a != b), min(len(found), len(fix))
        )
        self.problems.append(Problem(mark.line, column + 1, code, message, fix))

    def _note_hidden(self, mark: Mark) -> None:
        inside = re.compile(r"^::[a-z]+(?:#\w+)?::\r?$", re.MULTILINE).search(self.text, mark.end, mark.next)
        if inside:
            self.hidden.append((mark.line, self._line_number(mark, inside.start())))

    def _report_unclosed(self, mark: Mark) -> None:
        column = 1 + len(self.text[mark.start : mark.end]) - len(self.text[mark.start : mark.end].lstrip(" "))
        message = "this code block is never closed"
        if self.hidden:
            opened, hidden = self.hidden[-1]
            message += f"; or the block of line {opened} was meant to end before line {hidden}, where it hides a section"
        fix = "\\" + self.text[mark.start : mark.end]
        self.problems.append(Problem(mark.line, column, "unclosed-code", message, fix))

    def _open(self, mark: Mark, fence: Fence) -> _Open:
        """Begin the section of a fence line, with the provenance on the line after it."""
        if fence.kind is None:
            content = self.text[mark.start : mark.end]
            if content.strip().startswith(("::image", "::audio")):
                message = "sections of pictures and sound are not supported: documents are text only"
            else:
                message = f"no such section; there are {', '.join(f'::{kind}::' for kind in KINDS)}; a backslash in front keeps it as text"
            self._near(mark, fence.fix, "unknown-fence", message)
        elif mark.kind == "near-fence":
            self._near(mark, fence.fix, "near-fence", "this is nearly a section fence")
        section = _Open(fence.kind, fence.adapter, mark.start, mark.next, mark.line)
        line, after = _line_at(self.text, mark.next)
        if looks_like_provenance(line):
            found = read_provenance(line)
            if isinstance(found, str):
                self.problems.append(Problem(mark.line + 1, 1, "bad-provenance", found))
            else:
                section.provenance = found
            section.content = after
        return section

    def _close(self, section: _Open, end: int) -> None:
        """Finish a section that ends at an offset."""
        content = strip_blank_edges(self.text[section.content : end].replace("\r\n", "\n"))
        kind = section.kind
        if kind is None:
            return
        questions: list[Question] = []
        triples: list[Triple] = []
        prose = ""
        if kind == "prose":
            if not content:
                if section.content > section.start:
                    self.warnings.append(
                        Problem(
                            section.line,
                            1,
                            "empty-prose",
                            "this ::prose:: section has no text; it is skipped",
                        )
                    )
                return
            if section.content == section.start:  # text before the first fence: begins where its text does
                first = self._first_text(section.start, end)
                section.line = self._line_number(section, first)
                section.start = first
            prose = self._decode(section.content, end)
        else:
            if not section.headings and not content:
                self.problems.append(
                    Problem(section.line, 1, "empty-section", f"this ::{kind}:: section is empty")
                )
                return
            for line, probe, texts in self._groups(section, kind, end):
                if kind == "instruction":
                    questions.append(Question(texts[0], texts[1], probe, line))
                else:
                    triples.append(Triple(texts[0], texts[1], texts[2], line))
        self.sections.append(
            Section(
                index=len(self.sections),
                kind=kind,
                adapter=section.adapter,
                provenance=section.provenance,
                id=section_id(kind, content),
                line=section.line,
                span=(section.start, end),
                content=content,
                questions=tuple(questions),
                triples=tuple(triples),
                prose=prose,
            )
        )

    def _groups(self, section: _Open, kind: SectionKind, end: int) -> list[tuple[int, bool, list[str]]]:
        """The complete groups (Q and A, or Prompt, Chosen and Rejected): line, whether a probe, texts.

        What breaks a group is reported once; reading goes on with the heading that was found.
        """
        roles = ROLES[kind]
        headings = section.headings
        self._report_stray_text(section, roles, headings[0][0].start if headings else end)
        groups: list[tuple[int, bool, list[str]]] = []
        texts: list[str] = []
        line, probe, sound = 0, False, True
        expected = 0  # the role that comes next
        for index, (mark, heading) in enumerate(headings):
            place = roles.index(heading.role)
            if place == 0:
                if expected:
                    self._report_missing(*headings[index - 1], roles[expected])
                line, probe, sound, texts = mark.line, heading.probe, True, []
            elif place != expected:
                message = f"### {heading.role} stands where ### {roles[expected]} belongs"
                self.problems.append(Problem(mark.line, 1, "misplaced-heading", message))
                sound, texts = False, []
            text = self._decode(mark.next, headings[index + 1][0].start if index + 1 < len(headings) else end)
            if not text:
                self.problems.append(
                    Problem(mark.line, 1, "empty-text", f"### {heading.role} has no text below it")
                )
                sound = False
            texts.append(text)
            if place == 0 or place >= expected:
                expected = (place + 1) % len(roles)
            if expected == 0 and sound:
                groups.append((line, probe, texts))
        if expected:
            self._report_missing(*headings[-1], roles[expected])
        return groups

    def _report_missing(self, mark: Mark, heading: Heading, role: str) -> None:
        self.problems.append(
            Problem(mark.line, 1, "missing-heading", f"### {heading.role} is not followed by ### {role}")
        )

    def _report_stray_text(self, section: _Open, roles: tuple[str, ...], end: int) -> None:
        """Report text between the fence and the first heading."""
        if not self.text[section.content : end].strip(" \t\r\n"):
            return
        first = self._first_text(section.content, end)
        line = self._line_number(section, first)
        message = f"text before the first ### {roles[0]} belongs to nothing"
        if looks_like_provenance(_line_at(self.text, first)[0]):
            message = "a provenance comment must stand on the line right after the fence"
        self.problems.append(Problem(line, 1, "stray-text", message))

    def _first_text(self, start: int, end: int) -> int:
        """The start of the first line in a range that is not blank."""
        core = start
        while core < end and self.text[core] in " \t\r\n":
            core += 1
        return max(self.text.rfind("\n", 0, core) + 1, start)

    def _decode(self, start: int, end: int) -> str:
        """The text between two offsets, unescaped."""
        low = bisect_left(self.escapes, start)
        return decode_text(self.text, start, end, self.escapes[low : bisect_left(self.escapes, end, low)])

    def _warn_of_leaks(self) -> None:
        """Warn of probes that are also trained on: they would measure memory."""
        trained = {
            question.prompt
            for section in self.sections
            for question in section.questions
            if not question.probe
        }
        for section in self.sections:
            for question in section.questions:
                if question.probe and question.prompt in trained:
                    message = "this probe's question also stands as an ordinary question and is trained on"
                    self.warnings.append(Problem(question.line, 1, "probe-leak", message))
