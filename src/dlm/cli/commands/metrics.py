"""`dlm metrics`: the curves of a run as numbers, once or while it runs."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlm.cli.options import document_argument
from dlm.cli.output import Output, is_terminal, json_option, plain_table, plural
from dlm.cli.project import open_store, runs_as_they_are
from dlm.errors import MissingRecordError, UsageError

if TYPE_CHECKING:
    from dlm.curves import Series
    from dlm.store import Run, Store

__all__ = ["metrics"]

RECENT_STEPS = 10
WATCH_INTERVAL_S = 1.0
NONE = "–"

# What the recent steps show when no names are asked for: what a person watches, as far as the run has it.
_WATCHED = (
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "probe_loss",
    "grad_norm",
    "learning_rate",
    "tokens_per_second",
)


@click.command()
@document_argument
@click.option("--run-id", type=click.IntRange(1), metavar="N", help="Which run.  [default: the newest]")
@click.option("--names", metavar="A,B", help="Only these metrics, separated by commas.")
@click.option("--csv", "as_csv", is_flag=True, help="Print every step as CSV.")
@click.option("--watch", is_flag=True, help="Refresh while the run is running, and end with it.")
@json_option
def metrics(
    output: Output, document: Path, run_id: int | None, names: str | None, as_csv: bool, watch: bool
) -> None:
    """The curves of a training run as numbers: last and best values, and the newest steps."""
    if sum((as_csv, watch, output.as_json)) > 1:
        raise UsageError("--csv, --json and --watch exclude each other")
    with open_store(document) as store:
        run, status = _pick(store, run_id)
        wanted = _wanted(store, run, names)
        if watch:
            _watch(output, store, run.id, wanted)
            return
        series = store.metrics.read(run.id, wanted)
        events = store.runs.events(run.id)
    if as_csv:
        output.text(_csv(series))
    else:
        output.text(_report(run, status, series, wanted))
        output.finish(
            {
                "document": str(document),
                "run": {
                    "id": run.id,
                    "kind": run.kind,
                    "status": status,
                    "version": run.version,
                    "planned_steps": run.planned_steps,
                },
                "metrics": {name: _series_data(curve) for name, curve in series.items()},
                "events": [
                    {"kind": event.kind, "at": event.at, "data": dict(event.data)} for event in events
                ],
            }
        )


def _pick(store: Store, run_id: int | None) -> tuple[Run, str]:
    runs = runs_as_they_are(store)
    if run_id is not None:
        store.runs.get(run_id)  # names the runs there are
        return next((run, status) for run, status in runs if run.id == run_id)
    if not runs:
        raise MissingRecordError("there are no runs yet", next_step="dlm train DOCUMENT")
    return runs[-1]


def _wanted(store: Store, run: Run, names: str | None) -> list[str] | None:
    """The names asked for, or None for all.

    Raises:
        UsageError: the run has no metric of that name; the nearest one is named.
    """
    if names is None:
        return None
    from dlm.recipe import nearest

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise UsageError("--names names no metric", next_step="--names train_loss,valid_loss")
    known = store.metrics.names(run.id)
    for name in wanted:
        if name not in known:
            hint = nearest(name, known)
            raise UsageError(
                f"run {run.id} has no metric {name!r}",
                expected=", ".join(known) or "none: nothing was logged yet",
                next_step=f"--names {hint}" if hint else "",
            )
    return wanted


def _watch(output: Output, store: Store, run_id: int, wanted: list[str] | None) -> None:
    """Show the run until it ends: redrawn on a terminal, one line per new step elsewhere."""
    if is_terminal(sys.stdout):
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        with Live(console=Console(highlight=False), auto_refresh=False) as live:
            for run, status in _until_it_ends(store, run_id):
                report = _report(run, status, store.metrics.read(run_id, wanted), wanted)
                live.update(Text(report), refresh=True)
        return
    shown_to = 0
    for run, _ in _until_it_ends(store, run_id):
        series = store.metrics.read(run_id, wanted)
        columns = _columns(series, wanted)
        for step, values in _rows({name: series[name] for name in columns}):
            if step > shown_to:
                cells = [f"{name} {_number(values[name])}" for name in columns if name in values]
                output.line(f"step {step}/{run.planned_steps}  {'  '.join(cells)}")
                shown_to = step
        sys.stdout.flush()
    output.line(f"run {run_id} is {_pick(store, run_id)[1]}")


def _until_it_ends(store: Store, run_id: int) -> Iterator[tuple[Run, str]]:
    """The run and its status, once a second, the last time after it ended."""
    while True:
        run, status = _pick(store, run_id)
        yield run, status
        if status != "running":
            return
        time.sleep(WATCH_INTERVAL_S)


def _report(run: Run, status: str, series: Mapping[str, Series], wanted: Sequence[str] | None) -> str:
    """The whole text: a head line, last and best values, the newest steps."""
    last_step = max((int(curve.steps[-1]) for curve in series.values() if len(curve)), default=0)
    made = f", {run.version}" if run.version else ""
    head = f"run {run.id} ({run.kind}) is {status}: step {last_step} of {run.planned_steps}{made}"
    if not series:
        return f"{head}\nno metrics yet"
    summary = [_summary_row(curve) for curve in series.values() if len(curve)]
    parts = [
        head,
        plain_table(("metric", "last", "best", "at step", "unit"), summary, ("last", "best", "at step")),
    ]
    columns = _columns(series, wanted)
    rows = _rows({name: series[name] for name in columns})[-RECENT_STEPS:]
    table = [
        (str(step), *(_number(values[name]) if name in values else "" for name in columns))
        for step, values in rows
    ]
    if len(table) > 1:
        parts.append(f"the newest {plural(len(table), 'step')}:")
        parts.append(plain_table(("step", *columns), table, ("step", *columns)))
    return "\n\n".join(parts)


def _columns(series: Mapping[str, Series], wanted: Sequence[str] | None) -> list[str]:
    return list(wanted) if wanted is not None else [name for name in _WATCHED if name in series]


def _summary_row(curve: Series) -> tuple[str, str, str, str, str]:
    best = _best(curve)
    shown, at = (
        (NONE, NONE) if best is None else (_number(float(curve.values[best])), str(int(curve.steps[best])))
    )
    return curve.name, _number(float(curve.values[-1])), shown, at, curve.unit


def _best(curve: Series) -> int | None:
    """The index of the best value, None where neither high nor low is good or nothing is finite."""
    import numpy as np

    if curve.name.endswith("loss"):
        sign = 1.0
    elif any(word in curve.name for word in ("accurac", "exact_match", "reward")):
        sign = -1.0
    else:
        return None
    values = np.where(np.isfinite(curve.values), sign * curve.values, np.inf)
    return int(values.argmin()) if np.isfinite(values).any() else None


def _rows(series: Mapping[str, Series]) -> list[tuple[int, dict[str, float]]]:
    """The points of several series by step, ascending."""
    rows: dict[int, dict[str, float]] = {}
    for name, curve in series.items():
        for step, value in zip(curve.steps.tolist(), curve.values.tolist(), strict=True):
            rows.setdefault(step, {})[name] = value
    return sorted(rows.items())


def _number(value: float) -> str:
    """Short for people: five significant digits, thousands without decimals."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.5g}"


def _csv(series: Mapping[str, Series]) -> str:
    """`step` and one column per metric; cells are empty where a metric has no point. Numbers read back exactly."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("step", *series))
    for step, values in _rows(series):
        writer.writerow((step, *(repr(values[name]) if name in values else "" for name in series)))
    return text.getvalue().rstrip("\n")


def _series_data(curve: Series) -> dict[str, Any]:
    best = _best(curve) if len(curve) else None
    return {
        "unit": curve.unit,
        "last": float(curve.values[-1]) if len(curve) else None,
        "best": None if best is None else float(curve.values[best]),
        "best_step": None if best is None else int(curve.steps[best]),
        "steps": curve.steps.tolist(),
        "values": curve.values.tolist(),
    }
