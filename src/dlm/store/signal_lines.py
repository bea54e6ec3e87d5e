"""Signals and runs as JSON lines: the shapes that `dlm export-data` writes and `dlm import` reads (docs/signals.md).

    {"type": "pair",   "source", "prompt", "chosen", "rejected", "chosen_score", "rejected_score", …}
    {"type": "scalar", "source", "prompt", "response", "score", …}
    {"type": "run",    "ref", "kind", "method", "status", …}
    {"type": "series", "run", "name", "steps", "values", "times"}

A line without a type is read in the shapes of the field: TRL's and OpenAI's pairs, answers with a score, and TRL's
unpaired preferences (`label`), which are votes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from dlm.document.json_lines import LineError, known_fields, number_of
from dlm.document.pair_lines import PAIR_SHAPES, SCALAR_SHAPES, pair_of_json, scalar_of_json
from dlm.store.mining import malformed
from dlm.store.runs import RUN_KINDS, RUN_STATUSES, RunSpec
from dlm.store.signal_rows import SIGNAL_SOURCES, NewSignal

__all__ = ["Defaults", "Line", "RunLine", "SeriesLine", "SignalLine", "line_of_signal", "read_line"]

_SCORED: Final = ("scale", "judge", "reason", "provenance", "created_at", "used_by", "only_used")
_PAIR: Final = ("source", "prompt", "chosen", "rejected", "chosen_score", "rejected_score", *_SCORED)
_SCALAR: Final = ("source", "prompt", "response", "score", *_SCORED)
_RUN: Final = (
    "ref", "kind", "method", "status", "started_at", "finished_at", "planned_steps", "seed", "threads", "base",
    "recipe", "libraries", "parent_version", "message", "origin",
)  # fmt: skip
_SERIES: Final = ("run", "name", "steps", "values", "times")
_TYPES: Final = {"pair": _PAIR, "scalar": _SCALAR, "run": _RUN, "series": _SERIES}
_OVER: Final = tuple(status for status in RUN_STATUSES if status != "running")
_INT64: Final = 2**63


@dataclass(frozen=True)
class Defaults:
    """What is taken of lines that do not say it themselves."""

    source: str = "hand"
    judge: str = ""
    scale: str = ""
    system_prompt: str | None = None  # the document's own; a conversation may carry no other


@dataclass(frozen=True)
class SignalLine:
    """A signal; `used_by` names the runs that consumed it, and `only_used` that it is known from their log alone."""

    line: int
    signal: NewSignal
    used_by: tuple[str, ...] = ()
    only_used: bool = False


@dataclass(frozen=True)
class RunLine:
    """A run that was trained elsewhere, by the name other lines know it by. `origin` is the store it is from."""

    line: int
    ref: str
    spec: RunSpec
    status: str
    started_at: str
    finished_at: str
    message: str
    origin: Mapping[str, Any] = field(default_factory=dict)
    parent_version: str = ""


@dataclass(frozen=True)
class SeriesLine:
    """A curve of a run: steps rise, values may be NaN (null) or infinite, times are seconds since 1970 or missing."""

    line: int
    run: str
    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    times: tuple[float, ...] | None


Line = SignalLine | RunLine | SeriesLine


def line_of_signal(
    signal: NewSignal, used_by: Sequence[str] = (), *, only_used: bool = False
) -> dict[str, Any]:
    """A signal as the object of its line; what says nothing is left out."""
    texts: dict[str, Any] = {"type": signal.kind, "source": signal.source, "prompt": signal.prompt}
    if signal.kind == "pair":
        texts |= {
            "chosen": signal.chosen,
            "rejected": signal.rejected,
            "chosen_score": signal.chosen_score,
            "rejected_score": signal.rejected_score,
        }
    else:
        texts |= {"response": signal.chosen, "score": signal.chosen_score}
    texts |= {
        "scale": signal.scale,
        "judge": signal.judge,
        "reason": signal.reason,
        "provenance": dict(signal.provenance),
        "created_at": signal.created_at,
        "used_by": list(used_by),
        "only_used": only_used,
    }
    return {name: value for name, value in texts.items() if value not in (None, "", [], {}, False) or (value == 0.0 and name.endswith("score"))}  # fmt: skip


def read_line(item: Any, line: int, defaults: Defaults, place: str) -> Line:
    """What a line says; `place` is its file and line, which a line of the field's shapes gets as provenance.

    Raises:
        LineError: what is wrong with it.
    """
    kind = item.get("type") if isinstance(item, dict) else None
    if kind is None:
        return SignalLine(line, _plain_signal(item, defaults, place))
    if not isinstance(kind, str) or kind not in _TYPES:
        raise LineError(f"type: expected one of {', '.join(_TYPES)}, found {kind!r}")
    names = _TYPES[kind]
    fields = known_fields(
        {k: v for k, v in item.items() if k != "type"}, names, f"the keys {', '.join(names)}"
    )
    if kind == "run":
        return _run(fields, line)
    if kind == "series":
        return _series(fields, line)
    return _signal(kind, fields, line, defaults)


def _plain_signal(item: Any, defaults: Defaults, place: str) -> NewSignal:
    """A line in one of the field's shapes."""
    more: dict[str, Any] = {"scale": defaults.scale, "judge": defaults.judge, "provenance": {"from": place}}
    keys = set(item) if isinstance(item, dict) else set()
    if "label" in keys:
        label = item["label"]
        if not isinstance(label, bool):
            raise LineError("label: expected true or false")
        found = scalar_of_json({k: v for k, v in item.items() if k != "label"} | {"score": 1 if label else -1}, defaults.system_prompt)  # fmt: skip
        more["scale"] = "vote"
        return NewSignal("scalar", "vote", found.prompt, found.response, chosen_score=found.score, **more)
    if keys & {"response", "completion", "score", "reward"}:
        found = scalar_of_json(item, defaults.system_prompt)
        return NewSignal(
            "scalar", defaults.source, found.prompt, found.response, chosen_score=found.score, **more
        )
    if not keys & {"chosen", "rejected", "preferred_output", "non_preferred_output"}:
        raise LineError(f"expected a type, or {PAIR_SHAPES}, or {SCALAR_SHAPES}")
    pair = pair_of_json(item, defaults.system_prompt)
    return NewSignal(
        "pair", defaults.source, pair.prompt, pair.chosen, pair.rejected, pair.chosen_score, pair.rejected_score, **more
    )  # fmt: skip


def _signal(kind: str, fields: Mapping[str, Any], line: int, defaults: Defaults) -> SignalLine:
    source = _word(fields, "source", defaults.source, SIGNAL_SOURCES)
    names = ("prompt", "chosen", "rejected") if kind == "pair" else ("prompt", "response")
    missing = [name for name in names if name not in fields]
    if missing:
        raise LineError(f"expected {', '.join(names)}; {', '.join(missing)} is missing or empty")
    texts = [_text(fields, name) for name in names]
    if kind == "pair":
        chosen_score, rejected_score = _score(fields, "chosen_score"), _score(fields, "rejected_score")
        if texts[1] == texts[2]:
            raise LineError("the chosen and the rejected answer are equal: no pair")
    else:
        chosen_score, rejected_score = _score(fields, "score"), None
        if chosen_score is None:
            raise LineError("score: expected a number")
    provenance = fields.get("provenance", {})
    if not isinstance(provenance, dict):
        raise LineError("provenance: expected an object")
    used_by = fields.get("used_by", [])
    if not isinstance(used_by, list) or not all(isinstance(ref, str) and ref for ref in used_by):
        raise LineError("used_by: expected a list of the names of runs")
    only_used = fields.get("only_used", False)
    if only_used not in (True, False) or (only_used and not used_by):
        raise LineError("only_used: expected true or false, and true only beside used_by")
    signal = NewSignal(
        kind,
        source,
        texts[0],
        texts[1],
        texts[2] if kind == "pair" else "",
        chosen_score,
        rejected_score,
        scale=_text(fields, "scale", defaults.scale),
        judge=_text(fields, "judge", defaults.judge),
        reason=_text(fields, "reason"),
        provenance=provenance,
        created_at=_time(fields, "created_at"),
    )
    return SignalLine(line, signal, tuple(used_by), only_used)


def _run(fields: Mapping[str, Any], line: int) -> RunLine:
    ref = _text(fields, "ref")
    if not ref:
        raise LineError("ref: expected the name that other lines know the run by")
    started, finished = _time(fields, "started_at"), _time(fields, "finished_at")
    for name in ("recipe", "libraries", "origin"):
        if not isinstance(fields.get(name, {}), dict):
            raise LineError(f"{name}: expected an object")
    libraries = fields.get("libraries", {})
    if not all(isinstance(value, str) for value in libraries.values()):
        raise LineError("libraries: expected versions by name")
    spec = RunSpec(
        kind=_word(fields, "kind", "", RUN_KINDS),
        method=_text(fields, "method"),
        recipe=fields.get("recipe", {}),
        base=_text(fields, "base"),
        libraries=libraries,
        threads=_integer(fields, "threads"),
        seed=_integer(fields, "seed"),
        planned_steps=_integer(fields, "planned_steps"),
    )
    return RunLine(
        line,
        ref,
        spec,
        _word(fields, "status", "complete", _OVER),
        started,
        finished,
        _text(fields, "message"),
        fields.get("origin", {}),
        _text(fields, "parent_version"),
    )


def _series(fields: Mapping[str, Any], line: int) -> SeriesLine:
    run, name = _text(fields, "run"), _text(fields, "name")
    if not run or not name or len(name) > 200:
        raise LineError("expected the run's ref and the name of the metric")
    steps, values = fields.get("steps"), fields.get("values")
    if not isinstance(steps, list) or not isinstance(values, list) or len(steps) != len(values):
        raise LineError("steps and values: expected two lists of the same length, not empty")
    if any(isinstance(step, bool) or not isinstance(step, int) or abs(step) >= _INT64 for step in steps):
        raise LineError("steps: expected whole numbers")
    if any(b <= a for a, b in itertools.pairwise(steps)):
        raise LineError("steps: expected numbers that rise")
    times = fields.get("times")
    if times is not None:
        if not isinstance(times, list) or len(times) != len(steps):
            raise LineError("times: expected as many as steps")
        times = tuple(number_of(time, "times") for time in times)
    return SeriesLine(line, run, name, tuple(steps), tuple(map(_value, values)), times)


def _value(value: Any) -> float:
    """A point: a number, null for NaN, or the name of an infinity."""
    if value is None:
        return math.nan
    if value in ("Infinity", "-Infinity"):
        return float(value)
    return number_of(value, "values")


def _score(fields: Mapping[str, Any], name: str) -> float | None:
    return number_of(fields[name], name) if name in fields else None


def _text(fields: Mapping[str, Any], name: str, default: str = "") -> str:
    found = fields.get(name, default)
    if not isinstance(found, str):
        raise LineError(f"{name}: expected a text")
    if found and malformed(found):
        raise LineError(f"{name}: the text has {malformed(found)}, which no UTF-8 file can hold")
    return found


def _word(fields: Mapping[str, Any], name: str, default: str, known: Sequence[str]) -> str:
    found = fields.get(name, default)
    if found not in known:
        raise LineError(f"{name}: expected one of {', '.join(known)}, found {found!r}")
    return str(found)


def _integer(fields: Mapping[str, Any], name: str) -> int:
    found = fields.get(name, 0)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < _INT64:
        raise LineError(f"{name}: expected a whole number, 0 or more")
    return found


def _time(fields: Mapping[str, Any], name: str) -> str:
    found = _text(fields, name)
    if found:
        try:
            datetime.fromisoformat(found)
        except ValueError:
            raise LineError(f"{name}: expected a time like 2026-04-23T18:42:11Z, found {found!r}") from None
    return found
