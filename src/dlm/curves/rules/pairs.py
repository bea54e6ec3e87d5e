"""Preference training: where the loss begins, what the margin is made of, what held-out pairs and answers' lengths say."""

from __future__ import annotations

import math

import numpy as np

from dlm.curves.settling import settle
from dlm.curves.thresholds import Thresholds
from dlm.curves.trend import Curve, Level, mean_level
from dlm.curves.view import QUIET, Fires, Outcome, View, Waits, at_levels, at_steps, number

__all__ = [
    "accuracy_saturates",
    "first_loss_not_ln2",
    "held_out_accuracy_stays",
    "length_drifts",
    "margin_lowers_both",
]

LN2 = math.log(2)
_AT_LN2 = (
    "dpo",
    "dpo/sigmoid",
    "dpo/robust",
)  # their loss before the first update, whatever β and the label smoothing
_FEW = 10


def first_loss_not_ln2(view: View, t: Thresholds) -> Outcome:
    """Called DPO, and its first loss is not ln 2: policy and reference differ, or it is another loss."""
    losses = view.curve("train_loss")
    if losses is None or view.run.method not in _AT_LN2:
        return None
    step, loss = int(losses.steps[0]), float(losses.values[0])
    first_known = step <= 1
    added = view.run.role("chosen_nll")
    if added is not None:
        return _by_margin(view, t, losses)
    too_high = loss > LN2 + t.ln2_tolerance
    # a loss that was first logged at step 10, as a mean over ten steps, may have fallen by then
    too_low = first_known and loss < LN2 - t.ln2_tolerance
    if not (too_high or too_low):
        if not first_known and loss < LN2 - t.ln2_tolerance:
            return Waits(f"the first loss is that of step {step}; DPO's first step was not logged")
        return QUIET
    marks = [name for name in view.run.series if name.startswith(("rewards/", "logps/"))]
    text = f"{number(loss)} at step {step} where DPO's is ln 2 = {number(LN2)}: policy and reference are equal there"
    if not marks:
        text += "; and not one curve of DPO's own is there (rewards/…, logps/…)"
    if view.run.role("train_accuracy") is not None and not marks:
        text += ", but token accuracy as supervised training logs it"
    return Fires(
        "severe",
        f"called {view.run.method.upper().partition('/')[0]}, but its first loss is {number(loss)}, not ln 2",
        (at_steps(text, losses, [0, len(losses) - 1]),),
        "find out what was trained: another loss (cross-entropy begins about there), a wrong or stale reference, or"
        " dropout in one of the two passes",
    )


def _by_margin(view: View, t: Thresholds, losses: Curve) -> Outcome:
    """Where the chosen answers' own loss may be part of the training loss, the margin tells: it begins at 0."""
    margin = view.curve("margin")
    if margin is None:
        return None
    step, value = int(margin.steps[0]), float(margin.values[0])
    if step > 1:
        return Waits(f"the first margin is that of step {step}; DPO's first step was not logged")
    if abs(value) <= t.ln2_tolerance:
        return QUIET
    text = f"{number(value)} at step {step} where DPO's is 0: policy and reference are equal there"
    return Fires(
        "severe",
        f"called {view.run.method.upper().partition('/')[0]}, but its first margin is {number(value)}, not 0",
        (at_steps(text, margin, [0, -1]), at_steps("training loss", losses, [0, -1])),
        "the reference is not what training started from: look whether it is stale, or of another version",
    )


def accuracy_saturates(view: View, t: Thresholds) -> Outcome:
    """Training pairs are all ranked right at once, and held-out pairs are not ranked better."""
    ranked = view.curve("reward_accuracy")
    if ranked is None or view.end is None:
        return None
    span = max(1, view.end - view.first_step)
    early = ranked.within(
        view.first_step + t.saturated_by / 3 * span, view.first_step + t.saturated_by * span
    )
    if len(early) < 3:
        return Waits("too few points at the beginning", len(early), 3)
    if float(np.mean(early.values)) < t.saturated_accuracy:
        return QUIET
    held_out = view.curve("held_out_accuracy")
    if held_out is None:
        return Waits(
            f"training accuracy is {float(np.mean(early.values)):.2f} at once, and no held-out pairs show what it is worth"
        )
    if len(held_out) < 2:
        return Waits("held-out pairs were scored too seldom", len(held_out), 2)
    gain, error, start, level = _gain(view, held_out)
    if gain - t.sureness * error >= t.held_out_gain or gain >= 2 * t.held_out_gain:
        return QUIET
    if gain - t.held_out_gain > 0:
        return Waits(f"held-out accuracy gained {gain:.2f} ± {error:.2f}", len(held_out), 4 * len(held_out))
    return Fires(
        "warn",
        "training pairs are ranked right at once, held-out pairs are not",
        (
            at_steps(
                f"training accuracy {float(np.mean(early.values)):.2f} by {view.where(int(early.steps[-1]))}",
                ranked,
                [0, int(np.searchsorted(ranked.steps, early.steps[-1]))],
            ),
            at_levels(f"held-out accuracy {level.value:.2f}, where a coin has {start:g}", held_out, level),
        ),
        "look for something on the surface that tells the two answers apart (length, line ends, a first word), or"
        " lower the learning rate",
    )


def _gain(view: View, held_out: Curve) -> tuple[float, float, float, Level]:
    """Held-out accuracy in the second half of the run over a coin's .5, the error of that, .5, and the level.

    With a reference every pair is a tie before training. Without one the base may rank some right already: then this is
    not what training brought, yet it is what a coin would not do.
    """
    late = Curve(held_out.name, held_out.steps[len(held_out) // 2 :], held_out.values[len(held_out) // 2 :])
    level = mean_level(late)
    start = 0.5
    pairs = view.run.series.get("full_valid_pairs")
    if pairs is not None and len(pairs) and pairs.values[-1] > 0:
        # the same pairs every time: averaging over scorings does not make them more
        sampling = math.sqrt(max(level.value * (1 - level.value), 0.0) / float(pairs.values[-1]))
        return level.value - start, max(level.error, sampling / 2), start, level
    return level.value - start, level.error, start, level


def held_out_accuracy_stays(view: View, t: Thresholds) -> Outcome:
    """Held-out pairs are ranked no better than by a coin."""
    held_out = view.curve("held_out_accuracy")
    if held_out is None:
        return None
    if len(held_out) < 3:
        return Waits("held-out pairs were scored too seldom", len(held_out), 3)
    gain, error, start, level = _gain(view, held_out)
    if gain >= t.held_out_gain:
        return QUIET
    return Fires(
        "warn",
        f"held-out pairs are ranked no better than by a coin: {level.value:.2f}",
        (
            at_levels(
                f"{gain:+.2f} ± {error:.2f} from {start:g}, over the second half of the run", held_out, level
            ),
        ),
        "what was learnt does not carry over: add pairs, look at what tells them apart, or raise the learning rate if"
        " training pairs are not ranked right either",
    )


def margin_lowers_both(view: View, t: Thresholds) -> Outcome:
    """The margin grows while both answers become less likely, the chosen one too."""
    chosen, rejected = view.curve("chosen_logps"), view.curve("rejected_logps")
    if chosen is None or rejected is None:
        return None
    have = min(len(chosen), len(rejected))
    if have < _FEW:
        return Waits("log-probs need more points", have, _FEW)
    ends = float(chosen.steps[0]), float(chosen.steps[-1])
    mine, other = settle([chosen], *ends), settle([rejected], *ends)
    if mine is None or other is None:
        return QUIET
    # log-probs are negative: a fall makes them larger in size, and `change` negative
    grows = (mine.end - other.end) > (mine.start - other.start)
    if -mine.change - t.sureness * mine.error < t.chosen_fall or other.change >= 0 or not grows:
        return QUIET
    return Fires(
        "warn",
        f"the margin grows by making both answers less likely: the chosen one by {-mine.change:.0%}",
        (
            at_steps(
                f"log-prob of chosen answers from {number(mine.start)} to {number(mine.end)}", chosen, [0, -1]
            ),
            at_steps(
                f"of rejected ones from {number(other.start)} to {number(other.end)}", rejected, [0, -1]
            ),
        ),
        "add the chosen answers' own loss (preference.sft_weight), lower the learning rate, or drop pairs whose two"
        " answers are nearly equal",
    )


def length_drifts(view: View, t: Thresholds) -> Outcome:
    """Answers become half as long again, or two thirds as long, in preference training."""
    lengths = view.curve("completion_tokens")
    if lengths is None:
        return None
    if len(lengths) < 2:
        return Waits("a drift needs two measurements", len(lengths), 2)
    course = settle([lengths], float(lengths.steps[0]), float(lengths.steps[-1]))
    if course is None or course.end <= 0:
        return QUIET
    factor = course.end / course.start
    if max(factor, 1 / factor) * (1 - t.sureness * course.error / min(1.0, factor)) < t.length_drift:
        return QUIET
    word = "longer" if factor > 1 else "shorter"
    return Fires(
        "warn",
        f"answers become {word}: {number(course.start)} tokens at first, {number(course.end)} at the end",
        (at_steps(f"{number(factor)} times", lengths, [0, -1]),),
        "look whether chosen answers are " + word + " than rejected ones: length alone may be what is learnt",
    )
