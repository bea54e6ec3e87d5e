"""Alarms of a reward that is earned in another way than it was meant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from dlm.curves import Series
from dlm.workflow.reward_alarms import RewardHistory

pytestmark = pytest.mark.torch  # the module's observer is one of training
UNITS = "scores/graders/spreadsheet/strict/unit_consistency/train_mean"
SURPLUS = "flags/rows_surplus/train_share"
RISING = [0.5, 0.5, 0.5, 0.55, 0.6, 0.6, 0.6]


def history(**series: Sequence[float | None]) -> RewardHistory:
    found = RewardHistory({})
    names = {"reward": "train_mean_reward", "units": UNITS, "surplus": SURPLUS}
    for step in range(1, 8):
        values = {names.get(name, name): values[step - 1] for name, values in series.items()}
        found.add(step, {name: value for name, value in values.items() if value is not None})
    return found


def kinds(found: RewardHistory) -> list[tuple[str, str]]:
    return [(one.kind, one.metric) for one in found.alarms()]


def test_a_dimension_that_falls_while_the_reward_rises() -> None:
    falling = [0.9, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8]
    (alarm,) = history(reward=RISING, units=falling).alarms()
    assert (alarm.kind, alarm.metric) == ("dimension", UNITS)
    assert "rises by 0.100 while unit_consistency falls from 0.900 to 0.800" in alarm.message
    assert kinds(history(reward=[0.5] * 7, units=falling)) == []  # then nothing is traded for it
    assert kinds(history(reward=RISING, units=[0.9] * 7)) == []


def test_flags_that_become_more_while_the_reward_rises() -> None:
    """They are logged only where there are any."""
    assert kinds(history(reward=RISING, surplus=[None, None, None, 0.1, 0.2, 0.2, 0.3])) == [
        ("flag", SURPLUS)
    ]
    assert kinds(history(reward=RISING, surplus=[0.3, None, 0.3, 0.1, None, None, 0.1])) == []


def test_many_answers_cut_off() -> None:
    answers = {"train_answers": [8.0] * 7}
    assert kinds(history(train_truncated_count=[0, 0, 0, 0, 2, 2, 2], **answers)) == [
        ("cut_off", "train_truncated_count")
    ]
    assert kinds(history(train_truncated_count=[8, 8, 8, 0, 1, 2, 2], **answers)) == []


def test_what_is_set_already_is_not_advised() -> None:
    found = RewardHistory({}, masked=True)
    for step in range(1, 8):
        found.add(step, {"train_mean_reward": 0.5, "train_truncated_count": 8.0, "train_answers": 8.0})
    (alarm,) = found.alarms()
    assert alarm.message.endswith("not learnt from (rft.mask_truncated): raise rft.max_new_tokens")


def test_a_grader_of_several_is_watched_part_by_part() -> None:
    one, other = (f"scores/graders/{name}/train_reward_mean" for name in ("length/1-9", "spreadsheet/strict"))
    falling = [0.9, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8]
    assert kinds(history(reward=RISING, **{one: RISING, other: falling})) == [("dimension", other)]


def test_what_was_logged_before_a_stop_counts() -> None:
    steps, times = np.arange(1, 5), np.zeros(4)
    earlier = {
        name: Series(name, "", steps, np.array(values), times)
        for name, values in (("train_mean_reward", RISING[:4]), (UNITS, [0.9] * 4))
    }
    found = RewardHistory(earlier)
    for step in (5, 6, 7):
        found.add(step, {"train_mean_reward": 0.6, UNITS: 0.7})
    assert kinds(found) == [("dimension", UNITS)]


def test_too_few_steps_say_nothing() -> None:
    assert RewardHistory({}).alarms() == []
