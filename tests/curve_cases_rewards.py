"""Cases for the rules about pairs, rewards and records: what must set each off, what comes near, what is too short."""

from __future__ import annotations

import math

import numpy as np

from curve_cases import GOOD, Case
from dlm.curves import CurveRun, Repeats
from made_curves import curves, falls, line, noisy

LN2 = math.log(2)
TWICE = {"repeats": Repeats(rows=5, steps=5, first=11, last=15)}
PARSE = line(20, 0.2, 0.5)


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


CASES: dict[str, Case] = {
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
