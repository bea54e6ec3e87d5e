"""`dlm export-data`: signals, and where asked the runs that used them, in the shapes of files.

`dlm` lines carry everything and come back by `dlm import` as they were. `trl` and `openai` lines are what those tools
train on; `csv` is for looking at in a spreadsheet.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from dlm.errors import UsageError
from dlm.store import NewSignal, Run, Signal, SignalFilter, Store, find_signals, line_of_signal

__all__ = ["FORMATS", "ExportReport", "export_lines", "write_export"]

FORMATS: Final = ("dlm", "trl", "openai", "csv")
_TRAINING: Final = ("sft", "preference", "reward", "rft")
_COLUMNS: Final = (
    "id", "kind", "source", "prompt", "chosen", "rejected", "chosen_score", "rejected_score", "margin", "scale", "judge",
    "reason", "status", "flags", "line", "used_by", "created_at",
)  # fmt: skip
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_CHUNK: Final = 500


@dataclass(frozen=True)
class ExportReport:
    """What was written."""

    path: Path
    signals: int
    runs: int
    bytes: int


def write_export(
    store: Store, wanted: SignalFilter, path: Path, *, shape: str, system_prompt: str | None, with_runs: bool, force: bool
) -> ExportReport:  # fmt: skip
    """Write the signals of a filter to a new file.

    Args:
        shape: one of `FORMATS`.
        system_prompt: the document's own, the first message of a conversation in the shapes of other tools.
        with_runs: training runs with their curves as well, and which signal was used by which (shape `dlm`).
        force: write over a file that is there.

    Raises:
        UsageError: the file is there, nothing is found, or the shape cannot hold what is found.
    """
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", next_step="name a new file, or --force writes over it")
    counts = {"signals": 0, "runs": 0}

    def count(kind: str) -> None:
        counts[kind] += 1

    lines = export_lines(
        store, wanted, shape=shape, system_prompt=system_prompt, with_runs=with_runs, told=count
    )
    text = "".join(lines)
    if not counts["signals"] and not counts["runs"]:
        raise UsageError(
            "there is nothing to export: no signal fits",
            next_step="leave a filter out, or dlm import DOCUMENT FILE brings data in",
        )
    data = text.encode()
    _write(path, data)
    return ExportReport(path, counts["signals"], counts["runs"], len(data))


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; what is no plain file (a pipe, a device) is written to, never replaced.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        target = path.resolve()  # a link keeps pointing at what is written
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            temporary.write_bytes(data)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}", next_step="name a file in a folder that can be written"
        ) from None


def export_lines(
    store: Store,
    wanted: SignalFilter,
    *,
    shape: str,
    system_prompt: str | None = None,
    with_runs: bool = False,
    told: Callable[[str], None] = lambda kind: None,
) -> Iterator[str]:
    """The lines of an export, one after the other, each with its line end; `told` hears of each signal and run.

    Raises:
        UsageError: the shape cannot hold what is found.
    """
    if shape not in FORMATS:
        raise UsageError(f"there is no format {shape!r}", expected=f"one of {', '.join(FORMATS)}")
    if with_runs and shape != "dlm":
        raise UsageError("runs are written in the format dlm alone", next_step="leave --with-runs out")
    names: dict[int, str] = {}
    if with_runs:
        for run in _runs(store):
            names[run.id] = _ref(run, names)
            told("runs")
            yield from _run_lines(store, run, names[run.id])
    if shape == "csv":
        yield _row(_COLUMNS)
    for signals in _chunks(store, wanted):
        used = store.signals.used_by([signal.id for signal in signals])
        for signal in signals:
            runs = used.get(signal.id, ())
            told("signals")
            if shape == "dlm":
                refs = [names[run] for run in runs if run in names]
                # without its runs, what is known from their log alone is exported as the pair it was
                item = line_of_signal(_exported(signal), refs, only_used=signal.home == "log" and bool(refs))
            elif shape == "csv":
                yield _row(_cells(signal, runs))
                continue
            else:
                item = (_trl if shape == "trl" else _openai)(signal, system_prompt)
            yield json.dumps(item, ensure_ascii=False) + "\n"


def _chunks(store: Store, wanted: SignalFilter) -> Iterator[tuple[Signal, ...]]:
    """The signals of a filter in portions, so that no text is held longer than it takes to write it."""
    offset = 0
    while chunk := find_signals(store.signals.index, wanted, limit=_CHUNK, offset=offset):
        yield chunk
        offset += len(chunk)


def _exported(signal: Signal) -> NewSignal:
    """A signal with what its home knows of it in its provenance; a signal of the store stays as it is."""
    if signal.home == "store":
        return signal
    more: dict[str, Any] = {}
    if signal.line is not None:
        more["line"] = signal.line
    if signal.home == "mined" and signal.status:
        more["review"] = signal.status
    return replace(signal, provenance={**signal.provenance, **more})


def _trl(signal: Signal, system_prompt: str | None) -> dict[str, Any]:
    """TRL's conversational shapes: a preference, an unpaired preference for a vote, an answer with its score."""
    asked = [*_system(system_prompt), {"role": "user", "content": signal.prompt}]
    if signal.kind == "pair":
        item: dict[str, Any] = {
            "prompt": asked,
            "chosen": [_said(signal.chosen)],
            "rejected": [_said(signal.rejected)],
        }
        if signal.chosen_score is not None and signal.rejected_score is not None:
            item |= {"chosen_score": signal.chosen_score, "rejected_score": signal.rejected_score}
        return item
    item = {"prompt": asked, "completion": [_said(signal.chosen)]}
    if signal.source == "vote":
        return item | {"label": (signal.chosen_score or 0) > 0}
    return item | {"score": signal.chosen_score}


def _openai(signal: Signal, system_prompt: str | None) -> dict[str, Any]:
    """OpenAI's preference shape; it has none for an answer with a score."""
    if signal.kind != "pair":
        raise UsageError(
            "OpenAI's format holds pairs only, and this selection has answers with scores",
            next_step="--tab preference, or --format trl",
        )
    return {
        "input": {"messages": [*_system(system_prompt), {"role": "user", "content": signal.prompt}]},
        "preferred_output": [_said(signal.chosen)],
        "non_preferred_output": [_said(signal.rejected)],
    }


def _system(system_prompt: str | None) -> list[dict[str, str]]:
    return [{"role": "system", "content": system_prompt}] if system_prompt else []


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _cells(signal: Signal, runs: Iterable[int]) -> list[str]:
    values = {
        **{name: getattr(signal, name) for name in _COLUMNS if hasattr(signal, name)},
        "flags": " ".join(signal.flags or ()),
        "used_by": " ".join(map(str, runs)),
    }
    return ["" if values[name] is None else str(values[name]) for name in _COLUMNS]


def _row(cells: Iterable[str]) -> str:
    """A line of CSV. A text that a spreadsheet would take for a formula gets an apostrophe in front (OWASP, CSV injection)."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(
        f"'{cell}" if cell.startswith(_FORMULA) and not _is_number(cell) else cell for cell in cells
    )
    return buffer.getvalue()


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _runs(store: Store) -> list[Run]:
    return [run for run in store.runs.list() if run.kind in _TRAINING and run.status != "running"]


def _ref(run: Run, taken: dict[int, str]) -> str:
    """The name a run had in the file it came from, where no other has it; else one of its number."""
    wanted = str(run.imported["ref"]) if run.imported and run.imported.get("ref") else f"run-{run.id}"
    return wanted if wanted not in taken.values() else f"run-{run.id}-of-{run.started_at}"


def _run_lines(store: Store, run: Run, ref: str) -> Iterator[str]:
    imported = run.imported or {}
    line = {
        "type": "run",
        "ref": ref,
        "kind": run.kind,
        "method": run.method,
        "status": run.status,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "planned_steps": run.planned_steps,
        "seed": run.seed,
        "threads": run.threads,
        "base": run.base,
        "recipe": dict(run.recipe),
        "libraries": dict(run.libraries),
        "parent_version": imported.get("parent_version") or run.parent_version,
        "message": run.message,
        "origin": imported.get("origin") if run.imported else {"dlm_id": store.dlm_id, "run": run.id},
    }
    said = {name: value for name, value in line.items() if value not in (None, "", {}, 0)}
    yield json.dumps(said, ensure_ascii=False, allow_nan=False) + "\n"
    for name, series in store.metrics.read(run.id).items():
        times = series.times.tolist()
        curve: dict[str, Any] = {"type": "series", "run": ref, "name": name, "steps": series.steps.tolist()}
        curve["values"] = [_point(value) for value in series.values.tolist()]
        if all(map(math.isfinite, times)):
            curve["times"] = times
        yield json.dumps(curve, ensure_ascii=False, allow_nan=False) + "\n"


def _point(value: float) -> float | str | None:
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
