"""What the two spreadsheet graders share: a case's gold table, an answer that is no table, and nothing to close."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final

from dlm.grading.grader import Dimension, Grade, GradeItem, graded, not_graded
from dlm.grading.tables import GoldTable, gold_of

__all__ = ["NOT_PARSEABLE", "RH_LIKE", "SpreadsheetGrader"]

NOT_PARSEABLE: Final = "csv_not_parseable"
RH_LIKE: Final = "rh_like"


class SpreadsheetGrader(ABC):
    """A grader of tables; `name`, `dimensions` and what is `unreadable` are its mode's."""

    name: ClassVar[str]
    dimensions: ClassVar[tuple[Dimension, ...]]
    unreadable: ClassVar[str]

    def __init__(self, pass_threshold: float | None = None) -> None:
        self.pass_threshold = 0.8 if pass_threshold is None else pass_threshold

    def grade(self, items: Sequence[GradeItem]) -> list[Grade]:
        """See `Grader.grade`. An output that holds no table is a sample parse error and scores 0."""
        return [self._one(item) for item in items]

    def close(self) -> None:  # noqa: B027  of the protocol; not for a mode to fill in
        """Nothing runs."""

    def _one(self, item: GradeItem) -> Grade:
        gold = gold_of(item)
        if isinstance(gold, str):
            return not_graded(item, gold)
        return self._measure(item, gold) or graded(
            item,
            0.0,
            {dimension.name: 0.0 for dimension in self.dimensions},
            threshold=self.pass_threshold,
            flags=[NOT_PARSEABLE],
            error="sample_parse",
            message=self.unreadable,
        )

    @abstractmethod
    def _measure(self, item: GradeItem, gold: GoldTable) -> Grade | None:
        """The grade of a table; None where the output holds none."""
