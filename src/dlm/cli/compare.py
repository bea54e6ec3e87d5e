"""Two answers next to each other, the words that only one of them has set apart."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlm.cli.output import clean, is_terminal

if TYPE_CHECKING:
    from rich.text import Text

    from dlm.review import DiffPart

__all__ = ["compared"]

MOST = 8000  # characters of one answer on a terminal

_STYLES = {"chosen": "bold green", "rejected": "bold red", "both": ""}


def compared(chosen: tuple[str, str], rejected: tuple[str, str], parts: Sequence[DiffPart] | None) -> str:
    """Two (title, text) blocks and their differing words.

    On a terminal they stand side by side, in colour and bold. Elsewhere they stand under each other, whole, and a
    third block has the rejected answer turned into the chosen one: `[-only rejected-]{+only chosen+}`.
    """
    if is_terminal(sys.stdout):
        return _side_by_side(chosen, rejected, parts)
    blocks = [f"== {title}\n{clean(text)}" for title, text in (chosen, rejected)]
    if parts is not None:
        marks = {"both": ("", ""), "chosen": ("{+", "+}"), "rejected": ("[-", "-]")}
        joined = "".join(f"{marks[part.side][0]}{part.text}{marks[part.side][1]}" for part in parts)
        blocks.append(f"== difference\n{clean(joined)}")
    return "\n\n".join(blocks)


def _side_by_side(
    chosen: tuple[str, str], rejected: tuple[str, str], parts: Sequence[DiffPart] | None
) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False, header_style="bold", expand=True)
    for title, _ in (chosen, rejected):
        table.add_column(clean(title), ratio=1, overflow="fold")
    table.add_row(
        _styled(chosen[1], [part for part in parts or () if part.side != "rejected"]),
        _styled(rejected[1], [part for part in parts or () if part.side != "chosen"]),
    )
    console = Console(file=sys.stdout, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")


def _styled(text: str, parts: Sequence[DiffPart]) -> Text:
    """One answer's text, its own words set apart; where it is long, its beginning and how much more there is."""
    from rich.text import Text

    shown = Text()
    room = MOST
    for part_text, style in [(part.text, _STYLES[part.side]) for part in parts] or [(text, "")]:
        shown.append(clean(part_text[:room]), style)
        room -= min(room, len(part_text))
    if len(text) > MOST:
        shown.append(f"\n… {len(text) - MOST:,} more characters: --json has them all", "dim")
    return shown
