"""From a document's path to its store, with the words that a command says about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dlm.cli.output import Output, typed
from dlm.errors import MissingRecordError

if TYPE_CHECKING:
    from dlm.store import Run, Store
    from dlm.workflow.project import Project

__all__ = [
    "find_project",
    "is_document",
    "open_store",
    "pick_training_run",
    "runs_as_they_are",
    "warn_of_copy",
    "warn_of_copy_at",
]

# What lies behind these doors reads headers (pydantic, YAML), which `dlm --help` does without.


def find_project(path: Path) -> Project:
    """`dlm.workflow.project.find_project`."""
    from dlm.workflow.project import find_project

    return find_project(path)


def runs_as_they_are(store: Store) -> list[tuple[Run, str]]:
    """`dlm.workflow.project.runs_as_they_are`."""
    from dlm.workflow.project import runs_as_they_are

    return runs_as_they_are(store)


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
    from dlm.workflow.project import owner_of_copy

    owner = owner_of_copy(store, path)
    if owner is not None:
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
