"""`dlm prune`: free the space of what is no longer needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from dlm.cli.options import document_argument
from dlm.cli.output import Output, json_option, plural, size
from dlm.cli.project import open_store

__all__ = ["prune"]


@click.command()
@document_argument
@click.option(
    "--keep-last",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    metavar="N",
    help="Checkpoints to keep of each run, the newest ones.",
)
@click.option(
    "--version", "versions", multiple=True, metavar="NAME", help="Remove this version too. Repeatable."
)
@click.option("--dry-run", is_flag=True, help="Only say what would go, and how much that is.")
@json_option
def prune(output: Output, document: Path, keep_last: int, versions: Sequence[str], dry_run: bool) -> None:
    """Free the space of old checkpoints, of leftovers, and of the versions you name.

    The current version, its ancestors and the newest checkpoint of a run that can be resumed always stay.
    """
    with open_store(output, document) as store:
        report = store.prune(keep_last, versions=versions, dry_run=dry_run)
        folder = store.folder
    rows = [(item.kind, _short(item.path, folder), size(item.bytes)) for item in report.items]
    if rows:
        output.table(("what", "where", "size"), rows, right=("size",))
    verb = "would free" if dry_run else "freed"
    output.line(
        f"{verb} {size(report.bytes)} in {plural(len(rows), 'item')}" if rows else "nothing to remove"
    )
    output.finish(
        {
            "document": str(document),
            "store": str(folder),
            "dry_run": report.dry_run,
            "bytes": report.bytes,
            "items": [{"kind": i.kind, "path": str(i.path), "bytes": i.bytes} for i in report.items],
        }
    )


def _short(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
