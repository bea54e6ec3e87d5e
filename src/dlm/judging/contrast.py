"""`sway`, the default judge: what version and base find likely, made to prefer answers that belong to their question.

Notation: x the prompt, y an answer of n tokens with its end, p_v the version, p_b its base, X up to three other questions
of the document.

    s(x, y) = [ ½ log p_v(y | x) + ½ log p_b(y | x) − λ · mean over x' in X of log p_v(y | x') ] / n        λ = 0.2
    score   = s(x, y) − mean of s over the document's own good answers (its anchors)

The mean log-probability alone rewards the likeliest text, and with it whatever can be said to any question: openings,
hedges, padding. What an answer would cost after other questions is that part, and a fifth of it is taken away (the
contrast of arXiv 1510.03055, eq. 9, there with an unconditional p(y)). The base has a say because a version that has
learnt forty answers by heart is sure of its mistakes too, and the base is not. Zero is what the document's own answers
score; the unit is nats per token. A document with one question has no others: an empty one stands in for them.

`bench/judges.py` measures this and what else was tried on the embedded base, whose right answers are known; the table is
in `docs/reward-model-integration.md`. The log-probability against the base (the implicit reward of arXiv 2305.18290, also
per token) was the first idea: it tells how far training moved, not which answer is right.

It is weak where its models are: it cannot tell a plausible wrong fact from a right one that neither knows; it prefers the
briefer of two right answers by itself, whatever the document does; and training on its pairs again and again sharpens what
the version prefers already. Watch held-out questions, not its scores.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from statistics import fmean
from typing import Any

from peft import PeftModel

from dlm.errors import UsageError
from dlm.judging.judge import Anchor, Item, JudgeContext, Verdict, unreadable
from dlm.model import Policy, completion_logprobs

__all__ = ["ContrastJudge", "contrast"]

BASE_SHARE = 0.5
FOREIGN_SHARE = 0.2  # λ
FOREIGN_QUESTIONS = 3  # of X
_AT_ONCE = 16  # answers scored before their verdicts are handed on
_MOST_ANCHORS = 64


def contrast(own: float, base: float, foreign: Sequence[float], tokens: int) -> float:
    """s(x, y): nats per token.

    Args:
        own: log p_v(y | x), the sum over tokens.
        base: log p_b(y | x).
        foreign: log p_v(y | x') for each other question; at least one.
        tokens: n.
    """
    return ((1 - BASE_SHARE) * own + BASE_SHARE * base - FOREIGN_SHARE * fmean(foreign)) / tokens


class ContrastJudge:
    """`sway`; see the module."""

    name = "sway"
    # Of best and worst sampled answers of which one alone is right it keeps 42 of 43, of the others 63 of 117
    # (bench/judges.py, all seeds).
    default_threshold = 0.3
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
        readable: list[tuple[_Scored, list[list[int]]]] = []  # with its prompts, its own first
        for one in batch:
            one.error = unreadable(one.item)
            if one.error:
                continue
            one.tokens = one.item.token_ids or self._policy.chat.completion_ids(one.item.candidate)
            prompts = self._prompts(one.item, len(one.tokens))
            if not prompts:
                one.error = "the question with its answer is longer than the base can read"
                continue
            readable.append((one, prompts))
        by_version = iter(self._sums([(p, one.tokens) for one, prompts in readable for p in prompts]))
        own_rows = [(prompts[0], one.tokens) for one, prompts in readable]
        with self._base():
            by_base = self._sums(own_rows)
        for (one, prompts), base in zip(readable, by_base, strict=True):
            own, *foreign = (next(by_version) for _ in prompts)
            one.value = contrast(own, base, foreign, len(one.tokens))

    def _sums(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
        return [float(tokens.sum()) for tokens in completion_logprobs(self._policy.model, rows)]

    def _base(self) -> AbstractContextManager[Any]:
        """Within it the model is the base; where there is no adapter it is that anyway."""
        model = self._policy.model
        return model.disable_adapter() if isinstance(model, PeftModel) else nullcontext()

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
