"""Statistics: pure functions over numbers."""

from dlm.stats.intervals import Estimate, mean, share

__all__ = ["Estimate", "mean", "share"]
