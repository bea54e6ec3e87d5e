"""Every number a rule compares with, described once: the documentation's table and the command line read it here.

Where the page this room implements gives a value, it is the default (marked "page"); the others were set on simulated
runs of one set of seeds and measured on another (docs/curves.md).
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Thresholds"]

_BANDS = (
    ("ratio_mild", "ratio_moderate", "ratio_severe"),
    ("gap_warn", "gap_severe"),
    ("tokens_moderate", "tokens_excessive"),
    ("grad_spike", "grad_huge"),
)  # limits of one measure, from the mildest on


class Thresholds(BaseModel):
    """Limits of the rules. Losses are in nats, shares are of 1, factors are ratios.

    Raises:
        pydantic.ValidationError: a value out of its range, bands out of order, or a name that is none of these.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # Overfitting
    ratio_mild: float = Field(
        default=1.2,
        gt=0,
        description="valid/train loss from which overfitting is mild (page; 1.2 itself is mild)",
    )
    ratio_moderate: float = Field(
        default=1.5,
        gt=0,
        description="valid/train loss from which overfitting is moderate (page; 1.5 itself is moderate)",
    )
    ratio_severe: float = Field(
        default=2.0,
        gt=0,
        description="valid/train loss above which overfitting is severe (page; 2.0 itself is moderate)",
    )
    ratio_gap: float = Field(
        default=0.01,
        ge=0,
        description="nats that two losses must be apart (validation and training, final and best) for their ratio to mean anything",
    )
    overfit_alarm: float = Field(
        default=1.2,
        gt=1,
        description="final over best validation loss above which to alarm (page; 1.2 itself is no alarm)",
    )
    valid_rise: float = Field(
        default=0.05, gt=0, description="rise of the validation loss above its best that counts as one"
    )
    # Losses
    least_fall: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="share of its start by which the training loss must fall over the run",
    )
    near_zero: float = Field(default=0.05, gt=0, description="training loss that counts as about 0")
    crash_by: float = Field(
        default=0.5, gt=0, le=1, description="share of the run in which reaching about 0 counts as a crash"
    )
    divergence: float = Field(
        default=1.5, gt=1, description="training loss over its lowest level from which it diverges"
    )
    first_epoch_share: float = Field(
        default=0.95,
        gt=0,
        lt=1,
        description="share of the validation loss's fall in the first epoch that leaves a plateau",
    )
    oscillation: float = Field(
        default=0.12,
        gt=0,
        description="spread of the validation loss around its course, as a share of its level",
    )
    high_loss: float = Field(default=1.5, gt=0, description="nats per token from which a loss is high")
    high_fall: float = Field(
        default=0.25, gt=0, lt=1, description="share by which a loss that stays high has fallen at most"
    )
    start_gap: float = Field(
        default=1.5, gt=1, description="valid/train loss at the start from which the data do not match"
    )
    # Optimiser
    grad_spike: float = Field(
        default=10.0, gt=1, description="gradient norm over the usual one from which it is a spike"
    )
    grad_huge: float = Field(
        default=100.0, gt=1, description="gradient norm over the usual one from which spikes are severe"
    )
    grad_spikes: int = Field(default=3, ge=1, description="spikes that make an explosion")
    rate_at_end: float = Field(
        default=0.5, gt=0, le=1, description="share of its peak at which a falling learning rate was cut off"
    )
    zero_rate_share: float = Field(
        default=0.05, gt=0, le=1, description="share of the steps at a learning rate of 0 that were wasted"
    )
    rate_restart: float = Field(
        default=0.2, gt=0, le=1, description="rise of a learning rate after its fall, as a share of its peak"
    )
    # Preferences
    ln2_tolerance: float = Field(
        default=0.05,
        gt=0,
        description="distance of DPO's first loss from ln 2 = .6931, or of its first margin from 0",
    )
    saturated_accuracy: float = Field(
        default=0.95, gt=0.5, le=1, description="training accuracy that is saturated"
    )
    saturated_by: float = Field(
        default=0.15, gt=0, lt=1, description="share of the run in which saturating counts as at once"
    )
    held_out_gain: float = Field(
        default=0.05, gt=0, lt=0.5, description="held-out accuracy above .5 that must be reached to count"
    )
    chosen_fall: float = Field(
        default=0.08,
        gt=0,
        description="fall of the chosen answers' log-prob, as a share of its size at the start",
    )
    length_drift: float = Field(
        default=1.5,
        gt=1,
        description="growth or shrinkage of answers in preference training from which it is drift",
    )
    # Rewards
    reward_zero: float = Field(default=0.02, gt=0, description="reward that counts as about 0")
    reward_high: float = Field(default=0.9, description="reward that is high from the start")
    reward_gain: float = Field(
        default=0.03, gt=0, description="gain of the reward over the run that must be passed to count"
    )
    gap_warn: float = Field(
        default=0.05,
        ge=0,
        description="train minus validation reward above which to warn (page; .05 itself is healthy)",
    )
    gap_severe: float = Field(
        default=0.10,
        ge=0,
        description="train minus validation reward above which it may be hacked (page; .10 itself warns)",
    )
    tokens_moderate: float = Field(
        default=2.0,
        gt=1,
        description="growth of answers from which it is named, as normal (page; 2 itself is named)",
    )
    tokens_excessive: float = Field(
        default=3.0,
        gt=1,
        description="growth of answers from which it is excessive (page; 3 itself is excessive)",
    )
    parse_errors: float = Field(
        default=3.0, gt=0, description="answers a step that could not be parsed, from which to say so"
    )
    unresponsive: float = Field(
        default=0.05, gt=0, lt=1, description="share of answers without a score from which to warn"
    )
    # Records
    stated_difference: float = Field(
        default=0.10,
        gt=0,
        description="share by which a stated final may differ from the curve's smoothed end",
    )
    # How sure
    sureness: float = Field(
        default=0.5,
        ge=0,
        description="standard errors by which a noisy curve must pass a limit (twice as many for a turn of the validation"
        " loss, which is a minimum picked from many); a curve without noise need not",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for names in _BANDS:
            values = [getattr(self, name) for name in names]
            if values != sorted(values):
                found = ", ".join(f"{name}={value:g}" for name, value in zip(names, values, strict=True))
                raise ValueError(f"{found}: each must be as large as the one before it")
        return self
