"""`training.sources`: files beside a document that are read as prose.

A document may come from someone else, so a source never reaches outside the document's own folder, links followed.
Files that are no text are skipped and named, since mixed folders are common.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dlm.document.grammar import strip_blank_edges
from dlm.document.header import Source
from dlm.document.sections import Document
from dlm.errors import DocumentError, Problem

__all__ = ["GatheredSources", "gather_sources"]

MAX_FILE_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class GatheredSources:
    """What the sources gave: files (path, text) in a fixed order, and what was skipped (path, reason).

    Paths are relative to the document's folder. Texts have `\\n` line ends and no blank lines at their edges.
    """

    files: tuple[tuple[Path, str], ...]
    skipped: tuple[tuple[Path, str], ...]


def gather_sources(document: Document) -> GatheredSources:
    """Read the files that `training.sources` names, each once, whichever source names it first.

    Files and folders whose names start with a dot are left out unless the source's path or a pattern names the dot.

    Raises:
        DocumentError: a source that is not there or lies outside the document's folder, at its line in the header;
            or sources in a document that was not read from a file.
    """
    sources = document.header.training.sources or []
    if not sources:
        return GatheredSources((), ())
    problems: list[Problem] = []
    files: dict[Path, str] = {}
    skipped: dict[Path, str] = {}
    own = document.path.resolve() if document.path else None
    for index, source in enumerate(sources):
        place = document.places.get(f"training.sources.{index}.path", (1, 1))
        if own is None:
            problems.append(Problem(*place, "source", "sources need a document that is a file"))
            continue
        folder = own.parent
        root = _resolve(folder, source.path)
        if root is None or not root.is_relative_to(folder):
            message = f"the source {source.path!r} is outside the document's folder"
            problems.append(Problem(*place, "source", message))
            continue
        if not root.exists():
            problems.append(
                Problem(*place, "source", f"there is no file or folder {source.path!r} beside the document")
            )
            continue
        for path in _matching(root, source):
            relative = path.relative_to(folder)
            real = _resolve(folder, str(relative))
            if relative in files or relative in skipped or real == own:
                continue
            if real is None or not real.is_relative_to(folder):
                skipped[relative] = "a link to outside the document's folder"
                continue
            text, reason = _read(path)
            if reason:
                skipped[relative] = reason
            else:
                files[relative] = text
    if problems:
        raise DocumentError(problems, str(document.path or "<text>"))
    return GatheredSources(tuple(files.items()), tuple(skipped.items()))


def _resolve(folder: Path, path: str) -> Path | None:
    """`path` under `folder` with links followed; None for what can be no path (a NUL, a loop of links)."""
    try:
        return (folder / path).resolve()
    except (OSError, ValueError, RuntimeError):
        return None


def _matching(root: Path, source: Source) -> Iterator[Path]:
    """The files of a source in the order of their names."""
    if not root.is_dir():
        yield root
        return
    include = [_pattern(glob) for glob in source.include]
    exclude = [_pattern(glob) for glob in source.exclude]
    dotted = any(part.startswith(".") for glob in source.include for part in glob.split("/"))
    for here, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if dotted or not name.startswith("."))
        for name in sorted(names):
            path = Path(here, name)
            inside = path.relative_to(root).as_posix()
            if name.startswith(".") and not dotted:
                continue
            if any(glob.fullmatch(inside) for glob in include) and not any(
                glob.fullmatch(inside) for glob in exclude
            ):
                yield path


def _pattern(glob: str) -> re.Pattern[str]:
    """A glob as a regular expression: `*` and `?` stay within a name, `**` crosses folders."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob.removeprefix("./"))
    meaning = {"**/": "(?:.+/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meaning.get(part) or re.escape(part) for part in parts), re.DOTALL)


def _read(path: Path) -> tuple[str, str]:
    """A file's text, or the reason why it is skipped."""
    try:
        if not path.is_file():
            return "", "not a regular file"
        if path.stat().st_size > MAX_FILE_BYTES:
            return "", f"larger than {MAX_FILE_BYTES // 1024 // 1024} MiB"
        data = path.read_bytes()
    except OSError as error:
        return "", f"cannot be read: {error.strerror or error}"
    if b"\x00" in data:
        return "", "not a text file"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return "", f"not UTF-8 (byte {error.start + 1})"
    text = strip_blank_edges(text.replace("\r\n", "\n"))
    return (text, "") if text else ("", "empty")
