"""Statistics: pure functions over numbers."""

from dlm.stats.intervals import Estimate, cluster_mean, mean, paired_difference, share
from dlm.stats.ranks import spearman

__all__ = ["Estimate", "cluster_mean", "mean", "paired_difference", "share", "spearman"]
