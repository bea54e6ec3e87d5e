"""Layouts: how rows become a batch, and what the model says about their answers.

A tree is a prompt with the answers that follow it: one for supervised rows, two for a pair, many for a group of
samples. Every token of every answer is scored. Four layouts give the same numbers at different costs:

    plain           each prompt with one answer is a row, rows are padded to the longest
    packed          the same rows laid end to end; nothing is padded, and no row sees another
    shared          each tree is a row: its prompt is encoded once for all its answers
    packed_shared   trees laid end to end

Notation: B rows, T tokens of a row as laid out, N scored tokens, A answers (branches) of all trees, E hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor

from dlm.model import can_run_headless, inner_model, score_targets, trunk_states
from dlm.training.attention import Block, stream_attention

__all__ = ["LAYOUT_NAMES", "AnswerScores", "Batch", "Layout", "Tree", "arrange"]

LAYOUT_NAMES = ("plain", "packed", "shared", "packed_shared")


class Tree(Protocol):
    """A prompt (at least one token) and the answers that follow it (at least one token each, all of them scored)."""

    @property
    def prompt(self) -> tuple[int, ...]: ...
    @property
    def branches(self) -> tuple[tuple[int, ...], ...]: ...


@dataclass(frozen=True)
class AnswerScores:
    """Scores of all answers' tokens: trees in order, the answers of a tree in order, tokens in order."""

    logprobs: Tensor  # (N,) fp32, nats
    correct: Tensor  # (N,) bool
    entropy: Tensor | None  # (N,) fp32, nats
    owner: Tensor  # (N,) int64: which answer a token belongs to
    lengths: Tensor  # (A,) int64: tokens per answer

    def sums(self) -> Tensor:
        """The log-prob of each answer, (A,) fp32."""
        return self.logprobs.new_zeros(len(self.lengths)).index_add(0, self.owner, self.logprobs)


@dataclass(frozen=True)
class Batch:
    """One forward pass. `blocks` is set where trees lie end to end in a single row; then there is no mask."""

    input_ids: Tensor  # (B, T) int64
    position_ids: Tensor  # (B, T) int64
    attention_mask: Tensor | None  # (B, T) int64 (causal), or (B, 1, T, T) bool (who may see whom)
    blocks: tuple[Block, ...] | None
    places: Tensor  # (N,) int64 in the flattened (B·T): the position that predicts each scored token
    targets: Tensor  # (N,) int64
    ends: Tensor  # (A,) int64 in (B·T): the last token of each answer as laid out
    owner: Tensor  # (N,) int64
    lengths: Tensor  # (A,) int64

    @property
    def n_positions(self) -> int:
        """Positions that go through the model, padding included."""
        return int(self.input_ids.numel())


@dataclass(frozen=True)
class _Unit:
    """What is laid out in one piece: a prompt and the answers that see it, but not each other."""

    prompt: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]


def arrange(
    trees: Sequence[Tree], name: str, pad_id: int, device: str = "cpu", *, whole: bool = False
) -> Batch:
    """Lay trees out.

    An answer's last token predicts nothing that is scored, so it is left out of the batch unless `whole`.
    """
    drop = 0 if whole else 1
    if name in ("shared", "packed_shared"):
        units = [_Unit(tree.prompt, tree.branches) for tree in trees]
    else:
        units = [_Unit(tree.prompt, (branch,)) for tree in trees for branch in tree.branches]
    bodies = [
        [*unit.prompt, *chain.from_iterable(branch[: len(branch) - drop] for branch in unit.branches)]
        for unit in units
    ]
    packed = name.startswith("packed")
    width = sum(map(len, bodies)) if packed else max(map(len, bodies))
    ids: list[int] = []
    positions: list[int] = []
    places: list[int] = []
    ends: list[int] = []
    spans: list[tuple[int, int, tuple[int, ...]]] = []  # start, prompt tokens, laid-out tokens per branch
    for unit, body in zip(units, bodies, strict=True):
        start, size = len(ids), len(unit.prompt)
        ids += body
        positions += range(size)
        offset = start + size
        for branch in unit.branches:
            laid_out = len(branch) - drop
            positions += range(size, size + laid_out)
            places.append(start + size - 1)  # the prompt's last token predicts every answer's first
            places += range(offset, offset + len(branch) - 1)
            offset += laid_out
            ends.append(offset - 1 if laid_out else start + size - 1)
        spans.append((start, size, tuple(len(branch) - drop for branch in unit.branches)))
        if not packed:
            padding = width - len(body)
            ids += [pad_id] * padding
            positions += [0] * padding
    counts = [len(branch) for unit in units for branch in unit.branches]
    lengths = torch.tensor(counts)
    blocks = None
    mask = None
    if packed:
        blocks = tuple(Block.of(start, size, branches, device) for start, size, branches in spans)
    elif all(len(unit.branches) == 1 for unit in units):
        filled = torch.tensor([len(body) for body in bodies])
        mask = (torch.arange(width)[None, :] < filled[:, None]).long().to(device)
    else:
        mask = _tree_masks(spans, width).to(device)
    return Batch(
        input_ids=torch.tensor(ids).view(-1, width).to(device),
        position_ids=torch.tensor(positions).view(-1, width).to(device),
        attention_mask=mask,
        blocks=blocks,
        places=torch.tensor(places).to(device),
        targets=torch.tensor(list(chain.from_iterable(b for u in units for b in u.branches))).to(device),
        ends=torch.tensor(ends).to(device),
        owner=torch.repeat_interleave(torch.arange(len(counts)), lengths).to(device),
        lengths=lengths.to(device),
    )


def _tree_masks(spans: Sequence[tuple[int, int, tuple[int, ...]]], width: int) -> Tensor:
    """(B, 1, T, T) bool: causal, and no answer sees another of its tree. Padding sees itself alone."""
    masks = torch.eye(width, dtype=torch.bool).repeat(len(spans), 1, 1)
    for mask, (_, size, branches) in zip(masks, spans, strict=True):
        total = size + sum(branches)
        mask[:total, :total] = Block.visible(size, branches)
    return masks[:, None]


@dataclass(frozen=True)
class Layout:
    """A way to lay out trees and to score them with a model."""

    name: str
    pad_id: int
    device: str
    headless: bool

    @classmethod
    def of(cls, name: str, model: Any, pad_id: int | None, device: str) -> Layout:
        """A layout for a model; `headless` is found out by a trial (see `can_run_headless`)."""
        return cls(name, 0 if pad_id is None else pad_id, device, can_run_headless(model))

    def positions(self, trees: Sequence[Tree]) -> int:
        """Positions that trees cost in this layout, padding included; nothing is laid out."""
        shared = self.name in ("shared", "packed_shared")
        sizes = [
            size
            for tree in trees
            for size in (
                [len(tree.prompt) + sum(len(branch) - 1 for branch in tree.branches)]
                if shared
                else [len(tree.prompt) + len(branch) - 1 for branch in tree.branches]
            )
        ]
        return sum(sizes) if self.name.startswith("packed") else max(sizes) * len(sizes)

    def scores(
        self, model: Any, trees: Sequence[Tree], *, temperature: float = 1.0, entropy: bool = False
    ) -> AnswerScores:
        """Score every answer token of the trees under softmax(logits / temperature)."""
        batch = arrange(trees, self.name, self.pad_id, self.device)
        states = self._states(model, batch, self.headless)[batch.places]  # (N, E), or (N, V)
        scores = score_targets(
            model,
            states,
            batch.targets,
            headless=self.headless,
            temperature=temperature,
            entropy=entropy,
        )
        return AnswerScores(scores.logprobs, scores.correct, scores.entropy, batch.owner, batch.lengths)

    def last_states(self, model: Any, trees: Sequence[Tree]) -> Tensor:
        """The hidden state at each answer's last token, (A, E)."""
        batch = arrange(trees, self.name, self.pad_id, self.device, whole=True)
        return self._states(model, batch, headless=True)[batch.ends]

    def _states(self, model: Any, batch: Batch, headless: bool) -> Tensor:
        inputs = {"input_ids": batch.input_ids}
        if (
            self.name != "plain"
        ):  # where positions do not simply count up, as every architecture does by itself
            inputs["position_ids"] = batch.position_ids
        if batch.blocks is not None:
            with stream_attention(inner_model(model), batch.blocks):
                states = self._run(model, inputs, headless)
        else:
            states = self._run(model, {**inputs, "attention_mask": batch.attention_mask}, headless)
        return states.flatten(0, 1)

    @staticmethod
    def _run(model: Any, inputs: dict[str, Any], headless: bool) -> Tensor:
        if headless:
            return trunk_states(model, **inputs)
        logits: Tensor = model(use_cache=False, **inputs).logits
        return logits
