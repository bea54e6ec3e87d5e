"""JSON files: a list of checkpoints or events in OpenAI's shape, a `trainer_state.json`, what `dlm metrics --json` prints."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from dlm.curves.assembly import Points, RawRun, as_number, as_step
from dlm.curves.columns import canonical, clean_name
from dlm.curves.formats.records import Gathered, as_value, facts_of, flat, step_of
from dlm.curves.run import Checkpoint
from dlm.errors import CurveFileError

__all__ = ["read_document"]

_EXPECTED = "a list of checkpoints or events as OpenAI gives it, a trainer_state.json, or what dlm metrics --json prints"
_FOLDER = re.compile(r"checkpoint-(\d{1,15})")
_MOST_SAVED = 100_000


def read_document(text: TextIO, where: str, folder: Path | None, *, lines: bool = False) -> RawRun:
    """Read one JSON value. `folder`: where the file lies, to see which checkpoints lie beside a trainer state; `lines`:
    it is a list whose entries stand on a line each.

    Raises:
        CurveFileError: not JSON, or none of these; with line and column.
    """
    content = text.read().lstrip("\ufeff")
    try:
        value = (
            [json.loads(line) for line in content.splitlines() if line.strip()]
            if lines
            else json.loads(content)
        )
    except json.JSONDecodeError as error:
        raise CurveFileError(
            f"not JSON: {error.msg}",
            where=f"{where}:{error.lineno}:{error.colno}",
            expected=_EXPECTED,
            next_step="the file may be cut off: export it again, then: dlm diagnose FILE",
        ) from None
    except RecursionError:
        raise CurveFileError("JSON that is nested too deeply", where=where, expected=_EXPECTED) from None
    except ValueError:
        raise CurveFileError(
            "JSON with a number of thousands of digits", where=where, expected=_EXPECTED
        ) from None
    if isinstance(value, dict) and isinstance(value.get("log_history"), list):
        return _trainer_state(value, where, folder)
    if isinstance(value, dict) and isinstance(value.get("data"), dict) and "metrics" in value["data"]:
        return _own(value["data"], where)
    rows = value.get("data") if isinstance(value, dict) else value
    if isinstance(value, dict) and "step_number" in value:
        rows = [value]
    if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
        return _rows(rows, value if isinstance(value, dict) else {}, where)
    if rows == [] and (isinstance(value, list) or value.get("object") == "list"):
        raise CurveFileError(
            "the list is empty: there is no checkpoint yet",
            where=where,
            expected="at least one checkpoint or event",
            next_step="fetch the list again once the job has saved one, at the end of its first epoch as a rule",
        )
    found = (
        ", ".join(clean_name(key) for key in list(value)[:8])
        if isinstance(value, dict)
        else type(value).__name__
    )
    raise CurveFileError(
        "JSON of no known shape",
        where=where,
        expected=_EXPECTED,
        found=found or "nothing",
        next_step="for rows of your own, write one object a line with a step in it",
    )


def _rows(rows: Sequence[Mapping[str, Any]], envelope: Mapping[str, Any], where: str) -> RawRun:
    """Checkpoints, events with metrics, or plain rows."""
    is_checkpoints = any(
        "step_number" in row or row.get("object") == "fine_tuning.job.checkpoint" for row in rows
    )
    raw = RawRun("openai checkpoints" if is_checkpoints else "openai events")
    gathered, checkpoints = Gathered(), []
    newest_first = _descending(rows)
    for number, row in enumerate(reversed(rows) if newest_first else rows, 1):
        metrics = row.get("metrics") if is_checkpoints else row.get("data", row)
        if is_checkpoints and metrics is None:
            metrics = {}  # not computed yet; the checkpoint is there all the same
        if not isinstance(metrics, dict):
            continue  # an event without numbers, a checkpoint whose metrics are not computed yet
        found = ("step_number", row.get("step_number")) if is_checkpoints else step_of(metrics)
        if found is None or found[1] is None:
            continue
        step = as_step(found[1])
        if step is None:
            raise CurveFileError(
                "a step is no whole number",
                where=f"{where}: entry {number}",
                expected="0, 1, 2, …",
                found=str(found[1])[:40],
            )
        gathered.add(step, {**metrics, "created_at": row.get("created_at")}, leave=found[0])
        if is_checkpoints:
            checkpoints.append(_checkpoint(step, row, metrics))
    gathered.into(raw)
    if not is_checkpoints and not any("data" in row for row in rows):
        raw.format = "json rows"
    raw.checkpoints = tuple(sorted(checkpoints, key=lambda one: one.step))
    if envelope.get("has_more") is True:
        raw.more_checkpoints = is_checkpoints
        raw.problems.append(
            "the list says has_more: it is only its first page; fetch the rest for the whole curve"
        )
    return raw


def _descending(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the newest comes first, as the service lists them: then the last one in the file is the oldest."""
    times = [at for row in rows if (at := as_number(row.get("created_at"))) is not None]
    return len(times) > 1 and times[0] > times[-1]


def _checkpoint(step: int, row: Mapping[str, Any], metrics: Mapping[str, Any]) -> Checkpoint:
    def text(key: str) -> str:
        return clean_name(row[key]) if isinstance(row.get(key), str) else ""

    numbers = {
        clean_name(name): number for name, value in flat(metrics) if (number := as_number(value)) is not None
    }
    return Checkpoint(
        step=step,
        id=text("id"),
        model=text("fine_tuned_model_checkpoint"),
        job_id=text("fine_tuning_job_id"),
        created_at=as_step(row.get("created_at")),
        metrics=numbers,
    )


def _trainer_state(state: Mapping[str, Any], where: str, folder: Path | None) -> RawRun:
    """transformers' TrainerState: `log_history` holds training and evaluation rows and one that sums up."""
    raw, gathered = RawRun("trainer_state"), Gathered()
    for number, row in enumerate(state["log_history"], 1):
        if not isinstance(row, dict):
            continue
        if "train_runtime" in row:  # the end's summary: its train_loss is the mean over the whole run
            for key in ("train_loss", "train_runtime"):
                if as_number(row.get(key)) is not None:
                    raw.facts[f"mean_{key}" if key == "train_loss" else "train_runtime_s"] = row[key]
            continue
        step = as_step(row.get("step"))
        if step is None:
            raise CurveFileError(
                "a row of log_history has no step",
                where=f"{where}: entry {number}",
                expected='"step": 10',
                found=str(row.get("step"))[:40],
            )
        gathered.add(step, row, leave="step")
    gathered.into(raw)
    raw.text_columns = ()
    for key in ("global_step", "max_steps", "num_train_epochs", "best_metric"):
        figure = as_number(state.get(key))
        if figure is not None and not (key == "max_steps" and figure <= 0):
            raw.facts[key] = figure
    raw.saved_steps, raw.checkpoints = _saved(state, folder)
    return raw


def _saved(state: Mapping[str, Any], folder: Path | None) -> tuple[tuple[int, ...], tuple[Checkpoint, ...]]:
    """Checkpoints that lie on disk beside the state; else the multiples of `save_steps` that the run has passed."""
    if folder is not None:
        home = folder.parent if _FOLDER.fullmatch(folder.name) else folder
        try:
            names = [entry.name for entry in home.iterdir() if entry.is_dir()]
        except OSError:
            names = []
        on_disk = sorted(int(match[1]) for name in names if (match := _FOLDER.fullmatch(name)))
        if on_disk:
            return tuple(on_disk), tuple(Checkpoint(step, model=f"checkpoint-{step}") for step in on_disk)
    every, done = as_number(state.get("save_steps")), as_step(state.get("global_step"))
    planned = as_number(state.get("max_steps"))
    if every is None or done is None or not np.isfinite(every) or every <= 0:
        return (), ()
    if every < 1 and planned and np.isfinite(planned) and planned > 0:
        every = np.ceil(every * planned)  # a share of the run, as transformers takes it
    if every < 1 or done / every > _MOST_SAVED:
        return (), ()
    return tuple(range(int(every), done + 1, int(every))), ()


def _own(data: Mapping[str, Any], where: str) -> RawRun:
    """`dlm metrics --json`: series by name, with steps and values side by side."""
    raw, metrics = RawRun("dlm metrics"), data["metrics"]
    if not isinstance(metrics, dict):
        raise CurveFileError("metrics is no object", where=where, expected=_EXPECTED)
    for name, series in metrics.items():
        steps = series.get("steps") if isinstance(series, dict) else None
        values = series.get("values") if isinstance(series, dict) else None
        if not isinstance(steps, list) or not isinstance(values, list) or len(steps) != len(values):
            raise CurveFileError(
                "a series without steps and values of one length",
                where=f"{where}: {clean_name(name)}",
                expected=_EXPECTED,
            )
        whole = [as_step(step) for step in steps]
        if any(step is None for step in whole):
            raise CurveFileError(
                "a step is no whole number", where=f"{where}: {clean_name(name)}", expected="0, 1, 2, …"
            )
        # JSON has no NaN: dlm writes it and the infinities as texts, others write null
        numbers = [np.nan if (number := as_value(value)) is None else number for value in values]
        raw.columns[canonical(clean_name(name)) or "?"] = Points(
            np.array(whole, np.int64), np.array(numbers, float)
        )
    run = data.get("run")
    if isinstance(run, dict):
        raw.facts |= {
            key: value for key, value in facts_of(run).items() if key in ("kind", "method", "planned_steps")
        }
    return raw
