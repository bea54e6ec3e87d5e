"""`dlm promote`: make a version the current one."""

from __future__ import annotations

from pathlib import Path

import click

from dlm.cli.options import document_argument
from dlm.cli.output import Output, json_option
from dlm.cli.project import open_store

__all__ = ["promote"]


@click.command()
@document_argument
@click.argument("version", metavar="VERSION")
@click.option(
    "--reason",
    metavar="TEXT",
    default="by hand",
    show_default=True,
    help="Why; kept with the version's history.",
)
@json_option
def promote(output: Output, document: Path, version: str, reason: str) -> None:
    """Make a version the current one: what `dlm prompt` asks and `dlm export` writes."""
    with open_store(document) as store:
        before = store.versions.current_name()
        after = store.versions.promote(version, reason)
    if before == after.name:
        output.line(f"{after.name} is current already")
    else:
        output.line(f"{after.name} is current" + (f"; before it was {before}" if before else ""))
    output.finish({"document": str(document), "current": after.name, "previous": before, "reason": reason})
