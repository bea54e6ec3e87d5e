"""What a run of reinforcement fine-tuning leaves behind, told: rewards before and after, and what went wrong on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dlm.cli.output import plural

if TYPE_CHECKING:
    from dlm.stats import Estimate
    from dlm.workflow.views import RunReport

__all__ = ["change", "held_out_questions", "items_of_rewards", "reward_data"]


def items_of_rewards(run: RunReport) -> dict[str, str]:
    """Rewards, answers and errors; before → after where both were measured."""
    before, after, last = run.before, run.after, run.last
    items: dict[str, str] = {}
    if run.reward is None:
        items["reward"] = "not measured on held-out prompts: none are held out (from 20 prompts on some are)"
        if "train_mean_reward" in last:
            items["reward"] += f"; {last['train_mean_reward']:.3f} in the last round"
    else:
        found = run.reward
        items["reward"] = (
            f"{_interval(found.before)} → {_interval(found.after)} on {plural(found.after.n, 'held-out prompt')}"
        )
        items["change"] = _change_by_prompt(found.change)
        if (
            "train_mean_reward" in last
        ):  # not where the grader failed on every answer that was to be learnt from
            items["last round"] = f"{last['train_mean_reward']:.3f} on prompts to train on"
    if "train_loss" not in last:
        items["learnt"] = (
            "nothing: in no round was there a group with spread to learn from; the weights are those it started from"
        )
    dimensions = _dimensions(before, after)
    if dimensions:
        items["dimensions"] = "\n".join(dimensions)
    tokens = "valid_completion_tokens_mean"
    if tokens in after:
        items["answers"] = f"{change(before.get(tokens), after[tokens], '{:.0f}')} tokens"
    if "kl" in last:
        items["divergence"] = f"{last['kl']:.4f} nats a token from what the run started from"
    return items | held_out_questions(run)


def held_out_questions(run: RunReport) -> dict[str, str]:
    """The loss of supervised rows that are held out, where there are any."""
    before, after = run.before.get("sft_valid_loss"), run.after.get("sft_valid_loss")
    if after is None:
        return {}
    relative = f" ({after / before - 1:+.1%})" if before else ""
    return {"held-out questions": f"loss {change(before, after, '{:.4f}')}{relative}"}


def change(before: float | None, after: float, form: str) -> str:
    """`before → after`, or the latter alone."""
    return form.format(after) if before is None else f"{form.format(before)} → {form.format(after)}"


def reward_data(run: RunReport) -> dict[str, Any] | None:
    """As `dlm train --json` holds it."""
    return None if run.reward is None else asdict(run.reward)


def _interval(estimate: Estimate, *, sign: bool = False) -> str:
    form = "{:+.3f}" if sign else "{:.3f}"
    value, low, high = (form.format(x) for x in (estimate.value, estimate.low, estimate.high))
    return value if estimate.n < 2 else f"{value} [{low}, {high}]"  # one alone says nothing of another


def _change_by_prompt(found: Estimate) -> str:
    from dlm.evaluation import LEAST_CASES

    if found.low == found.high == 0:
        return "none: every held-out answer earns what it earned before"
    sure = found.n >= LEAST_CASES and (found.low > 0 or found.high < 0)
    return f"{_interval(found, sign=True)} by prompt{'' if sure else ': may be chance'}"


def _dimensions(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """Every dimension of the grade on held-out prompts, unless there is one only."""
    names = [name for name in after if name.startswith("scores/graders/") and name.endswith("/valid_mean")]
    if len(names) < 2:
        return []
    return [f"{name.split('/')[-2]} {change(before.get(name), after[name], '{:.3f}')}" for name in names]
