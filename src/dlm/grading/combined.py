"""Several graders with weights, as one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dlm.grading.grader import Dimension, Grade, GradeItem, Grader, graded, not_graded
from dlm.grading.spec import GraderSpec

__all__ = ["CombinedGrader"]

_PASS = 0.8


class CombinedGrader:
    """`0.7*A + 0.3*B`: the weighted mean of the parts' scores, under the parts' hard-fail caps.

    Each part is a dimension under its own spec (`spreadsheet:strict`), with its weight; the parts' own dimensions stand
    beside it as `spreadsheet:strict/data_preservation` with weight 0: reported, not counted twice. An answer that one part
    fails on has no grade.

    What is a hard fail to one part is one to the whole, and no other part makes up for it: an answer that a part cannot
    parse scores 0 as a sample parse error, one whose score a part caps scores no more than it does there, and what a part
    never lets pass never passes. Otherwise an answer passes from the threshold on.
    """

    def __init__(
        self, spec: GraderSpec, graders: Sequence[Grader], pass_threshold: float | None = None
    ) -> None:
        self.name = spec.text
        self.pass_threshold = _PASS if pass_threshold is None else pass_threshold
        self._graders = tuple(graders)
        self._weights = [part.weight for part in spec.parts]
        own = [
            Dimension(f"{grader.name}/{part.name}", 0.0) for grader in graders for part in grader.dimensions
        ]
        parts = [
            Dimension(grader.name, weight) for grader, weight in zip(graders, self._weights, strict=True)
        ]
        self.dimensions = (*parts, *own)

    def grade(self, items: Sequence[GradeItem]) -> list[Grade]:
        """See `Grader.grade`."""
        by_part = [grader.grade(items) for grader in self._graders]
        return [
            self._join(item, found) for item, found in zip(items, zip(*by_part, strict=True), strict=True)
        ]

    def close(self) -> None:
        """End what the parts have started."""
        for grader in self._graders:
            grader.close()

    def _join(self, item: GradeItem, found: Sequence[Grade]) -> Grade:
        for grader, grade in zip(self._graders, found, strict=True):
            if not grade.scored:
                return not_graded(item, f"{grader.name}: {grade.message}")
        values: dict[str, float] = {}
        for grader, grade in zip(self._graders, found, strict=True):
            values[grader.name] = grade.score
            for name, value in grade.dimensions.items():
                values[f"{grader.name}/{name}"] = value
        mean = math.fsum(grade.score * weight for grade, weight in zip(found, self._weights, strict=True))
        mean /= math.fsum(self._weights)
        caps = [grade.score for grade in found if grade.capped]
        return graded(
            item,
            min([mean, *caps]),
            values,
            threshold=self.pass_threshold,
            flags=[flag for grade in found for flag in grade.flags],
            error="sample_parse" if any(grade.error for grade in found) else None,
            never_passes=any(grade.barred or grade.capped for grade in found),
            capped=bool(caps),
            message="; ".join(grade.message for grade in found if grade.message),
        )
