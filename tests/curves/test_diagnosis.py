"""The diagnosis as a whole: boundaries as documented, running series, the verdict, and that no numbers break it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm.curves import RULES, CurveRun, Series, Thresholds, diagnose, select
from dlm.curves.rules.overfitting import band_of, ratio_of
from made_curves import curves, falls, judged, line, noisy

LN2 = math.log(2)


@pytest.mark.parametrize(
    ("ratio", "band"),
    [
        (0.0, "healthy"),
        (1.1999999, "healthy"),
        (1.2, "mild"),
        (1.4999999, "mild"),
        (1.5, "moderate"),
        (2.0, "moderate"),
        (2.0000001, "severe"),
        (math.inf, "severe"),
    ],
)
def test_which_band_a_boundary_value_falls_in(ratio: float, band: str) -> None:
    assert band_of(ratio, Thresholds()) == band
    if math.isfinite(ratio) and ratio > 0:
        diagnosis = diagnose(curves("sft", train_loss=[2.0] * 9, valid_loss=[2.0 * ratio] * 9))
        assert diagnosis.ratios[-1].band == band
        found = diagnosis.of("overfit_ratio")
        assert (found is None) == (band == "healthy")
        assert found is None or found.title.startswith(band)


@pytest.mark.parametrize(("valid", "train", "ratio"), [(0, 0, 1), (1, 0, math.inf), (0, 1, 0), (3, 2, 1.5)])
def test_a_loss_of_zero_is_a_value(valid: float, train: float, ratio: float) -> None:
    assert ratio_of(valid, train) == ratio


def test_a_validation_loss_of_zero_is_the_best_checkpoint() -> None:
    run = curves("sft", train_loss=[1, 0.5, 0.2], valid_loss={1: 1.0, 2: 0.0, 3: 0.4}, saved_steps=(1, 2, 3))
    best = select(run).best
    assert best is not None
    assert (best.step, best.saved_step, best.values["valid_loss"]) == (2, 2, 0.0)
    assert diagnose(run).of("overfit_alarm") is not None


def test_a_missing_cell_is_not_zero() -> None:
    run = curves("sft", train_loss=falls(40), valid_loss={10: 2.0, 40: 1.0})
    assert [(one.step, one.valid_loss) for one in diagnose(run).ratios] == [(10, 2.0), (40, 1.0)]


def test_the_ratio_is_taken_at_every_checkpoint_by_the_training_loss_before_it() -> None:
    run = curves(
        "sft", train_loss={10: 2.0, 20: 1.0, 30: 0.5}, valid_loss={5: 3.0, 10: 2.2, 20: 1.3, 30: 1.1}
    )
    found = [(one.step, one.train_loss, round(one.ratio, 3), one.band) for one in diagnose(run).ratios]
    assert found == [(10, 2.0, 1.1, "healthy"), (20, 1.0, 1.3, "mild"), (30, 0.5, 2.2, "severe")]


def test_thresholds_can_be_moved() -> None:
    run = curves("sft", train_loss=falls(9), valid_loss=[2.0, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.05, 1.1])
    assert judged(run).of("overfit_alarm") is None
    assert judged(run, overfit_alarm=1.09).of("overfit_alarm") is not None
    with pytest.raises(ValueError, match="overfit_alarm"):
        Thresholds(overfit_alarm=0.5)


def test_smoothed_finals_stand_beside_last_values() -> None:
    run = curves("sft", train_loss=[*noisy([0.05] * 200, 0.05), 0.4665])
    final = diagnose(run).finals["train_loss"]
    assert final.last == 0.4665
    assert final.smoothed == pytest.approx(0.05, rel=0.1)
    assert final.standard_error < 0.02


def test_the_verdict_is_the_worst_finding_and_the_order_that_of_severity() -> None:
    run = curves("sft", train_loss=[2, 1, math.nan], planned_steps=2, learning_rate=[1e-4, 1e-4, 1e-4])
    diagnosis = diagnose(run)
    assert diagnosis.verdict.level == "severe"
    assert [one.severity for one in diagnosis.findings] == sorted(
        (one.severity for one in diagnosis.findings), key=("severe", "warn", "info").index
    )
    assert "1 more finding" in diagnosis.verdict.text


def test_a_healthy_run_is_healthy_and_an_empty_one_unknown() -> None:
    good = falls(60)
    run = curves(
        "sft", train_loss=good, valid_loss=good, learning_rate=line(60, 1e-4, 0), grad_norm=[1.0] * 60
    )
    assert diagnose(run).verdict.level == "healthy"
    assert diagnose(CurveRun("empty", "sft", {})).verdict.level == "unknown"
    assert diagnose(curves("sft", train_loss=[1.0])).verdict.level == "unknown"


def test_a_running_run_is_judged_by_what_is_there_and_its_end_is_left_open() -> None:
    whole = falls(60)
    run = curves("sft", train_loss=[2.0] * 20, learning_rate=line(60, 1e-4, 0)[:20], planned_steps=60)
    running = diagnose(run, running=True)
    assert running.verdict.level == "healthy"
    assert "so far" in running.verdict.text
    open_rules = {one.rule for one in running.undecided}
    assert "train_loss_barely_falls" in open_rules
    assert {rule.name for rule in RULES if rule.at_end and "sft" in rule.kinds} & open_rules
    assert diagnose(run).of("train_loss_barely_falls") is not None
    assert diagnose(run).of("learning_rate_mis_scheduled") is not None  # cut off, were it over
    broken = curves("sft", train_loss=[*whole[:30], *[9.0] * 10], planned_steps=60)
    assert diagnose(broken, running=True).of("train_loss_diverges") is not None


def test_no_run_is_stopped_for_its_first_points() -> None:
    flat = curves("rft", train_mean_reward=[0.0] * 15, planned_steps=100)
    assert diagnose(flat).of("reward_flat_at_zero") is not None
    assert diagnose(flat, running=True).severe == ()
    later = curves("rft", train_mean_reward=[0.0] * 20, planned_steps=100)
    assert diagnose(later, running=True).of("reward_flat_at_zero") is not None
    up = curves("sft", train_loss=[2.0, 1.9, 1.8, 1.7], valid_loss=[1.0, 1.5, 1.6], planned_steps=100)
    assert diagnose(up, running=True).of("overfit_alarm") is None
    assert diagnose(up).of("overfit_alarm") is not None


def test_a_run_that_was_stopped_early_is_not_blamed_for_its_schedule() -> None:
    run = curves("sft", train_loss=falls(20), learning_rate=line(40, 1e-4, 0)[:12], planned_steps=40)
    found = diagnose(run).of("learning_rate_mis_scheduled")
    assert found is not None
    assert found.severity == "info"
    assert "step 20 of 40" in found.evidence[0].text


def test_a_crash_while_running_wants_the_plan() -> None:
    values = [2.0, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01]
    known = diagnose(curves("sft", train_loss=values, planned_steps=100), running=True)
    assert known.of("train_loss_crashes") is not None
    unknown = diagnose(curves("sft", train_loss=values), running=True)
    assert "train_loss_crashes" in {one.rule for one in unknown.undecided}


def test_the_page_s_run_is_read_and_its_contradictions_named() -> None:
    """Called DPO, first loss about 2, 2,145 steps of 1,938, finals of one batch (the page of the Fine-tune view)."""
    loss = [*noisy(falls(400, 2.0, 0.1, 0.1), 0.1), *noisy(line(1744, 0.06, 0.05), 0.2), 0.4665]
    accuracy = [*noisy(line(1744, 0.5, 0.75), 0.02), *noisy([0.75] * 400, 0.02), 0.873]
    rate = [*line(1938, 2e-4, 0), *[0.0] * 207]
    run = curves(
        "preference",
        method="dpo",
        train_loss=loss,
        train_mean_token_accuracy=accuracy,
        learning_rate=rate,
        grad_norm=noisy(falls(2145, 8, 1, 0.1), 0.2),
        planned_steps=1938,
        stated={"final_loss": 0.4665, "final_token_accuracy": 0.873, "steps": 2145.0, "num_epochs": 3.0},
    )
    diagnosis = diagnose(run)
    named = {one.rule for one in diagnosis.findings}
    assert {"first_loss_not_ln2", "more_steps_than_planned", "stated_final_differs"} <= named
    assert "learning_rate_mis_scheduled" in named
    first = diagnosis.of("first_loss_not_ln2")
    assert first is not None
    assert "cross-entropy" in first.action
    assert "not one curve of DPO's own" in first.evidence[0].text
    steps = diagnosis.of("more_steps_than_planned")
    assert steps is not None
    assert steps.title == "2145 steps logged of 1938 planned"
    assert "explains 3 steps at most" in steps.evidence[0].text
    finals = diagnosis.of("stated_final_differs")
    assert finals is not None
    assert "0.4665" in finals.evidence[0].text
    assert "the last batch's" in finals.evidence[0].text


def test_the_same_run_gets_the_same_diagnosis() -> None:
    run = curves("sft", train_loss=noisy(falls(200), 0.1), valid_loss=noisy(falls(200), 0.05))
    assert diagnose(run) == diagnose(run)
    assert select(run) == select(run)


NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=64)
NAMES = (
    "train_loss",
    "valid_loss",
    "full_valid_loss",
    "train_mean_token_accuracy",
    "grad_norm",
    "learning_rate",
    "epoch",
    "rewards/accuracies",
    "val_pref_acc",
    "valid_rewards/margins",
    "full_valid_pairs",
    "logps/chosen",
    "logps/rejected",
    "train_mean_reward",
    "full_valid_mean_reward",
    "completion_tokens_mean",
    "mean_unresponsive_rewards",
    "train_sample_parse_error_count",
    "train_other_error_count",
)


@st.composite
def any_series(draw: st.DrawFn, name: str) -> Series:
    count = draw(st.integers(0, 12))
    start = draw(st.sampled_from((0, 1, 7, 2**40)))
    steps = start + np.cumsum(
        draw(st.lists(st.integers(1, 9), min_size=count, max_size=count)), dtype=np.int64
    )
    tame = st.floats(-5, 5)
    values = draw(st.lists(st.one_of(tame, tame, NUMBERS), min_size=count, max_size=count))
    return Series(name, "", np.asarray(steps, np.int64), np.array(values, float), np.full(count, np.nan))


@st.composite
def any_run(draw: st.DrawFn) -> CurveRun:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
    made: Mapping[str, Series] = {name: draw(any_series(name)) for name in names}
    return CurveRun(
        "any",
        draw(st.sampled_from(("sft", "preference", "reward", "rft", "unknown"))),
        made,
        method=draw(st.sampled_from(("dpo", "orpo", ""))),
        planned_steps=draw(st.none() | st.integers(1, 200)),
        steps_per_epoch=draw(st.none() | st.floats(0.1, 50)),
        saved_steps=tuple(sorted(draw(st.sets(st.integers(0, 200), max_size=5)))),
        stated={"final_loss": draw(NUMBERS), "steps": draw(st.floats(0, 1e6))},
        logged_rows=draw(st.integers(0, 50)),
    )


@settings(max_examples=min(settings.default.max_examples, 400))  # a diagnosis takes tens of milliseconds
@given(any_run(), st.booleans())
def test_no_numbers_break_a_rule(run: CurveRun, running: bool) -> None:
    diagnosis = diagnose(run, running=running)
    assert diagnosis.verdict.text
    for finding in diagnosis.findings:
        assert finding.title
        assert "\n" not in finding.title
    for candidate in select(run).candidates:
        assert candidate.reason
        assert candidate.saved_step is None or candidate.saved_step in run.saved_steps
        assert candidate.saved_step is None or candidate.saved_step <= candidate.step
