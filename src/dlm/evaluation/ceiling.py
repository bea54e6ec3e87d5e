"""The gold ceiling: what the references themselves score under a token budget.

An evaluation that lets an answer have 512 tokens cannot be passed by a table that needs 700, whatever is trained. So the
references are cut where the budget would cut them and graded like any answer. A condition above its ceiling is out of
every model's reach, and says nothing about one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dlm.evaluation.results import case_result
from dlm.evaluation.suite import Suite
from dlm.evaluation.summary import Summary, summarise
from dlm.grading import Grade, GradeItem

__all__ = ["Ceiling", "adequate_budget", "budget_for", "gold_ceiling"]

LEAST_BUDGET = 256
WITHOUT_REFERENCE = 256
_ROOM = 1.25  # an answer may be this much longer than the longest reference before it is cut


class _Tokenizes(Protocol):
    def completion_ids(self, answer: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Ceiling:
    """What references score within `budget` tokens. `reachable`: cases whose reference fits; `longest`: of all references,
    in tokens; `summary` has the metrics of a run's own."""

    budget: int
    cases: int
    reachable: int
    longest: int
    summary: Summary


def adequate_budget(suite: Suite, chat: _Tokenizes) -> int:
    """Tokens an answer may have where the suite does not say: see `budget_for`."""
    lengths = [len(chat.completion_ids(case.reference)) for case in suite.cases if case.reference is not None]
    return budget_for(max(lengths, default=None))


def budget_for(longest: int | None) -> int:
    """The longest reference (in tokens; None: there is none) and a quarter more."""
    return max(LEAST_BUDGET, round(_ROOM * (WITHOUT_REFERENCE if longest is None else longest)))


def gold_ceiling(
    suite: Suite, chat: _Tokenizes, budget: int, grade: Callable[[Sequence[GradeItem]], Sequence[Grade]]
) -> Ceiling | None:
    """Grade the references under a token budget, by a grader's `grade`; None where no case has one.

    A reference of exactly `budget` tokens, the end token counted, fits: so does an answer of the sampler's.
    """
    items, lengths, cut = [], [], []
    for case in suite.cases:
        if case.reference is None:
            continue
        ids = chat.completion_ids(case.reference)
        fits = len(ids) <= budget
        text = case.reference if fits else chat.decode(ids[:budget])
        items.append(case.item(text, truncated=not fits))
        lengths.append(len(ids))
        cut.append(not fits)
    if not items:
        return None
    cases = [case for case in suite.cases if case.reference is not None]
    graded = zip(cases, items, grade(items), lengths, cut, strict=True)
    results = [
        case_result(
            case,
            at,
            item.output,
            found,
            finish_reason="length" if short else "stop",
            n_tokens=min(length, budget),
        )
        for at, (case, item, found, length, short) in enumerate(graded)
    ]
    return Ceiling(budget, len(results), len(results) - sum(cut), max(lengths), summarise(results))
