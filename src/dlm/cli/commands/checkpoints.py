"""`dlm checkpoints`: the checkpoints of a run, with what was measured there and which one to take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlm.cli.options import DOCUMENT, remember
from dlm.cli.output import Output, json_option, plural
from dlm.cli.project import is_document, open_store, pick_training_run
from dlm.cli.recommending import StoredRun, candidate_line, versions_of
from dlm.errors import UsageError

if TYPE_CHECKING:
    from dlm.curves import Checkpoint, CurveRun

__all__ = ["checkpoint_list", "checkpoints"]

NONE = "–"
# What is left out first where a terminal is narrow.
_SPARE = (
    "mean_unresponsive_rewards",
    "reasoning_tokens_mean",
    "train_sample_parse_error_count",
    "train_other_error_count",
    "full_valid_mean_token_accuracy",
    "full_valid_loss",
    "train_mean_token_accuracy",
    "valid_mean_token_accuracy",
    "sft_valid_loss",
    "valid_rewards/margins",
    "version",
    "train_loss",
    "completion_tokens_mean",
)


@dataclass(frozen=True)
class _Row:
    """A line of the table. `state` and `version` are those of a checkpoint in a store."""

    step: int
    values: Mapping[str, float]
    state: str = ""
    version: str = ""


@click.command()
@click.argument("source", metavar="DOCUMENT|FILE", type=DOCUMENT, callback=remember)
@click.option(
    "--run-id", type=click.IntRange(1), metavar="N", help="Which run.  [default: the newest training]"
)
@json_option
def checkpoints(output: Output, source: Path, run_id: int | None) -> None:
    """The checkpoints of a run: what was measured at each, which are still there, and which one the curves recommend.

    A FILE is a list of checkpoints or a result file, as `dlm diagnose` reads them; of one that names no checkpoints the
    validations are shown.

    --json prints the list as OpenAI's API does (`/fine_tuning/jobs/{id}/checkpoints`): those that are there, the newest
    first; of a document's run, a model checkpoint is the path of a PEFT adapter.
    """
    from dlm.workflow.run_curves import curve_run, values_at

    if not is_document(source):
        _of_file(output, source, run_id)
        return
    with open_store(output, source) as store:
        run = pick_training_run(store, source, run_id)
        curves = curve_run(store, run)
        saved = store.saved_checkpoints(run.id)
        made = versions_of(store, run.id)
    stored = StoredRun(source, run.id, run.version, made)
    rows = [
        _Row(
            one.step,
            values_at(curves.series, one.step),
            "saved" if one.is_there else "pruned",
            made.get(one.step, NONE),
        )
        for one in saved
    ]
    head = f"run {run.id} ({run.kind}) is {run.status}: {plural(len(saved), 'checkpoint')} saved"
    _print(output, head, curves, rows, stored, running=run.status == "running")


def _of_file(output: Output, path: Path, run_id: int | None) -> None:
    from dlm.curves import read_curves
    from dlm.workflow.run_curves import values_at

    if run_id is not None:
        raise UsageError("--run-id names a run of a document", found=f"{path}, which is a file of curves")
    curves = read_curves(path)
    if curves.checkpoints:
        rows = [_Row(one.step, one.metrics) for one in sorted(curves.checkpoints, key=lambda one: one.step)]
        head = f"{path} ({curves.kind}): {plural(len(rows), 'checkpoint')}"
    else:
        held_out = (
            curves.role("valid_reward") or curves.role("valid_loss") or curves.role("held_out_accuracy")
        )
        steps = [] if held_out is None else held_out.steps.tolist()
        rows = [_Row(step, values_at(curves.series, step)) for step in steps]
        head = f"{path} ({curves.kind}) names no checkpoints; {plural(len(rows), 'validation')}"
    _print(output, head, curves, rows, None)


def _print(
    output: Output,
    head: str,
    curves: CurveRun,
    rows: Sequence[_Row],
    stored: StoredRun | None,
    *,
    running: bool = False,
) -> None:
    """The table and the recommendation, or OpenAI's list."""
    from dlm.curves import diagnose, select

    if output.as_json:
        output.raw_json(checkpoint_list(curves.checkpoints, has_more=curves.more_checkpoints))
        return
    diagnosis, selection = diagnose(curves, running=running), select(curves)
    bands = {point.step: f"{point.ratio:.2f} {point.band}" for point in diagnosis.ratios}
    marks: dict[int, str] = {}
    for candidate in selection.candidates:
        before = marks.get(candidate.step)
        marks[candidate.step] = f"{before}, {candidate.role}" if before else candidate.role
    output.heading(head)
    if rows:
        _print_table(output, rows, bands, marks, of_store=stored is not None)
    for number, candidate in enumerate(selection.candidates):
        if curves.kind == "rft":
            label = "to try" if not number else "      "
        else:
            label = "recommended" if not number else "or"
        output.line(f"{label}: {candidate_line(curves, candidate, stored)}")
    if not selection.candidates:
        output.line(f"nothing recommended: {selection.reason}")
    for problem in curves.problems:
        output.line(f"mended: {problem}")


def _print_table(
    output: Output,
    rows: Sequence[_Row],
    bands: Mapping[int, str],
    marks: Mapping[int, str],
    *,
    of_store: bool,
) -> None:
    from dlm.workflow.run_curves import CHECKPOINT_METRICS

    found = {name for row in rows for name in row.values}
    names = [name for name in CHECKPOINT_METRICS if name in found]
    names += sorted(found - set(names) - {"step"})
    columns: dict[str, list[str]] = {"step": [str(row.step) for row in rows]}
    for name in names:
        columns[name] = [f"{row.values[name]:.4g}" if name in row.values else NONE for row in rows]
    if bands:
        columns["overfitting"] = [bands.get(row.step, NONE) for row in rows]
    if of_store:
        columns["state"] = [row.state for row in rows]
        columns["version"] = [row.version for row in rows]
    columns["mark"] = [marks.get(row.step, "") for row in rows]
    spare = [name for name in _SPARE if name in columns]
    output.table(
        list(columns), list(zip(*columns.values(), strict=True)), right=("step", *names), spare=spare
    )


def checkpoint_list(found: Sequence[Checkpoint], *, has_more: bool = False) -> dict[str, Any]:
    """OpenAI's list of checkpoints, the newest first (`fine_tuning.job.checkpoint` objects); `has_more` as the source
    of them says it.
    """
    data = [
        {
            "object": "fine_tuning.job.checkpoint",
            "id": one.id or f"step-{one.step}",
            "created_at": one.created_at,
            "fine_tuned_model_checkpoint": one.model,
            "fine_tuning_job_id": one.job_id,
            "metrics": {
                "step": one.step,
                **{name: value for name, value in one.metrics.items() if math.isfinite(value)},
            },
            "step_number": one.step,
        }
        for one in sorted(found, key=lambda one: -one.step)
    ]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }
