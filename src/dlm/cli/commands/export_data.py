"""`dlm export-data`: the signals of a document in a file, for other tools, or for `dlm import`."""

from __future__ import annotations

from pathlib import Path

import click

from dlm.cli.options import FiniteNumber, document_argument
from dlm.cli.output import Output, json_option, plural, size, waiting
from dlm.cli.project import find_project, warn_of_copy

__all__ = ["export_data"]


@click.command("export-data")
@document_argument
@click.option(
    "--to", "target", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The file to write."
)  # fmt: skip
@click.option(
    "--tab",
    type=click.Choice(["preference", "reward", "dpo", "orpo"]),
    help="Only what this tab of the browser holds.  [default: all of them]",
)
@click.option(
    "--format",
    "shape",
    type=click.Choice(["dlm", "trl", "openai", "csv"]),
    default="dlm",
    show_default=True,
    help="dlm carries everything and can be imported again; trl and openai are for training, csv for a spreadsheet.",
)
@click.option("--search", default="", metavar="WORDS", help="Only signals whose texts have all these words.")
@click.option(
    "--source",
    default="",
    type=click.Choice(["", "hand", "mined", "vote", "grader", "experiment"]),
    metavar="[hand|mined|vote|grader|experiment]",
    help="Only signals of this source.",
)
@click.option("--judge", default="", metavar="NAME", help="Only what this judge scored.")
@click.option(
    "--standing",
    default="",
    type=click.Choice(["", "waiting", "staged", "accepted", "document", "store", "turned-down"]),
    metavar="[waiting|staged|accepted|document|store|turned-down]",
    help="Only pairs that wait for review, stand in the document or in the store, or were turned down.  "
    "[default: all but those turned down]",
)
@click.option(
    "--flag",
    default="",
    metavar="NAME",
    help="Only pairs with this flag, such as topic_drift; any: with one.",
)
@click.option(
    "--run", "run_id", type=click.IntRange(1), metavar="N", help="Only what this run consumed or mined."
)
@click.option(
    "--min-margin",
    type=FiniteNumber("a finite number", lambda number: True),
    metavar="X",
    help="Only pairs whose two scores differ by at least this much.",
)
@click.option("--with-runs", is_flag=True, help="Training runs with their curves as well (format dlm).")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@json_option
def export_data(
    output: Output,
    document: Path,
    target: Path,
    tab: str | None,
    shape: str,
    search: str,
    source: str,
    judge: str,
    standing: str,
    flag: str,
    run_id: int | None,
    min_margin: float | None,
    with_runs: bool,
    force: bool,
) -> None:
    """Write preference pairs, scores and votes of a document and its store as JSON lines or CSV.

    What dlm writes in its own format, dlm import reads back as it was, here or for another document.
    """
    from dlm.store import Home, SignalFilter
    from dlm.workflow.data_export import write_export
    from dlm.workflow.signals import refresh

    project = find_project(document)
    wanted = SignalFilter(
        tab=tab or "", search=search, source=source, judge=judge, standing=standing, flag=flag, run=run_id,
        min_margin=min_margin, order="oldest",
    )  # fmt: skip
    wanted.condition()  # a name that is none is refused before anything is opened
    with Home.open().store(project.dlm_id) as store:
        warn_of_copy(output, store, document)
        if run_id is not None:
            store.runs.get(run_id)
        with waiting("writing …"):
            if not refresh(store, document, look_at=None if flag else 0).current:
                output.warn(f"{document} has problems; its pairs are those of the last time it had none")
            report = write_export(
                store,
                wanted,
                target,
                shape=shape,
                system_prompt=project.document.header.system_prompt if project.document else None,
                with_runs=with_runs,
                force=force,
            )
    runs = f" and {plural(report.runs, 'run')}" if with_runs else ""
    output.line(f"{plural(report.signals, 'signal')}{runs} in {report.path}: {size(report.bytes)}")
    output.finish(
        {
            "document": str(document),
            "file": str(report.path),
            "format": shape,
            "tab": tab,
            "signals": report.signals,
            "runs": report.runs,
            "bytes": report.bytes,
        }
    )
