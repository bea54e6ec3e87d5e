"""Asking before a command that a document names is run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from dlm.store import Consents, Home

__all__ = ["require_consent"]


def require_consent(argv: Sequence[str], *, document: Path, home: Home, trust: bool) -> None:
    """Return when the command that a document names may run in the document's folder.

    A command typed on the command line needs none of this: typing it is the consent.

    Raises:
        ConsentError: the person said no, or there is no terminal to ask at and no --trust.
    """
    Consents(home.root).require(
        argv, document.parent, named_by=str(document), trust=trust, ask=_person_at_terminal()
    )


def _person_at_terminal() -> Callable[[str], bool] | None:
    """How to ask, on stderr: stdout is for results. None unless both ends are a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    return lambda question: click.confirm(question, default=False, err=True)
