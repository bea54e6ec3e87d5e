"""The rules: named checks of a run's curves, with what they say, when, and what to do."""

from dlm.curves.rules.table import RULES, Rule

__all__ = ["RULES", "Rule"]
