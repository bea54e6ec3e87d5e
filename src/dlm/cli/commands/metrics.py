"""`dlm metrics`: the curves of a run as numbers, once or while it runs."""

from __future__ import annotations

import csv
import io
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlm.cli.mining_summary import mining_items, mining_summary
from dlm.cli.options import document_argument
from dlm.cli.output import (
    Output,
    is_terminal,
    json_option,
    narrowed,
    plain_table,
    plural,
    terminal_width,
    typed,
    wrapped,
)
from dlm.cli.project import open_store, runs_as_they_are
from dlm.errors import MissingRecordError, UsageError

if TYPE_CHECKING:
    from dlm.curves import Series
    from dlm.store import Run, Store

__all__ = ["metrics"]

RECENT_STEPS = 10
FEW_STEPS = 4  # rather fewer than this many newest steps, --watch leaves the last and best values out
WATCH_INTERVAL_S = 1.0
NONE = "–"

# What the recent steps show when no names are asked for: what a person watches, as far as the run has it and the
# terminal has room for it, the first ones first.
_WATCHED = (
    "train_mean_reward",
    "full_valid_mean_reward",
    "completion_tokens_mean",
    "kl",
    "train_loss",
    "valid_loss",
    "val_pref_acc",
    "rewards/accuracies",
    "rewards/margins",
    "sft_valid_loss",
    "probe_loss",
    "train_mean_token_accuracy",
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
    """The curves of a training run as numbers: last and best values, and the newest steps; of a mine run what it did."""
    if sum((as_csv, watch, output.as_json)) > 1:
        raise UsageError("--csv, --json and --watch exclude each other", next_step="name one of them")
    with open_store(output, document) as store:
        run, status = _pick(store, document, run_id)
        wanted = _wanted(store, document, run, names)
        if watch:
            _watch(output, store, document, run.id, wanted)
            return
        series = store.metrics.read(run.id, wanted)
        events = store.runs.events(run.id)
        mined = mining_summary(store, run, status) if run.kind == "mine" else None
    if as_csv:
        output.text(_csv(series))
    else:
        if mined is not None:
            output.heading(f"run {run.id} (mine) is {status}")
            output.pairs(mining_items(mined))
        else:
            output.text(_report(run, status, series, wanted, terminal_width(sys.stdout)))
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


def _pick(store: Store, document: Path, run_id: int | None) -> tuple[Run, str]:
    runs = runs_as_they_are(store)
    if run_id is not None:
        store.runs.get(run_id)  # names the runs there are
        return next((run, status) for run, status in runs if run.id == run_id)
    if not runs:
        raise MissingRecordError("there are no runs yet", next_step=typed("dlm", "train", str(document)))
    return runs[-1]


def _wanted(store: Store, document: Path, run: Run, names: str | None) -> list[str] | None:
    """The names asked for, or None for all.

    Raises:
        UsageError: the run has no metric of that name; the nearest one is named.
    """
    if names is None:
        return None
    from dlm.recipe import nearest

    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if not wanted:
        raise UsageError("--names names no metric", next_step="--names train_loss,valid_loss")
    known = store.metrics.names(run.id)
    for name in wanted:
        if name not in known:
            hint = nearest(name, known)
            raise UsageError(
                f"run {run.id} has no metric {name!r}",
                expected=", ".join(known) or "none: nothing was logged yet",
                next_step=f"--names {hint}"
                if hint
                else f"{typed('dlm', 'metrics', str(document), '--run-id', str(run.id))} shows all it has",
            )
    return wanted


def _watch(output: Output, store: Store, document: Path, run_id: int, wanted: list[str] | None) -> None:
    """Show the run until it ends: a screen of its own on a terminal, one line per new step elsewhere."""
    if is_terminal(sys.stdout):
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        with Live(console=Console(highlight=False), auto_refresh=False, screen=True) as live:
            for run, status in _until_it_ends(store, document, run_id):
                width, height = shutil.get_terminal_size()
                report = _report(run, status, store.metrics.read(run_id, wanted), wanted, width, height)
                live.update(Text(report), refresh=True)
        output.text(_report(run, status, store.metrics.read(run_id, wanted), wanted, width))
        return
    shown_to = 0
    for run, _ in _until_it_ends(store, document, run_id):
        series = store.metrics.read(run_id, wanted)
        columns = _columns(series, wanted)
        for step, values in _rows({name: series[name] for name in columns}):
            if step > shown_to:
                cells = [f"{name} {_number(values[name])}" for name in columns if name in values]
                output.line(f"step {step}/{run.planned_steps}  {'  '.join(cells)}")
                shown_to = step
        sys.stdout.flush()
    output.line(f"run {run_id} is {_pick(store, document, run_id)[1]}")


def _until_it_ends(store: Store, document: Path, run_id: int) -> Iterator[tuple[Run, str]]:
    """The run and its status, once a second, the last time after it ended."""
    while True:
        run, status = _pick(store, document, run_id)
        yield run, status
        if status != "running":
            return
        time.sleep(WATCH_INTERVAL_S)


def _report(
    run: Run,
    status: str,
    series: Mapping[str, Series],
    wanted: Sequence[str] | None,
    width: int | None = None,
    height: int | None = None,
) -> str:
    """The whole text: a head line, last and best values, the newest steps, the newest one last.

    No line is longer than `width` columns where a metric's name leaves the choice. With `height` there are at most so
    many lines: the newest steps go first, and only what they show has last and best values.
    """
    last_step = max((int(curve.steps[-1]) for curve in series.values() if len(curve)), default=0)
    made = f", {run.version}" if run.version else ""
    head = wrapped(
        f"run {run.id} ({run.kind}) is {status}: step {last_step} of {run.planned_steps}{made}", width
    )
    if not series:
        return "\n".join([*head, "no metrics yet"])
    columns = _columns(series, wanted)
    named = [name for name in columns if name in series] if height is not None else list(series)
    summary = ["", *_summary([series[name] for name in named if len(series[name])], width)]
    rows = _rows({name: series[name] for name in columns})
    if len(rows) < 2:  # they are the last values
        return "\n".join([*head, *summary])
    room, stacked = RECENT_STEPS, wanted is not None
    if height is not None:
        room = height - len(head)
        if _fitting(rows, columns, stacked, width, room - len(summary)) < min(FEW_STEPS, len(rows)):
            summary = []
        stacked = stacked and _fitting(rows, columns, stacked, width, room) > 0
        room = _fitting(rows, columns, stacked, width, room - len(summary))
    newest = rows[len(rows) - min(room, len(rows)) :]
    return "\n".join([*head, *summary, *_newest(newest, columns, stacked, width)])


def _summary(curves: Sequence[Series], width: int | None) -> list[str]:
    """Lines with the last and best value of each metric."""
    heads, rows = narrowed(
        ("metric", "last", "best", "at step", "unit"),
        [_summary_row(curve) for curve in curves],
        ("unit", "at step", "best"),
        width,
    )
    return plain_table(heads, rows, ("last", "best", "at step")).split("\n")


_Rows = list[tuple[int, dict[str, float]]]


def _fitting(rows: _Rows, columns: Sequence[str], stacked: bool, width: int | None, height: int) -> int:
    """How many of the newest steps fit into `height` lines."""
    tables = sum(not line for line in _newest(rows[-1:], columns, stacked, width))
    return max(
        0, (height - 1 - 2 * tables) // tables
    )  # the title; before each table a blank line, then its head


def _newest(rows: _Rows, columns: Sequence[str], stacked: bool, width: int | None) -> list[str]:
    """Lines with the values of each of these steps, ascending.

    Metrics that have no room beside the others stand in further tables with `stacked`; else they are left out.
    """
    if not rows:
        return []
    cells = [
        [str(step), *(_number(values[name]) if name in values else "" for name in columns)]
        for step, values in rows
    ]
    lines = ["", f"the newest {plural(len(rows), 'step')}:"]
    left = list(columns)
    while left:
        table = [[row[0], *(row[1 + columns.index(name)] for name in left)] for row in cells]
        heads, shown = narrowed(("step", *left), table, left[:0:-1], width)
        lines += plain_table(heads, shown, heads).split("\n")
        left = left[len(heads) - 1 :] if stacked else []
        lines += [""] if left else []
    return lines


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
    elif curve.name.endswith(
        ("accuracy", "accuracies", "exact_match", "margins", "pref_acc", "reward", "reward_mean")
    ):
        sign = -1.0
    else:
        return None
    values = np.where(np.isfinite(curve.values), sign * curve.values, np.inf)
    return int(values.argmin()) if np.isfinite(values).any() else None


def _rows(series: Mapping[str, Series]) -> _Rows:
    """The points of several series by step, ascending."""
    rows: dict[int, dict[str, float]] = {}
    for name, curve in series.items():
        for step, value in zip(curve.steps.tolist(), curve.values.tolist(), strict=True):
            rows.setdefault(step, {})[name] = value
    return sorted(rows.items())


def _number(value: float) -> str:
    """Short for people: four significant digits, thousands without decimals."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


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
