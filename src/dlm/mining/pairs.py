"""Pairs out of scored answers: of each question the best against the worst, where the judge is sure enough.

Pure: nothing is read or written. A pair is made of two answers to one question that differ by the threshold or more in
score, are not nearly the same text, and are not known already; the better one must be whole, since a text that was cut
off teaches to write on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isclose

from dlm.mining.questions import Question
from dlm.mining.similarity import TOO_SIMILAR, similarity
from dlm.store import Candidate, pair_key

__all__ = ["SKIP_REASONS", "Plan", "PlannedPair", "Rules", "Skip", "plan_pairs"]

SKIP_REASONS = (
    "malformed",
    "duplicate",
    "insufficient_variety",
    "too_similar",
    "below_threshold",
    "already_present",
    "judge_failed",
    "truncated",
)
"""Why a question has no pair, or a candidate is in none:

malformed             an answer that no document can hold: empty, or with a NUL or a lone surrogate
duplicate             an answer that another one of its question stands for
insufficient_variety  fewer than two different answers
too_similar           the answers far enough apart in score are nearly the same text
below_threshold       no two scores differ by the threshold
already_present       the pair, or its reverse, stands in the document, or was mined before, whatever became of it
judge_failed          the judge gave no score, so that fewer than two answers have one
truncated             only answers that were cut off score better than others, and they are never the chosen ones
"""


@dataclass(frozen=True)
class Rules:
    """What makes a pair.

    Attributes:
        threshold: least difference of the two scores.
        pairs_per_question: at most; each answer is in one pair at most.
        max_pairs: at most in all, those with the largest differences; None is all.
        allow_truncated: whether an answer that was cut off may be the chosen one.
    """

    threshold: float
    pairs_per_question: int = 1
    max_pairs: int | None = None
    allow_truncated: bool = False


@dataclass(frozen=True)
class PlannedPair:
    """Two candidates of one question, the better one first."""

    question: Question
    chosen: Candidate
    rejected: Candidate

    @property
    def margin(self) -> float:
        """The difference of their scores."""
        return _score(self.chosen) - _score(self.rejected)


@dataclass(frozen=True)
class Skip:
    """A question without a pair: the kind of reason, and the reason in words."""

    question: Question
    reason: str
    detail: str


@dataclass(frozen=True)
class Plan:
    """The pairs to stage, the largest margins first, and the questions without any.

    `over_limit` counts pairs that were good enough and fell to `max_pairs`.
    """

    pairs: tuple[PlannedPair, ...]
    skips: tuple[Skip, ...]
    over_limit: int


def plan_pairs(
    questions: Sequence[Question],
    candidates: Mapping[str, Sequence[Candidate]],
    rules: Rules,
    known: Collection[str] = (),
) -> Plan:
    """Choose the pairs of a batch.

    Args:
        questions: in the order in which equal margins are taken.
        candidates: by the question's key, all that were sampled.
        rules: see `Rules`.
        known: `pair_key`s that are not offered, in either direction.
    """
    pairs: list[PlannedPair] = []
    skips: list[Skip] = []
    for question in questions:
        found = _of_question(question, candidates.get(question.key, ()), rules, known)
        if isinstance(found, Skip):
            skips.append(found)
        else:
            pairs += found
    pairs.sort(key=lambda pair: -pair.margin)  # stable: equal margins in the questions' order
    kept = pairs if rules.max_pairs is None else pairs[: rules.max_pairs]
    return Plan(tuple(kept), tuple(skips), len(pairs) - len(kept))


def _of_question(
    question: Question, candidates: Sequence[Candidate], rules: Rules, known: Collection[str]
) -> list[PlannedPair] | Skip:
    scored = [candidate for candidate in candidates if candidate.skip is None and candidate.score is not None]
    if len(scored) < 2:
        return Skip(question, *_too_few(candidates, len(scored)))
    found: list[PlannedPair] = []
    used: set[int] = set()
    first_obstacle: tuple[str, str] | None = None
    for pair in _by_margin(question, scored):
        if used & {pair.chosen.id, pair.rejected.id}:
            continue
        obstacle = _obstacle(pair, rules, known)
        if obstacle is None:
            found.append(pair)
            used |= {pair.chosen.id, pair.rejected.id}
            if len(found) == rules.pairs_per_question:
                break
        else:
            first_obstacle = first_obstacle or obstacle
            if obstacle[0] == "below_threshold":
                break  # all that follow are closer still
    if found or first_obstacle is None:
        return found
    return Skip(question, *first_obstacle)


def _by_margin(question: Question, scored: Sequence[Candidate]) -> Iterator[PlannedPair]:
    """Every pair of answers, the better one first, the furthest apart first; ties by the order of the samples."""
    ordered = sorted(scored, key=lambda candidate: candidate.sample)
    pairs = [
        PlannedPair(question, *((a, b) if _score(a) >= _score(b) else (b, a)))
        for a, b in combinations(ordered, 2)
    ]
    return iter(sorted(pairs, key=lambda pair: -pair.margin))


def _obstacle(pair: PlannedPair, rules: Rules, known: Collection[str]) -> tuple[str, str] | None:
    """Why two answers make no pair: the reason and its words."""
    chosen, rejected, margin = pair.chosen, pair.rejected, pair.margin
    enough = margin >= rules.threshold or isclose(margin, rules.threshold)  # as written: .7 - .4 is .3
    if margin <= 0 or not enough:
        return "below_threshold", f"the scores differ by {margin:.3g} at most; {rules.threshold:g} are needed"
    if chosen.finish_reason != "stop" and not rules.allow_truncated:
        return "truncated", "the better answer was cut off"
    alike = similarity(chosen.text, rejected.text)
    if alike >= TOO_SIMILAR:
        return "too_similar", f"the best and the worst answer are nearly the same text ({alike:.2f})"
    prompt = pair.question.prompt
    if (
        pair_key(prompt, chosen.text, rejected.text) in known
        or pair_key(prompt, rejected.text, chosen.text) in known
    ):
        return "already_present", "the pair is in the document, or was mined before"
    return None


def _too_few(candidates: Sequence[Candidate], scored: int) -> tuple[str, str]:
    """Why fewer than two answers have a score: what is missing first counts."""
    failed = sum(candidate.skip is None and candidate.score is None for candidate in candidates)
    malformed = sum(candidate.skip == "malformed" for candidate in candidates)
    if scored + failed >= 2:
        return "judge_failed", f"the judge gave no score to {failed} of {scored + failed} answers"
    if malformed and malformed + failed + scored >= 2:
        return "malformed", f"{malformed} of {len(candidates)} answers cannot stand in a document"
    different = scored + failed
    answers = f"{different} different answer{'' if different == 1 else 's'}"
    return "insufficient_variety", f"{len(candidates)} samples, {answers}"


def _score(candidate: Candidate) -> float:
    if candidate.score is None:
        raise ValueError(f"candidate {candidate.id} has no score")
    return candidate.score
