"""This core's side of the training benchmark: what a run uses, from the choice of layout to the loop itself."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shapes import PAD, RawRow, load_base, lora, set_adapter, torch_type, words_tokenizer
from turns import Baton, resident_mb

BETA = 0.1


def run(spec: Mapping[str, Any], baton: Baton) -> None:
    """Train as the spec says, step by step as the baton allows."""
    import torch
    from kernels import ceiling_gflops
    from peft import get_peft_model

    from dlm.model import choose_products
    from dlm.recipe import Recipe
    from dlm.training.acceleration import accelerated
    from dlm.training.checkpoints import Progress
    from dlm.training.loop import run_loop
    from dlm.training.optimizer import make_optimizer
    from dlm.training.planning import plan_run

    torch.set_num_threads(spec["threads"])
    method, device = spec["method"], spec["device"]
    model = load_base(Path(spec["folder"]), method, spec["dtype"]).to(device)
    tokenizer = words_tokenizer(model.config.vocab_size)  # a run has one in memory, too
    model.config.pad_token_id = tokenizer.pad_token_id
    model = get_peft_model(model, lora(method))
    set_adapter(model, spec["seed"])
    before = resident_mb()
    steps = [_rows(rows, number) for number, rows in enumerate(spec["steps"])]
    per_step = len(steps[0])
    recipe = Recipe(
        lora_dropout=0.0,
        learning_rate=spec["learning_rate"],
        lr_scheduler="constant",
        warmup_ratio=0.0,
        max_steps=len(steps),
        seed=spec["seed"],
    )
    products = choose_products(device)
    with accelerated(model, products.value):
        layout = _layout(model, [row for rows in steps for row in rows], spec)
        planned = plan_run(
            [row for rows in steps for row in rows],
            layout,
            recipe,
            hidden_width=model.config.hidden_size,
            vocab_size=model.config.vocab_size,
        )
        plan = replace(
            planned.plan,
            rows_per_step=per_step,
            total_steps=len(steps),
            eval_every=2 * len(steps),
            save_every=2 * len(steps),
            by_length=False,  # which rows meet in a step is the benchmark's to say
        )
        train = _ordered(steps, plan, recipe.seed)
        reference, reference_steps = _reference(model, layout, plan, steps, method)
        objective = _objective(method, layout, reference)
        optimizer = make_optimizer(model, recipe)
        ceiling = ceiling_gflops(model.config, torch_type(spec["dtype"]), device) if spec["timed"] else 0.0
        watcher = _Watcher(baton, len(steps))
        baton.ready(
            rss_before_mb=before,
            layout=layout.name,
            products=products.value,
            micro_positions=plan.micro_positions,
            reference_cpu_s=reference_steps,
        )
        with tempfile.TemporaryDirectory() as folder:
            run_loop(model, objective, train, (), recipe, plan, optimizer, Progress(), watcher, Path(folder))
        if spec["timed"]:
            ceiling = max(ceiling, ceiling_gflops(model.config, torch_type(spec["dtype"]), device))
    baton.done(losses=watcher.losses, ceiling_gflops=ceiling)


@dataclass(frozen=True)
class _SftRow:
    """A supervised row; the loop asks for its place when its loss is not finite."""

    prompt: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]

    @property
    def row(self) -> Any:
        return self

    place = "made up"


def _rows(rows: Sequence[Any], step: int) -> list[Any]:
    from dlm.training.pairs import Pair, PairExample

    raw = [RawRow(tuple(prompt), tuple(tuple(ids) for ids in branches)) for prompt, branches in rows]
    if len(raw[0].branches) == 1:
        return [_SftRow(row.prompt, row.branches) for row in raw]
    return [
        PairExample(Pair(f"{step}", f"chosen {i}", f"rejected {i}", "made up", i), row.prompt, *row.branches)
        for i, row in enumerate(raw)
    ]


def _layout(model: Any, rows: Sequence[Any], spec: Mapping[str, Any]) -> Any:
    """The layout a run would choose; a scorer has no head to probe, and takes what preference runs take."""
    from dlm.training.layout import Layout
    from dlm.training.layout_choice import choose_layout

    if spec["method"] == "reward":
        return Layout("packed_shared", PAD, spec["device"], headless=True)
    return choose_layout(model, rows, PAD, spec["device"]).value


def _ordered(steps: Sequence[Sequence[Any]], plan: Any, seed: int) -> list[Any]:
    """The rows placed so that the loop's own order reads them step by step as they are given."""
    from dlm.training.planning import Sampler

    sampler = Sampler(plan, seed)
    train: list[Any] = [None] * plan.n_examples
    for number, rows in enumerate(steps, 1):
        for place, row in zip(sampler.window(number), rows, strict=True):
            train[place] = row
    return train


def _reference(
    model: Any, layout: Any, plan: Any, steps: Sequence[Sequence[Any]], method: str
) -> tuple[dict[str, tuple[float, float]], list[float]]:
    """Log-probs under the adapter that the run starts from, and the CPU seconds they took for each step's rows."""
    import torch

    known: dict[str, tuple[float, float]] = {}
    taken: list[float] = []
    if method != "dpo":
        return known, taken
    model.eval()
    with torch.no_grad():
        for rows in steps:
            began = time.process_time()
            for part in plan.cut(rows, layout):
                sums = layout.scores(model, part).sums().view(-1, 2).tolist()
                known |= {row.pair.key: (a, b) for row, (a, b) in zip(part, sums, strict=True)}
            taken.append(time.process_time() - began)
    return known, taken


def _objective(method: str, layout: Any, reference: Mapping[str, tuple[float, float]]) -> Any:
    from dlm.recipe import PreferenceRecipe, RewardRecipe
    from dlm.training.objectives import PreferenceObjective, RewardObjective, SftObjective

    if method == "sft":
        return SftObjective(layout)
    if method == "reward":
        return RewardObjective(layout, RewardRecipe(center=0.0))
    recipe = PreferenceRecipe(method=method, beta=BETA, alpha=BETA)
    return PreferenceObjective(layout, recipe, reference)


class _Watcher:
    """The loop's observer: hands the baton on after every step."""

    def __init__(self, baton: Baton, steps: int) -> None:
        self._baton, self._steps = baton, steps
        self.losses: list[float] = []

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.losses.append(values["train_loss"])
        self._baton.stepped(last=step == self._steps)

    def before_checkpoint(self) -> None: ...

    def checkpoint_saved(self, step: int) -> None: ...

    def stop_requested(self) -> str:
        return ""
