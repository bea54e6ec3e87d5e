"""Where an answer loses rows: after its last kept row, as one that stops too early does, or between rows that it keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dlm.tasks.spreadsheet import SpreadsheetCase


def lost_places(gold: str, output: str) -> tuple[int, list[int]]:
    """How many rows the reference has, and which of them (from 0) the output lacks; a row is known by its first two cells."""
    there = Counter(_row(line) for line in output.splitlines())
    places = []
    rows = [_row(line) for line in gold.splitlines()[1:] if line.strip()]
    for place, row in enumerate(rows):
        if there[row]:
            there[row] -= 1
        else:
            places.append(place)
    return len(rows), places


def _row(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.split(",")[:2])


def where_lost(cases: Sequence[SpreadsheetCase], lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of a suite's answers that ended by themselves (`answers`; those that the token budget cut off are left out, `cut_off`): how many
    lose rows (`with_loss`), `rows` lost in all, `at_end` of them after the last row that is kept, and `by_quarter` of the table.
    """
    whole = [line for line in lines if line["finish_reason"] != "length"]
    found: dict[str, Any] = {
        "answers": len(whole),
        "cut_off": len(lines) - len(whole),
        "with_loss": 0,
        "rows": 0,
        "at_end": 0,
        "by_quarter": [0] * 4,
    }
    for line in whole:
        count, places = lost_places(cases[line["case_index"]].gold, line["output"])
        kept = [place for place in range(count) if place not in places]
        found["with_loss"] += bool(places)
        found["rows"] += len(places)
        found["at_end"] += sum(place > (kept[-1] if kept else -1) for place in places)
        for place in places:
            found["by_quarter"][4 * place // count] += 1
    return found
