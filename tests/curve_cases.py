"""Cases for the rules about losses and the optimiser: what must set each off, what comes near, what is too short."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from dlm.curves import CurveRun
from made_curves import curves, falls, line, noisy

NAN, INF = math.nan, math.inf
GOOD = falls(40)
SWING = [1.0 + (0.25 if i % 2 else -0.25) for i in range(12)]
CALM = [1.0 + (0.04 if i % 2 else -0.04) for i in range(12)]


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


def both(train: list[float], valid: list[float], **more: object) -> CurveRun:
    """Training and validation at the same steps."""
    return curves("sft", train_loss=train, valid_loss=valid, **more)


def turned(final: float, count: int = 9) -> list[float]:
    """A validation loss that falls from 2 to 1 and ends at `final`."""
    return [*line(count - 3, 2.0, 1.0), *line(4, 1.0, final)[1:]]


def robust(valid: list[float], **more: object) -> CurveRun:
    """A robust DPO run, whose losses end below 0."""
    return curves(
        "preference",
        method="dpo/robust",
        train_loss=falls(40, math.log(2), -0.99),
        valid_loss={10 * (i + 1): value for i, value in enumerate(valid)},
        **more,
    )


def rate(values: list[float], **more: object) -> CurveRun:
    return curves("sft", train_loss=falls(len(values)), learning_rate=values, **more)


def norms(at: dict[int, float], count: int = 60, usual: float = 1.0) -> CurveRun:
    values = [usual + 0.1 * (i % 3) for i in range(count)]
    for index, value in at.items():
        values[index] = value
    return curves("sft", train_loss=falls(count), grad_norm=values)


def epochs(valid: list[float], per_epoch: float = 10) -> CurveRun:
    return both([2.0, *falls(len(valid) - 1, 1.9, valid[-1] * 0.9)], valid, steps_per_epoch=per_epoch)


CASES: dict[str, Case] = {
    "non_finite": Case(
        [
            curves("sft", train_loss=[2, 1, NAN, NAN]),
            curves("sft", train_loss=[2, 1, 0.5], grad_norm=[1, INF, 1]),
            curves("rft", train_mean_reward=[0.1, -INF, 0.2]),
            curves("preference", method="dpo", train_loss=[math.log(2), 0.6], logps__chosen=[-10, NAN]),
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
            robust([0.69, -0.5, -0.9, -0.6]),  # a loss may be below 0: as far above its best
            robust([0.69, -0.5, -0.9, -0.6], val_pref_acc={10: 0.5, 20: 0.6, 30: 0.7, 40: 0.72}),
        ],
        [
            both(falls(9), turned(1.20)),  # the boundary itself is no alarm
            both(falls(9), turned(1.19)),
            both(falls(9), falls(9, 2, 1.0)),
            robust([0.69, -0.5, -0.9, -0.95]),
            robust([0.69, -0.5, -0.9, -0.73]),
            both(
                falls(9), [1, 0.5, 0.2, 0.1, 0, 0, 0, 0.001, 0.002]
            ),  # infinitely more than nothing is still nothing
            both(falls(9, 2, 0.0002), [1.7, 0.5, 0.1, 0.01, 0.001, 0.000285, 0.0004, 0.0005, 0.0006]),
            both(
                noisy(falls(60), 0.1), noisy(falls(60, 2, 1.2), 0.07)
            ),  # noise alone, its minimum 1.2 times below its end
        ],
        both([2.0], [2.0]),
        severity=["severe"] * 5 + ["warn"],
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
            robust([0.69, -0.5, -0.9, -0.84]),
            both(noisy(falls(120), 0.1), noisy([*falls(60, 2, 1), *line(60, 1, 1.2)], 0.015)),
        ],
        [
            robust([0.69, -0.5, -0.9, -0.87]),
            both(falls(9), [1, 0.5, 0.2, 0.1, 0, 0, 0, 0.001, 0.002]),
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
}
