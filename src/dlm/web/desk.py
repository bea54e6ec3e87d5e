"""A page's way to the document and its store. Each request opens the store anew, in its own thread, and closes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from dlm.errors import MissingRecordError
from dlm.store import Home, Store
from dlm.workflow.project import Project, find_project

__all__ = ["AtDesk", "Desk"]


@dataclass(frozen=True)
class Desk:
    """The document that this server is about. `path` is absolute; `home` the folder of all stores."""

    path: Path
    dlm_id: str
    home: Home

    @classmethod
    def at(cls, path: Path) -> Desk:
        """The desk of a document.

        Raises:
            DlmError: the file cannot be read, or it has problems and no id either.
        """
        return cls(path.absolute(), find_project(path).dlm_id, Home.open())

    def project(self) -> Project:
        """The document as it is on disk now.

        Raises:
            DlmError: it cannot be read.
        """
        return find_project(self.path)

    def find_store(self) -> Store | None:
        """The store, None before the first training. Use it in the thread that called this, and close it."""
        return self.home.find(self.dlm_id)

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The store, for one request.

        Raises:
            MissingRecordError: nothing was ever trained or imported.
            StoreError: it cannot be read.
        """
        store = self.find_store()
        if store is None:
            raise MissingRecordError(
                f"{self.path.name} has not been trained yet: there are no runs and no versions",
                next_step=f"dlm train {self.path.name}",
            )
        with store:
            yield store


def _desk(request: Request) -> Desk:
    request.state.seen = request.app.state.feed.position  # before the store is read: see `pages.page`
    desk: Desk = request.app.state.desk
    return desk


AtDesk = Annotated[Desk, Depends(_desk)]
"""A handler's parameter `desk: AtDesk` is the app's desk."""
