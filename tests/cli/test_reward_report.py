"""The summary of a reinforcement run whose rounds had nothing to learn from."""

from __future__ import annotations

import math

import pytest

from dlm.cli.reward_report import items_of_rewards
from dlm.curves import diagnose, select
from dlm.stats import mean, paired_difference
from dlm.workflow.views import RewardChange, RunReport
from made_curves import curves

pytestmark = pytest.mark.torch  # the report is one of training


def report(prompts: int = 2, gain: float = 0.0, **series: list[float]) -> RunReport:
    run = curves("rft", **series)
    before = {place: [0.5 - 0.01 * place] for place in range(prompts)}
    after = {place: [reward + gain * (1 + place)] for place, [reward] in before.items()}
    means = (mean([reward for [reward] in one.values()]) for one in (before, after))
    earned = RewardChange(*means, paired_difference(after, before))
    return RunReport(
        phase="rft", method="grpo", run_id=1, version="v0001", parent=None, promoted=True, steps=4, elapsed_s=1.0,
        last={name: float(one.values[-1]) for name, one in run.series.items()}, smoothed_loss=math.nan,
        before={}, after={}, accuracy=None, reward=earned, probes=[], skipped=0,
        curves=run, diagnosis=diagnose(run), selection=select(run),
    )  # fmt: skip


def test_a_run_in_which_no_group_had_spread_says_that_it_learnt_nothing() -> None:
    same = items_of_rewards(report(train_mean_reward=[0.5] * 4))
    assert same["last round"] == "0.500 on prompts to train on"
    assert same["learnt"].startswith("nothing: ")
    assert "learnt" not in items_of_rewards(report(train_mean_reward=[0.5] * 4, train_loss=[1e-6] * 4))


def test_a_run_whose_every_answer_to_learn_from_was_not_graded_is_told_all_the_same() -> None:
    """Held-out answers may have been: such a summary was a KeyError."""
    told = items_of_rewards(report(train_other_error_count=[8.0] * 4))
    assert "did a group of answers have spread" not in told["learnt"]  # with rft.mask_truncated they may have
    assert "last round" not in told
    assert told["learnt"].startswith("nothing: ")


def test_a_change_on_few_held_out_prompts_may_be_chance() -> None:
    """Of twenty prompts two are held out: that both earn more is no sign."""

    def change(prompts: int) -> str:
        return items_of_rewards(report(prompts, 0.01, train_mean_reward=[0.5] * 4))["change"]

    assert change(1) == "+0.010 by prompt: may be chance"
    assert change(5).startswith("+0.030 [+0.01")
    assert change(5).endswith("by prompt: may be chance")
    assert change(6).endswith("] by prompt")
