"""What the spreadsheet graders know of a case, and how they read an answer's lines.

A case's facts are plain JSON, so that they travel to a file of cases and to a grader in another process:

    header   the gold header's cells
    rows     the gold rows' cells, in source order
    keys     columns that say which source row it is
    values   columns whose text must stay as it is
    money    columns whose amount must be the gold number of thousands
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlm.grading.grader import GradeItem
from dlm.tasks.sheets import SpreadsheetCase

__all__ = ["GoldTable", "cells_of", "facts_of", "gold_of"]

_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class GoldTable:
    """The facts of one case, checked."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: tuple[int, ...]
    values: tuple[int, ...]
    money: tuple[int, ...]


def facts_of(case: SpreadsheetCase) -> dict[str, Any]:
    """A generated case's facts, for `GradeItem.facts`."""
    return {
        "header": list(case.header),
        "rows": [list(row.cells) for row in case.rows],
        "keys": list(case.columns.keys),
        "values": list(case.columns.values),
        "money": list(case.columns.money),
    }


def gold_of(item: GradeItem) -> GoldTable | str:
    """The facts of an item, or why it has none.

    Where the item has only a reference, the gold table is read from it: columns whose every cell is a number are money,
    the others are keys.
    """
    if "rows" in item.facts:
        return _checked(item.facts)
    if item.reference is None:
        return "the case has neither facts about its table nor a reference table"
    lines = [cells_of(line) for line in item.reference.strip().splitlines()]
    header, rows = lines[0] if lines else (), tuple(lines[1:])
    if not rows or any(len(row) != len(header) for row in rows):
        return "the case's reference is no table: a header, then rows of as many cells"
    money = tuple(
        column for column in range(len(header)) if all(_NUMBER.fullmatch(row[column]) for row in rows)
    )
    keys = tuple(column for column in range(len(header)) if column not in money)
    return GoldTable(header, rows, keys or (0,), (), tuple(column for column in money if column not in keys))


def _checked(facts: Mapping[str, Any]) -> GoldTable | str:
    try:
        header = tuple(str(cell) for cell in facts["header"])
        rows = tuple(tuple(str(cell) for cell in row) for row in facts["rows"])
        columns = {name: tuple(int(column) for column in facts[name]) for name in ("keys", "values", "money")}
    except (KeyError, TypeError, ValueError) as error:
        return f"the case's facts about its table cannot be read: {error}"
    known = range(len(header))
    if not rows or any(len(row) != len(header) for row in rows):
        return "the case's facts are no table: rows of as many cells as the header"
    if not columns["keys"] or any(column not in known for found in columns.values() for column in found):
        return "the case's facts name columns that its table does not have, or no key column"
    return GoldTable(header, rows, columns["keys"], columns["values"], columns["money"])


def cells_of(line: str) -> tuple[str, ...]:
    """One line's cells, outer white space aside; a cell may stand in quotes. A line that is no CSV is one cell."""
    try:
        found: Sequence[Sequence[str]] = list(csv.reader([line], skipinitialspace=True))
    except csv.Error:
        return (line.strip(),)
    return tuple(cell.strip() for cell in found[0]) if found else ()
