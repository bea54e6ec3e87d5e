"""Seeded draws that stay the same on every platform and Python version.

The standard library promises reproducible sequences for `Random.random()` only; `choice`, `sample` and
`shuffle` may change their arithmetic between versions. Cases and their gold answers must be byte-identical
for a seed for ever, so every draw here is built on `random()` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

__all__ = ["Draw"]

T = TypeVar("T")


class Draw:
    """One stream of draws, named by its keys: `Draw("spreadsheet", seed, index)`."""

    def __init__(self, *keys: object) -> None:
        # A string seed goes through SHA-512 in `Random`, so it does not depend on hash randomisation.
        self._random = Random("/".join(str(key) for key in keys)).random

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._random() < probability

    def integer(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return low + int(self._random() * (high - low + 1))

    def uniform(self, low: float, high: float) -> float:
        """A number from `low` up to, not including, `high`."""
        return low + self._random() * (high - low)

    def choice(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[int(self._random() * len(options))]

    def weighted(self, options: Sequence[tuple[T, float]]) -> T:
        """One of the options, drawn by its weight (the weights need not sum to 1)."""
        mark = self._random() * sum(weight for _, weight in options)
        for option, weight in options:
            mark -= weight
            if mark < 0:
                return option
        return options[-1][0]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """All options in a random order."""
        items = list(options)
        for last in range(len(items) - 1, 0, -1):
            other = int(self._random() * (last + 1))
            items[last], items[other] = items[other], items[last]
        return items

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different options in a random order; all of them when there are fewer."""
        items = list(options)
        count = min(count, len(items))
        for place in range(count):
            other = place + int(self._random() * (len(items) - place))
            items[place], items[other] = items[other], items[place]
        return items[:count]
