"""`sway`, the default judge: the version's own taste, made to prefer answers that belong to their question.

Notation: x the prompt, y an answer of n tokens with its end, θ the version, X up to three other questions of the document.

    s(x, y) = [ log p_θ(y | x) − λ · mean over x' in X of log p_θ(y | x') ] / n        λ = ¼
    score   = s(x, y) − mean of s over the document's own good answers (its anchors)

The mean log-probability alone rewards the likeliest text, and with it whatever can be said to any question: openings,
hedges, padding. What an answer would cost under other questions is that part, and a quarter of it is taken away (the
contrast of arXiv 1510.03055, eq. 9, there with an unconditional p(y)). Zero is what the document's own answers score; the
unit is nats per token. A document with one question has no others: an empty one stands in for them.

`bench/judges.py` measures this and what else was tried on the embedded base, whose right answers are known; the table is
in `docs/reward-model-integration.md`. The contrast against the base (the implicit reward of arXiv 2305.18290, per token) was the
first idea: it tells how far training moved, not which answer is right, and orders sampled answers no better than a coin.

It is weak where the version is: it cannot tell a plausible wrong fact from a right one that the version does not know, it
has no taste that neither the document nor the base has, and training on its pairs again and again sharpens what the
version prefers already. Watch held-out questions, not its scores.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from statistics import fmean

from dlm.errors import UsageError
from dlm.judging.judge import Anchor, Item, JudgeContext, Verdict, unreadable
from dlm.model import Policy, completion_logprobs

__all__ = ["ContrastJudge", "contrast"]

FOREIGN_SHARE = 0.25  # λ
FOREIGN_QUESTIONS = 3  # of X
_AT_ONCE = 16  # answers scored before their verdicts are handed on
_MOST_ANCHORS = 64


def contrast(own: float, foreign: Sequence[float], tokens: int) -> float:
    """s(x, y): nats per token.

    Args:
        own: log p(y | x), the sum over tokens.
        foreign: log p(y | x') for each other question; at least one.
        tokens: n.
    """
    return (own - FOREIGN_SHARE * fmean(foreign)) / tokens


class ContrastJudge:
    """`sway`; see the module."""

    name = "sway"
    default_threshold = 0.1
    scale = "nats per token against the document's own answers, at 0; negative is worse"

    def __init__(self, policy: Policy, anchors: Sequence[Anchor]) -> None:
        self._policy = policy
        self._questions = sorted({anchor.prompt for anchor in anchors})
        known = [_Scored(Item(anchor.prompt, anchor.answer)) for anchor in _fixed_sample(anchors)]
        self._score_all(known)
        values = [one.value for one in known if one.value is not None]
        self._zero = fmean(values) if values else 0.0

    @classmethod
    def of(cls, context: JudgeContext) -> ContrastJudge:
        """The judge of the version that the context holds.

        Raises:
            UsageError: it holds none.
        """
        if context.policy is None:
            raise UsageError(
                "the judge sway is a version's own, and none is loaded", next_step="dlm train DOCUMENT"
            )
        return cls(context.policy, context.anchors)

    def score(self, items: Sequence[Item]) -> Iterator[Verdict]:
        """See `Judge.score`. Asked once: the same answer would get the same score."""
        for start in range(0, len(items), _AT_ONCE):
            begun = time.monotonic()
            batch = [_Scored(item) for item in items[start : start + _AT_ONCE]]
            self._score_all(batch)
            seconds = (time.monotonic() - begun) / len(batch)
            yield from (one.verdict(self._zero, seconds) for one in batch)

    def close(self) -> None:
        """Nothing runs between two answers."""

    def _score_all(self, batch: Sequence[_Scored]) -> None:
        """Fill in values and errors."""
        rows: list[tuple[list[int], Sequence[int]]] = []
        readable: list[tuple[_Scored, int]] = []  # with the number of its rows
        for one in batch:
            one.error = unreadable(one.item)
            if one.error:
                continue
            one.tokens = one.item.token_ids or self._policy.chat.completion_ids(one.item.candidate)
            prompts = self._prompts(one.item, len(one.tokens))
            if not prompts:
                one.error = "the question with its answer is longer than the base can read"
                continue
            rows += [(prompt, one.tokens) for prompt in prompts]
            readable.append((one, len(prompts)))
        sums = iter([float(tokens.sum()) for tokens in completion_logprobs(self._policy.model, rows)])
        for one, count in readable:
            own, *foreign = (next(sums) for _ in range(count))
            one.value = contrast(own, foreign, len(one.tokens))

    def _prompts(self, item: Item, tokens: int) -> list[list[int]]:
        """The question's own prompt and those of others, as far as they fit; none when its own does not."""
        chat, room = self._policy.chat, self._policy.context_length - tokens
        own = chat.prompt_ids(item.prompt)
        if len(own) > room:
            return []
        # by a hash with the question: the same ones whatever is judged beside it, and other ones for other questions
        others = sorted(
            (question for question in self._questions if question != item.prompt),
            key=lambda question: sha256(f"{item.prompt}\0{question}".encode()).digest(),
        )
        foreign: list[list[int]] = []
        for question in others:
            prompt = chat.prompt_ids(question)
            if len(prompt) <= room:
                foreign.append(prompt)
            if len(foreign) == FOREIGN_QUESTIONS:
                break
        return [own, *(foreign or [chat.prompt_ids("")])]


class _Scored:
    """An answer on its way to a verdict."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.tokens: Sequence[int] = ()
        self.value: float | None = None
        self.error = ""

    def verdict(self, zero: float, seconds: float) -> Verdict:
        if self.value is None:
            return Verdict(None, error=self.error, seconds=seconds)
        score = self.value - zero
        if not math.isfinite(score):
            error = f"the version's log-probability of this answer is {self.value}"
            return Verdict(None, error=error, seconds=seconds, failures=("non_finite",))
        return Verdict(score, seconds=seconds)


def _fixed_sample(anchors: Sequence[Anchor]) -> list[Anchor]:
    """All anchors, or as many as a fixed draw allows, whatever their order in the document."""
    different = sorted(
        set(anchors), key=lambda anchor: sha256(f"{anchor.prompt}\0{anchor.answer}".encode()).digest()
    )
    return different[:_MOST_ANCHORS]
