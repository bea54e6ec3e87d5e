r"""The lines of a document's body: which of them mean something, and how foreign text is kept from meaning it.

A line ends at `\n` or `\r\n`; nothing else ends a line (a lone `\r`, `\x0b`, `\u2028` are ordinary characters).
Four kinds of line mean something outside fenced code: section fences (`::instruction::`), section headings
(`### Q`), near misses of both, and code-fence openers. `scan` finds them all in one pass, in linear time.

Escaping, so that any text is safe inside a section and comes back exactly:

1. Outside code blocks, one backslash goes before a line that is, after any leading backslashes, a fence, a
   heading, a near miss of either, or a code-fence opener; an opener without leading backslashes only when its
   block is never closed within the text. Reading takes one away. Balanced code blocks stay as they are.
   A section's name is nearly a fence as well when text follows it on its line (`::prose:: x`) and when the line has
   nothing else but Markdown around it (`- ::prose::`, `**::prose::**`); inside a sentence, or in backticks, it is text.
2. Blank lines around a text are layout and are dropped on reading, so a text's own first or last line gets a
   backslash when it is, after any leading backslashes, blank (empty, or spaces and tabs). Reading takes one away
   from the first and the last line of a text.
3. A line that ends in `\r` followed by any backslashes gets one more backslash, since `\r\n` would be read as a
   line end. Reading takes one away. (This rule holds inside code blocks too.)

Rule 1 is the reference's. Rules 2 and 3 extend it for exactness; neither touches text that people write: only a
lone backslash on the edge line of a text, or one after a carriage return, reads differently from what it looks.
So texts of spaces and line ends round-trip too. Only the empty text has no form: the writer refuses it and the
parser calls it empty.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from dlm.errors import TextError
from dlm.recipe import nearest

__all__ = [
    "KINDS",
    "ROLES",
    "Fence",
    "Mark",
    "SectionKind",
    "decode_text",
    "encode_text",
    "refuse_unwritable",
    "scan",
    "strip_blank_edges",
]

SectionKind = Literal["prose", "instruction", "preference"]
MarkKind = Literal["fence", "near-fence", "heading", "near-heading", "unclosed", "escaped", "code"]

KINDS: Final[tuple[SectionKind, ...]] = ("prose", "instruction", "preference")

ROLES: Final[dict[SectionKind, tuple[str, ...]]] = {
    "prose": (),
    "instruction": ("Q", "A"),
    "preference": ("Prompt", "Chosen", "Rejected"),
}
"""The headings of each kind of section, in the order in which they repeat."""

HEADINGS: Final[dict[str, str]] = {
    "### Q": "Q",
    "### Q !probe": "Q !probe",
    "### A": "A",
    "### Prompt": "Prompt",
    "### Chosen": "Chosen",
    "### Rejected": "Rejected",
}

# Whitespace and invisible characters but the line feed: what can hide at the edges of a line that looks like a fence.
_INVISIBLE: Final = (
    " \t\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\xad\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u202f\u205f\u2060\u2066\u2067\u2068\u2069\u3000\ufeff"
)
# What Markdown puts around the text of a line: list, quote and heading signs, emphasis, quotes, brackets. Backticks are
# left out: a name in them is meant to be read.
_DRESS: Final = re.escape(">*_+#\"'()[]|~-\u2022\u2013\u2014\u201c\u201d\u2018\u2019")
_DRESSED: Final = rf"(?:[{_DRESS}]|[0-9]{{1,9}}[.)])(?:[{_DRESS}{_INVISIBLE}]|[0-9]{{1,9}}[.)]){{0,40}}(?=::)"
_CANDIDATE: Final = re.compile(
    rf"^(\\*)([{_INVISIBLE}]*(?::|###|```|~~~|{_DRESSED})[^\n]*)(\n?)", re.MULTILINE
)
_CODE: Final = re.compile(
    r" {0,3}(?:(?P<ticks>`{3,})(?P<info>[^`]*)|(?P<tildes>~{3,})(?P<rest>.*))", re.DOTALL
)
_FENCE: Final = re.compile(r"::([a-z]+)(?:#([a-z][a-z0-9_]{0,31}))?::")
_FENCE_FORM: Final = re.compile(r"::[A-Za-z0-9_#-]+::")
_NEAR_WORD: Final = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,39})[ \t]*(#.*)?", re.DOTALL)
_NAMED: Final = re.compile(  # a section's name between colons, whatever follows
    r"::+[ \t]{0,20}(prose|instruction|preference)s?[ \t]{0,20}(#[^:]{0,40})?::+", re.IGNORECASE | re.ASCII
)
_AFTER_DRESSED: Final = re.compile(rf"[{_DRESS}{_INVISIBLE}.,:;!?]*(?:<!--.*)?", re.DOTALL)
_DRESS_BEFORE: Final = re.compile(_DRESSED)
_ADAPTER: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_NEAR_HEADING: Final = re.compile(r"###\s*(q|a|prompt|chosen|rejected)\s*(!\s*probe)?\s*[:.]?", re.IGNORECASE)
_CR_LINE: Final = re.compile(r"\r\\*$", re.MULTILINE)
_CR_ESCAPED_LINE: Final = re.compile(r"(\r\\*)\\$", re.MULTILINE)
_UNWRITABLE: Final = re.compile("[\x00\ud800-\udfff]")
_MEDIA: Final = ("::image ", "::audio ")  # sections of the existing tool, with attributes


class Fence(NamedTuple):
    """What a fence line says; `fix` is the corrected line of a near miss, "" for an exact fence."""

    kind: SectionKind | None
    adapter: str | None
    fix: str = ""


class Heading(NamedTuple):
    """What a heading line says; `fix` is the corrected line of a near miss, "" for an exact heading."""

    role: str
    probe: bool
    fix: str = ""


_EXACT_HEADINGS: Final = {
    line: Heading("Q" if role == "Q !probe" else role, role == "Q !probe") for line, role in HEADINGS.items()
}


class Mark(NamedTuple):
    """One line that means something. Offsets count characters of the scanned text."""

    kind: MarkKind
    start: int  # of the line
    end: int  # of the line's content, its line end left out
    next: int  # start of the following line
    line: int  # counted from the number given to `scan`
    fence: Fence | None = None
    heading: Heading | None = None


class _CodeLine(NamedTuple):
    """A line that may open or close a code block."""

    mark: int  # its place among the marks
    sign: str  # ` or ~
    run: int  # length of its run of signs
    closes: int  # the same when it may close a block, 0 when it may not


def read_fence(content: str) -> Fence | None:
    """Read a line as a section fence or as a near miss of one; None for any other line.

    Leading backslashes are not part of `content`. What it says must depend on nothing else, or escapes would not hold.
    """
    exact = _FENCE.fullmatch(content)
    if exact and exact[1] in KINDS:
        return Fence(exact[1], exact[2])
    core = content.strip(_INVISIBLE)
    if core.startswith(_MEDIA) and core.endswith("::"):
        return Fence(None, None, "\\" + content)
    dress = _DRESS_BEFORE.match(core)
    named = _NAMED.match(core, dress.end() if dress else 0)
    if named and (_AFTER_DRESSED.fullmatch(core, named.end()) if dress else named.end() < len(core)):
        after = re.match(r"#([A-Za-z][A-Za-z0-9_]*)", core[named.end() :])
        return _near_fence(named[1].lower(), named[2] or (after[0] if after else ""))
    if dress or len(core) > 200:
        return None
    inner = core.strip(":")
    left = len(core) - len(core.lstrip(":"))
    colons = len(core) - len(inner)
    word = _NEAR_WORD.fullmatch(inner.strip(_INVISIBLE))
    name = word[1].lower() if word else ""
    kind: SectionKind | None = next((known for known in KINDS if known == name), None)
    if kind is None and word:
        close = nearest(name, KINDS)
        kind = next((known for known in KINDS if known == close and abs(len(name) - len(known)) <= 3), None)
        if not (left >= 2 and colons - left >= 2):
            kind = None
    if kind is None or colons < 2:
        return Fence(None, None, "\\" + content) if _FENCE_FORM.fullmatch(core) else None
    return _near_fence(kind, (word[2] if word else "") or "")


def _near_fence(name: str, hashed: str) -> Fence:
    """The near miss of a fence of the kind `name`, with what stood for an adapter, from its `#` on."""
    kind = next(known for known in KINDS if known == name)
    adapter = re.sub(r"[^a-z0-9_]+", "_", hashed[1:].strip(_INVISIBLE).lower()).strip("_")
    if not _ADAPTER.fullmatch(adapter):
        return Fence(kind, None, f"::{kind}::")
    return Fence(kind, adapter, f"::{kind}#{adapter}::")


def read_heading(content: str) -> Heading | None:
    """Read a line as a section heading or as a near miss of one; spaces and tabs around a heading are allowed."""
    exact = _EXACT_HEADINGS.get(content.strip(" \t"))
    if exact is not None:
        return exact
    core = content.strip(_INVISIBLE)
    near = _NEAR_HEADING.fullmatch(core) if len(core) <= 60 else None
    if near is None:
        return None
    role = near[1].capitalize()
    probe = near[2] is not None and role == "Q"
    return Heading(role, probe, f"### {role} !probe" if probe else f"### {role}")


def scan(text: str, start: int = 0, line: int = 1) -> list[Mark]:
    """Every line that means something from offset `start` (a line's start, with number `line`) to the end.

    Lines inside balanced fenced code are left out. A balanced block shows as one mark of kind "code" (its opener,
    with `next` after its closing line); an opener that is never closed as "unclosed", and what follows it is read
    as if that line were text, so that one slip does not hide the rest.
    """
    marks: list[Mark] = []
    code: list[_CodeLine] = []
    counted, number = start, line
    for match in _CANDIDATE.finditer(text, start):
        begin, after = match.span()
        escape, content, feed = match.groups()
        end = after - len(feed)
        if feed and content[-1] == "\r":
            content, end = content[:-1], end - 1
        number += text.count("\n", counted, begin)
        counted = begin
        heading = _EXACT_HEADINGS.get(content)
        if heading:
            marks.append(Mark("escaped" if escape else "heading", begin, end, after, number, None, heading))
            continue
        sign = content.lstrip(_INVISIBLE)[0]
        heading = read_heading(content) if sign == "#" else None
        run = _CODE.fullmatch(content) if sign in "`~" else None
        fence = None if heading or run else read_fence(content)
        kind: MarkKind = "unclosed"
        if heading:
            kind = "near-heading" if heading.fix else "heading"
        elif fence:
            kind = "near-fence" if fence.fix else "fence"
        elif not run:
            continue
        if not escape and run:
            signs, tail = (run["ticks"], run["info"]) if run["ticks"] else (run["tildes"], run["rest"])
            closes = 0 if tail.strip(" \t\r") else len(signs)  # a lone \r can end the file
            code.append(_CodeLine(len(marks), sign, len(signs), closes))
        marks.append(Mark("escaped" if escape else kind, begin, end, after, number, fence, heading))
    return _settle_code(marks, code) if code else marks


def _settle_code(marks: list[Mark], code: list[_CodeLine]) -> list[Mark]:
    """Join code-fence lines to blocks, leaving out the marks inside them."""
    # longest[sign][i]: the longest closing run at code line i or later; with it no opener searches in vain, and all
    # searching together takes linear time.
    longest = {sign: [0] * (len(code) + 1) for sign in "`~"}
    for place in range(len(code) - 1, -1, -1):
        for sign, runs in longest.items():
            closes = code[place].closes if code[place].sign == sign else 0
            runs[place] = max(closes, runs[place + 1])
    settled: list[Mark] = []
    done = place = 0
    while place < len(code):
        opener = code[place]
        place += 1
        if longest[opener.sign][place] < opener.run:
            continue
        while code[place].sign != opener.sign or code[place].closes < opener.run:
            place += 1
        closer = code[place].mark
        settled += marks[done : opener.mark]
        settled.append(marks[opener.mark]._replace(kind="code", next=marks[closer].next))
        done = closer + 1
        place += 1
    return settled + marks[done:]


def refuse_unwritable(text: str, what: str) -> None:
    """Raise TextError when `text` (named `what` in the message) is empty or cannot stand in a UTF-8 text file."""
    if not text:
        raise TextError(f"{what} is empty", expected="at least one character")
    bad = _UNWRITABLE.search(text)
    if bad:
        name = "a NUL" if bad[0] == "\x00" else f"a lone surrogate (U+{ord(bad[0]):04X})"
        raise TextError(f"{what} has {name} at character {bad.start() + 1}; no UTF-8 text file can hold it")


def encode_text(text: str) -> str:
    r"""The lines that stand for `text` inside a section, joined by `\n`, without a final line end.

    Raises:
        TextError: `text` is empty, or has a NUL or a lone surrogate.
    """
    refuse_unwritable(text, "the text")
    if "\r" in text:
        text = _CR_LINE.sub(lambda match: match[0] + "\\", text)
    pieces: list[str] = []
    done = 0
    for mark in scan(text):
        if mark.kind != "code":
            pieces += (text[done : mark.start], "\\")
            done = mark.start
    text = "".join(pieces) + text[done:]
    feed = text.rfind("\n")
    if feed >= 0 and _is_edge(text[feed + 1 :]):
        text = f"{text[: feed + 1]}\\{text[feed + 1 :]}"
    feed = text.find("\n")
    if _is_edge(text[:feed] if feed >= 0 else text):
        text = "\\" + text
    return text


def decode_text(text: str, start: int, end: int, escapes: Sequence[int]) -> str:
    """The text that the lines `text[start:end]` of a document stand for.

    Args:
        escapes: offsets in `text`, ascending and within the range, of the lines that `scan` calls escaped.
    """
    if escapes:
        bounds = [start, *(offset + 1 for offset in escapes)]
        pieces = [text[a:b] for a, b in zip(bounds, [*escapes, end], strict=True)]
        raw = "".join(pieces)
    else:
        raw = text[start:end]
    raw = strip_blank_edges(raw.replace("\r\n", "\n"))
    feed = raw.rfind("\n")
    if feed >= 0 and raw.startswith("\\", feed + 1) and _is_edge(raw[feed + 1 :]):
        raw = raw[: feed + 1] + raw[feed + 2 :]
    feed = raw.find("\n")
    if raw.startswith("\\") and _is_edge(raw[:feed] if feed >= 0 else raw):
        raw = raw[1:]
    if "\r" in raw:
        raw = _CR_ESCAPED_LINE.sub(r"\1", raw)
    return raw


def strip_blank_edges(text: str) -> str:
    r"""`text` without its leading and trailing lines of spaces and tabs; line ends are `\n`."""
    core_end = len(text.rstrip(" \t\n"))
    if core_end == 0:
        return ""
    feed = text.find("\n", core_end)
    last = len(text) if feed < 0 else feed
    core_start = len(text) - len(text.lstrip(" \t\n"))
    return text[text.rfind("\n", 0, core_start) + 1 : last]


def _is_edge(line: str) -> bool:
    """Whether a line is blank after any leading backslashes."""
    return not line.lstrip("\\").strip(" \t")
