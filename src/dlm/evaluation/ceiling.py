"""The gold ceiling: what the references themselves score under a token budget.

An evaluation that lets an answer have 512 tokens cannot be passed by a table that needs 700, whatever is trained; nor can
one whose prompt leaves as few of the base's context. So the references are cut where either would cut them and graded like
any answer. A condition above its ceiling is out of
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
    def prompt_ids(self, prompt: str) -> list[int]: ...
    def completion_ids(self, answer: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Ceiling:
    """What references score within `budget` tokens and the base's context, of `cases` whose prompts leave room to answer.
    `reachable`: those whose reference fits; `beyond_context`: those whose reference the context has no room for, whatever
    the budget; `longest`: of all references, in tokens; `summary` has the metrics of a run's own."""

    budget: int
    cases: int
    reachable: int
    beyond_context: int
    longest: int
    summary: Summary

    @property
    def cut(self) -> str:
        """What cuts references, in words; "" where nothing does."""
        by_budget = self.cases - self.reachable - self.beyond_context
        parts = (
            f"{by_budget} of {self.cases} references need more than the {self.budget} tokens an answer may have (the longest "
            f"{self.longest})"
            if by_budget
            else "",
            f"{self.beyond_context} of {self.cases} references do not fit the base's context after their prompts"
            if self.beyond_context
            else "",
        )
        return "; ".join(part for part in parts if part)


def adequate_budget(suite: Suite, chat: _Tokenizes) -> int:
    """Tokens an answer may have where the suite does not say: see `budget_for`."""
    lengths = [len(chat.completion_ids(case.reference)) for case in suite.cases if case.reference is not None]
    return budget_for(max(lengths, default=None))


def budget_for(longest: int | None) -> int:
    """The longest reference (in tokens; None: there is none) and a quarter more."""
    return max(LEAST_BUDGET, round(_ROOM * (WITHOUT_REFERENCE if longest is None else longest)))


def gold_ceiling(
    suite: Suite,
    chat: _Tokenizes,
    budget: int,
    context_length: int,
    grade: Callable[[Sequence[GradeItem]], Sequence[Grade]],
) -> Ceiling | None:
    """Grade the references under a token budget, by a grader's `grade`; None where no case that can be asked has one.

    A reference of exactly `budget` tokens, the end token counted, fits: so does an answer of the sampler's. Prompt and answer
    together have `context_length` tokens; a case whose prompt leaves none is not asked, and is not among these.
    """
    cases, items, cuts, lengths = [], [], [], []
    longest = 0
    for case in suite.cases:
        if case.reference is None:
            continue
        ids = chat.completion_ids(case.reference)
        longest = max(longest, len(ids))
        room = context_length - len(chat.prompt_ids(case.prompt))
        if room < 1:
            continue
        most = min(budget, room)
        fits = len(ids) <= most
        text = case.reference if fits else chat.decode(ids[:most])
        cases.append(case)
        items.append(case.item(text, truncated=not fits))
        cuts.append("" if fits else "context" if len(ids) > room else "budget")
        lengths.append(min(len(ids), most))
    if not items:
        return None
    graded = zip(cases, items, grade(items), lengths, cuts, strict=True)
    results = [
        case_result(case, at, item.output, found, finish_reason="length" if cut else "stop", n_tokens=length)
        for at, (case, item, found, length, cut) in enumerate(graded)
    ]
    return Ceiling(budget, len(results), cuts.count(""), cuts.count("context"), longest, summarise(results))
