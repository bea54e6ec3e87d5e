"""A messy table with its clean form, and the strict matching of an answer's rows to those of its case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Columns", "Row", "RowMatch", "SheetRow", "SpreadsheetCase", "common_in_order", "match_rows"]


class SheetRow(Protocol):
    """One source row in its clean form; `cells` are those of the gold answer."""

    @property
    def cells(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Row:
    """One source row in its clean form; `(name, group)` is its identity."""

    name: str
    group: str
    thousands: int

    @property
    def cells(self) -> tuple[str, str, str]:
        """The row as the three cells of the gold answer."""
        return (self.name, self.group, str(self.thousands))


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are for, by their places.

    keys: say which source row it is. values: text that must stay as it is. money: amounts, in thousands when clean.
    """

    keys: tuple[int, ...]
    values: tuple[int, ...]
    money: tuple[int, ...]


@dataclass(frozen=True)
class SpreadsheetCase:
    """A messy table to clean, with its gold answer. `rows` are the rows that must stay, in order."""

    profile: str
    seed: int
    index: int
    prompt: str
    gold: str
    header: tuple[str, ...]
    rows: tuple[SheetRow, ...]
    columns: Columns


@dataclass(frozen=True)
class RowMatch:
    """What an answer did with the rows of its case.

    kept: indices of the source rows that stand in the answer in source order (longest such sequence, by
        identity of the key columns; each source row counts once).
    expected: number of source rows.
    surplus: answer rows beyond the kept ones: duplicates, fabrications, notes, rows out of order.
    units_right: kept rows whose amounts are the gold numbers of thousands, digit for digit.
    header_right: the first line is the gold header, cell for cell.
    parse_ok: every line has as many cells as the header, there are at least two lines, and nothing (fence,
        prose, blank line) stands around the table.
    """

    kept: tuple[int, ...]
    expected: int
    surplus: int
    units_right: int
    header_right: bool
    parse_ok: bool

    @property
    def preservation(self) -> float:
        """Share of the source rows kept in order; 0–1."""
        return len(self.kept) / self.expected if self.expected else 1.0

    @property
    def precision(self) -> float:
        """Share of the answer's rows that are kept source rows; 1.0 when the answer has no rows."""
        total = len(self.kept) + self.surplus
        return len(self.kept) / total if total else 1.0

    @property
    def unit_accuracy(self) -> float:
        """Share of the kept rows with the right amount; 0.0 when none was kept."""
        return self.units_right / len(self.kept) if self.kept else 0.0

    @property
    def all_kept(self) -> bool:
        """Every source row is there, in order."""
        return len(self.kept) == self.expected

    @property
    def exact(self) -> bool:
        """The answer is the clean table and nothing else."""
        return (
            self.all_kept
            and not self.surplus
            and self.units_right == self.expected
            and self.header_right
            and self.parse_ok
        )


def match_rows(case: SpreadsheetCase, answer: str) -> RowMatch:
    """Match the rows of an answer to the rows of its case, strictly: see `RowMatch`."""
    lines = answer.strip().split("\n")
    table = [tuple(cell.strip() for cell in line.split(",")) for line in lines]
    width = len(case.header)
    header_right = table[0] == case.header
    # An answer without its header may still hold rows: they are matched, and the header is counted wrong.
    source = [_pick(row.cells, case.columns.keys) for row in case.rows]
    first = _pick(table[0], case.columns.keys) if len(table[0]) == width else None
    body = table if first in source else table[1:]
    keys = [_pick(cells, case.columns.keys) if len(cells) == width else None for cells in body]
    pairs = common_in_order(source, keys)
    money = case.columns.money
    units_right = sum(_pick(body[at], money) == _pick(case.rows[kept].cells, money) for kept, at in pairs)
    return RowMatch(
        kept=tuple(kept for kept, _ in pairs),
        expected=len(case.rows),
        surplus=len(body) - len(pairs),
        units_right=units_right,
        header_right=header_right,
        parse_ok=len(table) >= 2 and all(len(cells) == width for cells in table),
    )


def _pick(cells: tuple[str, ...], places: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(cells[place] for place in places)


def common_in_order(
    source: Sequence[tuple[str, ...]], found: Sequence[tuple[str, ...] | None]
) -> list[tuple[int, int]]:
    """Index pairs of a longest common subsequence; a `None` in `found` matches nothing."""
    # length[i][j] is the longest match of source[i:] with found[j:]
    length = [[0] * (len(found) + 1) for _ in range(len(source) + 1)]
    for i in range(len(source) - 1, -1, -1):
        below, here = length[i + 1], length[i]
        for j in range(len(found) - 1, -1, -1):
            here[j] = below[j + 1] + 1 if source[i] == found[j] else max(below[j], here[j + 1])
    pairs, i, j = [], 0, 0
    while i < len(source) and j < len(found):
        if source[i] == found[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif length[i + 1][j] >= length[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs
