r"""Edits of a document as splices: new sections go in, old ones come out, every other byte stays.

Every function returns the new text (line endings as in the document); nothing is written before `saving.save`.
What is made is parsed back and compared, so text that would not come back exactly never leaves this module.

Removing what was inserted gives the bytes before. For that, an insertion mirrors its surroundings: it ends in a
blank line when the text before it does, and at the end of a file without a final line end it has none either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dlm.document.grammar import encode_text, refuse_unwritable
from dlm.document.parser import parse, parse_body
from dlm.document.provenance import Provenance, write_provenance
from dlm.document.sections import Document, Section
from dlm.errors import UsageError

__all__ = ["append", "insert_after", "remove", "render_instruction", "render_preference"]


def render_instruction(
    pairs: Iterable[tuple[str, str]],
    *,
    probes: Iterable[tuple[str, str]] = (),
    adapter: str | None = None,
    provenance: Provenance | None = None,
) -> str:
    r"""An `::instruction::` section of (question, answer) pairs, then of probes; line ends are `\n`, none at the end.

    Raises:
        TextError: a text is empty or has a NUL or a lone surrogate.
        UsageError: no pairs, or a bad adapter name.
    """
    ordinary, held_out = list(pairs), list(probes)
    blocks = [_block("### Q", question, "### A", answer) for question, answer in ordinary]
    blocks += [_block("### Q !probe", question, "### A", answer) for question, answer in held_out]
    text = _section("instruction", adapter, provenance, blocks)
    read = _read_back(text, adapter, provenance)
    expected = [(*pair, False) for pair in ordinary] + [(*pair, True) for pair in held_out]
    if [(question.prompt, question.answer, question.probe) for question in read.questions] != expected:
        raise RuntimeError("an instruction section does not read back as it was given")
    return text


def render_preference(
    triples: Iterable[tuple[str, str, str]],
    *,
    adapter: str | None = None,
    provenance: Provenance | None = None,
) -> str:
    r"""A `::preference::` section of (prompt, chosen, rejected) triples; line ends are `\n`, none at the end.

    Raises:
        TextError: a text is empty or has a NUL or a lone surrogate.
        UsageError: no triples, or a bad adapter name.
    """
    given = list(triples)
    blocks = [
        _block("### Prompt", prompt, "### Chosen", chosen, "### Rejected", rejected)
        for prompt, chosen, rejected in given
    ]
    text = _section("preference", adapter, provenance, blocks)
    read = _read_back(text, adapter, provenance)
    if [(triple.prompt, triple.chosen, triple.rejected) for triple in read.triples] != given:
        raise RuntimeError("a preference section does not read back as it was given")
    return text


def append(document: Document, sections: str | Sequence[str]) -> str:
    """The document's text with rendered sections at its end."""
    return _insert(document, len(document.text), len(document.sections), sections)


def insert_after(document: Document, section: Section, sections: str | Sequence[str]) -> str:
    """The document's text with rendered sections right after one of its own.

    Raises:
        UsageError: `section` is not a section of this document.
    """
    _own(document, section)
    return _insert(document, section.span[1], section.index + 1, sections)


def remove(document: Document, sections: Section | Iterable[Section]) -> str:
    """The document's text without some of its sections. What `append` or `insert_after` added goes without a trace.

    Raises:
        UsageError: a section that is not one of this document.
    """
    chosen = [sections] if isinstance(sections, Section) else list(sections)
    for section in chosen:
        _own(document, section)
    gone = {section.index for section in chosen}
    text = document.text
    for index in sorted(gone, reverse=True):
        start, end = document.sections[index].span
        text = text[: _without_tail(text, start)] if end >= len(text) else text[:start] + text[end:]
    _compare(text, [known.id for known in document.sections if known.index not in gone])
    return text


def _block(*lines: str) -> str:
    """Headings and the texts under them, by turns."""
    return "\n".join(line if index % 2 == 0 else encode_text(line) for index, line in enumerate(lines))


def _section(kind: str, adapter: str | None, provenance: Provenance | None, blocks: Sequence[str]) -> str:
    if not blocks:
        raise UsageError(f"an ::{kind}:: section needs at least one entry")
    head = f"::{kind}#{adapter}::" if adapter else f"::{kind}::"
    comment = [write_provenance(provenance)] if provenance else []
    return "\n".join([head, *comment, "\n\n".join(blocks)])


def _read_back(text: str, adapter: str | None, provenance: Provenance | None) -> Section:
    """The one section in rendered text."""
    if adapter:
        refuse_unwritable(adapter, "the adapter's name")
    sections = parse_body(text)
    if len(sections) != 1 or sections[0].adapter != (adapter or None):
        raise UsageError(f"{adapter!r} is no adapter name", expected="a-z, then up to 31 of a-z, 0-9 and _")
    read = sections[0].provenance
    if (read and (read.kind, dict(read.values))) != (
        provenance and (provenance.kind, dict(provenance.values))
    ):
        raise RuntimeError("a section's provenance does not read back as it was given")
    return sections[0]


def _insert(document: Document, place: int, index: int, sections: str | Sequence[str]) -> str:
    """Put rendered sections at an offset where a section ends, as the `index`-th and following sections."""
    blocks = [sections] if isinstance(sections, str) else list(sections)
    if not blocks:
        return document.text
    before, after = document.text[:place], document.text[place:]
    feed = document.newline
    spaced = _ends_blank(before)
    if after:
        tail = feed * 2 if spaced else feed
        added = "".join(_with_newline(block, feed) + tail for block in blocks)
    else:
        joined = (feed * 2).join(_with_newline(block, feed) for block in blocks)
        if not before.endswith("\n"):
            # After a lone carriage return at the very end, a line feed alone would make it a line end.
            lead = "\r\n" + feed if before.endswith("\r") else feed * 2
            added = lead + joined
        elif spaced:
            added = joined + feed * 2
        else:
            added = feed + joined + feed
    text = before + added + after
    ids = [section.id for section in document.sections]
    new = [section.id for block in blocks for section in parse_body(block)]
    _compare(text, [*ids[:index], *new, *ids[index:]])
    return text


def _without_tail(text: str, start: int) -> int:
    """Where the text before a file's last section ends once that section, begun at `start`, is gone."""
    section = text[start:]
    if section.endswith("\n") and _ends_blank(section):
        return start
    if _ends_blank(text[:start]):
        start = _before_line_end(text, start)
    return start if section.endswith("\n") else _before_line_end(text, start)


def _before_line_end(text: str, end: int) -> int:
    r"""`end`, moved before the `\n` or `\r\n` that stands right before it; as it is where none does."""
    if end and text[end - 1] == "\n":
        return end - 2 if end > 1 and text[end - 2] == "\r" else end - 1
    return end


def _ends_blank(text: str) -> bool:
    """Whether the last line of `text` is whole and blank."""
    if not text.endswith("\n"):
        return False
    end = _before_line_end(text, len(text))
    return text.rfind("\n", 0, end) >= 0 and not text[text.rfind("\n", 0, end) + 1 : end].strip(" \t")


def _with_newline(block: str, feed: str) -> str:
    return block if feed == "\n" else block.replace("\n", feed)


def _own(document: Document, section: Section) -> None:
    if section.index >= len(document.sections) or document.sections[section.index] != section:
        raise UsageError(f"the section {section.id} of line {section.line} is not one of this document")


def _compare(text: str, ids: Sequence[str]) -> None:
    """Parse an edited text and make sure that it has exactly these sections."""
    read = parse(text)
    if [section.id for section in read.sections] != list(ids):
        raise RuntimeError("an edit would have changed other sections; it was given up")
