"""Whether a run's weights are still sound at its end: where its numbers stop being any, and where its loss runs away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlm.curves.thresholds import Thresholds
from dlm.curves.trend import Curve, smoothed
from dlm.curves.view import View

__all__ = ["divergence", "last_sound_step"]

_FEW = 5


def last_sound_step(view: View, roles: Sequence[str] = ("train_loss", "train_reward")) -> int | None:
    """The last step before some curve of `roles` is NaN or infinite to its end; the run's last step where none is; None
    where one of them is never a finite number.

    A number that is none between finite ones, as a single overflow leaves it, is no end.
    """
    last = view.run.last_step
    for role in roles:
        series = view.run.role(role)
        if series is None or np.isfinite(series.values[-1]):
            continue
        finite = np.flatnonzero(np.isfinite(series.values))
        if not len(finite):
            return None
        last = min(last, int(series.steps[finite[-1]]))
    return last


def divergence(train: Curve, t: Thresholds) -> int | None:
    """The index where a training loss was lowest before it ran away for good, None where it did not."""
    if len(train) < 2 * _FEW:
        return None
    count = max(_FEW, len(train) // 20)
    course = smoothed(train, target=0.05, noise=train.noise)
    least = int(np.argmin(course))
    last = train.values[-count:]
    low = float(np.quantile(last, 0.25)) if train.noise else float(last[-1])
    floor = max(float(course[least]), t.near_zero)
    return None if least >= len(train) - count or low < t.divergence * floor else least
