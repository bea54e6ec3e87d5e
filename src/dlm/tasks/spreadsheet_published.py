"""The `published` profile of the spreadsheet task: five columns, the study's messes, its difficulties and splits.

Columns Quarter, Revenue, OpEx, Headcount, Notes. The study made its cases with its own code, which is not used here: the
same description, other bytes. What is the same: columns, messes, rows by difficulty (40 % easy, 6–10; 40 % medium, 8–14;
20 % hard, 10–18), stress tables of 15–25 rows of which every one is real, and the seeds of the splits.

A mess concerns how a row is written (amounts as `1.800 M`, `$1800K` or bare, padded cells, blank Notes or Headcount, renamed
columns, one column too many) or what stands beside the rows (blank rows, copies of a row, notes, separators). A stress table
has messes of the first kind alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dlm.tasks.draw import Draw
from dlm.tasks.sheets import Columns, SpreadsheetCase

__all__ = ["HEADER", "PublishedRow", "published_case"]

HEADER: Final = ("Quarter", "Revenue", "OpEx", "Headcount", "Notes")
_COLUMNS: Final = Columns(keys=(0,), values=(3, 4), money=(1, 2))
_ROWS: Final = {"easy": (6, 10), "medium": (8, 14), "hard": (10, 18)}
_SHARES: Final = (("easy", 0.4), ("medium", 0.4), ("hard", 0.2))
_MESSES: Final = {"easy": 2, "medium": 3, "hard": 5}  # kinds of mess in one table
_BESIDE: Final = ("blank", "copy", "note", "separator")
_WITHIN: Final = ("pad", "rename", "extra", "gaps")
_RENAMED: Final = (
    ("Qtr", "Period", "Fiscal Quarter"),
    ("Rev", "Net Revenue", "Sales"),
    ("Op Ex", "Operating Expenses", "Opex"),
    ("HC", "Head Count", "Employees"),
    ("Comments", "Remarks", "note"),
)
_EXTRA: Final = (
    ("Region", ("North", "South", "East", "West")),
    ("Checked", ("yes", "no", "")),
    ("Source", ("ERP", "manual", "import")),
)
_NOTES: Final = (
    "on track",
    "new product launch",
    "hiring freeze",
    "restated after audit",
    "seasonal dip",
    "contract renewed",
    "office move",
    "price change",
    "two deals slipped",
    "strong renewals",
)
_ASIDES: Final = (
    "# figures are not audited",
    "Note: see the finance team",
    "(draft, do not share)",
    "* amounts from the old system",
    "Updated last week",
)
_SEPARATORS: Final = ("-----,-----,-----,-----,-----", "====", "----------")
_INSTRUCTIONS: Final = (
    "Clean this CSV. Keep every real row, in order. Columns: Quarter,Revenue,OpEx,Headcount,Notes. Amounts in $K, as plain "
    "numbers. Drop blank rows, copies, notes and separators. Answer with the CSV alone.",
    "Clean up this export and answer with the CSV alone: header Quarter,Revenue,OpEx,Headcount,Notes; amounts as plain "
    "numbers in $K; no blank rows, copies, notes or separators; every real row kept, in order.",
)


@dataclass(frozen=True)
class PublishedRow:
    """One source row in its clean form; `quarter` is its identity. Amounts in thousands."""

    quarter: str
    revenue: int
    opex: int
    headcount: str
    notes: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as the five cells of the gold answer."""
        return (self.quarter, str(self.revenue), str(self.opex), self.headcount, self.notes)


def published_case(seed: int, index: int, rows: tuple[int, int] | None, *, stress: bool) -> SpreadsheetCase:
    """Case `index` of a seed. `rows` None: as many as its difficulty has, or 15 to 25 in a stress table."""
    draw = Draw("spreadsheet", "published", seed, index, "stress" if stress else "regular", *(rows or ()))
    difficulty = "hard" if stress else draw.weighted(_SHARES)
    count = draw.integer(*(rows or ((15, 25) if stress else _ROWS[difficulty])))
    messes = _messes(draw, difficulty, stress)
    clean = _clean_rows(draw, count, gaps="gaps" in messes)
    header, lines = list(HEADER), [_written(draw, row, padded="pad" in messes) for row in clean]
    if "rename" in messes:
        renamed = set(draw.sample(range(5), draw.integer(1, 3)))
        header = [draw.choice(_RENAMED[at]) if at in renamed else name for at, name in enumerate(HEADER)]
    if "extra" in messes:
        name, values = draw.choice(_EXTRA)
        place = draw.integer(1, 5)
        header.insert(place, name)
        for line in lines:
            line.insert(place, draw.choice(values))
    texts = _with_asides(draw, [",".join(line) for line in lines], len(header), messes)
    prompt = "\n".join((draw.choice(_INSTRUCTIONS), "", ",".join(header), *texts))
    gold = "\n".join((",".join(HEADER), *(",".join(row.cells) for row in clean)))
    return SpreadsheetCase("published", seed, index, prompt, gold, HEADER, tuple(clean), _COLUMNS)


def _messes(draw: Draw, difficulty: str, stress: bool) -> set[str]:
    """Which kinds of mess a table has; amounts are always mixed."""
    if stress:
        return set(draw.sample(_WITHIN, 2))
    count = _MESSES[difficulty]
    beside = draw.sample(_BESIDE, (count + 1) // 2)
    return {*beside, *draw.sample(_WITHIN, count - len(beside))}


def _clean_rows(draw: Draw, count: int, *, gaps: bool) -> list[PublishedRow]:
    """`count` quarters one after the other."""
    first = draw.integer(2012 * 4, 2019 * 4)
    rows = []
    for place in range(first, first + count):
        revenue = draw.integer(400, 9900)
        opex = draw.integer(revenue * 3 // 10, revenue * 8 // 10)
        headcount = "" if gaps and draw.chance(0.2) else str(draw.integer(8, 240))
        notes = "" if draw.chance(0.5 if gaps else 0.25) else draw.choice(_NOTES)
        rows.append(PublishedRow(f"Q{place % 4 + 1} {place // 4}", revenue, opex, headcount, notes))
    return rows


def _written(draw: Draw, row: PublishedRow, *, padded: bool) -> list[str]:
    """A row as somebody typed it."""
    cells = [row.quarter, _amount(draw, row.revenue), _amount(draw, row.opex), row.headcount, row.notes]
    return [
        f"{' ' * draw.integer(0, 2)}{cell}{' ' * draw.integer(0, 2)}" if padded else cell for cell in cells
    ]


def _amount(draw: Draw, thousands: int) -> str:
    """An amount given in thousands: `1.800 M`, `$1800K`, or as it shall be."""
    form = draw.weighted((("millions", 0.4), ("dollars", 0.4), ("clean", 0.2)))
    if form == "millions":
        return f"{thousands // 1000}.{thousands % 1000:03d} M"
    return f"${thousands}K" if form == "dollars" else str(thousands)


def _with_asides(draw: Draw, lines: list[str], width: int, messes: set[str]) -> list[str]:
    """The lines with what must go put between them; a copy stands somewhere below its row."""
    found = list(lines)
    for mess in _BESIDE:  # a set has no order of its own
        if mess not in messes:
            continue
        for _ in range(draw.integer(1, 2)):
            place = draw.integer(1, len(found))
            if mess == "blank":
                found.insert(place, draw.choice(("", "," * (width - 1))))
            elif mess == "note":
                found.insert(place, draw.choice(_ASIDES))
            elif mess == "separator":
                found.insert(place, draw.choice(_SEPARATORS))
            else:
                line = draw.choice(lines)
                found.insert(draw.integer(found.index(line) + 1, len(found)), line)
    return found
