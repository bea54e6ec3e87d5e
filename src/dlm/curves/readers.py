"""`read_curves`: a file of curves, whatever its format.

Formats: OpenAI and Azure result files (CSV), lists of checkpoints and of events (JSON), transformers' and TRL's
`trainer_state.json`, JSON lines, and what `dlm metrics --csv` and `--json` print.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from pathlib import Path
from typing import Any, BinaryIO

from dlm.curves.assembly import RawRun, assemble
from dlm.curves.columns import clean_name
from dlm.curves.formats.documents import read_document
from dlm.curves.formats.lines import read_lines
from dlm.curves.formats.table import read_table
from dlm.curves.run import CurveRun
from dlm.errors import CurveFileError

__all__ = ["read_curves", "read_curves_from"]

_HEAD = 65_536  # bytes that decide on encoding and format
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8 with a byte order mark"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_FORMATS = "a result file (CSV), a list of checkpoints (JSON), a trainer_state.json, or JSON lines"
_STATE = "trainer_state.json"
_FOLDER = re.compile(r"checkpoint-(\d{1,15})")


def read_curves(path: Path | str) -> CurveRun:
    """Read a file of curves; the format is found by its content, never by its name.

    A folder stands for the `trainer_state.json` in it, or for that of its newest `checkpoint-N`.

    Raises:
        CurveFileError: the file is missing, empty, no known format or damaged; with line and column where there are
            any, what was expected and what to type next.
    """
    file = _file_of(Path(path))
    where = clean_name(file)
    try:
        with file.open("rb") as stream:
            return read_curves_from(stream, name=clean_name(file.stem), where=where, folder=file.parent)
    except FileNotFoundError:
        raise CurveFileError(
            "there is no such file", where=where, expected=_FORMATS, next_step="look at its name and folder"
        ) from None
    except OSError as error:
        raise CurveFileError(f"it cannot be read: {error.strerror or error}", where=where) from None


def read_curves_from(
    stream: BinaryIO, *, name: str = "curves", where: str = "<stream>", folder: Path | None = None
) -> CurveRun:
    """Read curves from an open binary stream that can seek.

    Raises:
        CurveFileError: as `read_curves`.
        OSError: the stream cannot be read.
    """
    head = stream.read(_HEAD)
    stream.seek(0)
    if not head.strip(b"\x00 \t\r\n\xef\xbb\xbf\xff\xfe"):
        raise CurveFileError(
            "the file is empty",
            where=where,
            expected=_FORMATS,
            next_step="export the run again once it has logged",
        )
    encoding, problems = _encoding(head, where)
    text = io.TextIOWrapper(stream, encoding=encoding, newline="")
    try:
        raw = _read(text, _sample(head, encoding), where, folder)
    except UnicodeError as error:
        raise _not_text(error, encoding, where) from None
    finally:
        text.detach()
    raw.problems[:0] = problems
    return assemble(raw, name, where)


def _file_of(path: Path) -> Path:
    """The file to read where a folder is named."""
    try:
        if not path.is_dir():
            return path
        if (path / _STATE).is_file():
            return path / _STATE
        found = [
            (int(match[1]), entry) for entry in path.iterdir() if (match := _FOLDER.fullmatch(entry.name))
        ]
    except (OSError, ValueError) as error:
        raise CurveFileError(f"it cannot be read: {error}", where=clean_name(path)) from None
    for _, entry in sorted(found, reverse=True):
        if (entry / _STATE).is_file():
            return entry / _STATE
    raise CurveFileError(
        "a folder without curves",
        where=clean_name(path),
        expected=f"a file, or a folder with a {_STATE}",
        next_step="name the file itself",
    )


def _encoding(head: bytes, where: str) -> tuple[str, list[str]]:
    """The encoding by its byte order mark, or by the zeros that UTF-16 has in plain text."""
    for mark, encoding, words in _BOMS:
        if head.startswith(mark):
            return encoding, [f"the file is {words}"]
    sample = head[:2000]
    if b"\x00" in sample:
        half = max(1, len(sample) // 2)
        for offset, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
            if sample[offset::2].count(0) > 0.8 * half and sample[1 - offset :: 2].count(0) == 0:
                return encoding, ["the file is UTF-16 without a byte order mark"]
        raise CurveFileError("not a text file: it has zero bytes", where=where, expected=_FORMATS)
    return "utf-8", []


def _sample(head: bytes, encoding: str) -> str:
    """The beginning as text, without what may be cut at its end."""
    return head.decode(encoding, errors="ignore").lstrip("\ufeff").lstrip()


def _read(text: io.TextIOWrapper, sample: str, where: str, folder: Path | None) -> RawRun:
    if sample.startswith("["):
        return read_document(text, where, folder)
    if sample.startswith("{"):
        lines = [line for line in sample.splitlines() if line.strip()]
        first = _object(lines[0])
        if first is not None and str(first.get("object", "")).startswith("fine_tuning."):
            return read_document(text, where, folder, lines=True)
        if first is not None and (len(lines) > 1 or not {"log_history", "data", "step_number"} & set(first)):
            return read_lines(text, where)
        return read_document(text, where, folder)
    return read_table(text, where)


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _not_text(error: UnicodeError, encoding: str, where: str) -> CurveFileError:
    at = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) and encoding == "utf-8" else ""
    return CurveFileError(
        f"not {'UTF-8' if encoding.startswith('utf-8') else 'UTF-16'} text{at}",
        where=where,
        expected=_FORMATS,
        next_step="save the file as UTF-8, then: dlm diagnose FILE",
    )
