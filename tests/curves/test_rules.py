"""Every rule on curves written by hand: what must set it off, what comes near and must not, and what is too short."""

from __future__ import annotations

import pytest

import curve_cases
import curve_cases_rewards
from dlm.curves import RULES, Thresholds, diagnose
from made_curves import curves, falls, line

CASES = curve_cases.CASES | curve_cases_rewards.CASES


def test_every_rule_has_its_cases_and_enough_of_them() -> None:
    assert set(CASES) == {rule.name for rule in RULES}
    for name, case in CASES.items():
        assert len(case.fires) >= 3, name
        assert len(case.quiet) >= 3, name


@pytest.mark.parametrize("name", CASES)
def test_what_must_set_it_off_does(name: str) -> None:
    for number, run in enumerate(CASES[name].fires):
        finding = diagnose(run).of(name)
        assert finding is not None, number
        assert finding.evidence, number
        assert finding.action, number
        for one in finding.evidence:
            assert one.text, number
            assert not one.series or len(one.steps) == len(one.values) <= 12, number
        if CASES[name].severity:
            assert finding.severity == CASES[name].severity[number], number


@pytest.mark.parametrize("name", CASES)
def test_what_comes_near_does_not(name: str) -> None:
    for number, run in enumerate(CASES[name].quiet):
        diagnosis = diagnose(run)
        assert diagnosis.of(name) is None, number
        assert name not in {one.rule for one in diagnosis.undecided}, number


@pytest.mark.parametrize("name", CASES)
def test_too_short_is_no_guess(name: str) -> None:
    case = CASES[name]
    diagnosis = diagnose(case.short)
    assert diagnosis.of(name) is None
    undecided = {one.rule: one for one in diagnosis.undecided}
    assert (name in undecided) == case.waits
    if case.waits:
        assert undecided[name].reason


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_names_the_thresholds_it_reads(rule: object) -> None:
    assert set(rule.thresholds) <= set(Thresholds.model_fields)  # type: ignore[attr-defined]


def test_every_threshold_is_read_by_a_rule() -> None:
    assert set(Thresholds.model_fields) == {name for rule in RULES for name in rule.thresholds}


def test_a_loss_below_0_has_no_ratio_and_has_not_crashed() -> None:
    falling = falls(100, -0.05, -0.99)
    found = diagnose(curves("sft", train_loss=falling, valid_loss=[one + 0.01 for one in falling]))
    assert found.findings == ()
    assert found.ratios == ()
    assert "overfit_ratio" in {one.rule for one in found.undecided}


def test_of_pairs_the_action_is_the_checkpoint_of_the_best_accuracy() -> None:
    accuracy = {10: 0.5, 20: 0.68, 30: 0.68, 40: 0.72}
    run = curve_cases.robust([0.69, 0.57, 0.8, 0.89], val_pref_acc=accuracy)
    for rule in ("overfit_alarm", "valid_loss_rises"):
        finding = diagnose(run).of(rule)
        assert finding is not None
        assert finding.severity == "warn"
        assert "about step 40" in finding.action
        assert finding.evidence[1].values == (0.68, 0.72)


def test_spikes_of_a_hundred_times_the_usual_norm_are_severe() -> None:
    for size, severity in ((20.0, "warn"), (466.0, "severe")):
        finding = diagnose(curve_cases.norms({20: size, 30: size, 40: size})).of("gradient_explodes")
        assert finding is not None
        assert finding.severity == severity


def test_a_gap_is_shown_by_the_values_it_was_worked_out_from() -> None:
    train = {100: 0.3, 200: 0.5, 300: 0.7, 400: 0.8}
    run = curves("rft", train_mean_reward=train, full_valid_mean_reward={100: 0.3, 200: 0.5, 300: 0.52})
    finding = diagnose(run).of("reward_gap")
    assert finding is not None
    assert [(one.steps, one.values) for one in finding.evidence] == [((300,), (0.52,)), ((300,), (0.7,))]


def test_of_several_graders_each_is_looked_at() -> None:
    whole = {"train_mean_reward": line(40, 0.2, 0.5), "full_valid_mean_reward": line(40, 0.2, 0.49)}
    a = {
        f"scores__graders__python__a__{part}_reward_mean": line(40, 0.4, end)
        for part, end in (("train", 1), ("valid", 0.6))
    }
    b = {"scores__graders__score_model__b__train_reward_mean": [0.0] * 40}
    found = diagnose(curves("rft", **whole, **a, **b))
    assert {one.rule: (one.severity, one.title) for one in found.findings} == {
        "reward_gap": ("warn", "training reward of grader a is 0.400 above its validation reward"),
        "reward_flat_at_zero": ("warn", "the reward of grader b stays at about 0"),
    }
    alone = diagnose(curves("rft", **whole, **a))  # a single grader is the whole reward
    assert alone.findings == ()


def test_answers_without_a_score_may_be_a_count() -> None:
    finding = diagnose(
        curves("rft", train_mean_reward=line(20, 0.2, 0.5), mean_unresponsive_rewards=[2.0] * 20)
    ).of("unresponsive")
    assert finding is not None
    assert finding.title == "2 answers a step cannot be scored"


@pytest.mark.parametrize("limits", [{"ratio_mild": 3.0}, {"gap_warn": 0.2}, {"sureness": float("inf")}])
def test_bands_are_in_order_and_limits_are_finite(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"as large as the one before it|finite number"):
        Thresholds(**limits)


def test_a_high_reward_that_surely_rises_or_falls_is_not_called_flat() -> None:
    """From .97 of at most 1 no run can gain .03: one that gains all there is left had been told it was flat."""
    said = [
        diagnose(curves("rft", train_mean_reward=values)).of("reward_high_and_flat").title  # type: ignore[union-attr]
        for values in ([0.95] * 20, line(20, 0.975, 0.9999), line(20, 0.975, 0.85))
    ]
    assert said[0].endswith("and flat")
    assert said[1].endswith("and gains only 0.020")
    assert said[2].endswith("and falls by 0.099")
