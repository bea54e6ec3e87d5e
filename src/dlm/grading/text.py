"""Graders of plain text: a string check, a similarity, a length. Each has one dimension, named after itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rapidfuzz import fuzz
from rapidfuzz.distance import JaroWinkler, Levenshtein

from dlm.grading.grader import Dimension, Grade, GradeItem, graded, not_graded

__all__ = ["LengthGrader", "StringCheck", "TextSimilarity"]


class _OneDimension:
    """What the three share: one dimension, and nothing to close."""

    def __init__(self, name: str, dimension: str, pass_threshold: float) -> None:
        self.name = name
        self.dimensions = (Dimension(dimension, 1.0),)
        self.pass_threshold = pass_threshold

    def _grade(self, item: GradeItem, score: float, message: str = "") -> Grade:
        values = {self.dimensions[0].name: min(1.0, max(0.0, score))}
        return graded(item, score, values, threshold=self.pass_threshold, message=message)

    def close(self) -> None:
        """Nothing runs."""


def _no_reference(item: GradeItem) -> Grade:
    return not_graded(item, "the case has no reference answer to compare with")


_CHECKS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "eq": lambda output, reference: output == reference,
    "ne": lambda output, reference: output != reference,
    "like": lambda output, reference: reference in output,
    "ilike": lambda output, reference: reference.casefold() in output.casefold(),
}


class StringCheck(_OneDimension):
    """`string_check:OPERATION`: 1 or 0. `eq` and `ne` compare the whole answer, `like` and `ilike` look for the reference
    in it, `ilike` whatever the case. Outer white space of both does not count."""

    def __init__(self, operation: str, pass_threshold: float | None = None) -> None:
        super().__init__(f"string_check:{operation}", "string_check", _or(pass_threshold, 1.0))
        self._check = _CHECKS[operation]

    def grade(self, items: Sequence[GradeItem]) -> list[Grade]:
        """See `Grader.grade`. A case without a reference is a grader error."""
        return [
            self._grade(item, float(self._check(item.output.strip(), item.reference.strip())))
            if item.reference is not None
            else _no_reference(item)
            for item in items
        ]


_METRICS: Final[Mapping[str, Callable[[str, str], float]]] = {
    "fuzzy_match": lambda output, reference: fuzz.ratio(output, reference) / 100,
    "levenshtein": Levenshtein.normalized_similarity,
    "jaro_winkler": JaroWinkler.similarity,
    "token_sort": lambda output, reference: fuzz.token_sort_ratio(output, reference) / 100,
    "token_set": lambda output, reference: fuzz.token_set_ratio(output, reference) / 100,
}


class TextSimilarity(_OneDimension):
    """`text_similarity:METRIC`: how alike the answer and the reference are, 0–1, by rapidfuzz; outer white space aside.

    `fuzzy_match` is the normalised indel similarity (`fuzz.ratio`), `levenshtein` counts substitutions as one edit,
    `jaro_winkler` favours a common beginning, `token_sort` and `token_set` compare words whatever their order.
    """

    def __init__(self, metric: str, pass_threshold: float | None = None) -> None:
        super().__init__(f"text_similarity:{metric}", "text_similarity", _or(pass_threshold, 0.8))
        self._similarity = _METRICS[metric]

    def grade(self, items: Sequence[GradeItem]) -> list[Grade]:
        """See `Grader.grade`. A case without a reference is a grader error."""
        return [
            self._grade(item, self._similarity(item.output.strip(), item.reference.strip()))
            if item.reference is not None
            else _no_reference(item)
            for item in items
        ]


_UNITS: Final[Mapping[str, Callable[[str], int]]] = {
    "words": lambda text: len(text.split()),
    "characters": len,
    "lines": lambda text: len(text.splitlines()),
}


class LengthGrader(_OneDimension):
    """`length:LOW-HIGH UNIT`: 1 within the range; outside, the ratio of the nearer end to the length, or its inverse.

    An answer twice as long as HIGH scores .5, one half as long as LOW scores .5; outer white space does not count.
    """

    def __init__(self, low: int, high: int, unit: str, pass_threshold: float | None = None) -> None:
        super().__init__(f"length:{low}-{high} {unit}", "length", _or(pass_threshold, 1.0))
        self._low, self._high, self._count, self._unit = low, high, _UNITS[unit], unit

    def grade(self, items: Sequence[GradeItem]) -> list[Grade]:
        """See `Grader.grade`."""
        return [self._one(item) for item in items]

    def _one(self, item: GradeItem) -> Grade:
        length = self._count(item.output.strip())
        if length < self._low:
            return self._grade(item, length / self._low, f"{length} {self._unit}, fewer than {self._low}")
        if length > self._high:
            return self._grade(item, self._high / length, f"{length} {self._unit}, more than {self._high}")
        return self._grade(item, 1.0)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
