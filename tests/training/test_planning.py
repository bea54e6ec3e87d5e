"""The plan: how long a run is, what each step reads, and how a step is cut into micro-batches."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlm.recipe import Choice, Recipe
from dlm.training.examples import Example
from dlm.training.layout import Layout
from dlm.training.planning import (
    Plan,
    Planned,
    Sampler,
    choose_micro_batch,
    choose_order,
    derived_seed,
    plan_run,
    position_budget,
)
from tiny_training import chat_row

pytestmark = pytest.mark.torch

PLAIN, PACKED = (Layout(name, 0, "cpu", headless=True) for name in ("plain", "packed"))
ROW = chat_row("q", "a")


def row(tokens: int) -> Example:
    """A row that costs `tokens` positions: its last token predicts nothing and is not laid out."""
    return Example(ROW, tuple(range(tokens + 1)), 1)


def rows(*lengths: int) -> list[Example]:
    return [row(length) for length in lengths]


def planned(count: int, layout: Layout = PLAIN, **knobs: Any) -> Planned:
    return plan_run(rows(*[20] * count), layout, Recipe(**knobs), hidden_width=16, vocab_size=322)


# --- what a step reads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "rows_per_step", "sizes"),
    [
        ({}, 8, [8]),
        ({"micro_batch_size": 1}, 8, [1] * 8),
        ({"micro_batch_size": 3}, 8, [3, 3, 2]),
        ({"micro_batch_size": 12}, 12, [12]),
        ({"grad_accum": 1}, 8, [8]),
        ({"grad_accum": 2}, 8, [4, 4]),
        ({"grad_accum": 3}, 8, [2, 3, 3]),
        ({"grad_accum": 5}, 8, [1, 2, 1, 2, 2]),  # 4 micro-batches of two rows would be one too few
        ({"grad_accum": 6}, 8, [1, 1, 2, 1, 1, 2]),
        ({"grad_accum": 16}, 16, [1] * 16),
        ({"micro_batch_size": 2, "grad_accum": 3}, 6, [2, 2, 2]),
        ({"micro_batch_size": 1, "grad_accum": 1}, 1, [1]),
        ({"micro_batch_size": 64, "grad_accum": 2}, 40, [40]),
    ],
)
def test_rows_per_step_and_micro_batches(
    knobs: Mapping[str, int], rows_per_step: int, sizes: list[int]
) -> None:
    """One of the two knobs alone changes memory; a step still reads eight rows."""
    found = planned(40, **knobs)
    assert found.plan.rows_per_step == rows_per_step
    assert [len(part) for part in found.plan.cut(rows(*[20] * rows_per_step), PLAIN)] == sizes
    assert found.micro.value == found.plan.micro_rows == max(sizes)


def test_grad_accum_is_kept_in_every_whole_window() -> None:
    for accumulate in range(1, 9):
        plan = planned(40, grad_accum=accumulate).plan
        assert len(plan.cut(rows(*[20] * 8), PLAIN)) == accumulate
        for left in range(1, 8):  # the last window of an epoch: no larger micro-batches, none without rows
            parts = plan.cut(rows(*[20] * left), PLAIN)
            assert all(1 <= len(part) <= plan.micro_rows for part in parts)


def test_a_short_document_is_one_step_an_epoch() -> None:
    plan = planned(3).plan
    assert (plan.rows_per_step, plan.micro_rows, plan.steps_per_epoch) == (3, 3, 1)


def test_epochs_and_their_reasons() -> None:
    assert planned(20, num_epochs=3).plan.total_steps == 9
    assert planned(20, num_epochs=3).epochs == Choice(3.0, "num_epochs")
    raised = planned(20, num_epochs=1, min_steps=10)
    assert (raised.plan.total_steps, raised.epochs.value) == (12, 4)
    assert (
        raised.epochs.reason == "raised from 1 so that the run has at least min_steps = 10 steps"
    )  # whole epochs
    assert planned(20, num_epochs=4, min_steps=12).epochs == Choice(4.0, "num_epochs")
    cut = planned(20, num_epochs=3, max_steps=4)
    assert (cut.plan.total_steps, cut.epochs) == (4, Choice(4 / 3, "cut short by max_steps = 4"))
    assert planned(20, num_epochs=3, min_steps=50, max_steps=4).plan.total_steps == 4
    assert planned(20, num_epochs=3, max_steps=9).epochs.reason == "num_epochs"  # nothing is cut


def test_about_ten_evaluations_with_checkpoints_at_each() -> None:
    plan = planned(8, num_epochs=200).plan
    assert (plan.total_steps, plan.eval_every, plan.save_every) == (200, 20, 20)
    assert planned(8, num_epochs=3).plan.eval_every == 1
    plan = planned(8, eval_every_steps=7).plan
    assert (plan.eval_every, plan.save_every) == (7, 7)
    plan = planned(8, eval_every_steps=7, save_every_steps=2).plan
    assert (plan.eval_every, plan.save_every) == (7, 2)


@given(
    st.lists(st.integers(1, 90), min_size=1, max_size=60),
    st.sampled_from(["plain", "packed", "shared", "packed_shared"]),
    st.integers(1, 5),
    st.integers(0, 90),
    st.none() | st.integers(1, 90),
    st.none() | st.integers(1, 20),
    st.none() | st.integers(1, 20),
)
def test_any_plan_is_sound(
    lengths: list[int],
    name: str,
    epochs: int,
    least: int,
    most: int | None,
    micro: int | None,
    accum: int | None,
) -> None:
    """Every step cuts its window into micro-batches that hold each of its rows once and keep to the plan's bounds."""
    layout, examples = Layout(name, 0, "cpu", headless=True), rows(*lengths)
    recipe = Recipe(
        num_epochs=epochs,
        min_steps=least,
        max_steps=most,
        micro_batch_size=micro or "auto",
        grad_accum=accum or "auto",
    )
    found = plan_run(examples, layout, recipe, hidden_width=4096, vocab_size=322)
    plan = found.plan
    assert 1 <= plan.micro_rows <= plan.rows_per_step <= len(lengths)
    assert plan.total_steps >= 1
    assert most is None or plan.total_steps <= most
    assert plan.total_steps >= min(least, most or least)
    assert found.epochs.value * plan.steps_per_epoch == pytest.approx(plan.total_steps)
    sampler = Sampler(plan, 3, lengths if found.order.value else None)
    for step in range(1, plan.steps_per_epoch + 1):
        window = [examples[index] for index in sampler.window(step)]
        parts = plan.cut(window, layout)
        assert Counter(map(id, window)) == Counter(id(one) for part in parts for one in part)
        assert all(parts)
        if plan.micro_positions is None:
            assert all(len(part) <= plan.micro_rows for part in parts)
        else:
            assert all(layout.positions(part) <= plan.micro_positions or len(part) == 1 for part in parts)


# --- memory ------------------------------------------------------------------------------------------------------


def test_small_micro_batches_on_a_cpu_by_width_and_larger_ones_on_a_gpu() -> None:
    def budget(device: str, width: int, *, headless: bool = True, vocab: int = 50_000) -> int:
        layout = Layout("plain", 0, device, headless)
        return position_budget(layout, hidden_width=width, vocab_size=vocab)

    assert budget("cpu", 576) == 910
    assert budget("cpu", 192) == 2730
    assert budget("cuda", 576) == budget("cuda:1", 4096) == 8192
    # a whole model has logits at every position
    assert budget("cuda", 576, headless=False, vocab=32_768) == 1024
    assert budget("cpu", 576, headless=False, vocab=2_000_000_000) == 1


def test_micro_batches_shrink_with_length() -> None:
    assert choose_micro_batch(rows(*[100] * 50), PLAIN, 8, 1000).value == 8
    assert choose_micro_batch(rows(*[300] * 50), PLAIN, 8, 1000).value == 3
    assert choose_micro_batch(rows(300, *[10] * 50), PLAIN, 8, 1000).value == 3  # padded to the longest
    assert choose_micro_batch(rows(300, *[10] * 50), PACKED, 8, 370).value == 8
    assert choose_micro_batch(rows(5000), PLAIN, 8, 1000).value == 1
    assert "1,000 positions" in choose_micro_batch(rows(100), PLAIN, 8, 1000).reason


def test_one_long_row_does_not_make_short_ones_go_alone() -> None:
    plan = Plan(9, 9, 1, 1, 1, 1, micro_positions=100)
    parts = plan.cut(rows(10, 10, 90, 10, 10, 10, 10, 10, 10), PLAIN)
    assert sorted(len(part) for part in parts) == [1, 8]


# --- order -------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=200),
    st.integers(1, 12),
    st.integers(0, 2**63 - 1),
    st.booleans(),
)
def test_an_epoch_reads_every_row_once(
    lengths: list[int], rows_per_step: int, seed: int, by_length: bool
) -> None:
    plan = Plan(len(lengths), rows_per_step, 1, 10**6, 1, 1)
    sampler, again = (Sampler(plan, seed, lengths if by_length else None) for _ in range(2))
    for epoch in range(2):
        steps = range(epoch * plan.steps_per_epoch + 1, (epoch + 1) * plan.steps_per_epoch + 1)
        windows = {step: sampler.window(step) for step in steps}
        assert Counter(index for window in windows.values() for index in window) == Counter(
            range(len(lengths))
        )
        # a function of (seed, epoch): whoever starts in the middle reads the same
        for step in reversed(steps):
            assert again.window(step) == windows[step]


def test_epochs_differ_and_seeds_differ() -> None:
    plan = Plan(50, 50, 1, 10, 1, 1)
    assert len({tuple(Sampler(plan, seed).window(step)) for step in (1, 2) for seed in (1, 7)}) == 4
    lengths = list(range(50))
    plan = Plan(50, 5, 1, 100, 1, 1)
    assert len({tuple(Sampler(plan, seed, lengths).window(step)) for step in (1, 11) for seed in (1, 7)}) == 4


def test_windows_of_like_length_come_in_any_order() -> None:
    lengths = torch.randint(1, 1000, (640,), generator=torch.Generator().manual_seed(4)).tolist()
    plan = Plan(640, 8, 8, 800, 1, 1)

    def windows(seed: int, by_length: bool) -> list[list[int]]:
        sampler = Sampler(plan, seed, lengths if by_length else None)
        return [[lengths[index] for index in sampler.window(step)] for step in range(1, 81)]

    def spread(found: list[list[int]]) -> float:
        return sum(max(window) - min(window) for window in found) / len(found)

    assert spread(windows(0, True)) < spread(windows(0, False)) / 4
    halves = []
    for seed in range(20):
        means = [sum(window) / 8 for window in windows(seed, True)]
        halves.append((sum(means[:40]) - sum(means[40:])) / 40)
    # sorted over the epoch they would stand 500 apart, by chance 65 either way
    assert abs(sum(halves) / len(halves)) < 50


def test_a_last_smaller_window_holds_rows_by_chance() -> None:
    """Were it the rest of a sorted chunk, it would always hold that chunk's longest rows."""
    lengths = list(range(19))
    found = [Sampler(Plan(19, 4, 1, 5, 1, 1), seed, lengths).window(5) for seed in range(40)]
    assert all(len(window) == 3 for window in found)
    mean = sum(sum(window) for window in found) / (3 * 40)
    assert 7 < mean < 11  # by chance: 9 ± 0.5


def test_order_by_length_where_it_saves_padding() -> None:
    uneven = rows(*[10, 200] * 40)
    plan = Plan(80, 8, 4, 30, 1, 1)
    chosen = choose_order(uneven, PLAIN, plan, 0)
    assert chosen.value
    assert "15% padding instead of 48%" in chosen.reason
    assert choose_order(uneven, PACKED, plan, 0) == Choice(False, "nothing is padded in this layout")
    assert not choose_order(rows(*[50] * 80), PLAIN, plan, 0).value
    assert choose_order(uneven, PLAIN, Plan(80, 8, 1, 30, 1, 1), 0) == chosen  # memory decides no order
    few = choose_order(uneven[:16], PLAIN, Plan(16, 8, 4, 30, 1, 1), 0)
    assert (few.value, few.reason.split(":")[0]) == (False, "too few rows")


def test_the_plan_keeps_the_order() -> None:
    examples = rows(*[10, 60, 200, 500] * 40)
    found = plan_run(examples, PLAIN, Recipe(), hidden_width=400, vocab_size=322)
    assert found.plan.by_length == found.order.value
    assert math.ceil(160 / 8) == found.plan.steps_per_epoch


@pytest.mark.parametrize("seed", [0, 2**62, 2**63 - 1])
def test_every_seed_of_the_recipe_works(seed: int) -> None:
    plan = Plan(50, 50, 1, 10, 1, 1)
    assert sorted(Sampler(plan, seed).window(1)) == list(range(50))
    other = seed + 1 if seed < 2**63 - 1 else 0
    assert Sampler(plan, seed).window(2) != Sampler(plan, other).window(1)
    torch.manual_seed(derived_seed(seed, "step", 10**9))
