"""`dlm promote`: make a version the current one."""

from __future__ import annotations

from pathlib import Path

import click

from dlm.cli.options import document_argument
from dlm.cli.output import Output, json_option, typed
from dlm.cli.project import find_project, open_store
from dlm.errors import GateError

__all__ = ["promote"]


@click.command()
@document_argument
@click.argument("version", metavar="VERSION")
@click.option(
    "--reason",
    metavar="TEXT",
    help="Why; kept with the version's history.",
)
@click.option("--force", is_flag=True, help="Promote although the document's gate has not passed.")
@json_option
def promote(output: Output, document: Path, version: str, reason: str | None, force: bool) -> None:
    """Make a version the current one: what `dlm prompt` asks and `dlm export` writes.

    Where the document declares a gate, --force and a --reason are needed: this version of dlm cannot evaluate gates.
    """
    if find_project(document).declares_gate and not (force and reason):
        raise GateError(
            f"the document declares a gate, which {version} has not passed",
            expected="--force with a recorded reason, as this version of dlm cannot evaluate gates",
            next_step=typed("dlm", "promote", str(document), version, "--force", "--reason", "…"),
        )
    reason = reason or "by hand"
    with open_store(output, document) as store:
        before = store.versions.current_name()
        after = store.versions.promote(version, reason)
    if before == after.name:
        output.line(f"{after.name} is current already")
    else:
        output.line(f"{after.name} is current" + (f"; before it was {before}" if before else ""))
    output.finish({"document": str(document), "current": after.name, "previous": before, "reason": reason})
