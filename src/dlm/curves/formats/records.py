"""Rows as objects: what JSON lines, trainer states, events and checkpoints have in common."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dlm.curves.assembly import Points, RawRun, as_number
from dlm.curves.columns import TIMES, canonical, clean_name, is_step

__all__ = ["Gathered", "as_value", "facts_of", "flat", "step_of"]

_DEEPEST = 8  # levels of nested objects; deeper ones are no metrics


class Gathered:
    """Columns that grow point by point."""

    def __init__(self) -> None:
        self._columns: dict[str, tuple[array[int], array[float], array[float]]] = {}
        self._texts: dict[str, None] = {}
        self._names: dict[str, str] = {}

    def add(self, step: int, record: Mapping[str, Any], *, leave: str = "") -> None:
        """Add the numbers of one row, nested ones under a/b. A null is an empty cell."""
        time = next((at for key in TIMES if (at := as_number(record.get(key))) is not None), np.nan)
        for raw_name, value in flat(record):
            if raw_name in TIMES or raw_name == leave or value is None:
                continue
            name = self._names.get(raw_name)
            if name is None:
                name = self._names[raw_name] = canonical(clean_name(raw_name)) or "?"
            number = as_value(value)
            if number is None:
                self._texts[name] = None
                continue
            if is_step(name):
                continue
            if name not in self._columns:
                self._columns[name] = (array("q"), array("d"), array("d"))
            steps, values, times = self._columns[name]
            steps.append(step)
            values.append(number)
            times.append(time)

    def into(self, raw: RawRun) -> None:
        """Hand the columns over."""
        for name, (steps, values, times) in self._columns.items():
            raw.columns[name] = Points(np.array(steps, np.int64), np.array(values), np.array(times))
        raw.text_columns = tuple(name for name in self._texts if name not in self._columns)


def flat(record: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The leaves of nested objects, named a/b/c. A grader in a list is named by its type and name, as in result files."""
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and depth < _DEEPEST:
            yield from flat(value, f"{name}/", depth + 1)
        elif isinstance(value, list) and depth < _DEEPEST:
            for one in value:
                if isinstance(one, dict) and isinstance(one.get("name"), str):
                    rest = {inner: leaf for inner, leaf in one.items() if inner not in ("name", "type")}
                    kind = f"{one['type']}/" if isinstance(one.get("type"), str) else ""
                    yield from flat(rest, f"{name}/{kind}{one['name']}/", depth + 1)
        else:
            yield name, value


def step_of(record: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The key that holds the step, and what it says; None where no key does, it is null, or the object sums up a run."""
    if "final_loss" in record or "train_runtime" in record:
        return None
    for key in record:
        if is_step(canonical(key)) and record[key] is not None:
            # beside a plan or a status, `steps` and `global_step` count what was done
            counts = key != "step" and any(
                mark in record for mark in ("planned_steps", "max_steps", "status")
            )
            return None if counts else (key, record[key])
    return None


def facts_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Texts, numbers and lists of saved steps that an object says of its run."""
    return {
        key: value
        for key, value in record.items()
        if isinstance(value, str) or as_number(value) is not None or key == "saved_steps"
    }


def as_value(value: object) -> float | None:
    """A number, or a text that JSON writers put for one it cannot hold (NaN, Infinity)."""
    number = as_number(value)
    if number is None and isinstance(value, str) and len(value) <= 24:
        try:
            return float(value)
        except ValueError:
            return None
    return number
