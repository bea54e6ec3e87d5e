"""Every rule on curves written by hand: what must set it off, what comes near and must not, and what is too short."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from dlm.curves import RULES, CurveRun, Repeats, Thresholds, diagnose
from made_curves import curves, falls, line, noisy

NAN, INF, LN2 = math.nan, math.inf, math.log(2)
GOOD = falls(40)


def both(train: list[float], valid: list[float], **more: object) -> CurveRun:
    """Training and validation at the same steps."""
    return curves("sft", train_loss=train, valid_loss=valid, **more)


def turned(final: float, count: int = 9) -> list[float]:
    """A validation loss that falls from 2 to 1 and ends at `final`."""
    return [*line(count - 3, 2.0, 1.0), *line(4, 1.0, final)[1:]]


def dpo(first: float, **more: object) -> CurveRun:
    return curves("preference", method="dpo", train_loss=[first, *falls(30, LN2 - 0.01, 0.4)], **more)


def ranked(train: list[float], held_out: list[float]) -> CurveRun:
    every = len(train) // len(held_out)
    at = {every * (i + 1): value for i, value in enumerate(held_out)}
    return curves(
        "preference",
        method="dpo",
        train_loss=falls(len(train), LN2, 0.3),
        rewards__accuracies=train,
        val_pref_acc=at,
    )


def likelihoods(chosen: list[float], rejected: list[float]) -> CurveRun:
    return curves("preference", method="dpo", logps__chosen=chosen, logps__rejected=rejected)


def rewards(train: list[float], **more: object) -> CurveRun:
    return curves("rft", train_mean_reward=train, **more)


def gap(value: float) -> CurveRun:
    return rewards(line(20, 0.3, 0.6), full_valid_mean_reward=line(20, 0.3, 0.6 - value))


def rate(values: list[float], **more: object) -> CurveRun:
    return curves("sft", train_loss=falls(len(values)), learning_rate=values, **more)


def norms(at: dict[int, float], count: int = 60, usual: float = 1.0) -> CurveRun:
    values = [usual + 0.1 * (i % 3) for i in range(count)]
    for index, value in at.items():
        values[index] = value
    return curves("sft", train_loss=falls(count), grad_norm=values)


def epochs(valid: list[float], per_epoch: float = 10) -> CurveRun:
    return both([2.0, *falls(len(valid) - 1, 1.9, valid[-1] * 0.9)], valid, steps_per_epoch=per_epoch)


SWING = [1.0 + (0.25 if i % 2 else -0.25) for i in range(12)]
CALM = [1.0 + (0.04 if i % 2 else -0.04) for i in range(12)]
TWICE = {"repeats": Repeats(rows=5, steps=5, first=11, last=15)}
PARSE = line(20, 0.2, 0.5)


@dataclass(frozen=True)
class Case:
    """`fires`, `quiet`: at least three runs each. `short`: a run too short to say; `waits`: it is said to be undecided
    (a few rules need but one point, and have nothing to wait for).
    """

    fires: list[CurveRun]
    quiet: list[CurveRun]
    short: CurveRun
    waits: bool = True
    severity: list[str] = field(default_factory=list)


CASES: dict[str, Case] = {
    "non_finite": Case(
        [
            curves("sft", train_loss=[2, 1, NAN, NAN]),
            curves("sft", train_loss=[2, 1, 0.5], grad_norm=[1, INF, 1]),
            rewards([0.1, -INF, 0.2]),
            curves("preference", method="dpo", train_loss=[LN2, 0.6], logps__chosen=[-10, NAN]),
        ],
        [
            curves("sft", train_loss=[2, 1, 0]),
            curves("sft", train_loss=[1e300, 1e-300, 1]),
            curves("sft", train_loss=[2, 1], some_column=[NAN, 1.0]),
        ],
        CurveRun("made", "sft", {}),
        waits=False,
    ),
    "train_loss_diverges": Case(
        [
            curves("sft", train_loss=falls(30) + [1.3] * 10),
            curves("sft", train_loss=noisy(falls(30) + line(10, 1.0, 4.0), 0.1)),
            curves("preference", method="orpo", train_loss=falls(20, 3, 1) + [9.0] * 6),
        ],
        [
            curves("sft", train_loss=falls(30) + [1.19] * 10),  # 1.49 times .8
            curves("sft", train_loss=[*falls(38), 5.0, 0.8]),  # a spike, and back
            curves("sft", train_loss=noisy(falls(200), 0.2)),
            curves("sft", train_loss=[0.001] * 20 + [0.04] * 10),  # forty times nothing is still nothing
        ],
        curves("sft", train_loss=[1, 0.5, 3, 3]),
    ),
    "overfit_alarm": Case(
        [
            both(falls(9), turned(1.21)),
            curves("sft", train_loss=GOOD, full_valid_loss={10: 1.0, 20: 0.5, 30: 0.601}),
            curves(
                "sft",
                train_loss=noisy(falls(200), 0.1),
                valid_loss=noisy([*falls(100, 2, 1), *line(100, 1, 1.6)], 0.02),
            ),
            curves("sft", train_loss=GOOD, eval_loss={10: 0.0, 20: 0.1}),  # 0 is the best there is, not a gap
        ],
        [
            both(falls(9), turned(1.20)),  # the boundary itself is no alarm
            both(falls(9), turned(1.19)),
            both(falls(9), falls(9, 2, 1.0)),
            both(
                noisy(falls(60), 0.1), noisy(falls(60, 2, 1.2), 0.07)
            ),  # noise alone, its minimum 1.2 times below its end
        ],
        both([2.0], [2.0]),
    ),
    "overfit_ratio": Case(
        [
            both([1.0] * 8, [1.2] * 8),
            both(falls(9, 2, 1), [*falls(8, 2, 1.4), 1.5]),
            both(falls(9, 2, 1), [*falls(8, 2, 1.4), 2.001]),
            both([0.5, 0.0], [1.0, 0.7]),  # a training loss of 0 is a value: infinite
        ],
        [
            both([1.0] * 8, [1.199] * 8),
            both(falls(9, 2, 1), falls(9, 2, 1.1)),
            both([0.5, 0.0], [0.5, 0.0]),  # 0 over 0 is 1
            both([0.5, 0.001], [0.5, 0.003]),  # three times next to nothing
        ],
        curves("sft", train_loss={10: 1.0}, valid_loss={5: 2.0}),
        severity=["info", "warn", "severe", "severe"],
    ),
    "valid_loss_rises": Case(
        [
            both(falls(9), turned(1.06)),
            both(falls(9), turned(1.5)),
            both(noisy(falls(120), 0.1), noisy([*falls(60, 2, 1), *line(60, 1, 1.2)], 0.015)),
        ],
        [
            both(falls(9), turned(1.04)),
            both(falls(9), falls(9, 2, 1)),
            both(noisy(falls(120), 0.1), noisy([*falls(60, 2, 1), *line(60, 1, 1)], 0.04)),
        ],
        both([2, 1], [2, 1]),
    ),
    "gap_from_start": Case(
        [
            both(falls(20), [1.6 * one for one in falls(20)]),
            both(noisy(falls(100), 0.1), noisy([2.2 * one for one in falls(100)], 0.02)),
            curves("sft", train_loss=falls(40, 3, 1), valid_loss={10: 4.0, 20: 2.9, 30: 2.5, 40: 2.3}),
        ],
        [
            both(falls(20), [1.4 * one for one in falls(20)]),
            both(
                falls(20), [one * (1 + i / 10) for i, one in enumerate(falls(20))]
            ),  # it grows: that is overfitting
            both(noisy(falls(100), 0.1), noisy(falls(100), 0.02)),
        ],
        curves("sft", train_loss=falls(40), valid_loss={20: 4.0, 40: 3.9}),
    ),
    "train_loss_barely_falls": Case(
        [
            curves("sft", train_loss=line(30, 2.0, 1.92)),
            curves("sft", train_loss=noisy(line(400, 3.0, 2.97), 0.1)),
            curves("sft", train_loss=[2.0] * 10),
        ],
        [
            curves("sft", train_loss=line(30, 2.0, 1.89)),
            curves("sft", train_loss=noisy(falls(100), 0.1)),
            curves("sft", train_loss=[0.04] * 10),  # nothing left to fall from
        ],
        curves("sft", train_loss=[2, 2, 2, 2]),
    ),
    "train_loss_crashes": Case(
        [
            curves("sft", train_loss=falls(10, 2, 0.01) + [0.01] * 30),
            curves("sft", train_loss=noisy(falls(60, 2, 0.02, 0.1) + [0.02] * 140, 0.1)),
            curves("sft", train_loss=[0.0] * 12),  # every label masked, or known already
        ],
        [
            curves("sft", train_loss=falls(10, 2, 0.06) + [0.06] * 30),
            curves("sft", train_loss=line(40, 2.0, 0.01)),  # gets there, in its own time
            curves("sft", train_loss=falls(10, 2, 0.01) + falls(30, 0.01, 0.5)),  # and comes back
        ],
        curves("sft", train_loss=[2, 0.01, 0.01]),
    ),
    "valid_loss_plateaus": Case(
        [
            epochs(falls(10, 1.8, 1.0, 0.1) + [1.0] * 20),
            epochs(falls(10, 1.8, 1.0, 0.1) + line(20, 1.0, 0.98)),
            epochs(noisy(falls(10, 1.8, 1.0, 0.1) + [1.0] * 20, 0.01)),
        ],
        [
            epochs(falls(10, 1.8, 1.2) + line(20, 1.2, 1.0)),
            epochs(falls(10, 1.8, 1.0, 0.1) + line(20, 1.0, 1.3)),  # it rises
            epochs(falls(30, 1.8, 1.0, 0.1), per_epoch=30),  # there was but one epoch
        ],
        curves("sft", train_loss=falls(30), valid_loss={10: 1.0, 30: 1.0}, steps_per_epoch=10),
    ),
    "valid_loss_oscillates": Case(
        [
            both(falls(12), SWING),
            both(falls(40), noisy([1.0] * 40, 0.3)),
            both(falls(12), [2 * one for one in SWING]),
        ],
        [both(falls(12), CALM), both(falls(40), noisy(falls(40), 0.05)), both(falls(12), falls(12, 9, 0.1))],
        both(falls(5), SWING[:5]),
    ),
    "both_losses_high": Case(
        [
            both(line(20, 3.0, 2.6), line(20, 3.1, 2.7)),
            both(line(20, 1.9, 1.5), line(20, 2.0, 1.6)),
            both(noisy(falls(100, 4, 3.5, 0.1), 0.1), noisy(falls(100, 4, 3.6, 0.1), 0.02)),
        ],
        [
            both(line(20, 3.0, 2.2), line(20, 3.1, 2.3)),  # a fall of .27
            both(line(20, 1.7, 1.49), line(20, 1.8, 1.6)),
            both(line(20, 3.0, 2.6), line(20, 3.1, 1.4)),
        ],
        both([3, 3, 3], [3, 3, 3]),
    ),
    "gradient_explodes": Case(
        [
            norms({20: 30.0, 30: 15.0, 40: 90.0}),
            norms(dict.fromkeys(range(30, 60), 25.0)),
            norms(dict.fromkeys(range(9, 59, 7), 50.0)),
        ],
        [norms({20: 30.0, 40: 90.0}), norms({20: 9.0, 30: 9.5, 40: 9.9}), norms({0: 80.0, 1: 20.0})],
        curves("sft", train_loss=falls(9), grad_norm=[1, 1, 1, 50, 50, 50, 1, 1, 1]),
        severity=["warn", "severe", "warn"],
    ),
    "learning_rate_mis_scheduled": Case(
        [
            rate(line(40, 1e-4, 0.6e-4)),  # cut off
            rate(line(36, 1e-4, 0.0) + [0.0] * 4),
            rate(line(20, 1e-4, 0.5e-4) + line(20, 1e-4, 0.5e-4)),  # restarted
            rate(line(40, 1e-6, 1e-4)),  # still warming up
            rate([0.0] * 10),
        ],
        [
            rate(line(4, 1e-5, 1e-4) + line(36, 1e-4, 0.0)),
            rate([1e-4] * 40),
            rate((1e-4 * (0.55 + 0.45 * np.cos(np.linspace(0, np.pi, 40)))).tolist()),  # a cosine to a tenth
        ],
        rate([1e-4, 0.0, 0.0, 0.0]),
    ),
    "first_loss_not_ln2": Case(
        [
            dpo(2.0),
            dpo(LN2 + 0.051),
            dpo(LN2 - 0.051),
            dpo(2.0, train_nll_loss=[1.3] * 31, rewards__margins=line(31, 0.4, 2)),
        ],
        [
            dpo(LN2),
            dpo(LN2 + 0.049),
            curves("preference", method="orpo", train_loss=[2.0, 1.5]),
            curves("preference", method="dpo/ipo", train_loss=[25.0, 20.0]),
            dpo(
                2.0, train_nll_loss=[1.3] * 31, rewards__margins=line(31, 0, 2)
            ),  # the chosen answers' loss is in it
        ],
        curves("preference", method="dpo", train_loss={10: 0.5, 20: 0.4}),  # the first step was not logged
    ),
    "accuracy_saturates": Case(
        [
            ranked([0.5] + [1.0] * 59, [0.5] * 6),
            ranked([0.5, 0.9] + [0.99] * 58, [0.5, 0.52, 0.54, 0.53, 0.5, 0.51]),
            ranked([1.0] * 60, [0.45] * 6),
        ],
        [
            ranked([0.5] + [1.0] * 59, [0.5, 0.6, 0.7, 0.7, 0.7, 0.7]),
            ranked(line(60, 0.5, 1.0), [0.5] * 6),
            ranked([0.5] + [0.94] * 59, [0.5] * 6),
        ],
        ranked([0.5] + [1.0] * 11, [0.5] * 2),
    ),
    "held_out_accuracy_stays": Case(
        [
            ranked(line(60, 0.5, 1), [0.5] * 6),
            ranked(line(60, 0.5, 1), [0.5, 0.4, 0.45, 0.4, 0.4, 0.4]),
            ranked([0.5] * 60, [0.54] * 6),
        ],
        [
            ranked(line(60, 0.5, 1), [0.5, 0.6, 0.7, 0.7]),
            ranked(line(60, 0.5, 1), [0.56] * 6),
            ranked(line(60, 0.5, 1), line(6, 0.5, 0.9)),
        ],
        ranked(line(60, 0.5, 1), [0.5, 0.5]),
    ),
    "margin_lowers_both": Case(
        [
            likelihoods(line(30, -50, -60), line(30, -50, -90)),
            likelihoods(line(30, -50, -54.1), line(30, -50, -56)),
            likelihoods(noisy(line(200, -80, -110), 0.05, 1), noisy(line(200, -90, -160), 0.05, 2)),
        ],
        [
            likelihoods(line(30, -50, -53.9), line(30, -50, -90)),
            likelihoods(line(30, -50, -45), line(30, -50, -60)),
            likelihoods(line(30, -50, -60), line(30, -50, -58)),  # no margin grows
        ],
        likelihoods(line(9, -50, -80), line(9, -50, -99)),
    ),
    "length_drifts": Case(
        [
            curves("preference", completion_tokens_mean=line(10, 100, 151)),
            curves("preference", completion_tokens_mean=line(10, 100, 66)),
            curves("preference", completion_tokens_mean=noisy(line(60, 100, 200), 0.05)),
        ],
        [
            curves("preference", completion_tokens_mean=line(10, 100, 149)),
            curves("preference", completion_tokens_mean=line(10, 100, 68)),
            curves("preference", completion_tokens_mean=noisy([100.0] * 60, 0.1)),
        ],
        curves("preference", completion_tokens_mean=[100.0]),
    ),
    "reward_flat_at_zero": Case(
        [
            rewards([0.0] * 20),
            rewards([0.01] * 20),
            rewards((0.02 * np.random.default_rng(0).normal(size=100)).tolist()),
        ],
        [rewards([0.03] * 20), rewards(line(20, 0.0, 0.3)), rewards([-0.5] * 20)],
        rewards([0.0] * 5),
    ),
    "reward_always_negative": Case(
        [rewards([-0.5] * 20), rewards(line(20, -0.9, -0.1)), rewards([-0.03] * 20)],
        [rewards(line(20, -0.3, 0.3)), rewards([-0.01] * 20), rewards([0.0] * 20)],
        rewards([-1.0] * 9),
    ),
    "reward_high_and_flat": Case(
        [rewards([0.9] * 20), rewards([0.95] * 20), rewards(line(20, 0.97, 0.99))],
        [rewards([0.89] * 20), rewards(line(20, 0.9, 0.99)), rewards(line(20, 0.2, 0.95))],
        rewards([0.95] * 9),
    ),
    "reward_does_not_climb": Case(
        [rewards([0.4] * 20), rewards(line(20, 0.4, 0.41)), rewards(line(20, 0.5, 0.3))],
        [rewards(line(20, 0.4, 0.5)), rewards([0.0] * 20), rewards([0.95] * 20)],
        rewards([0.4] * 9),
    ),
    "reward_gap": Case(
        [gap(0.051), gap(0.10), gap(0.101)],
        [gap(0.05), gap(0.0), gap(-0.3)],
        rewards(line(20, 0.3, 0.6)),  # without validation nobody can say
        severity=["warn", "warn", "severe"],
    ),
    "answers_grow": Case(
        [
            rewards([0.5] * 10, completion_tokens_mean=line(10, 100, 200)),
            rewards([0.5] * 10, completion_tokens_mean=line(10, 100, 299)),
            rewards([0.5] * 10, completion_tokens_mean=line(10, 100, 300)),
        ],
        [
            rewards([0.5] * 10, completion_tokens_mean=line(10, 100, 199)),
            rewards([0.5] * 10, completion_tokens_mean=line(10, 300, 100)),
            rewards([0.5] * 10, completion_tokens_mean=noisy([100.0] * 60, 0.1)),
        ],
        rewards([0.5] * 10, completion_tokens_mean=[100.0]),
        severity=["info", "info", "warn"],
    ),
    "parse_errors": Case(
        [
            rewards(PARSE, train_sample_parse_error_count=[3.0] * 20),
            rewards([0.3] * 20, train_sample_parse_error_count=[10.0] * 20),
            rewards(line(20, 0.5, 0.3), train_sample_parse_error_count=line(20, 0, 20)),
        ],
        [
            rewards(PARSE, train_sample_parse_error_count=[2.9] * 20),
            rewards(PARSE, train_sample_parse_error_count=[0.0] * 20),
            rewards(
                PARSE, train_sample_parse_error_count=line(20, 20, 0)[:10] + [0.0] * 10
            ),  # it learnt the format
        ],
        rewards(PARSE, train_sample_parse_error_count=[9.0] * 9),
        severity=["info", "warn", "warn"],
    ),
    "grader_errors": Case(
        [
            rewards(PARSE, train_other_error_count=[0, 0, 1, 0]),
            rewards(PARSE, errors__graders__python__mine__train_other_error_count=[0, 2]),
            rewards(PARSE, valid_other_error_count=[3]),
        ],
        [
            rewards(PARSE, train_other_error_count=[0.0] * 20),
            rewards(PARSE, errors__graders__python__mine__train_other_error_mean=[0.0]),
            rewards(PARSE, train_sample_parse_error_count=[9.0] * 20),
        ],
        rewards(PARSE),
        waits=False,
    ),
    "unresponsive": Case(
        [
            rewards(PARSE, mean_unresponsive_rewards=[0.05] * 8),
            rewards(PARSE, mean_unresponsive_rewards=[0.5] * 8),
            rewards(PARSE, mean_unresponsive_rewards=line(20, 0, 0.2)),
        ],
        [
            rewards(PARSE, mean_unresponsive_rewards=[0.049] * 8),
            rewards(PARSE, mean_unresponsive_rewards=[0.0] * 8),
            rewards(PARSE, mean_unresponsive_rewards=line(20, 0.2, 0.0)),
        ],
        rewards(PARSE, mean_unresponsive_rewards=[0.5, 0.5]),
    ),
    "more_steps_than_planned": Case(
        [
            curves("sft", train_loss=GOOD, planned_steps=39),
            curves("sft", train_loss=GOOD, planned_steps=40, stated={"steps": 45.0}),
            curves("sft", train_loss=GOOD, planned_steps=40, logged_rows=45, **TWICE),
        ],
        [
            curves("sft", train_loss=GOOD, planned_steps=40),
            curves("sft", train_loss=GOOD, planned_steps=60),
            curves(
                "sft", train_loss=GOOD, planned_steps=40, logged_rows=45
            ),  # no step twice: rows of other kinds
        ],
        curves("sft", train_loss=GOOD),
        waits=False,
    ),
    "steps_logged_twice": Case(
        [
            curves("sft", train_loss=GOOD, **TWICE),
            rewards(PARSE, **TWICE),
            curves("preference", train_loss=GOOD, **TWICE),
        ],
        [curves("sft", train_loss=GOOD), rewards(PARSE), curves("preference", train_loss=GOOD)],
        CurveRun("made", "sft", {}),
        waits=False,
    ),
    "stated_final_differs": Case(
        [
            curves("sft", train_loss=[*falls(60, 2, 0.05, 0.1), 0.4665], stated={"final_loss": 0.4665}),
            curves(
                "sft",
                train_loss=GOOD,
                train_mean_token_accuracy=line(40, 0.5, 0.75),
                stated={"final_token_accuracy": 0.873},
            ),
            curves("sft", train_loss=[1.0] * 30, stated={"final_loss": 0.89}),
        ],
        [
            curves("sft", train_loss=[1.0] * 30, stated={"final_loss": 0.91}),
            curves("sft", train_loss=noisy([1.0] * 60, 0.2), stated={"final_loss": 1.1}),
            curves("sft", train_loss=GOOD, stated={"final_loss": GOOD[-1]}),
        ],
        curves("sft", train_loss=[1.0, 1.0], stated={"final_loss": 0.5}),
        waits=False,
    ),
}


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
