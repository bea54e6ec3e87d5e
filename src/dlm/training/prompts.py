"""Prompts to sample answers to: what reinforcement fine-tuning reads, before and after the tokenizer.

A prompt comes with what its grader needs to know: a reference answer, and facts by name. Nothing is cut: a prompt that
leaves no room for an answer, stands there twice, or is one that answers are proven on (a probe, a held-out case) is left
out or refused, with its place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from dlm.errors import UsageError
from dlm.grading import GradeItem
from dlm.training.examples import hold_out

__all__ = [
    "EncodedPrompts",
    "Prompt",
    "PromptExample",
    "SkippedPrompt",
    "encode_prompts",
    "prompts_hash",
    "refuse_proving_prompts",
    "split_prompts",
]

_NAMED: Final = 5  # places that fit a message


@dataclass(frozen=True)
class Prompt:
    """One prompt, with what a grader may know of its right answer. `origin` is the file or suite, `line` the place in it
    (1-based)."""

    text: str
    origin: str
    line: int
    reference: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """64 hex digits that depend on the prompt and what is known of its answer, wherever it stands."""
        content = json.dumps(
            ["prompt", self.text, self.reference, self.facts], ensure_ascii=True, sort_keys=True
        )
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def place(self) -> str:
        return f"{self.origin}:{self.line}"

    def item(self, output: str, *, truncated: bool) -> GradeItem:
        """An answer to it, to be graded."""
        return GradeItem(self.text, output, self.reference, self.facts, truncated)


@dataclass(frozen=True)
class PromptExample:
    """A prompt as token ids; `reference_tokens` is how long its reference answer is, None without one."""

    row: Prompt
    prompt: tuple[int, ...]
    reference_tokens: int | None

    @property
    def branches(self) -> tuple[tuple[int, ...], ...]:
        """No answers yet."""
        return ()


@dataclass(frozen=True)
class SkippedPrompt:
    """A prompt left out of the run, and why."""

    row: Prompt
    reason: str
    kind: Literal["too_long", "duplicate"]


@dataclass(frozen=True)
class EncodedPrompts:
    """Prompts after the tokenizer: examples to use, and those left out."""

    examples: tuple[PromptExample, ...]
    skipped: tuple[SkippedPrompt, ...]


class _ChatLike(Protocol):
    def prompt_ids(self, question: str) -> list[int]: ...
    def completion_ids(self, answer: str) -> list[int]: ...


def prompts_hash(prompts: Iterable[Prompt]) -> str:
    """64 hex digits over prompts and what is known of their answers, in order."""
    return hashlib.sha256("\n".join(prompt.key for prompt in prompts).encode()).hexdigest()


def refuse_proving_prompts(prompts: Sequence[Prompt], proving: Mapping[str, Collection[str]]) -> None:
    """Refuse prompts that versions are proven on: training on them would make the proof worthless.

    Args:
        proving: texts of questions by what they are (`the probes`, `the held-out cases of suite NAME`).

    Raises:
        UsageError: some prompt is one of them, white space at its ends aside; the places are named.
    """
    for what, texts in proving.items():
        known = {text.strip() for text in texts}
        found = [prompt.place for prompt in prompts if prompt.text.strip() in known]
        if found:
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            raise UsageError(
                f"{len(found)} of {len(prompts)} prompts to train on are among {what}, which prove what was learnt",
                found=", ".join(found[:_NAMED]) + more,
                expected="prompts that no version is measured on",
                next_step="take them out of the prompts, or out of what versions are proven on",
            )


def split_prompts(
    prompts: Sequence[Prompt], fraction: float, most: int
) -> tuple[list[Prompt], list[Prompt], str]:
    """(train, validation, reason); at most `most` prompts are held out, the same ones whatever stands around them."""
    train, held_out, reason = hold_out(prompts, _text_key, fraction, "prompts", "text")
    if len(held_out) <= most:
        return train, held_out, reason
    kept = sorted({_text_key(one) for one in held_out})[:most]
    back = [one for one in held_out if _text_key(one) not in kept]
    few = [one for one in held_out if _text_key(one) in kept]
    return (
        [*train, *back],
        few,
        f"{len(few)} of {len(prompts)} prompts held out by their text (validation_prompts)",
    )


def _text_key(prompt: Prompt) -> str:
    """64 hex digits over the text alone: whatever is known of its answer, a prompt stands on one side."""
    return hashlib.sha256(prompt.text.encode()).hexdigest()


def encode_prompts(prompts: Sequence[Prompt], chat: _ChatLike, limit: int) -> EncodedPrompts:
    """Encode prompts as sampling reads them; the same text again, or one that fills the room of `limit` tokens, is left
    out."""
    examples: list[PromptExample] = []
    skipped: list[SkippedPrompt] = []
    seen: dict[str, Prompt] = {}
    for prompt in prompts:
        first = seen.setdefault(prompt.text, prompt)
        ids = tuple(chat.prompt_ids(prompt.text))
        if first is not prompt:
            skipped.append(SkippedPrompt(prompt, f"the same prompt as {first.place}", "duplicate"))
        elif len(ids) >= limit:
            reason = f"{len(ids):,} tokens leave no room for an answer within {limit:,}"
            skipped.append(SkippedPrompt(prompt, reason, "too_long"))
        else:
            known = None if prompt.reference is None else len(chat.completion_ids(prompt.reference))
            examples.append(PromptExample(prompt, ids, known))
    return EncodedPrompts(tuple(examples), tuple(skipped))
