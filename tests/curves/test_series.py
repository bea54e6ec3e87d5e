"""The series type: what it accepts, and what it keeps from being changed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dlm.curves import Series, unit_of


def series(values: list[float]) -> Series:
    count = len(values)
    return Series("train_loss", "nats", np.arange(count), np.array(values), np.zeros(count))


def test_arrays_get_their_types() -> None:
    made = Series("a", "", [1, 2], [1, math.nan], [0, 0])  # type: ignore[arg-type]
    assert (made.steps.dtype, made.values.dtype, made.times.dtype) == (np.int64, np.float64, np.float64)
    assert len(made) == 2


def test_nobody_can_change_a_series_and_the_source_stays_free() -> None:
    values = np.array([1.0, 2.0])
    made = Series("a", "", np.array([1, 2]), values, np.zeros(2))
    with pytest.raises(ValueError, match="read-only"):
        made.values[0] = 5
    with pytest.raises(AttributeError):
        made.name = "b"  # type: ignore[misc]
    values[0] = 3.0  # the caller's own array is still its own


@pytest.mark.parametrize(
    "shapes", [((2,), (3,), (2,)), ((2,), (2,), (1,)), ((2, 1), (2, 1), (2, 1)), ((), (), ())]
)
def test_arrays_must_fit_together(shapes: tuple[tuple[int, ...], ...]) -> None:
    steps, values, times = (np.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match="'a'"):
        Series("a", "", steps.astype(int), values, times)


def test_steps_may_repeat_as_foreign_files_have_them() -> None:
    assert len(Series("a", "", np.array([3, 3, 1]), np.zeros(3), np.zeros(3))) == 3


@pytest.mark.parametrize(
    ("values", "share", "mean"),
    [
        ([1, 2, 3, 4], 0.5, 3.5),
        ([1, 2, 3, 4], 0.1, 4),
        ([1, 2, 3, 4], 1, 2.5),
        ([7], 0, 7),
        ([1, 2, 3], 0.34, 2.5),
    ],
)
def test_the_mean_of_the_tail(values: list[float], share: float, mean: float) -> None:
    assert series(values).tail_mean(share) == mean


def test_the_mean_of_a_tail_that_is_no_number() -> None:
    assert math.isnan(series([]).tail_mean(0.1))
    assert math.isnan(series([1, math.nan]).tail_mean(0.1))
    assert series([1, math.inf]).tail_mean(1) == math.inf


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("train_loss", "nats"),
        ("full_valid_loss", "nats"),
        ("logps/chosen", "nats"),
        ("entropy", "nats"),
        ("tokens_per_second", "tokens/s"),
        ("num_tokens", "tokens"),
        ("peak_memory_mb", "MB"),
        ("elapsed_s", "s"),
        ("learning_rate", ""),
        ("rewards/accuracies", ""),
        ("anything else", ""),
    ],
)
def test_units(name: str, unit: str) -> None:
    assert unit_of(name) == unit
