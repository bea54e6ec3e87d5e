"""Choices that shape a run before it starts: its length, the rows of each step, and how a step is cut to fit memory.

Everything here is a function of the rows, the recipe and the seed, so that a run that goes on takes the steps it would
have taken.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import torch

from dlm.recipe import Choice, Recipe
from dlm.training.layout import Layout, Tree

__all__ = [
    "Plan",
    "Planned",
    "Sampler",
    "choose_micro_batch",
    "choose_order",
    "derived_seed",
    "plan_run",
    "rows_read",
]

ROWS_PER_STEP = 8
_CHUNK_WINDOWS = 8  # windows whose rows are sorted together
_WORTH_ORDERING = 0.05  # of all positions, the share of padding that length order must save
_STEPS_COUNTED = 256  # windows over which padding is counted

R = TypeVar("R", bound=Tree)


@dataclass(frozen=True)
class Plan:
    """The length of a run, settled before it starts and stored with it. Steps count optimiser steps from 1.

    A step's window is cut into micro-batches: `micro_batches` of even size where the recipe says how many; else as many
    rows as fit `micro_positions` positions, padding included; else `micro_rows` at a time.
    """

    n_examples: int
    rows_per_step: int
    micro_rows: int  # rows of a micro-batch; where positions decide, of the longest rows
    total_steps: int
    eval_every: int
    save_every: int
    micro_batches: int | None = None
    micro_positions: int | None = None
    by_length: bool = False  # windows hold rows of like length

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.n_examples / self.rows_per_step)

    def epoch_at(self, step: int) -> float:
        return step / self.steps_per_epoch

    def cut(self, rows: Sequence[R], layout: Layout) -> list[list[R]]:
        """Cut rows, those of a window or to be scored, into micro-batches. The sums do not mind their order."""
        if self.micro_batches is not None:
            count = math.ceil(len(rows) * self.micro_batches / self.rows_per_step)
            edges = [len(rows) * part // count for part in range(count + 1)]
            return [list(rows[a:b]) for a, b in pairwise(edges)]
        if self.micro_positions is None:
            return [
                list(rows[start : start + self.micro_rows]) for start in range(0, len(rows), self.micro_rows)
            ]
        parts: list[list[R]] = []
        for row in sorted(rows, key=lambda row: -layout.positions([row])):  # like lengths lie together
            if parts and layout.positions([*parts[-1], row]) <= self.micro_positions:
                parts[-1].append(row)
            else:
                parts.append([row])
        return parts


def derived_seed(seed: int, purpose: str, number: int) -> int:
    """A 63-bit seed for one use of randomness, unrelated to every other use of the same seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{purpose}:{number}".encode()).digest()[:8]) >> 1


class Sampler:
    """Which rows a step reads: every row once per epoch, in an order that follows from (seed, epoch) alone.

    With `lengths` (one per row) windows hold rows of like length: the shuffled rows are sorted within chunks of eight
    windows, and the windows shuffled again, so that short and long ones come in any order. Steps then differ a little
    more in length than steps of mixed rows, and so do their gradients; that is the price of less padding.
    """

    def __init__(self, plan: Plan, seed: int, lengths: Sequence[int] | None = None) -> None:
        self._plan, self._seed, self._lengths = plan, seed, lengths
        self._epoch, self._order = -1, [0]

    def window(self, step: int) -> list[int]:
        """Indices of the rows that step `step` (from 1) reads."""
        epoch, place = divmod(step - 1, self._plan.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._order_of(epoch)
        size = self._plan.rows_per_step
        return self._order[place * size : (place + 1) * size]

    def _order_of(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(derived_seed(self._seed, "order", epoch))
        order: list[int] = torch.randperm(self._plan.n_examples, generator=generator).tolist()
        if self._lengths is None:
            return order
        size = self._plan.rows_per_step
        whole = len(order) // size * size  # the rows of a last, smaller window stay as chance chose them
        windows: list[list[int]] = []
        for start in range(0, whole, _CHUNK_WINDOWS * size):
            chunk = order[start : min(start + _CHUNK_WINDOWS * size, whole)]
            chunk.sort(key=self._lengths.__getitem__)
            windows += [chunk[at : at + size] for at in range(0, len(chunk), size)]
        shuffled = torch.randperm(len(windows), generator=generator).tolist()
        return [index for number in shuffled for index in windows[number]] + order[whole:]


@dataclass(frozen=True)
class Planned:
    """A plan with the reasons that are shown beside it."""

    plan: Plan
    micro: Choice[int]  # rows of a micro-batch
    epochs: Choice[float]
    order: Choice[bool]  # whether windows hold rows of like length


def plan_run(
    rows: Sequence[Tree], layout: Layout, recipe: Recipe, *, hidden_width: int, vocab_size: int
) -> Planned:
    """Settle a run over `rows`.

    One of `micro_batch_size` and `grad_accum` alone changes memory, not what a step reads; both together also say how
    many rows a step reads.
    """
    n = len(rows)
    micro_set, accum_set = _micro_set(recipe)
    rows_per_step = _rows_per_step(n, recipe)
    micro_batches = micro_positions = None
    if micro_set:
        micro = Choice(min(micro_set, rows_per_step), "as set")
    elif accum_set:
        micro_batches = min(accum_set, rows_per_step)
        micro = Choice(math.ceil(rows_per_step / micro_batches), f"grad_accum = {accum_set}")
    else:
        micro_positions = position_budget(layout, hidden_width=hidden_width, vocab_size=vocab_size)
        micro = choose_micro_batch(rows, layout, rows_per_step, micro_positions)
    per_epoch = math.ceil(n / rows_per_step)
    epochs = _epochs(per_epoch, recipe)
    total = round(per_epoch * epochs.value)
    eval_every = recipe.eval_every_steps or max(1, math.ceil(total / 10))
    save_every = recipe.save_every_steps or eval_every
    plan = Plan(n, rows_per_step, micro.value, total, eval_every, save_every, micro_batches, micro_positions)
    order = choose_order(rows, layout, plan, recipe.seed)
    return Planned(replace(plan, by_length=order.value), micro, epochs, order)


def rows_read(n: int, recipe: Recipe) -> int:
    """How many rows a run over `n` rows reads, each as often as it does."""
    per_step = _rows_per_step(n, recipe)
    per_epoch = math.ceil(n / per_step)
    return round(per_epoch * _epochs(per_epoch, recipe).value) * per_step


def _micro_set(recipe: Recipe) -> tuple[int | None, int | None]:
    """What is set of `micro_batch_size` and `grad_accum`."""
    return (
        None if recipe.micro_batch_size == "auto" else recipe.micro_batch_size,
        None if recipe.grad_accum == "auto" else recipe.grad_accum,
    )


def _rows_per_step(n: int, recipe: Recipe) -> int:
    micro_set, accum_set = _micro_set(recipe)
    if micro_set and accum_set:
        return min(n, micro_set * accum_set)
    return min(n, max(ROWS_PER_STEP, micro_set or 0, accum_set or 0))


def _epochs(per_epoch: int, recipe: Recipe) -> Choice[float]:
    epochs: Choice[float] = Choice(float(recipe.num_epochs), "num_epochs")
    if per_epoch * recipe.num_epochs < recipe.min_steps:
        more = math.ceil(recipe.min_steps / per_epoch)
        epochs = Choice(
            float(more),
            f"raised from {recipe.num_epochs} so that the run has at least min_steps = {recipe.min_steps} steps",
        )
    if recipe.max_steps is not None and recipe.max_steps < per_epoch * epochs.value:
        return Choice(recipe.max_steps / per_epoch, f"cut short by max_steps = {recipe.max_steps}")
    return epochs


def position_budget(layout: Layout, *, hidden_width: int, vocab_size: int) -> int:
    """Positions of a micro-batch.

    On a CPU, matrix products are as fast with few hundred rows as with thousands, while activations that leave the
    caches and page faults grow with the batch: at hidden width 576, 340 positions a pass took no longer per token than
    1,360. A GPU needs more rows to be busy.
    """
    budget = 8192 if layout.device.startswith("cuda") else 2**19 // hidden_width
    if layout.headless:
        return budget
    return max(
        1, budget * 4096 // max(vocab_size, 4096)
    )  # there every position has logits over the vocabulary


def choose_micro_batch(rows: Sequence[Tree], layout: Layout, rows_per_step: int, budget: int) -> Choice[int]:
    """How many of the longest rows fit `budget` positions, at least one and at most a step's rows."""
    longest = sorted(rows, key=lambda row: -layout.positions([row]))[:rows_per_step]
    fits = 1
    while fits < len(longest) and layout.positions(longest[: fits + 1]) <= budget:
        fits += 1
    return Choice(fits, f"{fits} of the longest rows stay within {budget:,} positions, as laid out")


def choose_order(rows: Sequence[Tree], layout: Layout, plan: Plan, seed: int) -> Choice[bool]:
    """Whether windows hold rows of like length: where that saves padding, counted over the first steps."""
    if layout.name.startswith("packed"):
        return Choice(False, "nothing is padded in this layout")
    if len(rows) <= 2 * plan.rows_per_step:
        return Choice(False, "too few rows: the same ones would meet in every epoch")
    lengths = [layout.positions([row]) for row in rows]
    steps = range(1, min(plan.steps_per_epoch, _STEPS_COUNTED) + 1)

    def padding(sampler: Sampler) -> float:
        # of whole windows: how they are cut into micro-batches changes memory, never which rows meet
        windows = [[rows[index] for index in sampler.window(step)] for step in steps]
        filled = sum(layout.positions([row]) for window in windows for row in window)
        return 1 - filled / sum(map(layout.positions, windows))

    mixed, ordered = padding(Sampler(plan, seed)), padding(Sampler(plan, seed, lengths))
    found = f"{ordered:.0%} padding instead of {mixed:.0%}"
    if mixed - ordered < _WORTH_ORDERING:
        return Choice(False, f"windows of like length would leave {found}")
    return Choice(True, f"windows of like length leave {found}")
