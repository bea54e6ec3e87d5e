"""Preference pairs: of two answers to one prompt, the one to prefer, before and after the tokenizer.

Pairs come from a document's `::preference::` sections and from files (`pair_files`). Here they are selected, split and
encoded; nothing is cut and nothing disappears: whatever is left out is kept with its place and the reason.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dlm.document import Document, Provenance
from dlm.training.examples import ChatLike, hold_out, origin_of, refuse_named_adapters

__all__ = [
    "EncodedPairs",
    "Pair",
    "PairExample",
    "Reason",
    "Selection",
    "SkippedPair",
    "encode_pairs",
    "pairs_hash",
    "pairs_of_document",
    "select_pairs",
    "split_pairs",
]

Reason = Literal[
    "reverted",
    "mined",
    "equal",
    "below_margin",
    "scores_reversed",
    "contradiction",
    "duplicate",
    "empty",
    "same_tokens",
    "too_long",
]


@dataclass(frozen=True)
class Pair:
    """One preference. `origin` is the file, `line` the place in it (1-based); scores are a judge's, where it gave any.

    `reverted`: it was mined, then reverted or rejected, and stands in the document all the same.
    """

    prompt: str
    chosen: str
    rejected: str
    origin: str
    line: int
    mined: bool = False
    chosen_score: float | None = None
    rejected_score: float | None = None
    reverted: bool = False

    @property
    def key(self) -> str:
        """64 hex digits that depend on the three texts alone, so they survive moves and new scores."""
        content = json.dumps(["pair", self.prompt, self.chosen, self.rejected], ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def place(self) -> str:
        return f"{self.origin}:{self.line}"

    @property
    def margin(self) -> float | None:
        """By how much the chosen answer's score is the higher one; None without scores."""
        if self.chosen_score is None or self.rejected_score is None:
            return None
        return self.chosen_score - self.rejected_score


@dataclass(frozen=True)
class PairExample:
    """A pair as token ids: one prompt and two answers, each with its end token. Every answer token is scored."""

    pair: Pair
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def branches(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.chosen, self.rejected

    @property
    def n_targets(self) -> int:
        return len(self.chosen) + len(self.rejected)

    @property
    def row(self) -> Pair:
        """The pair, by the name that messages about rows and pairs alike use."""
        return self.pair


@dataclass(frozen=True)
class SkippedPair:
    """A pair left out of the run: the kind of reason, for counting, and the reason in words."""

    pair: Pair
    kind: Reason
    reason: str

    @property
    def row(self) -> Pair:
        """The pair, by the name that messages about rows and pairs alike use."""
        return self.pair


@dataclass(frozen=True)
class Selection:
    """The pairs to use, in order, and those left out, in order."""

    pairs: tuple[Pair, ...]
    left_out: tuple[SkippedPair, ...]

    @property
    def mined(self) -> int:
        """How many were left out because they were mined."""
        return self.count("mined")

    @property
    def below_margin(self) -> int:
        """How many were left out because their scores differ too little."""
        return self.count("below_margin")

    def count(self, kind: Reason) -> int:
        return sum(skipped.kind == kind for skipped in self.left_out)


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs after the tokenizer: examples to use, and pairs left out."""

    examples: tuple[PairExample, ...]
    skipped: tuple[SkippedPair, ...]


def pairs_of_document(document: Document) -> list[Pair]:
    """The pairs of a document's `::preference::` sections; a mined section's scores are those of its provenance.

    Raises:
        UsageError: a section names an adapter; training several adapters is not supported.
    """
    refuse_named_adapters(document)
    origin = origin_of(document)
    pairs: list[Pair] = []
    for section in document.sections:
        chosen_score, rejected_score = _scores(section.provenance)
        pairs.extend(
            Pair(
                triple.prompt,
                triple.chosen,
                triple.rejected,
                origin,
                triple.line,
                section.auto_mined,
                chosen_score,
                rejected_score,
            )
            for triple in section.triples
        )
    return pairs


def _scores(provenance: Provenance | None) -> tuple[float, float] | tuple[None, None]:
    """The two scores of a provenance, or none when either is absent or no finite number."""
    if provenance is None:
        return None, None
    try:
        chosen = float(provenance.values["judge_score_chosen"])
        rejected = float(provenance.values["judge_score_rejected"])
    except (KeyError, ValueError):
        return None, None
    return (chosen, rejected) if math.isfinite(chosen) and math.isfinite(rejected) else (None, None)


def select_pairs(pairs: Sequence[Pair], *, min_margin: float = 0.0, include_mined: bool = True) -> Selection:
    """Choose the pairs to train on; each other one is listed with the reason.

    A pair's own reasons come first (reverted, mined, equal answers, scores), so that a pair that is left out for one of them
    neither contradicts another nor stands in for its copy. Then pairs whose reverse is there, too, are left out on both
    sides, and of equal pairs the first is kept. A pair without scores has no margin and passes it.

    Args:
        min_margin: least difference of the two scores, in the judge's units.
        include_mined: whether mined pairs are used.
    """
    left_out: dict[int, SkippedPair] = {}
    for index, pair in enumerate(pairs):
        fault = _own_fault(pair, min_margin, include_mined)
        if fault is not None:
            left_out[index] = SkippedPair(pair, *fault)
    first_of: dict[tuple[str, str, str], Pair] = {}
    for index, pair in enumerate(pairs):
        if index not in left_out:
            first_of.setdefault((pair.prompt, pair.chosen, pair.rejected), pair)
    for index, pair in enumerate(pairs):
        if index in left_out:
            continue
        reverse = first_of.get((pair.prompt, pair.rejected, pair.chosen))
        first = first_of[pair.prompt, pair.chosen, pair.rejected]
        if reverse is not None:
            reason = f"contradicts {reverse.place}, which prefers the other of the same two answers"
            left_out[index] = SkippedPair(pair, "contradiction", reason)
        elif first is not pair:
            left_out[index] = SkippedPair(pair, "duplicate", f"the same pair as {first.place}, which is kept")
    return Selection(
        tuple(pair for index, pair in enumerate(pairs) if index not in left_out),
        tuple(left_out[index] for index in sorted(left_out)),
    )


def _own_fault(pair: Pair, min_margin: float, include_mined: bool) -> tuple[Reason, str] | None:
    if pair.reverted:
        return "reverted", "mined, then reverted or rejected; it stands in the document again"
    if pair.mined and not include_mined:
        return "mined", "mined, and mined pairs are left out"
    if pair.chosen == pair.rejected:
        return "equal", "the chosen and the rejected answer are equal"
    margin = pair.margin
    if margin is None:
        return None
    scores = f"{pair.chosen_score:g} and {pair.rejected_score:g}"
    if margin < 0:
        return "scores_reversed", f"its scores, {scores}, prefer the rejected answer"
    if margin < min_margin and not math.isclose(margin, min_margin):  # as written: .7 - .4 is .3
        return "below_margin", f"its scores, {scores}, differ by less than {min_margin:g}"
    return None


def encode_pairs(pairs: Iterable[Pair], chat: ChatLike, max_len: int) -> EncodedPairs:
    """Turn pairs into examples whose prompt and longest answer have at most `max_len` tokens together.

    Prompt and answers are tokenised apart, so that both sides share the very same prompt ids.
    """
    examples: list[PairExample] = []
    skipped: list[SkippedPair] = []
    prompts: dict[str, tuple[int, ...]] = {}  # scored answers to one prompt make many pairs of it
    for pair in pairs:
        if pair.prompt not in prompts:
            prompts[pair.prompt] = tuple(chat.prompt_ids(pair.prompt))
        example = PairExample(
            pair,
            prompts[pair.prompt],
            tuple(chat.completion_ids(pair.chosen)),
            tuple(chat.completion_ids(pair.rejected)),
        )
        fault = _token_fault(example, max_len)
        if fault is None:
            examples.append(example)
        else:
            skipped.append(SkippedPair(pair, *fault))
    return EncodedPairs(tuple(examples), tuple(skipped))


def _token_fault(example: PairExample, max_len: int) -> tuple[Reason, str] | None:
    pair, prompt = example.pair, len(example.prompt)
    if not pair.prompt.strip() or not prompt:
        return "empty", "the prompt is empty"
    for side, text, ids in (
        ("chosen", pair.chosen, example.chosen),
        ("rejected", pair.rejected, example.rejected),
    ):
        if not text.strip() or len(ids) < 2:  # the end token alone teaches to say nothing
            return "empty", f"the {side} answer is empty: no tokens to learn"
    if example.chosen == example.rejected:
        return "same_tokens", "the two answers differ as text, but this base's tokenizer reads them alike"
    longest = max(len(example.chosen), len(example.rejected))
    if prompt + longest > max_len:
        side = "chosen" if longest == len(example.chosen) else "rejected"
        return (
            "too_long",
            f"{prompt + longest:,} tokens, {prompt:,} of them the prompt and {longest:,} the {side} answer; "
            f"the limit is {max_len:,}",
        )
    return None


def split_pairs(pairs: Sequence[Pair], fraction: float) -> tuple[list[Pair], list[Pair], str]:
    """Split pairs into (train, validation, reason) by their prompts.

    All pairs of one prompt stand on one side, white space in it apart, and stay there when pairs are added. Below 20
    pairs nothing is held out.
    """
    return hold_out(pairs, _prompt_key, fraction, "pairs", "prompt")


def _prompt_key(pair: Pair) -> str:
    content = json.dumps(["pair's prompt", *pair.prompt.split()], ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()


def pairs_hash(pairs: Iterable[Pair]) -> str:
    """64 hex digits over every pair in order: its texts, and what else decides how it is trained on."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(pair.key.encode())
        if pair.margin is not None:  # a pair without scores has the hash that it had before scores counted
            digest.update(f" {pair.chosen_score!r} {pair.rejected_score!r}".encode())
        if pair.reverted:
            digest.update(b" reverted")
        digest.update(b"\n")
    return digest.hexdigest()
