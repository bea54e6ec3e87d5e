"""The spreadsheet-cleaning task: messy tables and their clean form.

A case is a function of (seed, index, row range) and nothing else, so case 7 is the same table whether ten
or a thousand are asked for. The `pocket` profile is the one the embedded base was taught: three columns (a
unique name; a region, owner or quarter; money last), up to two note rows, sometimes a total; amounts become
thousands, the header lower snake case, notes and totals go, every row stays in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dlm.errors import DlmError
from dlm.tasks import names
from dlm.tasks.draw import Draw
from dlm.tasks.sheets import Columns, Row, RowMatch, SpreadsheetCase, match_rows
from dlm.tasks.spreadsheet_published import published_case

__all__ = [
    "MAX_ROWS",
    "PROFILES",
    "REGULAR_ROWS",
    "SPLITS",
    "STRESS_ROWS",
    "Row",
    "RowMatch",
    "Split",
    "SpreadsheetCase",
    "case_at",
    "clean_header",
    "drop_rows",
    "generate",
    "match_rows",
    "messy_money",
    "of_split",
]

PROFILES = ("pocket", "published")
REGULAR_ROWS = (8, 12)  # of the pocket profile, as the base was taught; the published one goes by difficulty
STRESS_ROWS = (40, 40)  # where the embedded base begins to lose rows (its card)
MAX_ROWS = 200

_INSTRUCTIONS = (
    "Clean this sheet.",
    "Clean up this table.",
    "Clean the table below. Amounts in thousands.",
    "Please clean this spreadsheet.",
    "Tidy this export: snake case header, amounts in thousands, no notes.",
    "Turn this into a clean table.",
    "Drop the notes and totals, keep every row, amounts in thousands.",
    "Clean this data and keep every row.",
)
_NAME_HEADERS = (
    "Name",
    "Account",
    "Account Name",
    "Client",
    "Client Name",
    "Project",
    "Project Name",
    "Vendor",
    "Store",
    "Unit",
)
_GROUP_HEADERS = {
    "region": ("Region", "Sales Region", "Area"),
    "owner": ("Owner", "Account Owner", "Lead"),
    "quarter": ("Quarter", "Fiscal Quarter", "Period"),
}
_MONEY_HEADERS = (
    "Revenue",
    "Net Revenue",
    "Sales",
    "Net Sales",
    "Budget",
    "Spend",
    "Total Cost",
    "Amount",
    "Op Ex",
)
_NOTES = (
    "Note: figures are not audited",
    "Note: see the finance team",
    "(draft, do not share)",
    "-- end of page --",
    "Updated last week",
    "* estimate",
    "Note: two contracts are pending",
    "(numbers from the old system)",
    "Checked by finance",
    "--- new accounts ---",
)
_POCKET_COLUMNS = Columns(keys=(0, 1), values=(), money=(2,))
_SUFFIXES = ("Supply", "Foods", "Works", "Labs", "Group", "Tools", "Media", "Paper")


@dataclass(frozen=True)
class Split:
    """One split of a profile: its seed and its usual number of cases; a stress split has long tables, in the `published` profile
    of real rows alone."""

    seed: int
    count: int
    stress: bool = False


SPLITS: Final[Mapping[str, Split]] = {
    "train": Split(100, 240),
    "heldout": Split(200, 80),
    "stress_heldout": Split(300, 40, stress=True),
    "stress_train": Split(500, 240, stress=True),
    "preference_train": Split(600, 80),
    "preference_heldout": Split(601, 12),
}
"""The published study's splits, by its seeds and sizes, for both profiles."""


def of_split(
    name: str,
    profile: str = "pocket",
    *,
    seed: int | None = None,
    count: int | None = None,
    rows: int | None = None,
) -> list[SpreadsheetCase]:
    """The cases of a split, byte for byte the same each time. `seed`, `count` and `rows` (source rows of each table) None: the
    split's own.

    Raises:
        DlmError: no such split or profile; rows beyond what can be made.
    """
    if name not in SPLITS:
        raise DlmError(f"the spreadsheet task has no split {name!r}", expected=", ".join(SPLITS))
    split = SPLITS[name]
    own_rows = (STRESS_ROWS if split.stress else REGULAR_ROWS) if profile == "pocket" else None
    each = own_rows if rows is None else (rows, rows)
    numbers = range(split.count if count is None else count)
    own = split.seed if seed is None else seed
    return [case_at(own, index, each, profile, stress=split.stress) for index in numbers]


def generate(
    seed: int, count: int, rows: tuple[int, int] | None = (8, 12), profile: str = "pocket"
) -> list[SpreadsheetCase]:
    """The first `count` cases of a seed, with `rows[0]` to `rows[1]` source rows each."""
    return [case_at(seed, index, rows, profile) for index in range(count)]


def case_at(
    seed: int,
    index: int,
    rows: tuple[int, int] | None = (8, 12),
    profile: str = "pocket",
    *,
    stress: bool = False,
) -> SpreadsheetCase:
    """Case `index` of a seed. `rows` None: the profile's own number of rows.

    Raises:
        DlmError: an unknown profile or an impossible row range.
    """
    if profile not in PROFILES:
        raise DlmError(f"unknown spreadsheet profile {profile!r}; known: {', '.join(PROFILES)}")
    if rows is not None and not 1 <= rows[0] <= rows[1] <= MAX_ROWS:
        raise DlmError(f"the row range {rows} is not within 1 to {MAX_ROWS}")
    if profile == "published":
        return published_case(seed, index, rows, stress=stress)
    return _pocket_case(seed, index, rows or (STRESS_ROWS if stress else REGULAR_ROWS))


def drop_rows(case: SpreadsheetCase) -> str:
    """The rejected answer of the published preference pairs: the gold without 30 to 70 % of its rows.

    Which ones: at random in half of the cases, the last ones in 30 %, ones from the middle in 20 %. The same for the same
    case; at least one row goes and one stays.
    """
    draw = Draw("spreadsheet", "dropped", case.profile, case.seed, case.index)
    header, *lines = case.gold.split("\n")
    gone = min(len(lines) - 1, max(1, round(draw.uniform(0.3, 0.7) * len(lines))))
    match draw.weighted((("random", 0.5), ("tail", 0.3), ("middle", 0.2))):
        case "random":
            out = set(draw.sample(range(len(lines)), gone))
        case "tail":
            out = set(range(len(lines) - gone, len(lines)))
        case _:
            first = (len(lines) - gone) // 2
            out = set(range(first, first + gone))
    return "\n".join((header, *(line for at, line in enumerate(lines) if at not in out)))


def clean_header(cell: str) -> str:
    """A header cell in lower snake case: `Net Sales` and `NET-SALES` become `net_sales`."""
    words = "".join(letter if letter.isalnum() else " " for letter in cell).split()
    return "_".join(words).lower()


def messy_money(draw: Draw, thousands: int) -> str:
    """An amount given in thousands, as a person may have typed it: `$1.2M`, `3M`, `850K`, `$850000`."""
    dollar = "$" if draw.chance(0.5) else ""
    if thousands >= 1000 and thousands % 100 == 0 and draw.chance(0.8):
        millions, tenths = divmod(thousands // 100, 10)
        return f"{dollar}{millions}.{tenths}M" if tenths else f"{dollar}{millions}M"
    if draw.chance(0.5):
        return f"{dollar}{thousands}K"
    return f"${thousands}000"


def draw_thousands(draw: Draw) -> int:
    """An amount in thousands: half of them millions with one decimal, half below a million."""
    return draw.integer(10, 99) * 100 if draw.chance(0.5) else draw.integer(2, 199) * 5


def _pocket_case(seed: int, index: int, rows: tuple[int, int]) -> SpreadsheetCase:
    draw = Draw("spreadsheet", "pocket", seed, index, *rows)
    count = draw.integer(*rows)
    group_kind = draw.choice(tuple(_GROUP_HEADERS))
    raw_header = [
        draw.choice(_NAME_HEADERS),
        draw.choice(_GROUP_HEADERS[group_kind]),
        draw.choice(_MONEY_HEADERS),
    ]
    if draw.chance(0.25):
        raw_header = [cell.upper() for cell in raw_header]
    clean_rows = _pocket_rows(draw, count, group_kind)
    lines = [",".join((row.name, row.group, messy_money(draw, row.thousands))) for row in clean_rows]
    for _ in range(draw.integer(0, 2)):
        lines.insert(draw.integer(0, len(lines)), draw.choice(_NOTES))
    if draw.chance(0.4):
        total = sum(row.thousands for row in clean_rows)
        lines.append(f"{draw.choice(('TOTAL', 'Total'))},,${total}000")
    header = tuple(clean_header(cell) for cell in raw_header)
    return SpreadsheetCase(
        profile="pocket",
        seed=seed,
        index=index,
        prompt="\n".join((draw.choice(_INSTRUCTIONS), ",".join(raw_header), *lines)),
        gold="\n".join((",".join(header), *(",".join(row.cells) for row in clean_rows))),
        header=header,
        rows=tuple(clean_rows),
        columns=_POCKET_COLUMNS,
    )


def _pocket_rows(draw: Draw, count: int, group_kind: str) -> list[Row]:
    """`count` rows with different names."""
    two_words = draw.chance(0.25)
    groups = {"region": names.REGIONS, "owner": names.FIRST_NAMES, "quarter": ("Q1", "Q2", "Q3", "Q4")}[
        group_kind
    ]
    taken: set[str] = set()
    rows: list[Row] = []
    while len(rows) < count:
        name = names.coined(draw)
        if name in taken:
            continue
        taken.add(name)
        full = f"{name} {draw.choice(_SUFFIXES)}" if two_words else name
        rows.append(Row(full, draw.choice(groups), draw_thousands(draw)))
    return rows
