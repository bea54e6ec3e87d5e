"""Pure functions over series of numbers: no store, no torch."""

from dlm.curves.series import UNITS, Series, unit_of

__all__ = ["UNITS", "Series", "unit_of"]
