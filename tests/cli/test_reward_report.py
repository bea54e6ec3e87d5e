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


def report(**series: list[float]) -> RunReport:
    run = curves("rft", **series)
    earned = RewardChange(mean([0.5, 1.0]), mean([0.5, 1.0]), paired_difference({0: [0.5]}, {0: [0.5]}))
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
    assert "last round" not in told
    assert told["learnt"].startswith("nothing: ")
