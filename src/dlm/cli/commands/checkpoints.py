"""`dlm checkpoints`: the checkpoints of a run, with what the run measured there and which one to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlm.cli.options import document_argument
from dlm.cli.output import Output, json_option, plural
from dlm.cli.project import open_store, pick_training_run
from dlm.cli.recommending import StoredRun, candidate_line

if TYPE_CHECKING:
    from dlm.curves import Checkpoint, Diagnosis, Selection
    from dlm.store import SavedCheckpoint, Version

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


@click.command()
@document_argument
@click.option(
    "--run-id", type=click.IntRange(1), metavar="N", help="Which run.  [default: the newest training]"
)
@json_option
def checkpoints(output: Output, document: Path, run_id: int | None) -> None:
    """The checkpoints of a run: what was measured at each, which are still there, and which one the curves recommend.

    --json prints the list as OpenAI's API does (`/fine_tuning/jobs/{id}/checkpoints`): those that are there, the newest
    first; a model checkpoint is the path of a PEFT adapter.
    """
    from dlm.curves import diagnose, select
    from dlm.workflow.run_curves import curve_run, values_at

    with open_store(output, document) as store:
        run = pick_training_run(store, document, run_id)
        curves = curve_run(store, run)
        saved = store.saved_checkpoints(run.id)
        made = {one.step: one for one in store.versions.list() if one.run_id == run.id}
        version = store.versions.get(run.version) if run.version else None
    if output.as_json:
        output.raw_json(checkpoint_list(curves.checkpoints))
        return
    stored = StoredRun(document, run.id, run.version, version.step if version else None)
    diagnosis, selection = diagnose(curves, running=run.status == "running"), select(curves)
    output.heading(f"run {run.id} ({run.kind}) is {run.status}: {plural(len(saved), 'checkpoint')} saved")
    if saved:
        measured = {one.step: values_at(curves.series, one.step) for one in saved}
        _print_table(output, saved, measured, made, diagnosis, selection)
    for number, candidate in enumerate(selection.candidates):
        label = "recommended" if len(selection.candidates) == 1 else "candidates" if not number else " " * 10
        output.line(f"{label}: {candidate_line(curves, candidate, stored)}")
    if not selection.candidates:
        output.line(f"nothing recommended: {selection.reason}")


def _print_table(
    output: Output,
    saved: Sequence[SavedCheckpoint],
    measured: Mapping[int, Mapping[str, float]],
    made: Mapping[int, Version],
    diagnosis: Diagnosis,
    selection: Selection,
) -> None:
    names = list(dict.fromkeys(name for values in measured.values() for name in values))
    bands = {point.step: point for point in diagnosis.ratios}
    marks: dict[int, str] = {}
    for candidate in selection.candidates:
        before = marks.get(candidate.step)
        marks[candidate.step] = f"{before}, {candidate.role}" if before else candidate.role
    rows = []
    for one in saved:
        values, band = measured[one.step], bands.get(one.step)
        version = made.get(one.step)
        rows.append(
            [
                str(one.step),
                *(f"{values[name]:.4g}" if name in values else "" for name in names),
                f"{band.ratio:.2f} {band.band}" if band else NONE,
                "saved" if one.is_there else "pruned",
                version.name if version else NONE,
                marks.get(one.step, ""),
            ]
        )
    columns = ["step", *names, "overfitting", "state", "version", "mark"]
    if not bands:  # no run of losses on held-out rows
        columns.remove("overfitting")
        rows = [[*row[: 1 + len(names)], *row[2 + len(names) :]] for row in rows]
    output.table(columns, rows, right=("step", *names), spare=[name for name in _SPARE if name in columns])


def checkpoint_list(found: Sequence[Checkpoint]) -> dict[str, Any]:
    """OpenAI's list of checkpoints, the newest first (`fine_tuning.job.checkpoint` objects)."""
    data = [
        {
            "object": "fine_tuning.job.checkpoint",
            "id": one.id,
            "created_at": one.created_at,
            "fine_tuned_model_checkpoint": one.model,
            "fine_tuning_job_id": one.job_id,
            "metrics": {"step": one.step, **one.metrics},
            "step_number": one.step,
        }
        for one in sorted(found, key=lambda one: -one.step)
    ]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": False,
    }
