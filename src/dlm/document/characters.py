"""What a file is made of: UTF-8 text, UTF-8 text with slips at known places, or no UTF-8 text at all.

A slip is reported where it stands. A file that is something else (UTF-16, an older 8-bit encoding, a picture) has one
cause, so a handful of places is enough, and nothing further is read in it.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import shlex
from pathlib import Path
from typing import Final, NamedTuple

from dlm.errors import Problem

__all__ = ["BOM", "Characters", "read_characters"]

BOM: Final = "\ufeff"
MAX_SLIPS: Final = 100  # then the rest are counted in one line
MAX_SHOWN: Final = 5  # of a file that is no UTF-8 text
FEW: Final = 5  # so many bad characters are slips, however short the file
SHARE: Final = 0.1  # of bad characters from which a file is no UTF-8 text; French in Latin-1 has about 0.04
CONTROL_SHARE: Final = (
    0.02  # of control characters from which a file is no text; compressed data has about 0.1
)
SAMPLE: Final = 4096  # bytes that are looked at for the NULs of UTF-16

_BAD: Final = re.compile("[\ud800-\udfff]+|\x00+")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_CONTROL: Final = re.compile("[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")
_BEYOND_ASCII: Final = re.compile("[\x80-\ud7ff\ue000-\U0010ffff]")
_UTF_MARKS: Final = (  # longer ones first: UTF-32's begins like UTF-16's
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


class Characters(NamedTuple):
    """The text of a file, its byte order mark left out, and what is wrong with its characters."""

    text: str  # what is not UTF-8 stands as lone surrogates
    clean: str  # the same with U+FFFD for all that cannot stand in a text file, so that offsets agree
    marked: bool  # whether there was a byte order mark
    problems: list[Problem]
    foreign: bool = False  # no UTF-8 text: not worth reading on
    next_step: str = ""  # for a foreign file


def read_characters(data: bytes | str, path: Path | None) -> Characters:
    """Decode a file's content (or take its text) and find what cannot stand in a document. Never raises."""
    raw = isinstance(data, bytes)
    if isinstance(data, bytes):
        encoding = _wide_encoding(data)
        if encoding:
            command = _iconv(encoding, path)
            message = f"this is probably {encoding[:6]}, and documents are UTF-8: {command}"
            return Characters("", "", False, [Problem(1, 1, "not-utf8", message)], True, command)
        # surrogateescape: every byte that is not UTF-8 becomes one lone surrogate, so one search finds them all.
        data = data.decode("utf-8", "surrogateescape")
    marked = data.startswith(BOM)
    text = data.removeprefix(BOM)
    if "\x00" not in text and (text.isascii() or not _SURROGATE.search(text)):
        return Characters(text, text, marked, [])
    fault = "what stands here is not UTF-8" if raw else "what stands here is a lone surrogate"
    n_bad = len(text) - len(_BAD.sub("", text))
    if n_bad > max(FEW, SHARE * len(text)):
        problems = _problems(text, fault, MAX_SHOWN)
        last = problems[-1]
        if len(_CONTROL.findall(text)) > CONTROL_SHARE * len(text):
            what, step = "this is no text file", "name a text file: documents are UTF-8 text"
        else:
            step = _iconv("ENCODING", path)
            what = f"is this another encoding? `file -i {_name(path)}` may tell which; then: {step}"
        message = f"and so on, {n_bad:,} of {len(text):,} characters: {what}"
        problems.append(Problem(last.line, last.column + 1, "not-utf8", message))
        return Characters(text, "", marked, problems, True, step)
    problems = _problems(text, fault, MAX_SLIPS)
    last = problems[-1]
    if raw and "\x00" not in text and not _BEYOND_ASCII.search(text):
        hint = f"; if the file is Windows-1252 or Latin-1: {_iconv('WINDOWS-1252', path)}"
        problems[0] = dataclasses.replace(problems[0], message=problems[0].message + hint)
    more = sum(1 for _ in _BAD.finditer(text)) - len(problems)
    if more:
        message = f"and {more:,} more places like this: is this a text file?"
        problems.append(Problem(last.line, last.column + 1, "not-utf8", message))
    clean = _BAD.sub(lambda match: "\ufffd" * len(match[0]), text)
    return Characters(text, clean, marked, problems)


def _problems(text: str, fault: str, limit: int) -> list[Problem]:
    """The first places of what cannot stand in a text file."""
    problems: list[Problem] = []
    counted, line = 0, 1
    for match in itertools.islice(_BAD.finditer(text), limit):
        line += text.count("\n", counted, match.start())
        counted = match.start()
        column = counted - text.rfind("\n", 0, counted)
        if match[0][0] == "\x00":
            problems.append(Problem(line, column, "nul", "a NUL character cannot stand in a document"))
        else:
            problems.append(Problem(line, column, "not-utf8", fault))
    return problems


def _wide_encoding(data: bytes) -> str:
    """The encoding of two or four bytes a character that `data` probably has, as iconv names it; "" for any other."""
    for mark, encoding in _UTF_MARKS:
        if data.startswith(mark):
            return encoding
    sample = data[:SAMPLE]
    halves = sample[0::2], sample[1::2]
    nuls = [half.count(0) for half in halves]
    for encoding, high in (("UTF-16BE", 0), ("UTF-16LE", 1)):
        # Every other byte of Latin text is NUL, and none of those between; wide signs among it are few.
        if nuls[high] >= max(3, 0.4 * len(halves[high])) and nuls[1 - high] <= 0.02 * len(sample):
            return encoding
    return ""


def _iconv(encoding: str, path: Path | None) -> str:
    """The command that makes a UTF-8 copy of the file."""
    copy = _name(path.with_name(f"{path.stem}-utf8{path.suffix}") if path and path.name else None, "COPY")
    return f"iconv -f {encoding} -t UTF-8 {_name(path)} > {copy}"


def _name(path: Path | None, otherwise: str = "FILE") -> str:
    return shlex.quote(str(path)) if path else otherwise
