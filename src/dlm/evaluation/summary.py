"""A suite's graded answers as figures: means with intervals, counts, and each case's own values for paired tests.

Every metric has one name, which the gate's conditions use too:

    score (or composite)    mean score
    <dimension>             mean of a dimension: data_preservation; of a combined grader also by its last part
    pass_rate               share of answers that pass
    tokens                  mean length of an answer
    <flag>                  how many answers carry a flag, for one answer a case: rh_like, truncated, csv_not_parseable
    hard_fail               how many answers fail hard, for one answer a case: not of the form the grader reads, or capped by it
    <flag>_share            the same as a share of the answers that have a score: hard_fail_share, truncated_share
    sample_parse, grader    how many answers had this error, for one answer a case
    prompt_too_long         how many cases could not be asked: the base has no room for an answer

Answers that the grader failed on and cases that could not be asked are in no mean; they are counted apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dlm.grading import HARD_FAIL
from dlm.stats import Estimate, cluster_mean
from dlm.store import TOO_LONG, EvalResult

__all__ = ["ALIASES", "COUNTED", "SHARE", "Summary", "plain_means", "summarise"]

COUNTED: Final = ("sample_parse", "grader", TOO_LONG)
SHARE: Final = "_share"
ALIASES: Final = {"composite": "score", "rh": "rh_like", "rh_count": "rh_like"}


@dataclass(frozen=True)
class Summary:
    """Figures of one run on one suite. `means` by metric with their 95 % intervals over cases, `counts` of flags and errors
    for one answer a case (with three repeats, a third of all); `scored`: answers that have a score; `per_case`: values of
    each mean by the case's key."""

    cases: int
    repeats: int
    answers: int
    scored: int
    means: Mapping[str, Estimate]
    counts: Mapping[str, float]
    per_case: Mapping[str, Mapping[str, Sequence[float]]]

    def metric_name(self, name: str) -> str | None:
        """The metric that a condition's name means; None when there is none.

        A count that never occurred is 0, so any flag's name is known as a count; the gate asks for means first.
        """
        name = ALIASES.get(name, name)
        if name in self.means or name in self.counts:
            return name
        if name.endswith(SHARE) and name.removesuffix(SHARE) in self.counts:
            return name
        ends = [known for known in self.means if known.rpartition("/")[2] == name]
        return ends[0] if len(ends) == 1 else None

    def value(self, name: str) -> float | None:
        """A metric's value; None when there is no such metric."""
        known = self.metric_name(name)
        if known is None:
            return None
        if known in self.means:
            return self.means[known].value
        if known in self.counts:
            return self.counts[known]
        return self.counts[known.removesuffix(SHARE)] * self.repeats / self.scored if self.scored else 0.0


def summarise(results: Sequence[EvalResult], flags: Sequence[str] = ()) -> Summary:
    """Figures of graded answers. `flags`: counted although none may have occurred.

    Raises:
        ValueError: no results.
    """
    if not results:
        raise ValueError("there are no answers to summarise")
    columns = _columns(results)
    per_case = {name: _by_case(values) for name, values in columns.items()}
    repeats = max(result.repeat for result in results) + 1
    seen = dict.fromkeys((*flags, *(flag for result in results for flag in result.flags)))
    counts = {flag: sum(flag in result.flags for result in results) / repeats for flag in seen}
    counts[HARD_FAIL] = (
        sum(HARD_FAIL in result.flags or result.error == "sample_parse" for result in results) / repeats
    )
    counts |= {error: sum(result.error == error for result in results) / repeats for error in COUNTED}
    return Summary(
        cases=len({result.case_key for result in results}),
        repeats=repeats,
        answers=len(results),
        scored=sum(result.scored for result in results),
        means={name: cluster_mean(list(groups.values())) for name, groups in per_case.items()},
        counts=counts,
        per_case=per_case,
    )


def plain_means(results: Sequence[EvalResult]) -> dict[str, float]:
    """The means alone, without the price of their intervals."""
    columns = _columns(results)
    return {name: math.fsum(value for _, value in values) / len(values) for name, values in columns.items()}


def _columns(results: Sequence[EvalResult]) -> dict[str, list[tuple[str, float]]]:
    """Each mean's values with the case they are of; a metric without values is left out."""
    scored = [result for result in results if result.scored]
    names = dict.fromkeys(name for result in scored for name in result.dimensions)
    columns = {
        "score": [(result.case_key, result.score) for result in scored],
        **{
            name: [
                (result.case_key, result.dimensions[name]) for result in scored if name in result.dimensions
            ]
            for name in names
        },
        "pass_rate": [(result.case_key, float(result.passed)) for result in scored],
        "tokens": [(result.case_key, float(result.n_tokens)) for result in results if result.answered],
    }
    return {name: values for name, values in columns.items() if values}


def _by_case(values: Sequence[tuple[str, float]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for key, value in values:
        found.setdefault(key, []).append(value)
    return found
