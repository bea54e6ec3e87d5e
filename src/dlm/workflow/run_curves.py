"""From the store to `CurveRun`: a run's series with the facts that the rules judge them by.

The command line and the web pages read a run through here. Nothing of it loads torch, so a diagnosis starts at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

from dlm.curves import Checkpoint, CurveRun, Diagnosis, RunKind, Selection, Series
from dlm.errors import MissingRecordError, UsageError
from dlm.store import Run, Store

__all__ = [
    "CHECKPOINT_METRICS",
    "curve_run",
    "curve_run_of",
    "loss_method",
    "require_curves",
    "trains",
    "values_at",
    "verdict_data",
]

TRAINED: Final = ("sft", "preference", "reward", "rft")

CHECKPOINT_METRICS: Final[tuple[str, ...]] = (
    # those of an OpenAI supervised job, …
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
    # … of a reinforcement job, …
    "train_mean_reward",
    "full_valid_mean_reward",
    "completion_tokens_mean",
    "reasoning_tokens_mean",
    "mean_unresponsive_rewards",
    "train_sample_parse_error_count",
    "train_other_error_count",
    # … and what a checkpoint of ours that learnt from pairs is chosen by
    "val_pref_acc",
    "valid_rewards/margins",
    "sft_valid_loss",
)
"""The metrics that a checkpoint carries, as far as its run measured them at that very step."""


def trains(run: Run) -> bool:
    """Whether it is a run that trains; a mine or eval run has no curves."""
    return run.kind in TRAINED


def require_curves(run: Run) -> None:
    """Raises `UsageError` of a run that trains nothing."""
    if not trains(run):
        raise UsageError(
            f"run {run.id} is a {run.kind} run: it trained nothing and has no curves",
            next_step=f"dlm metrics DOCUMENT --run-id {run.id} shows what it did",
        )


def curve_run(store: Store, run: Run) -> CurveRun:
    """A run of the store as the rules read it; of a running one what is there so far.

    Raises:
        UsageError: a run of that kind trains nothing.
        MissingRecordError: nothing was logged: the run ended before its first step.
    """
    require_curves(run)
    series = store.metrics.read(run.id)
    if not any(len(one) for one in series.values()):
        raise MissingRecordError(
            f"run {run.id} has no metrics: it is {run.status}, and its first step was not logged",
            found=run.message,
            next_step="dlm show DOCUMENT lists the runs",
        )
    usable = _usable(store, run)
    return curve_run_of(
        series,
        kind=run.kind,
        method=loss_method(run.method, run.recipe, started_anew=run.parent_version is None),
        planned_steps=run.planned_steps,
        name=f"run {run.id}",
        saved_steps=tuple(usable),
        checkpoints=tuple(_checkpoint(store.dlm_id, run.id, one, series) for one in usable.values()),
    )


def curve_run_of(
    series: Mapping[str, Series],
    *,
    kind: str,
    method: str,
    planned_steps: int,
    name: str = "this run",
    saved_steps: tuple[int, ...] = (),
    checkpoints: tuple[Checkpoint, ...] = (),
) -> CurveRun:
    """Series of a run of ours, in the store or still in memory, with what is known of it."""
    losses = series.get("train_loss")
    return CurveRun(
        name=name,
        kind=cast(RunKind, kind),
        kind_reason="as the store has it",
        method=method,
        series=dict(series),
        format="store",
        planned_steps=planned_steps or None,
        saved_steps=saved_steps,
        checkpoints=checkpoints,
        logged_rows=0 if losses is None else len(losses),
    )


def loss_method(method: str, recipe: Mapping[str, Any], *, started_anew: bool) -> str:
    """The method, with what moves its loss away from the plain one's: `dpo` alone begins at ln 2.

    DPO's other losses go by their own names. A loss with the chosen answers' own added, or one whose reference is not
    what the run started from, says so.
    """
    if method != "dpo":
        return method
    knobs = recipe.get("preference", {})
    loss_type = str(knobs.get("loss_type", "sigmoid"))
    name = "dpo" if loss_type in ("sigmoid", "robust") else loss_type
    if knobs.get("sft_weight"):
        name += " + sft"
    if knobs.get("reference") == "base" and not started_anew:
        name += " from another reference"
    return name


@dataclass(frozen=True)
class _Usable:
    step: int
    folder: Path
    made_at: str


def _usable(store: Store, run: Run) -> dict[int, _Usable]:
    """What is left of a run that can be used, by step: its checkpoints, and the versions made of it."""
    found = {
        one.step: _Usable(one.step, one.folder, one.saved_at)
        for one in store.saved_checkpoints(run.id)
        if one.is_there
    }
    for version in store.versions.list():
        if version.run_id == run.id and run.kind != "reward":
            found.setdefault(version.step, _Usable(version.step, version.folder, version.created_at))
    return dict(sorted(found.items()))


def _checkpoint(dlm_id: str, run_id: int, usable: _Usable, series: Mapping[str, Series]) -> Checkpoint:
    """A saved state with the metrics of its very step; those that are not finite are left out."""
    job = f"{dlm_id}-{run_id}"
    return Checkpoint(
        step=usable.step,
        id=f"ftckpt-{job}-{usable.step}",
        model=str(usable.folder),
        job_id=f"ftjob-{job}",
        created_at=int(datetime.fromisoformat(usable.made_at).timestamp()),
        metrics={
            name: value for name, value in values_at(series, usable.step).items() if math.isfinite(value)
        },
    )


def verdict_data(diagnosis: Diagnosis, selection: Selection) -> dict[str, Any]:
    """The outcome of a diagnosis as the event `diagnosis` keeps it when a run ends."""
    best = selection.best
    return {
        "level": diagnosis.verdict.level,
        "text": diagnosis.verdict.text,
        "rules": [finding.rule for finding in diagnosis.findings],
        "best_step": None if best is None else best.step,
        "saved_step": None if best is None else best.saved_step,
    }


def values_at(series: Mapping[str, Series], step: int) -> dict[str, float]:
    """What a run measured at the very step of a checkpoint, of `CHECKPOINT_METRICS`; not finite numbers too."""
    found = {}
    for name in CHECKPOINT_METRICS:
        one = series.get(name)
        place = 0 if one is None else int(one.steps.searchsorted(step))
        if one is not None and place < len(one) and one.steps[place] == step:
            found[name] = float(one.values[place])
    return found
