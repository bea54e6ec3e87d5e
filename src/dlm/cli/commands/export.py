"""`dlm export`: a version as files that stock PEFT and transformers load."""

from __future__ import annotations

from pathlib import Path

import click

from dlm.cli.extras import require_training
from dlm.cli.options import document_argument, version_option
from dlm.cli.output import Output, json_option, plural, size, typed, waiting
from dlm.cli.project import warn_of_copy_at
from dlm.errors import UsageError

__all__ = ["export"]

BASE = "base"  # the name under which `dlm prompt` knows the untrained base


@click.command()
@document_argument
@click.option(
    "--to",
    "target",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A new or empty folder.",
)
@click.option(
    "--merged", is_flag=True, help="A complete model, adapter merged into the base, instead of a PEFT folder."
)
@version_option("Version to write.  [default: the current one]")
@json_option
def export(output: Output, document: Path, target: Path, merged: bool, version: str | None) -> None:
    """Write a version as plain PEFT files or a merged model, with a model card.

    A reward model is written whole, as a sequence classifier with one label.
    """
    if version == BASE:
        raise UsageError(
            "the base itself is not exported: what training made of it is",
            expected="the name of a version, such as v0001",
            next_step=f"{typed('dlm', 'show', str(document))} lists the versions",
        )
    require_training("dlm export")
    warn_of_copy_at(output, document)
    with waiting("loading the libraries and the base …"):
        from dlm.workflow.export import export as write_export

        report = write_export(document, target, wanted=version, merged=merged)
    n_bytes = sum((report.folder / name).stat().st_size for name in report.files)
    kind = "a complete model" if report.merged else "a PEFT adapter"
    if report.scores:
        kind = "a reward model (sequence classifier)"
    output.heading(
        f"{report.version} as {kind} in {report.folder}: {plural(len(report.files), 'file')}, {size(n_bytes)}"
    )
    output.line()
    output.line("load it:")
    for line in report.usage.splitlines():
        output.line(f"  {line}")
    output.finish(
        {
            "document": str(document),
            "version": report.version,
            "folder": str(report.folder),
            "merged": report.merged,
            "files": list(report.files),
            "bytes": n_bytes,
            "usage": report.usage,
        }
    )
