"""From columns of raw points to a `CurveRun`: order, repeated steps, what NaN means, what the run says of itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlm.curves.columns import clean_name, infer_kind, is_known
from dlm.curves.run import ROLES, Checkpoint, CurveRun, Repeats
from dlm.curves.series import Series, unit_of
from dlm.errors import CurveFileError

__all__ = ["Points", "RawRun", "as_number", "as_step", "assemble"]

_BIGGEST_STEP = 2**53  # beyond it a float no longer tells neighbours apart
_MOST_COLUMNS = 10_000
_MOST_NAMED = 8  # of saved steps, columns, lines in a sentence

# What sources call a figure that they state beside their curves, and what it is called here.
_FIGURES = {
    "loss": "final_loss",
    "final_train_loss": "final_loss",
    "train_loss": "final_loss",
    "last_loss": "final_loss",
    "token_accuracy": "final_token_accuracy",
    "mean_token_accuracy": "final_token_accuracy",
    "train_mean_token_accuracy": "final_token_accuracy",
    "accuracy": "final_token_accuracy",
    "global_step": "steps",
    "steps_done": "steps",
    "completed_steps": "steps",
    "max_steps": "planned_steps",
    "total_steps": "planned_steps",
    "target_steps": "planned_steps",
    "epochs": "num_epochs",
    "n_epochs": "num_epochs",
    "num_train_epochs": "num_epochs",
}


@dataclass
class Points:
    """One column as it was logged: parallel steps, values and times, in the order of the source."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    times: NDArray[np.float64] | None = None


@dataclass
class RawRun:
    """What a format's reader hands over. `facts`: what the source says of the run itself, under its own keys."""

    format: str
    columns: dict[str, Points] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    checkpoints: tuple[Checkpoint, ...] = ()
    saved_steps: tuple[int, ...] = ()
    text_columns: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)
    more_checkpoints: bool = False


def as_number(value: object) -> float | None:
    """A number as a float (too large a one is infinite); None for anything else, truth values included."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def as_step(value: object) -> int | None:
    """A step: a whole number from 0 on, however it is written; None for anything else."""
    number = as_number(value)
    if (
        number is None
        or not math.isfinite(number)
        or number != int(number)
        or not 0 <= number < _BIGGEST_STEP
    ):
        return None
    return int(number)


def assemble(raw: RawRun, name: str, where: str) -> CurveRun:
    """The run that the columns make.

    Raises:
        CurveFileError: no column has a point, or there are more than 10,000 columns.
    """
    if len(raw.columns) > _MOST_COLUMNS:
        raise CurveFileError(
            "too many columns", where=where, expected=f"at most {_MOST_COLUMNS}", found=str(len(raw.columns))
        )
    series: dict[str, Series] = {}
    repeats: dict[str, Repeats] = {}
    unordered = []
    for column, points in raw.columns.items():
        if not len(points.steps):
            continue
        points = raw.columns[column] = _without_shared(points)
        points = _without_fill(column, points, raw.problems)
        made, repeated, ordered = _in_order(column, points)
        series[column] = made
        if repeated:
            repeats[column] = repeated
        unordered.extend([] if ordered else [column])
    if not series and not raw.checkpoints:  # checkpoints may be there before they are measured
        raise CurveFileError(
            "there is not one point in it",
            where=where,
            expected="a step and at least one number on a line, such as step,train_loss",
            next_step="export the run again, and look whether it had logged anything",
        )
    repeat = _repeats_of_training(repeats, series)
    if repeat:
        raw.problems.append(
            f"{repeat.rows} rows repeat a step (steps {repeat.first} to {repeat.last}); the last row of each was kept"
        )
    if unordered and not repeat:
        raw.problems.append(f"steps were not in order in {_listed(unordered)}; they were sorted")
    run = CurveRun(
        name=name,
        kind="unknown",
        series=series,
        format=raw.format,
        saved_steps=_saved(raw),
        checkpoints=raw.checkpoints,
        more_checkpoints=raw.more_checkpoints,
        logged_rows=_logged_rows(raw.columns),
        repeats=repeat,
        unknown_columns=tuple(
            [one for one in raw.columns if not is_known(one)]
            + [one for one in raw.text_columns if not is_known(one)]
        ),
    )
    run = _with_facts(run, raw.facts)
    kind, reason = infer_kind(run.series, str(raw.facts.get("kind", "")) or run.method)
    return replace(run, kind=kind, kind_reason=reason, problems=tuple(raw.problems))


def _repeats_of_training(repeats: Mapping[str, Repeats], series: Mapping[str, Series]) -> Repeats | None:
    """Repeated steps of the training curve; a validation row beside a training row of one step repeats neither."""
    for role in ("train_loss", "train_reward"):
        for name in ROLES[role]:
            if name in series:
                return repeats.get(name)
    return max(repeats.values(), key=lambda one: one.rows, default=None)


def _in_order(name: str, points: Points) -> tuple[Series, Repeats | None, bool]:
    """A series with strictly increasing steps; of a repeated step the last point stays."""
    steps, values = points.steps, points.values
    times = np.full(len(steps), np.nan) if points.times is None else points.times
    rises = steps[1:] > steps[:-1]
    if rises.all():
        return Series(name, unit_of(name), steps, values, times), None, True
    order = np.argsort(steps, kind="stable")
    ordered = steps[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    kept = order[last]
    twice = np.unique(ordered[~last])
    repeats = None
    if len(twice):
        repeats = Repeats(int((~last).sum()), len(twice), int(twice[0]), int(twice[-1]))
    return Series(name, unit_of(name), steps[kept], values[kept], times[kept]), repeats, bool(repeats)


def _without_shared(points: Points) -> Points:
    """Take a NaN for an empty cell where the same step has a finite value too: rows of training and of validation."""
    gaps = np.isnan(points.values)
    if not gaps.any() or gaps.all():
        return points
    kept = ~(gaps & np.isin(points.steps, points.steps[~gaps]))
    if kept.all():
        return points
    times = None if points.times is None else points.times[kept]
    return Points(points.steps[kept], points.values[kept], times)


def _without_fill(name: str, points: Points, problems: list[str]) -> Points:
    """Take NaN for an empty cell where it is the filling of a sparse column.

    A loss that blew up stays NaN; a filling is most of the column, with finite values after nearly all of it.
    """
    gaps = np.isnan(points.values)
    count = int(gaps.sum())
    if 2 * count <= len(gaps) or count == len(gaps):
        return points
    last_finite = len(gaps) - 1 - int(np.argmax(~gaps[::-1]))
    if gaps[:last_finite].sum() < 0.9 * count:
        return points
    problems.append(f"{name}: {count} cells say NaN between finite ones; they were taken for empty cells")
    times = None if points.times is None else points.times[~gaps]
    return Points(points.steps[~gaps], points.values[~gaps], times)


def _logged_rows(columns: Mapping[str, Points]) -> int:
    for role in ("train_loss", "train_reward"):
        for name in ROLES[role]:
            if name in columns and len(columns[name].steps):
                return len(columns[name].steps)
    return max((len(points.steps) for points in columns.values()), default=0)


def _saved(raw: RawRun) -> tuple[int, ...]:
    listed = raw.facts.get("saved_steps")
    texts = listed.replace(",", " ").split() if isinstance(listed, str) else listed
    named = [as_step(_parsed(one)) for one in texts] if isinstance(texts, list) else []
    steps = {
        *raw.saved_steps,
        *(one.step for one in raw.checkpoints),
        *(one for one in named if one is not None),
    }
    return tuple(sorted(steps))


def _with_facts(run: CurveRun, facts: Mapping[str, Any]) -> CurveRun:
    """What the source says of the run: texts by their meaning, numbers as stated figures."""
    method = clean_name(facts.get("method", "")).casefold()
    stated: dict[str, float] = {}
    for key, value in facts.items():
        number = as_number(_parsed(value))
        if number is not None:
            name = clean_name(key)
            stated.setdefault(_FIGURES.get(name, name), number)
    planned = as_step(stated.get("planned_steps"))
    per_epoch, epochs = stated.get("steps_per_epoch"), stated.get("num_epochs")
    if per_epoch is None and epochs and epochs > 0:
        per_epoch = (planned or run.last_step) / epochs
    if per_epoch is not None and not (math.isfinite(per_epoch) and per_epoch > 0):
        per_epoch = None
    return replace(
        run, method=method, planned_steps=planned or None, steps_per_epoch=per_epoch, stated=stated
    )


def _parsed(value: object) -> object:
    """A number that is written as a text becomes one."""
    if not isinstance(value, str):
        return value
    try:
        return float(value.strip().removesuffix("%")) / (100 if value.strip().endswith("%") else 1)
    except ValueError:
        return value


def _listed(names: Iterable[str]) -> str:
    all_names = list(names)
    more = len(all_names) - _MOST_NAMED
    return ", ".join(all_names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
