"""`dlm import`: signals and runs from JSON lines into the store.

Every line of every file is read and checked before anything is written, so that a bad line costs nothing but its
message. What the store or the document knows already changes nothing, so that an import can be repeated.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlm.curves import Series, unit_of
from dlm.document.json_lines import read_json_lines
from dlm.errors import DocumentError, Problem
from dlm.store import (
    Defaults,
    Line,
    Run,
    RunLine,
    SeriesLine,
    SignalLine,
    Store,
    read_line,
)
from dlm.workflow.signals import look_at_pairs, refresh

__all__ = ["FileContent", "ImportReport", "import_signals", "read_data_file"]

EXAMPLE = '{"type": "pair", "source": "hand", "prompt": "…", "chosen": "…", "rejected": "…"}'


@dataclass(frozen=True)
class FileContent:
    """A file that was read and found whole; runs stand with their curves."""

    path: Path
    signals: tuple[SignalLine, ...]
    runs: tuple[tuple[RunLine, tuple[SeriesLine, ...]], ...]


@dataclass(frozen=True)
class ImportReport:
    """What an import did: new signals by kind and source, and what was known already; new runs by their number."""

    added: Mapping[str, int]  # "pair hand" → 12
    known: int
    only_used: int  # newly recorded as consumed by a run, and no signal of their own
    runs: Mapping[int, str]  # number here → name in the file
    known_runs: Mapping[int, str]
    points: int

    @property
    def changed(self) -> bool:
        """Whether anything new was written."""
        return bool(sum(self.added.values()) or self.runs or self.only_used)


def read_data_file(path: Path, defaults: Defaults) -> FileContent:
    """Read a file of signals and runs.

    Raises:
        DocumentError: the bad lines, with their numbers.
        UsageError: the file cannot be read, or holds nothing.
    """

    def read(item: Any, line: int) -> Line:
        return read_line(item, line, defaults, f"{path.name}:{line}")

    found = read_json_lines(
        path,
        read,
        noun="signals",
        flag="dlm import DOCUMENT",
        example=EXAMPLE,
        empty_step="name a file that holds some",
    )
    signals = tuple(line for line in found if isinstance(line, SignalLine))
    curves = [line for line in found if isinstance(line, SeriesLine)]
    runs = [line for line in found if isinstance(line, RunLine)]
    problems = _loose_ends(signals, runs, curves)
    if problems:
        raise DocumentError(problems, str(path), next_step="mend those lines, then run the command again")
    return FileContent(
        path, signals, tuple((run, tuple(curve for curve in curves if curve.run == run.ref)) for run in runs)
    )


def _loose_ends(
    signals: Sequence[SignalLine], runs: Sequence[RunLine], curves: Sequence[SeriesLine]
) -> list[Problem]:
    """Lines that name a run which no line describes, and names that stand twice."""
    problems = []
    names: set[str] = set()
    for run in runs:
        if run.ref in names:
            problems.append(Problem(run.line, 1, "signals-run", f"there is a run {run.ref!r} already"))
        names.add(run.ref)
    seen: set[tuple[str, str]] = set()
    for curve in curves:
        if curve.run not in names:
            problems.append(Problem(curve.line, 1, "signals-run", f"no line describes the run {curve.run!r}"))
        elif (curve.run, curve.name) in seen:
            problems.append(
                Problem(curve.line, 1, "signals-series", f"the run has a series {curve.name!r} already")
            )
        seen.add((curve.run, curve.name))
    for signal in signals:
        missing = [ref for ref in signal.used_by if ref not in names]
        if missing:
            problems.append(
                Problem(signal.line, 1, "signals-run", f"used_by: no line describes the run {missing[0]!r}")
            )
    return problems


def import_signals(store: Store, document: Path, files: Sequence[FileContent]) -> ImportReport:
    """Write what files hold into the store of a document. Takes no lock: a training may run meanwhile.

    Raises:
        DlmError: the document cannot be read, or the store cannot be written.
    """
    refresh(store, document, look_at=0)
    added: Counter[str] = Counter()
    runs: dict[int, str] = {}
    known_runs: dict[int, str] = {}
    known = only_used = points = 0
    for content in files:
        numbers: dict[str, int] = {}
        for run, curves in content.runs:
            number, is_new = _import_run(store, run, curves, content.path)
            numbers[run.ref] = number
            (runs if is_new else known_runs)[number] = run.ref
            points += sum(len(curve.steps) for curve in curves) if is_new else 0
        own = [line.signal for line in content.signals if not line.only_used]
        report = store.signals.add(own)
        known += report.known
        added.update(report.counts)
        for ref, number in numbers.items():
            used = [line for line in content.signals if ref in line.used_by]
            store.signals.log_use(number, [line.signal for line in used if not line.only_used])
            only_used += store.signals.log_use(number, [line.signal for line in used if line.only_used])
    look_at_pairs(store, document)
    return ImportReport(added, known, only_used, runs, known_runs, points)


def _import_run(store: Store, line: RunLine, curves: Sequence[SeriesLine], path: Path) -> tuple[int, bool]:
    """The number of a run in this store, and whether it is new."""
    digest = _digest(line, curves)
    ours = line.origin.get("dlm_id") == store.dlm_id
    for run in store.runs.list():
        if run.imported is not None and run.imported.get("digest") == digest:
            return run.id, False
        if ours and _is_the_run(run, line):
            return run.id, False
    message = line.message
    made = store.runs.record(
        line.spec,
        status=line.status,
        started_at=line.started_at,
        finished_at=line.finished_at or None,
        message=message,
        imported={
            "ref": line.ref,
            "file": path.name,
            "digest": digest,
            "parent_version": line.parent_version,
            "origin": dict(line.origin),
        },
    )
    for curve in curves:
        store.metrics.add_series(made.id, _series(curve))
    return made.id, True


def _is_the_run(run: Run, line: RunLine) -> bool:
    """Whether a line that was written from this store describes this very run."""
    return run.imported is None and line.origin.get("run") == run.id and line.started_at == run.started_at


def _series(curve: SeriesLine) -> Series:
    steps = np.array(curve.steps, np.int64)
    times = np.full(len(steps), np.nan) if curve.times is None else np.array(curve.times, np.float64)
    return Series(curve.name, unit_of(curve.name), steps, np.array(curve.values, np.float64), times)


def _digest(line: RunLine, curves: Sequence[SeriesLine]) -> str:
    """64 hex digits over what a run says, wherever it stands in the file."""
    said = [
        line.ref, line.spec.kind, line.spec.method, dict(line.spec.recipe), line.spec.base, line.spec.seed,
        line.spec.planned_steps, line.status, line.started_at, line.finished_at,
        sorted((curve.name, curve.steps, curve.values, curve.times or ()) for curve in curves),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
