"""What a document is made of: sections, their questions and triples, and where they stand in the text.

Everything here is plain and frozen; `parser` builds it, `writer` turns edits of it into text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dlm.document.grammar import SectionKind, strip_blank_edges
from dlm.document.provenance import Provenance
from dlm.errors import Problem

if TYPE_CHECKING:
    from dlm.document.header import Header

__all__ = ["Document", "Question", "Section", "Triple", "section_id"]


def section_id(kind: str, content: str) -> str:
    """The id of a section: first 16 hex digits of sha256 over kind, a line feed and the content.

    Line endings are normalised and leading and trailing blank lines left out, so that neither an editor's line
    endings nor a section appended later moves an id. Two sections of the same kind and content have the same id;
    `Section.index` tells them apart.
    """
    content = strip_blank_edges(content.replace("\r\n", "\n"))
    return hashlib.sha256(f"{kind}\n{content}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Question:
    """One Q/A pair. A probe is never trained on and always evaluated."""

    prompt: str
    answer: str
    probe: bool
    line: int  # of its `### Q`


@dataclass(frozen=True, slots=True)
class Triple:
    """One preference: of two answers to a prompt, the one to prefer."""

    prompt: str
    chosen: str
    rejected: str
    line: int  # of its `### Prompt`


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the body.

    `span` is where it stands in `Document.text`: from its fence line (or first line of text) to the next fence or
    the end, trailing blank lines included. `content` is what stands between, as written (escapes included), line
    endings normalised, provenance and blank edges left out; the texts below it are unescaped.
    """

    index: int  # place among the document's sections, from 0
    kind: SectionKind
    adapter: str | None
    provenance: Provenance | None
    id: str  # 16 hex digits
    line: int  # of the fence, or of the first line of prose without one
    span: tuple[int, int]
    content: str
    questions: tuple[Question, ...] = ()
    triples: tuple[Triple, ...] = ()
    prose: str = ""

    @property
    def auto_mined(self) -> bool:
        """Whether the section was written by `dlm preference apply`."""
        return self.provenance is not None and self.provenance.auto_mined


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed document; only documents without problems exist.

    `places` says where in the file the header's keys stand: dotted path (`training.sources.0.path`) to the line and
    column of the value.
    """

    path: Path | None
    text: str  # as in the file: line endings kept, without a byte order mark
    sha256: str  # of the file's bytes, for `save`
    newline: str  # "\n" or "\r\n": how the header's first line ends
    header: Header
    sections: tuple[Section, ...]
    warnings: tuple[Problem, ...] = ()
    body_start: int = 0  # offset of the first character after the header
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)
