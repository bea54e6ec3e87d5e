"""One reading of a body: lines that mean something become sections, whatever is wrong becomes a problem.

Ordinary text costs nothing but its slice. After a problem, reading goes on as if the line said what it was meant to
say, so that one slip is reported once.
"""

from __future__ import annotations

import dataclasses
import re
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final, NamedTuple

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
from dlm.document.provenance import Provenance, looks_like_provenance, read_provenance
from dlm.document.sections import Question, Section, Triple, section_id
from dlm.errors import Problem

__all__ = ["Body", "line_at"]

_HIDDEN: Final = re.compile(r"^::[a-z]+(?:#\w+)?::\r?$", re.MULTILINE)


def line_at(text: str, start: int) -> tuple[str, int]:
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


class _Unclosed(NamedTuple):
    """The last code block found open: its sign and run length, and its place among the problems."""

    sign: str
    run: int
    problem: int


class Body:
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
        self.unclosed: _Unclosed | None = None
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
        if self.text.find("::", mark.end, mark.next) < 0:
            return
        inside = _HIDDEN.search(self.text, mark.end, mark.next)
        if inside:
            self.hidden.append((mark.line, self._line_number(mark, inside.start())))

    def _report_unclosed(self, mark: Mark) -> None:
        """Report a code block that is never closed; a shorter run below it is the close that was meant, told with it."""
        content = self.text[mark.start : mark.end].strip(" \t\r")
        run = len(content) - len(content.lstrip(content[0]))
        opened = self.unclosed
        if opened and run == len(content) < opened.run and content[0] == opened.sign:
            first = self.problems[opened.problem]
            message = f"{first.message}: line {mark.line} is shorter than the line that opens it"
            self.problems[opened.problem] = dataclasses.replace(first, message=message)
            self.unclosed = None
            return
        column = 1 + len(self.text[mark.start : mark.end]) - len(self.text[mark.start : mark.end].lstrip(" "))
        message = "this code block is never closed"
        if self.hidden:
            line, hidden = self.hidden[-1]
            message += f" (or the block of line {line} was meant to end before line {hidden}, where it hides a section)"
        self.unclosed = _Unclosed(content[0], run, len(self.problems))
        self.problems.append(Problem(mark.line, column, "unclosed-code", message))

    def _open(self, mark: Mark, fence: Fence) -> _Open:
        """Begin the section of a fence line, with the provenance on the line after it."""
        if fence.kind is None:
            content = self.text[mark.start : mark.end]
            if content.strip().startswith(("::image ", "::audio ")):
                message = "sections of pictures and sound are not supported: documents are text only"
            else:
                message = f"no such section; there are {', '.join(f'::{kind}::' for kind in KINDS)}; a backslash in front keeps it as text"
            self._near(mark, fence.fix, "unknown-fence", message)
        elif mark.kind == "near-fence":
            message = "this is nearly a section fence, which stands alone on its line; a backslash in front keeps it as text"
            self._near(mark, fence.fix, "near-fence", message)
        section = _Open(fence.kind, fence.adapter, mark.start, mark.next, mark.line)
        line, after = line_at(self.text, mark.next)
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
        if looks_like_provenance(line_at(self.text, first)[0]):
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
