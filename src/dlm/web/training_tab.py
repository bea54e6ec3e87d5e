"""The TRAINING tab: runs, their curves, what the rules say of them, checkpoints, and the answers to probes.

The page comes with what is cheap (rows, figures, the frames of the charts); curves, verdicts and tables are asked for
by the page once it stands.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from dlm.errors import MissingRecordError, UsageError
from dlm.store import Run, Store
from dlm.web import chart_data
from dlm.web.buckets import MOST_POINTS
from dlm.web.charts import Chart, chart_of, charts_of
from dlm.web.desk import AtDesk, Desk
from dlm.web.diagnoses import Judged
from dlm.web.gate_verdicts import verdicts_of
from dlm.web.memory import Memory
from dlm.web.pages import page
from dlm.web.run_rows import RunRow, duration
from dlm.web.run_story import checkpoints_of, probes_of, recipe_of

__all__ = ["RunId", "router"]

router = APIRouter()

RunId = Annotated[int, Path(ge=1, le=2**53)]
_RunQuery = Annotated[int | None, Query(ge=1, le=2**53)]


def _run_numbers(text: str) -> str:
    if not re.fullmatch(r"([0-9]{1,15}(,[0-9]{1,15}){0,9})?", text):
        raise PydanticCustomError("run_numbers", "at most ten runs by their numbers, such as 2,7")
    return text


_Others = Annotated[str, Query(alias="with"), AfterValidator(_run_numbers)]
_Bound = Annotated[float | None, Query(ge=-1e18, le=1e18, allow_inf_nan=False)]
TABLE_ROWS = 100
RUNS_POINTS = (
    2 * MOST_POINTS
)  # shared by the runs of a chart: of ten runs a quarter of a thousand buckets each, one for two pixels
OPENING_CHARTS = 4  # that a page has within it: the first two rows of a wide screen
OPENING_POINTS = (
    300_000  # read for them, some 30 ms; of longer curves, later charts are asked for by the page
)


@router.get("/training", response_class=HTMLResponse)
def show(request: Request, desk: AtDesk, run: _RunQuery = None, others: _Others = "") -> HTMLResponse:
    """The tab's page: every run, and one of them in full (the newest, unless `run` names one)."""
    store = desk.find_store()
    if store is None:
        return page(request, "training/empty.html", tab="training")
    with store:
        rows = _memory(request).rows.all(store)
        if not rows:
            return page(request, "training/empty.html", tab="training")
        row = rows[0] if run is None else _row(rows, run)
        charts = _charts(store, row)
        return page(
            request,
            "training.html",
            tab="training",
            rows=rows,
            shown=_shown(row, others),
            duration=duration,
            opening=_opening(request, store, row.run, charts["charts"], others),
            **charts,
            **_story(store, desk, row),
        )


@router.get("/training/list", response_class=HTMLResponse)
def runs(request: Request, desk: AtDesk, run: _RunQuery = None, others: _Others = "") -> HTMLResponse:
    """The table of runs anew."""
    with desk.store() as store:
        rows = _memory(request).rows.all(store)
        if not rows:
            raise MissingRecordError("no run has trained yet")
        row = rows[0] if run is None else _row(rows, run)
        return page(
            request, "training/runs.html", rows=rows, row=row, shown=_shown(row, others), duration=duration
        )


@router.get("/training/runs/{run_id}/head", response_class=HTMLResponse)
def head(request: Request, desk: AtDesk, run_id: RunId) -> HTMLResponse:
    """The figures and buttons of a run anew."""
    with desk.store() as store:
        row = _row(_memory(request).rows.all(store), run_id)
        return page(request, "training/head.html", row=row, duration=duration)


@router.get("/training/runs/{run_id}/charts", response_class=HTMLResponse)
def frames(request: Request, desk: AtDesk, run_id: RunId) -> HTMLResponse:
    """The frames of a run's charts anew: a run may log a metric for the first time late."""
    with desk.store() as store:
        row = _row(_memory(request).rows.all(store), run_id)
        return page(request, "training/charts.html", **_charts(store, row))


@router.get("/training/runs/{run_id}/story", response_class=HTMLResponse)
def story(request: Request, desk: AtDesk, run_id: RunId) -> HTMLResponse:
    """Checkpoints, the gate's verdicts, probes and recipe of a run anew."""
    with desk.store() as store:
        row = _row(_memory(request).rows.all(store), run_id)
        return page(request, "training/story.html", row=row, **_story(store, desk, row))


@router.get("/training/runs/{run_id}/verdict", response_class=HTMLResponse)
def verdict(request: Request, desk: AtDesk, run_id: RunId) -> HTMLResponse:
    """The verdict of the curve rules in a word."""
    with desk.store() as store:
        row, judged = _judged(request, store, run_id)
        return page(request, "training/verdict.html", row=row, judged=judged)


@router.get("/training/runs/{run_id}/findings", response_class=HTMLResponse)
def findings(request: Request, desk: AtDesk, run_id: RunId) -> HTMLResponse:
    """What the rules found, with evidence and what to do, and the checkpoints worth having."""
    with desk.store() as store:
        row, judged = _judged(request, store, run_id)
        return page(request, "training/findings.html", row=row, judged=judged)


@dataclass(frozen=True)
class _Asked:
    """A chart as an address asks for it: of one run and of those laid over it."""

    chart: str
    run: int
    others: str
    query: chart_data.Query


def _asked(
    chart: Annotated[str, Query(max_length=300)],
    run: Annotated[int, Query(ge=1, le=2**53)],
    others: _Others = "",
    x: Annotated[chart_data.Axis, Query()] = "step",
    low: _Bound = None,
    high: _Bound = None,
    smoothing: Annotated[float, Query(ge=0, le=0.9999, allow_inf_nan=False)] = 0.0,
    most: Annotated[int, Query(ge=30, le=MOST_POINTS)] = MOST_POINTS,
) -> _Asked:
    return _Asked(chart, run, others, chart_data.Query(x, low, high, smoothing, most))


_AskedFor = Annotated[_Asked, Depends(_asked)]


@router.get("/training/table", response_class=HTMLResponse)
def table(request: Request, desk: AtDesk, asked: _AskedFor) -> HTMLResponse:
    """A chart's numbers as a table, thinned to a hundred rows."""
    with desk.store() as store:
        panel, lines = _lines(request, store, asked)
    heads, rows = chart_data.table(lines, TABLE_ROWS)
    axis = chart_data.AXIS_UNITS[asked.query.axis]
    return page(request, "training/table.html", chart=panel, heads=heads, rows=rows, axis=axis)


@router.get("/api/chart", response_class=Response)
def chart(request: Request, desk: AtDesk, asked: _AskedFor) -> Response:
    """A chart's lines in binary (see `chart_data`)."""
    with desk.store() as store:
        panel, lines = _lines(request, store, asked)
    return Response(chart_data.encode(panel, asked.query, lines), media_type="application/octet-stream")


@router.get("/api/marks/{run_id}")
def marks(
    request: Request, desk: AtDesk, run_id: RunId, x: Annotated[chart_data.Axis, Query()] = "step"
) -> dict[str, Any]:
    """What is to be marked on a run's charts: saved checkpoints, and the steps that the rules point at."""
    memory = _memory(request)
    with desk.store() as store:
        row, judged = _judged(request, store, run_id)
        series = memory.rows.pace(store, row.run)
        along = None if series is None else chart_data.places(store, memory.cache, row.run, series, x)
        if series is None or along is None or not len(series):
            return {"checkpoints": [], "findings": []}

        def at(step: int) -> float:
            return float(chart_data.interpolated(step, series.steps, along))

        saved = checkpoints_of(store, row)
        return {
            "checkpoints": [
                {"x": at(one.step), "step": one.step, "version": one.version, "there": one.is_there}
                for one in saved
            ],
            "findings": [
                {
                    "number": number,
                    "severity": finding.severity,
                    "title": finding.title,
                    "series": evidence.series,
                    "x": [at(step) for step in evidence.steps],
                    "values": [chart_data.number(value) for value in evidence.values],
                }
                for number, finding in enumerate(judged.diagnosis.findings if judged else (), start=1)
                for evidence in finding.evidence
                if evidence.series
            ],
        }


def _memory(request: Request) -> Memory:
    memory: Memory = request.app.state.memory
    return memory


def _row(rows: list[RunRow], run_id: int) -> RunRow:
    found = next((row for row in rows if row.run.id == run_id), None)
    if found is None:
        raise MissingRecordError(
            f"no run {run_id} that trained in this store", expected=", ".join(str(r.run.id) for r in rows[:9])
        )
    return found


def _shown(row: RunRow, others: str) -> frozenset[int]:
    """The runs whose curves are drawn."""
    return frozenset({row.run.id, *_numbers(others)})


def _numbers(others: str) -> list[int]:
    return [int(number) for number in others.split(",")] if others else []


def _judged(request: Request, store: Store, run_id: int) -> tuple[RunRow, Judged | None]:
    memory = _memory(request)
    row = _row(memory.rows.all(store), run_id)
    return row, memory.diagnoses.of(store, row.run, row.status)


def _charts(store: Store, row: RunRow) -> dict[str, Any]:
    charts = charts_of(row.run.kind, row.run.method, store.metrics.names(row.run.id))
    main = [one for one in charts if not one.id.startswith("metric:")]
    return {"row": row, "charts": main, "more_charts": charts[len(main) :]}


def _opening(
    request: Request, store: Store, run: Run, charts: Sequence[Chart], others: str
) -> dict[str, str]:
    """The first charts' lines in base64, by chart: they are drawn as soon as the page's scripts run, with no further
    question to the server.
    """
    query = chart_data.query_of(request.query_params)
    runs = [run, *_laid_over(store, run.id, others)]
    found: dict[str, str] = {}
    points = 0
    for chart in charts[:OPENING_CHARTS]:
        if points > OPENING_POINTS:
            break
        lines = _drawn(request, store, chart, runs, query)
        points += sum(line.total for line in lines)
        found[chart.id] = b64encode(chart_data.encode(chart, query, lines)).decode()
    return found


def _story(store: Store, desk: Desk, row: RunRow) -> dict[str, Any]:
    saved = checkpoints_of(store, row)
    return {
        "checkpoints": saved,
        "verdicts": verdicts_of(store, {one.version for one in saved if one.version is not None}),
        "probes": probes_of(store, row.run),
        "recipe": recipe_of(store, row.run),
        "promotions": store.versions.promotions()[-8:][::-1],
        "current": store.versions.current_name(),
        "declares_gate": desk.project().declares_gate,
    }


def _lines(request: Request, store: Store, asked: _Asked) -> tuple[Chart, list[chart_data.Drawn]]:
    """A chart of a run, and the lines of that run and of others in it. An address may be older than the runs that it lays
    over: others that have no curves here are left out, and the page says so.

    Raises:
        MissingRecordError: no such run or chart.
    """
    run = _trained(store, asked.run)
    panel = chart_of(asked.chart, run.kind, run.method, store.metrics.names(run.id))
    if panel is None:
        raise MissingRecordError(f"run {run.id} has no chart of that name")
    return panel, _drawn(request, store, panel, [run, *_laid_over(store, run.id, asked.others)], asked.query)


def _drawn(
    request: Request, store: Store, chart: Chart, runs: Sequence[Run], query: chart_data.Query
) -> list[chart_data.Drawn]:
    query = replace(query, most=min(query.most, RUNS_POINTS // len(runs)))
    cache = _memory(request).cache
    return [line for run in runs for line in chart_data.draw(store, cache, run, chart, query)]


def _trained(store: Store, run_id: int) -> Run:
    run = store.runs.get(run_id)
    if not _has_curves(run):
        raise UsageError(f"run {run_id} is a {run.kind} run: it has no curves")
    return run


def _laid_over(store: Store, run_id: int, others: str) -> list[Run]:
    found = []
    for number in dict.fromkeys(_numbers(others)):
        with suppress(MissingRecordError):
            run = store.runs.get(number)
            if number != run_id and _has_curves(run):
                found.append(run)
    return found


def _has_curves(run: Run) -> bool:
    return run.kind not in ("mine", "eval")
