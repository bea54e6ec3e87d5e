"""The table of rules: what each one says, for which kinds of run, and with which thresholds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dlm.curves.rules import losses, optimiser, overfitting, pairs, records, rewards
from dlm.curves.run import RunKind
from dlm.curves.thresholds import Thresholds
from dlm.curves.view import Outcome, View

__all__ = ["RULES", "Rule"]

_ALL: tuple[RunKind, ...] = ("sft", "preference", "reward", "rft", "unknown")
_LOSSES: tuple[RunKind, ...] = (
    "sft",
    "preference",
    "reward",
    "unknown",
)  # the loss of rft is no measure of success
_SFT: tuple[RunKind, ...] = ("sft", "unknown")
_PAIRS: tuple[RunKind, ...] = ("preference", "reward")


@dataclass(frozen=True)
class Rule:
    """One rule. `says`: when it fires, in words; `means`: what that tells; `thresholds`: names in `Thresholds` that it
    reads; `at_end`: it judges a whole run, so that on a running one it stays undecided.
    """

    name: str
    says: str
    means: str
    kinds: tuple[RunKind, ...]
    thresholds: tuple[str, ...]
    check: Callable[[View, Thresholds], Outcome]
    at_end: bool = False


RULES: tuple[Rule, ...] = (
    Rule(
        "non_finite",
        "a loss, reward, gradient norm or log-prob is NaN or infinite",
        "the run broke there",
        _ALL,
        (),
        losses.non_finite,
    ),
    Rule(
        "train_loss_diverges",
        "the training loss stays at 1.5 times its lowest level or more",
        "rate too high",
        _LOSSES,
        ("divergence", "near_zero"),
        losses.train_loss_diverges,
    ),
    Rule(
        "overfit_alarm",
        "the final validation loss is above 1.2 times the best (of pairs with a held-out accuracy a warning)",
        "overfit",
        _LOSSES,
        ("overfit_alarm", "ratio_gap", "sureness"),
        overfitting.overfit_alarm,
    ),
    Rule(
        "overfit_ratio",
        "final validation over training loss: from 1.2 mild, from 1.5 moderate, above 2.0 severe",
        "overfitting, in bands",
        _SFT,
        ("ratio_mild", "ratio_moderate", "ratio_severe", "ratio_gap", "sureness"),
        overfitting.overfit_ratio,
    ),
    Rule(
        "valid_loss_rises",
        "the validation loss turns, and ends more than 5 % above its best",
        "overfitting from there on",
        _LOSSES,
        ("valid_rise", "ratio_gap", "sureness"),
        overfitting.valid_loss_rises,
    ),
    Rule(
        "gap_from_start",
        "validation is 1.5 times training from the first validations on, without growing to it",
        "too few or mismatched data",
        _SFT,
        ("start_gap", "ratio_gap", "sureness"),
        overfitting.gap_from_start,
    ),
    Rule(
        "train_loss_barely_falls",
        "over the run the training loss falls by less than 5 %",
        "rate too low, or noisy data",
        _LOSSES,
        ("least_fall",),
        losses.train_loss_barely_falls,
        at_end=True,
    ),
    Rule(
        "train_loss_crashes",
        "the training loss is at .05 nats or less before half of the run, and stays there",
        "rate too high, or easy data",
        _SFT,
        ("near_zero", "crash_by"),
        losses.train_loss_crashes,
    ),
    Rule(
        "valid_loss_plateaus",
        "the first epoch brings 95 % of the validation loss's fall, and it does not rise",
        "learnt quickly",
        _SFT,
        ("first_epoch_share", "least_fall", "valid_rise", "oscillation", "sureness"),
        losses.valid_loss_plateaus,
        at_end=True,
    ),
    Rule(
        "valid_loss_oscillates",
        "the validation loss spreads around its course by 12 % of its level",
        "small batch, or inconsistent data",
        _LOSSES,
        ("oscillation",),
        losses.valid_loss_oscillates,
    ),
    Rule(
        "both_losses_high",
        "both losses end at 1.5 nats or more, a quarter below the start at most",
        "task too hard",
        _SFT,
        ("high_loss", "high_fall", "sureness"),
        losses.both_losses_high,
        at_end=True,
    ),
    Rule(
        "gradient_explodes",
        "three gradients of ten times the usual norm (severe from a hundred times), or a norm that grows tenfold",
        "rate too high, or rows that do not belong",
        _ALL,
        ("grad_spike", "grad_huge", "grad_spikes"),
        optimiser.gradient_explodes,
    ),
    Rule(
        "learning_rate_mis_scheduled",
        "the rate is 0 for 5 % of the steps, rises again, is cut off above half its peak, or warms up to the end",
        "the schedule was made for another run",
        _ALL,
        ("zero_rate_share", "rate_restart", "rate_at_end"),
        optimiser.learning_rate_mis_scheduled,
    ),
    Rule(
        "first_loss_not_ln2",
        "a run called DPO starts more than .05 away from ln 2, or, where the chosen answers' loss is added to it, its margin from 0",
        "another loss, or a wrong reference",
        _PAIRS,
        ("ln2_tolerance",),
        pairs.first_loss_not_ln2,
    ),
    Rule(
        "accuracy_saturates",
        "training pairs are ranked right (.95) by 15 % of the run, held-out pairs less than .05 better than by a coin",
        "something on the surface was learnt",
        _PAIRS,
        ("saturated_accuracy", "saturated_by", "held_out_gain", "sureness"),
        pairs.accuracy_saturates,
    ),
    Rule(
        "held_out_accuracy_stays",
        "held-out pairs are ranked less than .05 better than by a coin",
        "what was learnt does not carry over",
        _PAIRS,
        ("held_out_gain",),
        pairs.held_out_accuracy_stays,
        at_end=True,
    ),
    Rule(
        "margin_lowers_both",
        "the margin grows while chosen answers lose 8 % of their log-prob, rejected ones more",
        "the likelihood is displaced",
        ("preference",),
        ("chosen_fall", "sureness"),
        pairs.margin_lowers_both,
    ),
    Rule(
        "length_drifts",
        "answers become 1.5 times as long, or as short",
        "length is what is learnt",
        ("preference",),
        ("length_drift", "sureness"),
        pairs.length_drifts,
    ),
    Rule(
        "reward_flat_at_zero",
        "the reward stays within .02 of 0, or, as a warning, one of several graders' does",
        "grader broken, or threshold too strict",
        ("rft",),
        ("reward_zero",),
        rewards.reward_flat_at_zero,
    ),
    Rule(
        "reward_always_negative",
        "the reward is below 0 throughout",
        "pass threshold too high",
        ("rft",),
        ("reward_zero",),
        rewards.reward_always_negative,
    ),
    Rule(
        "reward_high_and_flat",
        "the reward is at .9 or more at once and gains no more than .03",
        "threshold too lenient",
        ("rft",),
        ("reward_high", "reward_gain"),
        rewards.reward_high_and_flat,
    ),
    Rule(
        "reward_does_not_climb",
        "the reward gains less than .03 over the run",
        "nothing is learnt",
        ("rft",),
        ("reward_gain", "reward_zero", "reward_high"),
        rewards.reward_does_not_climb,
        at_end=True,
    ),
    Rule(
        "reward_gap",
        "training reward is more than .05 above validation reward (warn), or more than .10 (severe); one of several graders' rewards is (warn)",
        "possible reward hacking",
        ("rft",),
        ("gap_warn", "gap_severe", "sureness"),
        rewards.reward_gap,
    ),
    Rule(
        "answers_grow",
        "answers become 2 times as long (normal), or 3 times (excessive)",
        "the grader may reward length",
        ("rft",),
        ("tokens_moderate", "tokens_excessive", "sureness"),
        rewards.answers_grow,
    ),
    Rule(
        "parse_errors",
        "3 answers a step or more cannot be parsed: a warning where the reward does not climb",
        "format, budget or parser",
        ("rft",),
        ("parse_errors", "reward_gain"),
        rewards.parse_errors,
    ),
    Rule(
        "grader_errors",
        "the grader itself fails, even once",
        "bugs in the grader",
        ("rft",),
        (),
        rewards.grader_errors,
    ),
    Rule(
        "unresponsive",
        "5 % of the answers or more get no score",
        "cut off, empty, or unparsable",
        ("rft",),
        ("unresponsive",),
        rewards.unresponsive,
    ),
    Rule(
        "more_steps_than_planned",
        "more steps are logged or stated than were planned",
        "a log that was appended to",
        _ALL,
        (),
        records.more_steps_than_planned,
    ),
    Rule(
        "steps_logged_twice",
        "steps stand in the source more than once",
        "a log that was appended to",
        _ALL,
        (),
        records.steps_logged_twice,
    ),
    Rule(
        "stated_final_differs",
        "a stated final loss or accuracy is more than 10 % (and three errors) off the curve's smoothed end",
        "a single batch's figure",
        _ALL,
        ("stated_difference",),
        records.stated_final_differs,
        at_end=True,
    ),
)
"""Every rule, in the order in which findings of one severity are shown."""
