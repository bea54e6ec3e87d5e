"""Result files as tables: CSV with commas, semicolons, tabs or bars, as OpenAI, Azure and spreadsheets write them.

Read a megabyte at a time, so that a million rows need little more memory than their numbers. An empty
cell is no point: validation is rarer than training, and a missing loss is not a loss of 0.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from dlm.curves.assembly import Points, RawRun, as_step
from dlm.curves.columns import TIMES, canonical, clean_name, is_known, is_step
from dlm.curves.formats.numbers import plain_numbers
from dlm.errors import CurveFileError

__all__ = ["DELIMITERS", "read_table"]

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_BLOCK = 1 << 20  # characters read at a time
_MISSING = frozenset(("", "null", "none", "na", "n/a", "-", "–", "--"))
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+(?:[eE][+-]?\d+)?\s*")
_THOUSANDS = re.compile(r"\s*[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?\s*")
_FACT = re.compile(r"#\s*([\w ./-]+?)\s*[:=]\s*(.*\S)\s*")
_EXPECTED = "a first line that names the columns, such as step,train_loss,valid_loss"


@dataclass
class _Column:
    """A column while it is read: pieces of steps, values and times; `text` once a cell is neither number nor empty."""

    name: str
    index: int
    steps: list[NDArray[np.int64]] = field(default_factory=list)
    values: list[NDArray[np.float64]] = field(default_factory=list)
    times: list[NDArray[np.float64]] = field(default_factory=list)
    text: bool = False

    def points(self) -> Points:
        empty = [np.empty(0)]
        return Points(
            np.concatenate(self.steps or [np.empty(0, np.int64)]),
            np.concatenate(self.values or empty),
            np.concatenate(self.times) if self.times else None,
        )


def read_table(text: TextIO, where: str) -> RawRun:
    """Read a table; `text` was opened with `newline=""`.

    Raises:
        CurveFileError: no header, no column of steps, a cell that is no number in a documented column, or a row with
            more cells than the header; with line and column.
    """
    return _Table(text, where).read()


class _Table:
    def __init__(self, text: TextIO, where: str) -> None:
        self._text = text
        self._where = where
        self._raw = RawRun("csv")
        self._skipped = 0  # lines before the header
        self._short: list[int] = []  # lines with fewer cells than the header
        self._headers_again = 0
        self._decimal_commas = False
        self._by_commas = False

    def read(self) -> RawRun:
        header_line = self._header_line()
        self._line = self._skipped + 1
        delimiter = self._delimiter(header_line)
        self._by_commas = delimiter == ","
        try:
            header = next(csv.reader([header_line], delimiter=delimiter))
            self._set_columns(header)
            while block := self._text.read(_BLOCK):
                self._take_block(block + self._text.readline(), header, delimiter)
        except csv.Error as error:
            raise self._fault(f"not a table: {error}", self._line, expected=_EXPECTED) from None
        self._report()
        return self._raw

    def _header_line(self) -> str:
        """The first line that is not empty; lines before it that begin with # are facts."""
        while line := self._text.readline():
            bare = line.strip().strip("\ufeff")
            if bare and not bare.startswith("#"):
                return line
            self._skipped += 1
            fact = _FACT.fullmatch(bare)
            if fact:
                self._raw.facts[fact[1].strip().casefold().replace(" ", "_")] = fact[2]
        raise self._fault("there is no table in it", self._skipped + 1, expected=_EXPECTED)

    def _take_block(self, block: str, header: list[str], delimiter: str) -> None:
        """Add a block of whole lines: as one array where it is plain numbers, else row by row."""
        numbers = plain_numbers(block, delimiter, self._width)
        if numbers is not None and self._take_numbers(numbers):
            self._line += len(numbers)
            return
        while block.count('"') % 2 and (more := self._text.readline()):
            block += more  # a quoted cell goes on over the end of the block
        rows = list(csv.reader(io.StringIO(block, newline=""), delimiter=delimiter))
        if rows and block[-1:] not in "\r\n" and 0 < len(rows[-1]) < self._width:
            rows.pop()  # its last number may have lost digits
            self._raw.problems.append("the last line breaks off; it was left out")
        self._take(rows, header, self._line + 1)
        self._line += len(rows)

    def _take_numbers(self, numbers: NDArray[np.float64]) -> bool:
        """Add an array of cells, unless the steps in it want a closer look."""
        at = numbers[:, self._steps]
        if not (np.isfinite(at).all() and (at == np.floor(at)).all() and at.min() >= 0 and at.max() < 2**53):
            return False
        steps = at.astype(np.int64)
        times = None if self._times is None else numbers[:, self._times]
        for column in self._columns:
            cells = numbers[:, column.index]
            filled = ~np.isnan(cells)
            if column.text or not filled.any():
                continue
            column.steps.append(steps[filled])
            column.values.append(cells[filled])
            if times is not None:
                column.times.append(times[filled])
        return True

    def _delimiter(self, header: str) -> str:
        """What separates the header's names: the sign that makes the most of them, a column of steps among them."""
        found = []
        for sign in DELIMITERS:
            try:
                cells = next(csv.reader([header], delimiter=sign), [])
            except csv.Error:
                continue
            steps = any(is_step(canonical(clean_name(cell))) for cell in cells)
            found.append((steps, len(cells), sign))
        best = max(found, default=(False, 0, ","), key=lambda one: one[:2])
        if best[2] != ",":
            self._raw.problems.append(f"columns are separated by {DELIMITERS[best[2]]}, not commas")
        return best[2]

    def _set_columns(self, header: Sequence[str]) -> None:
        self._width = len(header)
        names: list[str] = []
        for index, cell in enumerate(header):
            name = canonical(clean_name(cell.strip("\ufeff"))) or f"column {index + 1}"
            if name in names:
                self._raw.problems.append(f"column {index + 1} repeats the name {name}")
                name = f"{name} (column {index + 1})"
            names.append(name)
        line = self._skipped + 1
        steps = next((index for index, name in enumerate(names) if is_step(name)), None)
        if steps is None:
            numbers = [name for name in names if _number(name) is not None]
            found = "numbers in the first line" if len(numbers) == len(names) else ", ".join(names)[:200]
            raise self._fault("no column holds the step", line, expected=_EXPECTED, found=found)
        if self._width == 1:
            raise self._fault("there is no column beside the step", line, expected=_EXPECTED, found=names[0])
        self._steps = steps
        self._times = next((index for index, name in enumerate(names) if name in TIMES), None)
        self._columns = [
            _Column(name, index) for index, name in enumerate(names) if index not in (steps, self._times)
        ]

    def _take(self, piece: list[list[str]], header: list[str], first_line: int) -> None:
        """Add a piece of rows; `first_line` is the line of its first one."""
        if not piece:
            return
        lines: Sequence[int] = range(first_line, first_line + len(piece))
        if any(len(row) != self._width for row in piece) or header in piece:
            piece, lines = self._mended(piece, lines, header)
            if not piece:
                return
        cells = list(zip(*piece, strict=True))
        steps, kept = self._step_column(cells[self._steps], lines)
        times = None
        if self._times is not None:
            times = np.array([np.nan if (at := _number(one)) is None else at for one in cells[self._times]])
        for column in self._columns:
            if not column.text:
                self._fill(column, cells[column.index], steps, kept, times, lines)

    def _mended(
        self, piece: list[list[str]], lines: Sequence[int], header: list[str]
    ) -> tuple[list[list[str]], list[int]]:
        """Rows of the header's width, and their lines: empty ones and repeated headers out, short ones filled."""
        rows, kept = [], []
        for row, line in zip(piece, lines, strict=True):
            if not any(cell.strip() for cell in row):
                continue
            if row == header:
                self._headers_again += 1
                continue
            if len(row) > self._width:
                if any(cell.strip() for cell in row[self._width :]):
                    raise self._fault(
                        "a row has more cells than the header",
                        line,
                        expected=f"{self._width} cells",
                        found=f"{len(row)} cells; is a decimal comma among them?",
                    )
                row = row[: self._width]
            elif len(row) < self._width:
                self._short.append(line)
                row = row + [""] * (self._width - len(row))
            rows.append(row)
            kept.append(line)
        return rows, kept

    def _step_column(
        self, cells: Sequence[str], lines: Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
        """The steps, and which rows have one (None: all)."""
        try:
            steps = np.array(list(map(int, cells)), dtype=np.int64)
            if len(steps) and steps.min() >= 0 and steps.max() < 2**53:
                return steps, None
        except (ValueError, OverflowError):
            pass  # one is written otherwise, or wrong: looked at one by one
        found = np.zeros(len(cells), np.int64)
        kept = np.ones(len(cells), bool)
        for i, cell in enumerate(cells):
            if cell.strip().casefold() in _MISSING:
                kept[i] = False
                continue
            step = as_step(_number(cell))
            if step is None:
                raise self._fault(
                    "a step is no whole number",
                    lines[i],
                    self._steps,
                    expected="0, 1, 2, …",
                    found=_shown(cell),
                )
            found[i] = step
        if not kept.all():
            line = lines[int(np.argmin(kept))]
            self._raw.problems.append(f"rows without a step were left out, the first in line {line}")
        return found, kept

    def _fill(
        self,
        column: _Column,
        cells: Sequence[str],
        steps: NDArray[np.int64],
        kept: NDArray[np.bool_] | None,
        times: NDArray[np.float64] | None,
        lines: Sequence[int],
    ) -> None:
        index: NDArray[np.int64] | None = None
        if kept is not None or "" in cells:
            rows = [i for i, cell in enumerate(cells) if cell and (kept is None or kept[i])]
            if not rows:
                return
            index = np.array(rows, np.int64)
            cells = [cells[i] for i in rows]
        try:
            values = np.array(list(map(float, cells)))
        except ValueError:
            whole, index = index, None
            numbers = []
            for i, cell in enumerate(cells):
                number = self._cell(column, cell, lines[int(whole[i]) if whole is not None else i])
                if column.text:
                    return
                if number is not None:
                    numbers.append((int(whole[i]) if whole is not None else i, number))
            if not numbers:
                return
            index = np.array([at for at, _ in numbers], np.int64)
            values = np.array([number for _, number in numbers])
        column.steps.append(steps if index is None else steps[index])
        column.values.append(values)
        if times is not None:
            column.times.append(times if index is None else times[index])

    def _cell(self, column: _Column, cell: str, line: int) -> float | None:
        """One cell that is not simply a number: a missing one, one with a decimal comma, or a text."""
        if cell.strip().casefold() in _MISSING:
            return None
        if self._by_commas and is_known(column.name) and _THOUSANDS.fullmatch(cell):
            raise self._fault(
                f"{column.name} is either in thousands or has a decimal comma",
                line,
                column.index,
                expected="1300 or 1.3",
                found=_shown(cell),
            )
        if _DECIMAL_COMMA.fullmatch(cell) and not (self._by_commas and _THOUSANDS.fullmatch(cell)):
            self._decimal_commas = True
            return float(cell.replace(",", "."))
        number = _number(cell)
        if number is not None:
            return number
        if is_known(column.name):
            raise self._fault(
                f"{column.name} is no number",
                line,
                column.index,
                expected="a number or an empty cell",
                found=_shown(cell),
            )
        column.text = True
        return None

    def _report(self) -> None:
        """What was mended, and the columns that came out."""
        raw = self._raw
        if self._headers_again:
            raw.problems.append(
                f"the header stands in it {self._headers_again + 1} times, as when a resumed run appends to a file"
            )
        if self._decimal_commas:
            raw.problems.append("numbers have decimal commas; they were read as points")
        if self._short:
            raw.problems.append(
                f"{len(self._short)} rows have fewer cells than the header, the first in line {self._short[0]};"
                " what is missing was taken for empty"
            )
        raw.text_columns = tuple(column.name for column in self._columns if column.text)
        raw.columns = {column.name: column.points() for column in self._columns if not column.text}

    def _fault(
        self, message: str, line: int, index: int | None = None, *, expected: str = "", found: str = ""
    ) -> CurveFileError:
        place = f"{self._where}:{line}" if index is None else f"{self._where}:{line}: column {index + 1}"
        return CurveFileError(
            message,
            where=place,
            expected=expected,
            found=found,
            next_step="mend that line or export the file again, then: dlm diagnose FILE",
        )


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _shown(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else cell[:40] + "…")
