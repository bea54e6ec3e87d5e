"""Evaluation on rows that are not trained on: what is scored, how it is named, and which evaluation is the better one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from dlm.training.objectives import Objective, Outcome
from dlm.training.planning import Plan
from dlm.training.sharding import in_step
from dlm.training.world import World, current

__all__ = ["HeldOut", "Selection", "add", "evaluate", "means", "same_names"]


@dataclass(frozen=True)
class HeldOut:
    """Rows to score while training, and the objective that scores them. Metrics are named `{prefix}_{metric}`."""

    prefix: str
    objective: Objective
    rows: Sequence[Any]


@dataclass(frozen=True)
class Selection:
    """Which metrics decide that an evaluation is better than another, the first that differs first."""

    criteria: tuple[tuple[str, Literal["min", "max"]], ...]

    def read(self, values: Mapping[str, float]) -> dict[str, float] | None:
        """The deciding metrics; None where one of them was not measured."""
        if any(name not in values for name, _ in self.criteria):
            return None
        return {name: values[name] for name, _ in self.criteria}

    def is_better(self, values: Mapping[str, float], than: Mapping[str, float]) -> bool:
        """Whether `values` are better than the best so far (empty: anything finite is). Equal is not better."""
        if not all(math.isfinite(values[name]) for name, _ in self.criteria):
            return False
        if not than:
            return True
        for name, direction in self.criteria:
            if values[name] != than[name]:
                return (values[name] > than[name]) == (direction == "max")
        return False


def evaluate(model: Any, held_out: HeldOut, plan: Plan) -> dict[str, float]:
    """Mean loss and metrics over held-out rows with dropout off; empty when there are none.

    Where pairs are ranked, `…_pref_acc` is the share ranked right with ties counting half (a model that cannot tell any
    two answers apart scores .5), and `…_pref_ties` the share of ties; of the prefix `valid` they carry `val`, as the field
    has it. Every process scores its share, and all get the same result.
    """
    if not held_out.rows:
        return {}
    world, objective = current(), held_out.objective
    model.eval()
    counts = objective.counts(held_out.rows)
    by_length = sorted(held_out.rows, key=lambda row: objective.layout.positions([row]))  # less padding
    totals: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        parts = plan.cut(world.share(by_length), objective.layout)
        for number, rows in enumerate(in_step(world, model, parts, by_length[:1])):
            outcome = objective.forward(model, rows)
            if number < len(parts):
                add(totals, means(outcome, counts))
    names = same_names(world, totals, len(held_out.rows))
    sums = world.sum([totals.get(name) for name in names], objective.layout.device).tolist()
    metrics = dict(zip(names, sums, strict=True))
    values = {f"{held_out.prefix}_{name}": value for name, value in metrics.items()}
    if "rewards/accuracies" in metrics:
        prefix = "val" if held_out.prefix == "valid" else held_out.prefix
        ties = metrics["rewards/ties"]
        values[f"{prefix}_pref_acc"] = metrics["rewards/accuracies"] + ties / 2
        values[f"{prefix}_pref_ties"] = ties
    return values


def means(outcome: Outcome, counts: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """A micro-batch's share of the loss (with its gradient) and of each metric's mean over a whole window."""
    loss = torch.stack([part / counts[unit] for unit, part in outcome.loss.items()]).sum()
    return {"loss": loss} | {
        name: value / counts[unit] for unit, sums in outcome.sums.items() for name, value in sums.items()
    }


def add(totals: dict[str, torch.Tensor], more: Mapping[str, torch.Tensor]) -> None:
    """Add shares to the totals; no gradient is kept."""
    for name, value in more.items():
        totals[name] = totals[name] + value.detach() if name in totals else value.detach()


def same_names(world: World, totals: Mapping[str, torch.Tensor], n_rows: int) -> list[str]:
    """The metrics' names in the same order in every process, those without a row included."""
    names = list(totals)
    return names if n_rows >= world.size else world.from_main(names)
