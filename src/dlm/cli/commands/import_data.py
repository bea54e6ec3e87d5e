"""`dlm import`: preference data, votes and runs of other tools into a document's store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from dlm.cli.options import document_argument
from dlm.cli.output import Output, json_option, plural, typed, waiting
from dlm.cli.project import find_project

__all__ = ["import_data"]


@click.command("import")
@document_argument
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--source",
    type=click.Choice(["hand", "mined", "vote", "grader", "experiment"]),
    default="hand",
    show_default=True,
    help="Where signals come from, for lines that do not say it.",
)
@click.option("--judge", default="", metavar="NAME", help="Who scored, for lines that do not say it.")
@click.option(
    "--scale", default="", metavar="TEXT", help="What scores range over (such as 1-10), for lines that do not say it."
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only read and check the files; nothing is written.")
@json_option
def import_data(
    output: Output, document: Path, files: Sequence[Path], source: str, judge: str, scale: str, dry_run: bool
) -> None:
    """Bring signals (pairs, answers with scores, votes) and past runs with their curves into a document's store.

    FILE holds JSON lines: what dlm export-data writes, TRL's or OpenAI's pairs, answers with a score, or TRL's labels.
    Bad lines are named and nothing is written; what is known already changes nothing. docs/signals.md shows the shapes.
    """
    from dlm.store import Defaults, Home
    from dlm.workflow.data_import import import_signals, read_data_file

    project = find_project(document)
    system_prompt = project.document.header.system_prompt if project.document else None
    defaults = Defaults(source, judge, scale, system_prompt)
    with waiting("reading …"):
        contents = [read_data_file(file, defaults) for file in files]
    n_signals = sum(len(content.signals) for content in contents)
    n_runs = sum(len(content.runs) for content in contents)
    if dry_run:
        output.line(
            f"{plural(n_signals, 'signal')} and {plural(n_runs, 'run')} would be read; every line is good"
        )
        output.finish(
            {"document": str(document), "dry_run": True, "signals": n_signals, "added": {}, "known": 0,
             "only_used": 0, "runs": [], "points": 0}
        )  # fmt: skip
        return
    with Home.open().store(project.dlm_id) as store:
        store.attach(document)
        with waiting(f"writing {plural(n_signals, 'signal')} …"):
            report = import_signals(store, document, contents)
    for name, count in sorted(report.added.items()):
        kind, origin = name.split()
        output.line(f"{plural(count, kind)} of source {origin}")
    if report.only_used:
        output.line(f"{plural(report.only_used, 'row')} known from a run's log alone")
    if report.known:
        output.line(f"{plural(report.known, 'signal')} known already")
    for number, name in report.runs.items():
        output.line(f"run {number} ({name} in its file)")
    for number, name in report.known_runs.items():
        output.line(f"run {number} ({name}) known already")
    if report.points:
        output.line(f"{plural(report.points, 'point')} of curves")
    if not report.changed:
        output.line("nothing is new")
    if any(name.startswith("pair") for name in report.added):
        output.line(
            f"{typed('dlm', 'train', str(document), '--phase', 'preference')} trains on its pairs, too"
        )
    output.finish(
        {
            "document": str(document),
            "dry_run": False,
            "signals": n_signals,
            "added": dict(report.added),
            "known": report.known,
            "only_used": report.only_used,
            "runs": [
                {"id": number, "ref": name, "new": new}
                for runs, new in ((report.runs, True), (report.known_runs, False))
                for number, name in runs.items()
            ],
            "points": report.points,
        }
    )
