"""Every number a rule compares with, described once: the documentation's table and the command line read it here.

Where the page this room implements gives a value, it is the default; the others were set on simulated runs of one
set of seeds and measured on another (docs/curves.md).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Thresholds"]


class Thresholds(BaseModel):
    """Limits of the rules. Losses are in nats, shares are of 1, factors are ratios.

    Raises:
        pydantic.ValidationError: a value out of its range, or a name that is none of these.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Overfitting
    ratio_mild: float = Field(
        1.2, gt=0, description="valid/train loss from which overfitting is mild (1.2 is mild)"
    )
    ratio_moderate: float = Field(
        1.5, gt=0, description="valid/train loss from which overfitting is moderate (1.5 is moderate)"
    )
    ratio_severe: float = Field(
        2.0, gt=0, description="valid/train loss above which overfitting is severe (2.0 is still moderate)"
    )
    overfit_alarm: float = Field(
        1.2, gt=1, description="final over best validation loss above which to alarm (1.2 is no alarm)"
    )
    # Rewards
    gap_warn: float = Field(
        0.05, ge=0, description="train minus validation reward above which to warn (.05 is healthy)"
    )
    gap_severe: float = Field(
        0.10,
        ge=0,
        description="train minus validation reward above which it may be hacked (.10 is a warning)",
    )
    tokens_moderate: float = Field(
        2.0, gt=1, description="growth of answers from which it is named, as normal (2 is named)"
    )
    tokens_excessive: float = Field(
        3.0, gt=1, description="growth of answers from which it is excessive (3 is excessive)"
    )
