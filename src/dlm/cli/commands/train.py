"""`dlm train`: a document in, a new version out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlm.cli.extras import require_training
from dlm.cli.options import device_option, document_argument
from dlm.cli.output import Output, duration, json_option, plural, typed
from dlm.cli.progress import TrainProgress
from dlm.cli.project import find_project
from dlm.errors import UsageError

if TYPE_CHECKING:
    from dlm.workflow.train import TrainReport

__all__ = ["report_data", "train"]

LAST_TENTH = 0.1  # of the steps: what a report's `smoothed_loss` is the mean of


@click.command()
@document_argument
@click.option(
    "--phase",
    type=click.Choice(["all", "sft"]),
    default="all",
    show_default=True,
    help="Which phases to run; all = supervised fine-tuning.",
)
@click.option(
    "--max-steps", type=click.IntRange(1), metavar="N", help="Stop after this many optimiser steps."
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="N",
    help="Seed of row order, dropout and adapter initialisation.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any knob of the recipe, such as lora_r=16. Repeatable.",
)
@click.option(
    "--rows",
    "rows_files",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Extra rows as JSON lines: prompt+completion, question+answer, messages, or text. Repeatable.",
)
@click.option("--resume", is_flag=True, help="Go on with the interrupted run.")
@click.option("--fresh", is_flag=True, help="Discard the interrupted run and start a new one.")
@device_option
@json_option
def train(
    output: Output,
    document: Path,
    phase: Any,
    max_steps: int | None,
    seed: int | None,
    assignments: Sequence[str],
    rows_files: Sequence[Path],
    resume: bool,
    fresh: bool,
    device: str,
) -> None:
    """Train a new version of the model on a document.

    Ctrl-C stops at the next step and keeps a checkpoint (exit code 130); --resume goes on from there.
    """
    knobs = _knobs(assignments, max_steps=max_steps, seed=seed)
    require_training("dlm train")
    dlm_id = find_project(document).dlm_id
    with TrainProgress(output) as view:
        from dlm.workflow.train import TrainOptions
        from dlm.workflow.train import train as run_training

        options = TrainOptions(
            phase=phase, knobs=knobs, rows_files=rows_files, resume=resume, fresh=fresh, device=device
        )
        report = run_training(document, options, view)
    _print_report(output, document, report, _previous(dlm_id, report.version))
    output.finish(report_data(document, report))


def _knobs(assignments: Sequence[str], **flags: Any) -> dict[str, Any]:
    """The recipe's fields named on the command line.

    Raises:
        UsageError: an assignment that cannot be read, or a knob given two values.
    """
    from dlm.recipe import parse_assignment  # pydantic: not for --help

    knobs: dict[str, Any] = {}
    stated = [(name, value) for name, value in flags.items() if value is not None]
    for name, value in [*map(parse_assignment, assignments), *stated]:
        if name in knobs and str(knobs[name]) != str(value):
            raise UsageError(
                f"{name} is given two values: {knobs[name]} and {value}",
                next_step=f"name it once, as in --set {name}={value}",
            )
        knobs[name] = value
    return knobs


def _print_report(
    output: Output, document: Path, report: TrainReport, previous: tuple[str, float] | None
) -> None:
    """The summary at the end of a run, and what to type next; `previous` is what was current before, and its loss."""
    state = "is current" if report.promoted else "is kept, not promoted"
    output.heading(
        f"{report.version} {state}: run {report.run_id}, {plural(report.steps, 'step')} "
        f"in {duration(report.elapsed_s)}"
    )
    last = report.last
    items = {"training loss": f"{report.smoothed_loss:.4f} (mean of the last tenth of the steps)"}
    if "train_mean_token_accuracy" in last:
        items["token accuracy"] = (
            f"{last['train_mean_token_accuracy']:.1%} of the last step's tokens to learn"
        )
    if "full_valid_loss" in last:
        items["validation loss"] = f"{last['full_valid_loss']:.4f}"
    if report.skipped_rows:
        items["left out"] = f"{plural(report.skipped_rows, 'row')} that did not fit"
    if report.probes:
        exact = sum(pair.after.exact for pair in report.probes)
        before = sum(pair.before.exact for pair in report.probes)
        items["probes"] = f"{exact} of {len(report.probes)} answered exactly (the base: {before})"
    if previous is not None:
        version, loss = previous
        items["before it was"] = f"{version} (loss {loss:.4f}): {typed('dlm', 'rollback', str(document))}"
    output.pairs(items)
    for pair in report.probes:
        output.line()
        output.pairs(
            {"probe": pair.after.prompt, "base": pair.before.answer, report.version: pair.after.answer}
        )
    output.line()
    output.line(f'next: {typed("dlm", "prompt", str(document))} "…"')
    output.line(f"      {typed('dlm', 'metrics', str(document), '--run-id', str(report.run_id))}")


def _previous(dlm_id: str, version: str) -> tuple[str, float] | None:
    """The version that was current before this one, with its training loss at the end, measured as `smoothed_loss` is.

    None where there was none, or its files are gone and nobody can go back.
    """
    from dlm.store import Home

    store = Home.open().find(dlm_id)
    if store is None:
        return None
    with store:
        moves = [move for move in store.versions.promotions() if move.version == version]
        name = moves[-1].previous if moves else None
        previous = store.versions.get(name) if name else None
        if previous is None or previous.removed_at:
            return None
        losses = store.metrics.read(previous.run_id, ["train_loss"]).get("train_loss")
        return previous.name, losses.tail_mean(LAST_TENTH) if losses is not None else math.nan


def report_data(document: Path, report: TrainReport) -> dict[str, Any]:
    """The report as `dlm/train/1` holds it."""
    return {
        "document": str(document),
        "run_id": report.run_id,
        "version": report.version,
        "promoted": report.promoted,
        "steps": report.steps,
        "elapsed_s": report.elapsed_s,
        "smoothed_loss": report.smoothed_loss,
        "last": dict(report.last),
        "probes": [{"before": asdict(pair.before), "after": asdict(pair.after)} for pair in report.probes],
        "skipped_rows": report.skipped_rows,
    }
