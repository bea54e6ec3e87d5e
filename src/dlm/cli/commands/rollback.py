"""`dlm rollback`: go back to the version that was current before."""

from __future__ import annotations

from pathlib import Path

import click

from dlm.cli.options import document_argument
from dlm.cli.output import Output, json_option
from dlm.cli.project import open_store

__all__ = ["rollback"]


@click.command()
@document_argument
@click.option(
    "--reason",
    metavar="TEXT",
    default="by hand",
    show_default=True,
    help="Why; kept with the version's history.",
)
@json_option
def rollback(output: Output, document: Path, reason: str) -> None:
    """Go back to the version that was current before. Nothing is removed: promote brings the other one back."""
    with open_store(output, document) as store:
        before = store.versions.current_name()
        after = store.versions.rollback(reason)
    output.line(f"{after.name} is current again; before it was {before}")
    output.finish({"document": str(document), "current": after.name, "previous": before, "reason": reason})
