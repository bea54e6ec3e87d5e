"""From a document's path to its store, for whoever only looks things up: the command line and the web app. No torch.

They need nothing of a document but its id, so a document that somebody is in the middle of editing, with problems in
it, still shows its versions and runs.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from dlm.document import Document, load
from dlm.errors import DocumentError
from dlm.store import Run, Store

__all__ = ["Project", "find_project", "owner_of_copy", "runs_as_they_are"]

_HEADER = re.compile(r"\A\ufeff?---\n(.*?)^---$", re.DOTALL | re.MULTILINE)
_ID = re.compile(r"""^dlm_id:[ \t]*["']?([0-9A-HJKMNP-TV-Z]{26})["']?[ \t]*(?:#.*)?\r?$""", re.MULTILINE)


@dataclass(frozen=True)
class Project:
    """A document on disk: its id, and its content where it has no problems."""

    path: Path
    dlm_id: str
    document: Document | None
    n_problems: int
    mentions_gate: bool = False  # in the text of a header that cannot be read as a whole

    @property
    def declares_gate(self) -> bool:
        """Whether its header has a gate; of a document with problems, whether it seems to."""
        if self.document is None:
            return self.mentions_gate
        return self.document.header.gate is not None


def find_project(path: Path) -> Project:
    """Read a document, or at least its id.

    Raises:
        DlmError: the file cannot be read, or it has problems and no id either.
    """
    try:
        document = load(path)
    except DocumentError as error:
        dlm_id = _read_id(path)
        if not dlm_id:
            raise
        return Project(path, dlm_id, None, len(error.problems), _mentions_gate(path))
    return Project(path, document.header.dlm_id, document, 0)


def owner_of_copy(store: Store, path: Path) -> Path | None:
    """The other document, still there, that carries this one's id and owns its store; None when there is none."""
    owner = store.document()
    if owner is None or _read_id(owner) != store.dlm_id:
        return None
    try:
        return None if os.path.samefile(owner, path) else owner  # a link, or another spelling of one path
    except OSError:
        return None


def runs_as_they_are(store: Store) -> list[tuple[Run, str]]:
    """The runs with their true status: one that is `running` while nobody holds the lock was interrupted.

    The next training records that; until then a reader has to see it.
    """
    free_before = store.holder() is None
    runs = store.runs.list()
    # Asked twice, around the list: a training that starts or ends just now must not look dead.
    nobody = free_before and any(run.status == "running" for run in runs) and store.holder() is None
    return [(run, "interrupted" if nobody and run.status == "running" else run.status) for run in runs]


def _read_id(path: Path) -> str:
    found = _ID.search(_header_text(path))
    return found[1] if found else ""


def _mentions_gate(path: Path) -> bool:
    return re.search(r"^gate:", _header_text(path), re.MULTILINE) is not None


def _header_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    header = _HEADER.search(text)
    return header[1] if header else ""
