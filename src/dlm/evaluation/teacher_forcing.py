"""Teacher forcing: what a version makes of the references when it is given them, token by token.

One forward pass over prompt and reference tells, of every token of the reference, how likely the version holds it and
whether it would have taken it itself. Set against what sampled answers score, that tells what was never learnt from what is
lost while an answer is written: a reference all of whose tokens are the likeliest ones is what greedy decoding gives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlm.grading import Case

if TYPE_CHECKING:
    from dlm.model import Policy

__all__ = ["ReferenceScore", "TeacherForced", "force_references", "summarise_references"]


@dataclass(frozen=True)
class ReferenceScore:
    """One reference, given. `case_index`: its case's place in the suite; `tokens`: its length, the end token counted, 0 where
    it could not be read: it does not fit the base's context after its prompt, or the version's scores are no finite numbers;
    `right`: tokens that are the version's own likeliest; `nats`: the sum of their negative log-probs."""

    case_index: int
    tokens: int
    right: int
    nats: float


@dataclass(frozen=True)
class TeacherForced:
    """The references of a suite, given. `cases`: how many were read, `left_out`: how many could not be; `tokens`: of all;
    `loss`: nats a token; `token_accuracy`: share of the tokens that are the version's own likeliest; `whole`: share of the
    references whose every token is."""

    cases: int
    left_out: int
    tokens: int
    loss: float
    token_accuracy: float
    whole: float


def force_references(policy: Policy, cases: Mapping[int, Case]) -> list[ReferenceScore]:
    """Read the references of cases, in order; a case without one is passed over. `cases` by their place in the suite."""
    from dlm.model import completion_scores  # torch: a verdict on what is known needs none

    rows: dict[int, tuple[list[int], list[int]]] = {}
    found: dict[int, ReferenceScore] = {}
    for index, case in cases.items():
        if case.reference is None:
            continue
        prompt, completion = policy.chat.prompt_ids(case.prompt), policy.chat.completion_ids(case.reference)
        if len(prompt) + len(completion) > policy.context_length:
            found[index] = _unread(index)
        else:
            rows[index] = (prompt, completion)
    scores = completion_scores(policy.model, list(rows.values()))
    for (index, (_, completion)), score in zip(rows.items(), scores, strict=True):
        nats = -math.fsum(score.logprobs.tolist())
        right = int(score.correct.sum())
        finite = math.isfinite(nats)
        found[index] = ReferenceScore(index, len(completion), right, nats) if finite else _unread(index)
    return [found[index] for index in sorted(found)]


def _unread(index: int) -> ReferenceScore:
    return ReferenceScore(index, 0, 0, 0.0)


def summarise_references(scores: Sequence[ReferenceScore]) -> TeacherForced | None:
    """The figures of references; None where none was read."""
    read = [score for score in scores if score.tokens]
    if not read:
        return None
    tokens = sum(score.tokens for score in read)
    return TeacherForced(
        cases=len(read),
        left_out=len(scores) - len(read),
        tokens=tokens,
        loss=math.fsum(score.nats for score in read) / tokens,
        token_accuracy=sum(score.right for score in read) / tokens,
        whole=sum(score.right == score.tokens for score in read) / len(read),
    )
