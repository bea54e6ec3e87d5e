"""One reading of a body: lines that mean something become sections, whatever is wrong becomes a problem.

Ordinary text costs nothing but its slice. After a problem, reading goes on as if the line said what it was meant to
say, so that one slip is reported once.
"""

from __future__ import annotations

import dataclasses
import re
from bisect import bisect_left, bisect_right
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
from dlm.document.guesses import Guess, guess_headings
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
    code: list[tuple[int, int]] = field(default_factory=list)  # start and end of its code blocks


class _Last(NamedTuple):
    """The heading read last in a section (at first its fence): where its line starts, and its role."""

    line: int
    start: int
    role: str = ""


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
                current.code.append((mark.start, mark.next))
            elif mark.kind == "unclosed":
                self._report_unclosed(mark)
            elif mark.fence and mark.kind != "escaped":
                self._close(current, mark.start)
                current = self._open(mark, mark.fence)
            elif not mark.heading or mark.kind == "escaped" or not current.kind:
                continue
            elif current.kind == "prose":
                if mark.kind == "heading":
                    current.headings.append((mark, mark.heading))
            elif mark.heading.role in ROLES[current.kind]:
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
            self._warn_of_headings(section)
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

        What breaks a group is reported once, at the line that was likely meant as the missing heading where there is
        one; reading goes on with the heading that was found.
        """
        roles = ROLES[kind]
        headings = section.headings
        groups: list[tuple[int, bool, list[str]]] = []
        texts: list[str] = []
        line, probe, sound = 0, False, True
        last = _Last(section.line, section.start)
        expected = 0  # the role that comes next
        done = section.content
        guesses: list[Guess] = []
        for index, (mark, heading) in enumerate(headings):
            place = roles.index(heading.role)
            if place != expected:
                guesses = self._guess(section, roles, expected, done, mark.start)
                last, expected = self._report_guesses(guesses, roles, last, expected)
                sound = sound and not guesses
            if index == 0:
                self._report_stray_text(section, roles, guesses[0].start if guesses else mark.start)
            if place == 0:
                if expected:
                    self._report_missing(last, roles[expected])
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
            last, done = _Last(mark.line, mark.start, heading.role), mark.next
        if expected or not headings:
            guesses = self._guess(section, roles, expected, done, end)
            last, expected = self._report_guesses(guesses, roles, last, expected)
        if not headings:
            self._report_stray_text(section, roles, guesses[0].start if guesses else end)
        if expected:
            self._report_missing(last, roles[expected])
        return groups

    def _guess(
        self, section: _Open, roles: tuple[str, ...], expected: int, start: int, end: int
    ) -> list[Guess]:
        """Lines between two offsets that read as the headings expected from there on, outside code blocks."""
        found: list[Guess] = []
        for guess in guess_headings(self.text, start, end, roles):
            inside = bisect_right(section.code, (guess.start, end))
            if inside and guess.start < section.code[inside - 1][1]:
                continue
            if guess.role == roles[(expected + len(found)) % len(roles)]:
                found.append(guess)
        return found

    def _report_guesses(
        self, guesses: list[Guess], roles: tuple[str, ...], last: _Last, expected: int
    ) -> tuple[_Last, int]:
        """Report lines as the headings they were meant to be; the last heading and the next role after them."""
        for guess in guesses:
            line = last.line + self.text.count("\n", last.start, guess.start)
            last = _Last(line, guess.start, guess.role)
            message = f"this looks like a heading, and ### {guess.role} is missing here"
            self.problems.append(Problem(line, 1, "near-heading", message, guess.fix))
        return last, (expected + len(guesses)) % len(roles)

    def _report_missing(self, last: _Last, role: str) -> None:
        message = f"### {last.role} is not followed by ### {role}"
        self.problems.append(Problem(last.line, 1, "missing-heading", message))

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

    def _warn_of_headings(self, section: _Open) -> None:
        """Warn once of headings that make nothing because their section is prose."""
        if not section.headings:
            return
        mark, heading = section.headings[0]
        more = len(section.headings) - 1
        also = f" (and so {'is' if more == 1 else 'are'} {more:,} more below)" if more else ""
        kind = next(kind for kind, roles in ROLES.items() if heading.role in roles)
        message = (
            f"this heading stands in prose, so it is learnt as text{also}; put ::{kind}:: on a line before it"
        )
        self.warnings.append(Problem(mark.line, 1, "heading-in-prose", message))

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
