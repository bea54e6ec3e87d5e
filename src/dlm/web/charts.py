"""The charts of a training run: which metrics each one draws, in which colour, with which lines to compare with.

Lines are named by role (`dlm.curves.ROLES`), so that a run imported from elsewhere draws as well as ours.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from dlm.curves import ROLES, unit_of

__all__ = ["Chart", "Guide", "Line", "chart_of", "charts_of"]


@dataclass(frozen=True)
class Line:
    """One curve: a role of `ROLES` (or a metric's own name), its label, a colour variable of base.css.

    `smooth`: whether smoothing applies; a validation is a mean already, and is drawn as it is.
    """

    role: str
    label: str
    colour: str
    smooth: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that may play the role, the preferred one first."""
        return tuple(ROLES.get(self.role, (self.role,)))

    def name_in(self, present: Collection[str]) -> str | None:
        """The metric of a run that plays the role."""
        return next((name for name in self.names if name in present), None)


@dataclass(frozen=True)
class Guide:
    """A horizontal line to compare with."""

    value: float
    label: str


@dataclass(frozen=True)
class Chart:
    """One panel. `says` tells in a sentence what is drawn; `may_log`: whether a logarithmic axis means anything."""

    id: str
    title: str
    says: str
    lines: tuple[Line, ...]
    unit: str = ""
    guides: tuple[Guide, ...] = ()
    share: bool = False  # a share of 1, shown as per cent
    may_log: bool = True


_LOSS = Chart(
    "loss",
    "Loss",
    "What training minimises, for each step and for held-out rows.",
    (Line("train_loss", "train", "loss"), Line("valid_loss", "validation", "neutral", smooth=False)),
    "nats",
)
_ACCURACY = Chart(
    "accuracy",
    "Token accuracy",
    "The share of the tokens to learn that the model predicts right.",
    (
        Line("train_accuracy", "train", "accuracy"),
        Line("valid_accuracy", "validation", "neutral", smooth=False),
    ),
    share=True,
    may_log=False,
)
_NORM = Chart(
    "norm",
    "Gradient norm",
    "The length of the gradient before clipping.",
    (Line("grad_norm", "gradient norm", "norm"),),
)
_RATE = Chart(
    "rate",
    "Learning rate",
    "The rate of each optimiser step.",
    (Line("learning_rate", "learning rate", "rate", smooth=False),),
)
_PREFERENCE = (
    Chart(
        "ranked",
        "Reward accuracy",
        "The share of pairs whose chosen answer the model has come to favour.",
        (
            Line("reward_accuracy", "train", "accuracy"),
            Line("held_out_accuracy", "validation", "neutral", smooth=False),
        ),
        guides=(Guide(0.5, "chance, .5"),),
        share=True,
        may_log=False,
    ),
    Chart(
        "margin",
        "Margin",
        "By how much the chosen answer's reward is above the rejected one's.",
        (Line("margin", "train", "extra"), Line("held_out_margin", "validation", "neutral", smooth=False)),
        may_log=False,
    ),
    Chart(
        "logps",
        "Log-probabilities",
        "Of the chosen and of the rejected answers; when both fall, the margin grows by unlearning.",
        (Line("chosen_logps", "chosen", "chosen"), Line("rejected_logps", "rejected", "rejected")),
        "nats",
        may_log=False,
    ),
)
_REWARDS = (
    Chart(
        "reward",
        "Reward",
        "The mean reward of sampled answers, and of those to held-out prompts.",
        (
            Line("train_reward", "train", "accuracy"),
            Line("valid_reward", "validation", "neutral", smooth=False),
        ),
        may_log=False,
    ),
    Chart(
        "tokens",
        "Answer length",
        "Tokens of the sampled answers; a reward that is bought with length shows here.",
        (
            Line("completion_tokens", "completion", "rate"),
            Line("reasoning_tokens", "reasoning", "norm"),
        ),
        "tokens",
    ),
    Chart(
        "errors",
        "Errors",
        "Answers the grader could not read, other errors, and the share without any response.",
        (
            Line("parse_errors", "parse errors", "rejected"),
            Line("other_errors", "other errors", "extra"),
            Line("unresponsive", "unresponsive", "neutral"),
        ),
        may_log=False,
    ),
)
_FOUR = (_LOSS, _ACCURACY, _NORM, _RATE)
_LN2 = Guide(math.log(2), "ln 2, where DPO begins")


def charts_of(kind: str, method: str, present: Collection[str]) -> tuple[Chart, ...]:
    """The charts of a run: the four, those of its kind as far as it logged them, then one for every other metric."""
    known: list[Chart] = []
    for chart in (*_FOUR, *_PREFERENCE, *_REWARDS):
        has = any(line.name_in(present) for line in chart.lines)
        # Numbers of another kind may be logged too, such as an accuracy of rewards while a reward model trains.
        if has or (chart in _FOUR and kind in ("sft", "preference", "reward")):
            known.append(chart)
    if kind == "rft":
        known.sort(key=lambda chart: chart not in _REWARDS)
    if kind == "preference" and method == "dpo":
        known = [replace(chart, guides=(_LN2,)) if chart.id == "loss" else chart for chart in known]
    drawn = {name for chart in known for line in chart.lines if (name := line.name_in(present))}
    return (*known, *(_single(name) for name in sorted(present) if name not in drawn))


def chart_of(chart_id: str, kind: str, method: str, present: Collection[str]) -> Chart | None:
    """The chart of that id among those of a run."""
    return next((chart for chart in charts_of(kind, method, present) if chart.id == chart_id), None)


def _single(name: str) -> Chart:
    return Chart(f"metric:{name}", name, "", (Line(name, name, "neutral"),), unit_of(name))
