"""Probes: questions a document holds out, answered by every version.

An answer is compared with the document's reference as text; the judgement of meaning belongs to graders and people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlm.model import Policy

__all__ = ["ProbeAnswer", "Question", "answer_all"]

LEAST_ANSWER = 256  # tokens an answer may always have
ROOM_BEYOND_REFERENCE = 32


@dataclass(frozen=True)
class Question:
    """A question with the answer its author wrote."""

    prompt: str
    reference: str


@dataclass(frozen=True)
class ProbeAnswer:
    """A greedy answer to one question. `exact` compares with the reference, outer white space aside."""

    prompt: str
    reference: str
    answer: str
    exact: bool
    finish_reason: str


def answer_all(
    policy: Policy, questions: Sequence[Question], *, max_new_tokens: int | None = None
) -> list[ProbeAnswer]:
    """Answer every question under greedy decoding, in order.

    Unless `max_new_tokens` is given, an answer may have 256 tokens, or as many as the longest reference and some more.
    """
    if not questions:
        return []
    from dlm.model import Settings, sample  # torch: a gate's verdict needs none

    if max_new_tokens is None:
        longest = max(len(policy.chat.completion_ids(question.reference)) for question in questions)
        max_new_tokens = max(LEAST_ANSWER, longest + ROOM_BEYOND_REFERENCE)
    prompts = [policy.chat.prompt_ids(question.prompt) for question in questions]
    settings = Settings(temperature=0.0, max_new_tokens=max_new_tokens)
    samples = sample(policy, prompts, settings, seeds=[0] * len(prompts))
    return [
        ProbeAnswer(
            question.prompt,
            question.reference,
            answer.text,
            answer.text.strip() == question.reference.strip(),
            answer.finish_reason,
        )
        for question, answer in zip(questions, samples, strict=True)
    ]
