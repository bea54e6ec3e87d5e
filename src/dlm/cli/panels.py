"""Which curves of a run belong on one chart, for the plot in the terminal and the charts of the HTML report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dlm.curves import CurveRun, Series, graders_of

__all__ = ["Panel", "main_panel", "panels_of"]

MOST_GRADERS = 6  # curves that one chart can still tell apart
FEW = 60  # points up to which a curve that is rarer than the others is drawn point by point

_CHARTS: Final[tuple[tuple[str, tuple[str, ...], float | None], ...]] = (
    # title, roles, a value to draw a line at
    ("Reward", ("train_reward", "valid_reward"), None),
    ("Loss", ("train_loss", "valid_loss"), None),
    ("Pairs ranked right", ("reward_accuracy", "held_out_accuracy"), 0.5),
    ("Margin", ("margin", "held_out_margin"), 0.0),
    ("Log-probs of both answers", ("chosen_logps", "rejected_logps"), None),
    ("Token accuracy", ("train_accuracy", "valid_accuracy"), None),
    ("Length of answers in tokens", ("completion_tokens", "reasoning_tokens"), None),
    ("Errors of the grader", ("parse_errors", "other_errors", "unresponsive"), None),
    ("Gradient norm", ("grad_norm",), None),
    ("Learning rate", ("learning_rate",), None),
)


@dataclass(frozen=True)
class Panel:
    """Curves that share an axis. `level`: a value to compare them with, such as ln 2 of a DPO loss."""

    title: str
    curves: tuple[Series, ...]
    level: float | None = None
    level_label: str = ""
    exact: bool = False  # a schedule: there is no noise in it

    def is_few(self, curve: Series) -> bool:
        """Whether a curve is to be drawn as single points: validations between many training steps."""
        return len(curve) <= FEW and len(curve) * 2 <= max(map(len, self.curves))


def panels_of(run: CurveRun) -> Iterator[Panel]:
    """Every chart that the run has curves for, the one that matters most first."""
    for title, roles, level in _CHARTS:
        found = [run.role(role) for role in roles]
        curves = tuple(dict.fromkeys(curve for curve in found if curve is not None))
        if title == "Loss" and (graders := graders_of(run)):
            rewards = [curve for both in graders.values() for curve in both if curve is not None]
            yield Panel("Reward by grader", tuple(rewards[:MOST_GRADERS]))
        if not curves:
            continue
        if title == "Loss" and run.method == "dpo":
            yield Panel(title, curves, math.log(2), "ln 2")
        else:
            label = "" if level is None else f"{level:g}"
            yield Panel(title, curves, level, label, exact=title == "Learning rate")


def main_panel(run: CurveRun) -> Panel | None:
    """The chart that matters most: of a reinforcement run the reward, else the loss."""
    return next(panels_of(run), None)
