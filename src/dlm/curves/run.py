"""One run's curves, whoever logged them: what the readers make, the rules judge and the charts draw.

A series keeps the name it has in its source, so that evidence speaks of the user's own columns; `ROLES` says which
names mean the same thing, and `CurveRun.role` finds the one this run has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dlm.curves.series import Series

__all__ = ["ROLES", "Checkpoint", "CurveRun", "Repeats", "RunKind", "graders_of", "with_epochs"]

_PARTS = ("train_reward_mean", "valid_reward_mean")

RunKind = Literal["sft", "preference", "reward", "rft", "unknown"]

ROLES: Mapping[str, tuple[str, ...]] = {
    # Of the validation loss the preference order is the page's: valid_loss, full_valid_loss, eval_loss.
    "train_loss": ("train_loss", "loss", "training_loss"),
    "valid_loss": ("valid_loss", "full_valid_loss", "eval_loss", "validation_loss", "val_loss"),
    "train_accuracy": (
        "train_mean_token_accuracy",
        "train_accuracy",
        "mean_token_accuracy",
        "training_token_accuracy",
        "token_accuracy",
    ),
    "valid_accuracy": (
        "valid_mean_token_accuracy",
        "validation_mean_token_accuracy",
        "full_valid_mean_token_accuracy",
        "eval_mean_token_accuracy",
        "eval_accuracy",
    ),
    "grad_norm": ("grad_norm", "gradient_norm"),
    "learning_rate": ("learning_rate", "lr"),
    "epoch": ("epoch",),
    "reward_accuracy": ("rewards/accuracies", "reward_accuracy"),
    "held_out_accuracy": (
        "val_pref_acc",
        "full_valid_pref_acc",
        "eval_rewards/accuracies",
        "valid_rewards/accuracies",
        "full_valid_rewards/accuracies",
    ),
    "chosen_nll": ("train_nll_loss", "nll_loss"),
    "margin": ("rewards/margins", "reward_margin"),
    "held_out_margin": ("valid_rewards/margins", "full_valid_rewards/margins", "eval_rewards/margins"),
    "chosen_logps": ("logps/chosen",),
    "rejected_logps": ("logps/rejected",),
    "train_reward": ("train_mean_reward", "reward", "train_reward"),
    "valid_reward": ("full_valid_mean_reward", "valid_mean_reward", "eval_reward", "valid_reward"),
    "completion_tokens": (
        "completion_tokens_mean",
        "train_completion_tokens_mean",
        "completions/mean_length",
        "completion_length",
        "probe_completion_tokens_mean",
        "response_length",
    ),
    "reasoning_tokens": ("reasoning_tokens_mean", "train_reasoning_tokens_mean"),
    "unresponsive": ("mean_unresponsive_rewards",),
    "parse_errors": ("train_sample_parse_error_count", "sample_parse_error_count"),
    "other_errors": ("train_other_error_count", "other_error_count"),
}
"""What a curve is, and the names that say so, the preferred one first."""


@dataclass(frozen=True)
class Checkpoint:
    """A saved state of a run. What the source does not tell is empty (texts) or None (`created_at`)."""

    step: int
    id: str = ""
    model: str = ""  # OpenAI: fine_tuned_model_checkpoint; transformers: the checkpoint's folder
    job_id: str = ""
    created_at: int | None = None  # seconds since 1970
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Repeats:
    """Steps that a source logged more than once; the last row of each was kept.

    `rows`: rows dropped for it; `first`, `last`: the range of the repeated steps; `steps`: how many different ones.
    """

    rows: int
    steps: int
    first: int
    last: int


@dataclass(frozen=True)
class CurveRun:
    """One run, read from a store or a file.

    Series have strictly increasing steps and at least one point; their arrays are read-only. `method` is as the
    source writes it, in lower case ("dpo", "orpo", "sft", ""). "dpo" is its sigmoid loss, which starts at ln 2; another of
    its losses is written behind it ("dpo/ipo"), and is not held to that. `kind_reason` says why `kind` was taken.

    `stated` holds single figures that the source claims beside its curves, under the field's names where they have
    one: `final_loss`, `final_token_accuracy`, `steps`, `planned_steps`, `num_epochs`, `best_metric`, …

    `logged_rows` counts the rows of training steps in the source, repeated ones included; `unknown_columns` names
    what no role or documented column stands for (numbers in them are kept as series all the same; texts are not);
    `problems` says what the reader had to mend, one sentence each. `more_checkpoints`: the source lists but some of them.
    """

    name: str
    kind: RunKind
    series: Mapping[str, Series]
    method: str = ""
    kind_reason: str = ""
    format: str = "store"
    planned_steps: int | None = None
    steps_per_epoch: float | None = None
    saved_steps: tuple[int, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    stated: Mapping[str, float] = field(default_factory=dict)
    logged_rows: int = 0
    repeats: Repeats | None = None
    unknown_columns: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    more_checkpoints: bool = False

    def role(self, role: str) -> Series | None:
        """The series that plays a role of `ROLES`, by its preferred name; None where the run has none.

        Raises:
            KeyError: no such role.
        """
        found = (self.series[name] for name in ROLES[role] if name in self.series)
        return next((series for series in found if len(series)), None)

    @property
    def last_step(self) -> int:
        """The highest step of any series, 0 without points."""
        return max((int(series.steps[-1]) for series in self.series.values() if len(series)), default=0)

    def epoch_at(self, step: int) -> float | None:
        """How many passes over the data were done at a step, None where the source does not tell."""
        epochs = self.epochs_at(np.array([step], np.int64))
        return None if epochs is None else float(epochs[0])

    def epochs_at(self, steps: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """`epoch_at` of many steps."""
        epochs = self.role("epoch")
        if epochs is not None and len(epochs) > 1 and np.isfinite(epochs.values).all():
            return np.asarray(np.interp(steps, epochs.steps, epochs.values))
        return steps / self.steps_per_epoch if self.steps_per_epoch else None


def with_epochs(run: CurveRun, epochs: float | None) -> CurveRun:
    """The run with its epochs: `epochs` passes over the data are its plan, or, where it names no plan, its whole length.

    The same run where `epochs` is None, or where it tells its epochs itself.
    """
    steps = run.planned_steps or run.last_step
    if not epochs or not steps or run.epoch_at(steps) is not None:
        return run
    return replace(run, steps_per_epoch=steps / epochs)


def graders_of(run: CurveRun) -> Mapping[str, tuple[Series | None, Series | None]]:
    """Training and validation reward of each grader, by its name, in the order of the source; empty with fewer than two.

    Names are `scores/graders/<type>/<name>/train_reward_mean` and `…/valid_reward_mean`, as OpenAI's result files and this
    program write them.
    """
    found: dict[str, list[Series | None]] = {}
    for name, series in run.series.items():
        path, _, part = name.removeprefix("scores/graders/").rpartition("/")
        if name.startswith("scores/graders/") and path and part in _PARTS and len(series):
            found.setdefault(path, [None, None])[_PARTS.index(part)] = series
    if len(found) < 2:
        return {}
    short = [path.rpartition("/")[2] for path in found]
    names = short if len(set(short)) == len(short) else list(found)
    return {name: (both[0], both[1]) for name, both in zip(names, found.values(), strict=True)}
