"""The table of simulated patterns: which rules each must set off, and which may speak beside them.

Patterns keep a distance from the thresholds they are about, stated at each: a run exactly on a threshold has no right
answer under noise. What happens on the thresholds themselves is in the tests, without noise. Rules without noise in
them (steps logged twice, more steps than planned, NaN, stated finals) are in the tests alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import curves_pairs
import curves_rewards
import curves_sft
import numpy as np
from curves_noise import Rng, Simulated

__all__ = ["PATTERNS", "Pattern", "simulate"]


@dataclass(frozen=True)
class Pattern:
    """`must`: rules that have to fire; `may`: those that are right either way; all others must not.

    `severity`: what a rule of `must` has to say, where the pattern is about that.
    """

    make: Callable[[Rng], Simulated]
    must: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    severity: Mapping[str, str] = field(default_factory=dict)


PATTERNS: Mapping[str, Pattern] = {
    "healthy": Pattern(curves_sft.healthy),
    # In underfit and both_high the ratio of the losses grows by 2 to 12 % while neither falls as much:
    # the validation loss does rise, as was seen when the rules were tuned.
    "slow": Pattern(curves_sft.slow, may=("both_losses_high",)),
    "spiky": Pattern(curves_sft.spiky),
    # Two turned curves: the ratio to the training loss, which goes on falling, depends on where they turn.
    "overfit": Pattern(
        curves_sft.overfit, ("overfit_alarm", "valid_loss_rises"), ("overfit_ratio", "valid_loss_plateaus")
    ),
    "turns_up": Pattern(curves_sft.turns_up, ("valid_loss_rises",), ("overfit_ratio", "valid_loss_plateaus")),
    "mild": Pattern(curves_sft.mild, ("overfit_ratio",), ("valid_loss_plateaus",), {"overfit_ratio": "info"}),
    "moderate": Pattern(
        curves_sft.moderate, ("overfit_ratio",), ("valid_loss_plateaus",), {"overfit_ratio": "warn"}
    ),
    "severe": Pattern(
        curves_sft.severe, ("overfit_ratio",), ("valid_loss_plateaus",), {"overfit_ratio": "severe"}
    ),
    "underfit": Pattern(
        curves_sft.underfit, ("train_loss_barely_falls",), ("both_losses_high", "valid_loss_rises")
    ),
    "crash": Pattern(
        curves_sft.crash, ("train_loss_crashes",), ("overfit_ratio", "valid_loss_plateaus", "gap_from_start")
    ),
    "plateau": Pattern(curves_sft.plateau, ("valid_loss_plateaus",)),
    "oscillate": Pattern(
        # the last point of a curve that swings by a third is an alarm's business as well
        curves_sft.oscillate,
        ("valid_loss_oscillates",),
        ("overfit_alarm", "overfit_ratio", "valid_loss_rises", "gap_from_start"),
    ),
    "both_high": Pattern(
        curves_sft.both_high, ("both_losses_high",), ("valid_loss_plateaus", "valid_loss_rises")
    ),
    "gap_from_start": Pattern(curves_sft.gap_from_start, ("gap_from_start",), ("overfit_ratio",)),
    "diverge": Pattern(
        # validation climbs with training; which of the two is named besides does not matter
        curves_sft.diverge,
        ("train_loss_diverges",),
        (
            "overfit_alarm",
            "valid_loss_rises",
            "train_loss_barely_falls",
            "both_losses_high",
            "gradient_explodes",
        ),
    ),
    "explode": Pattern(curves_sft.explode, ("gradient_explodes",)),
    "mis_scheduled": Pattern(curves_sft.mis_scheduled, ("learning_rate_mis_scheduled",)),
    "pairs_healthy": Pattern(curves_pairs.pairs_healthy),
    "not_ln2": Pattern(
        curves_pairs.not_ln2, ("first_loss_not_ln2",), ("train_loss_barely_falls", "train_loss_diverges")
    ),
    "saturated": Pattern(curves_pairs.saturated, ("accuracy_saturates",), ("held_out_accuracy_stays",)),
    "lowers_both": Pattern(curves_pairs.lowers_both, ("margin_lowers_both",)),
    "length_drift": Pattern(curves_pairs.length_drift, ("length_drifts",)),
    "no_gain": Pattern(curves_pairs.no_gain, ("held_out_accuracy_stays",)),
    "rft_healthy": Pattern(curves_rewards.rft_healthy),
    "flat_zero": Pattern(curves_rewards.flat_zero, ("reward_flat_at_zero",)),
    "negative": Pattern(curves_rewards.negative, ("reward_always_negative",), ("reward_does_not_climb",)),
    "high_flat": Pattern(curves_rewards.high_flat, ("reward_high_and_flat",)),
    "stuck": Pattern(curves_rewards.stuck, ("reward_does_not_climb",)),
    "hacked": Pattern(curves_rewards.hacked, ("reward_gap",), severity={"reward_gap": "severe"}),
    "pulls_away": Pattern(curves_rewards.pulls_away, ("reward_gap",), severity={"reward_gap": "warn"}),
    "verbose": Pattern(curves_rewards.verbose, ("answers_grow",), severity={"answers_grow": "warn"}),
    "doubles": Pattern(curves_rewards.doubles, ("answers_grow",), severity={"answers_grow": "info"}),
    "unparsed_climbing": Pattern(
        curves_rewards.unparsed_climbing, ("parse_errors",), severity={"parse_errors": "info"}
    ),
    "unparsed_stuck": Pattern(
        curves_rewards.unparsed_stuck,
        ("parse_errors", "reward_does_not_climb"),
        severity={"parse_errors": "warn"},
    ),
    "grader_bugs": Pattern(curves_rewards.grader_bugs, ("grader_errors",)),
    "unresponsive": Pattern(curves_rewards.unresponsive, ("unresponsive",)),
}


def simulate(pattern: str, seed: int) -> Simulated:
    """The run of one pattern and seed; patterns draw independently, and adding one changes no other."""
    return PATTERNS[pattern].make(np.random.default_rng([*pattern.encode(), seed]))
