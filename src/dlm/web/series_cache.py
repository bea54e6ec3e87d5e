"""Series that were read once: charts of one page, its zooms, and other tabs ask for the same ones again and again.

A series is found by its mark (`store.following`), so what is cached is what the store holds now.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray

from dlm.curves import Series
from dlm.store import Store

__all__ = ["SeriesCache"]

_MOST_POINTS = (
    8_000_000  # some 200 MB of series; a page of ten runs with a hundred thousand steps takes a fifth
)


class SeriesCache:
    """The newest series by what they are, the least used ones leave first. Any thread may ask."""

    def __init__(self, most_points: int = _MOST_POINTS) -> None:
        self._most_points = most_points
        self._points = 0
        self._kept: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, store: Store, run_id: int, name: str) -> Series | None:
        """One series of a run as it is now, None where the run has none."""
        key = (run_id, name, store.following.mark(run_id, name))
        series = self._found(key)
        if series is None:
            series = store.metrics.read(run_id, [name]).get(name)
            if series is None:
                return None
            self._keep(key, series, len(series))
        assert isinstance(series, Series)
        return series

    def derived(self, key: Hashable, make: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        """What was computed of a series, by a key that names the series' mark and the computation."""
        array = self._found(key)
        if array is None:
            array = make()
            self._keep(key, array, len(array))
        assert isinstance(array, np.ndarray)
        return array

    def _found(self, key: Hashable) -> object | None:
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def _keep(self, key: Hashable, value: object, points: int) -> None:
        with self._lock:
            if key in self._kept or points > self._most_points:
                return
            self._kept[key] = (value, points)
            self._points += points
            while self._points > self._most_points:
                _, (_, freed) = self._kept.popitem(last=False)
                self._points -= freed
