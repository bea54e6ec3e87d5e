"""From a document's path to its store, for the commands that only look things up.

They need nothing of a document but its id, so a document that somebody is in the middle of editing, with problems in
it, still shows its versions and runs.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dlm.cli.output import Output, typed
from dlm.errors import DocumentError, MissingRecordError

if TYPE_CHECKING:
    from dlm.document import Document
    from dlm.store import Run, Store

__all__ = [
    "Project",
    "find_project",
    "is_document",
    "open_store",
    "pick_training_run",
    "runs_as_they_are",
    "warn_of_copy",
    "warn_of_copy_at",
]

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
    from dlm.document import load  # pydantic and YAML: not for --help

    try:
        document = load(path)
    except DocumentError as error:
        dlm_id = _read_id(path)
        if not dlm_id:
            raise
        return Project(path, dlm_id, None, len(error.problems), _mentions_gate(path))
    return Project(path, document.header.dlm_id, document, 0)


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


def open_store(output: Output, path: Path) -> Store:
    """The store of a document; a warning when it belongs to another file with the same id.

    Raises:
        MissingRecordError: nothing was ever trained from it.
        DlmError: the document or its store cannot be read.
    """
    from dlm.store import Home

    store = Home.open().find(find_project(path).dlm_id)
    if store is None:
        raise MissingRecordError(
            f"{path} has not been trained yet: there are no runs and no versions",
            next_step=typed("dlm", "train", str(path)),
        )
    warn_of_copy(output, store, path)
    return store


def warn_of_copy(output: Output, store: Store, path: Path) -> None:
    """Warn when another file, still there, carries this document's id: the store is that one's, and `train` refuses."""
    owner = store.document()
    if owner is None or _read_id(owner) != store.dlm_id:
        return
    try:
        if os.path.samefile(owner, path):  # a link, or another spelling of one path
            return
    except OSError:
        return
    output.warn(
        f"two documents carry the dlm_id {store.dlm_id}; its versions and runs are those of {owner}. "
        f"{typed('dlm', 'init', '--new-id', str(path))} makes {path} a document of its own"
    )


def warn_of_copy_at(output: Output, path: Path) -> None:
    """`warn_of_copy` for a command that leaves the store to a workflow.

    Raises:
        DlmError: the document or its store cannot be read.
    """
    from dlm.store import Home

    store = Home.open().find(find_project(path).dlm_id)
    if store is not None:
        with store:
            warn_of_copy(output, store, path)


def is_document(path: Path) -> bool:
    """By its name, or by the fence that opens a header: a file of curves has neither."""
    if path.suffix == ".dlm":
        return True
    try:
        with path.open("rb") as file:
            return file.read(8).removeprefix(b"\xef\xbb\xbf").startswith((b"---\n", b"---\r"))
    except OSError:
        return False


def pick_training_run(store: Store, document: Path, run_id: int | None) -> Run:
    """The run asked for, else the newest that trains, with its true status.

    Raises:
        MissingRecordError: no such run, or nothing was trained yet.
        UsageError: a run that trains nothing.
    """
    from dlm.workflow.run_curves import require_curves, trains

    runs = [replace(run, status=status) for run, status in runs_as_they_are(store)]
    if run_id is not None:
        store.runs.get(run_id)  # names the runs there are
        run = next(run for run in runs if run.id == run_id)
        require_curves(run)
        return run
    trained = [run for run in runs if trains(run)]
    if not trained:
        raise MissingRecordError(
            "nothing was trained yet: there are no curves", next_step=typed("dlm", "train", str(document))
        )
    return trained[-1]


def runs_as_they_are(store: Store) -> list[tuple[Run, str]]:
    """The runs with their true status: one that is `running` while nobody holds the lock was interrupted.

    The next training records that; until then a reader has to see it.
    """
    free_before = store.holder() is None
    runs = store.runs.list()
    # Asked twice, around the list: a training that starts or ends just now must not look dead.
    nobody = free_before and any(run.status == "running" for run in runs) and store.holder() is None
    return [(run, "interrupted" if nobody and run.status == "running" else run.status) for run in runs]
