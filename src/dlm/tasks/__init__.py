"""Tasks with a checkable answer: cases by seed, gold answers, and the pure functions that check an answer.

No model is needed here. `spreadsheet` makes messy tables to clean, `sheets` matches an answer's rows strictly;
`style` makes questions whose answers differ in style and can be checked for substance.
"""

from dlm.tasks import spreadsheet, style
from dlm.tasks.sheets import RowMatch, SpreadsheetCase, match_rows
from dlm.tasks.style import StyleCase

__all__ = ["RowMatch", "SpreadsheetCase", "StyleCase", "match_rows", "spreadsheet", "style"]
