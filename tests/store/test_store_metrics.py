"""Metrics: what is logged is what is read, whatever happens in between."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlm.curves import Series
from dlm.errors import StoreError
from dlm.store import Home, RunSpec, Store
from dlm.store import metrics as metrics_module

ID = "01J9Z3W5E8RT2Y4VQ7NDPXK6MA"


@pytest.fixture
def run_id(store: Store) -> int:
    with store.lock("test"):
        return store.runs.start(RunSpec("sft")).id


def as_dict(series: Series) -> dict[int, float]:
    assert np.all(series.steps[1:] > series.steps[:-1])
    return dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def same(a: dict[int, float], b: dict[int, float]) -> bool:
    return a.keys() == b.keys() and all(
        x == b[k] or (math.isnan(x) and math.isnan(b[k])) for k, x in a.items()
    )


def test_points_come_back_with_unit_and_time(store: Store, run_id: int) -> None:
    begin = time.time()
    with store.metrics.writer(run_id) as writer:
        writer.log(1, {"train_loss": 2.0, "learning_rate": 1e-4})
        writer.log(2, {"train_loss": 1.5})
    found = store.metrics.read(run_id)
    assert set(found) == set(store.metrics.names(run_id)) == {"train_loss", "learning_rate"}
    loss = found["train_loss"]
    assert (loss.name, loss.unit) == ("train_loss", "nats")
    assert as_dict(loss) == {1: 2.0, 2: 1.5}
    assert np.all((loss.times >= begin) & (loss.times <= time.time()))
    assert set(store.metrics.read(run_id, ["learning_rate", "absent"])) == {"learning_rate"}


def test_a_run_without_points(store: Store, run_id: int) -> None:
    with store.metrics.writer(run_id):
        pass
    assert store.metrics.read(run_id) == {}
    assert store.metrics.names(run_id) == ()
    assert store.metrics.last_time(run_id) is None


def test_numbers_that_are_not_finite_survive(store: Store, run_id: int) -> None:
    values = [math.nan, math.inf, -math.inf, 0.0, 5e-324, 1.7e308]
    with store.metrics.writer(run_id) as writer:
        for step, value in enumerate(values):
            writer.log(step, {"train_loss": value})
        writer.flush()
        rows = store.metrics.read(run_id)["train_loss"].values
    blob = store.metrics.read(run_id)["train_loss"].values
    for found in (rows, blob):
        np.testing.assert_array_equal(found, values)


def test_numpy_numbers_and_whole_numbers_are_fine(store: Store, run_id: int) -> None:
    with store.metrics.writer(run_id) as writer:
        writer.log(int(np.int64(3)), {"a": np.float32(0.5), "b": 7, "c": True})  # type: ignore[dict-item]
    assert {name: as_dict(series) for name, series in store.metrics.read(run_id).items()} == {
        "a": {3: 0.5},
        "b": {3: 7.0},
        "c": {3: 1.0},
    }


def test_a_step_beyond_64_bits_is_refused_at_once(store: Store, run_id: int) -> None:
    with store.metrics.writer(run_id) as writer:
        with pytest.raises(ValueError, match="64-bit"):
            writer.log(2**63, {"a": 1.0})
        writer.log(2**63 - 1, {"a": 1.0})
        writer.log(-(2**63), {"a": 1.0})
    assert as_dict(store.metrics.read(run_id)["a"]) == {-(2**63): 1.0, 2**63 - 1: 1.0}


def test_runs_do_not_mix(store: Store) -> None:
    with store.lock("test"):
        first, second = store.runs.start(RunSpec("sft")).id, store.runs.start(RunSpec("sft")).id
    for run, value in ((first, 1.0), (second, 2.0)):
        with store.metrics.writer(run) as writer:
            for step in range(10):
                writer.log(step, {"train_loss": value})
    store.metrics.drop_after(second, 4)
    assert len(store.metrics.read(first)["train_loss"]) == 10
    assert as_dict(store.metrics.read(second)["train_loss"]) == dict.fromkeys(range(5), 2.0)


def test_others_see_a_running_curve_within_a_second(home: Home, store: Store, run_id: int) -> None:
    with store.metrics.writer(run_id) as writer, home.store(ID) as reader:
        writer.log(1, {"train_loss": 1.0})
        deadline = time.monotonic() + 5
        while "train_loss" not in reader.metrics.read(run_id):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert time.monotonic() - deadline + 5 < 2.0


def test_long_series_become_blobs_while_the_run_goes_on(store: Store, run_id: int) -> None:
    count = metrics_module.COMPACT_ROWS * 2 + 100
    database = store.metrics._database
    with store.metrics.writer(run_id) as writer:
        for step in range(count):
            writer.log(
                step, {"train_loss": step / 2, "seldom": 1.0} if step % 100 == 0 else {"train_loss": step / 2}
            )
        writer.flush()
        rows = database.row("SELECT COUNT(*) FROM metric_rows")
        assert rows is not None
        assert rows[0] < metrics_module.COMPACT_ROWS
        assert as_dict(store.metrics.read(run_id)["train_loss"]) == {step: step / 2 for step in range(count)}
    left = database.row("SELECT (SELECT COUNT(*) FROM metric_rows), (SELECT COUNT(*) FROM metric_blobs)")
    assert left is not None
    assert tuple(left) == (0, 2)  # at rest: one blob a series
    assert as_dict(store.metrics.read(run_id)["train_loss"]) == {step: step / 2 for step in range(count)}


NAMES = st.sampled_from(["train_loss", "valid_loss"])
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("log"), st.dictionaries(NAMES, st.floats(), min_size=1), st.integers(0, 40)),
        st.tuples(st.just("many"), st.integers(0, 40), st.integers(1, 30)),
        st.tuples(st.just("flush")),
        st.tuples(st.just("compact")),
        st.tuples(st.just("reopen")),
        st.tuples(st.just("resume"), st.integers(-1, 45)),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_reading_equals_a_dictionary(
    store: Store, monkeypatch: pytest.MonkeyPatch, actions: list[tuple[Any, ...]]
) -> None:
    """Random logs, resumes and compactions, with blobs after every 16 rows instead of 4,096."""
    monkeypatch.setattr(metrics_module, "COMPACT_ROWS", 16)
    monkeypatch.setattr(metrics_module, "_FLUSH_POINTS", 8)
    with store.lock("test"):
        run_id = store.runs.start(RunSpec("sft")).id
    model: dict[str, dict[int, float]] = {}
    writer = store.metrics.writer(run_id)
    for action in actions:
        if action[0] == "log":
            writer.log(action[2], action[1])
            for name, value in action[1].items():
                model.setdefault(name, {})[action[2]] = value
        elif action[0] == "many":
            for step in range(action[1], action[1] + action[2]):
                writer.log(step, {"train_loss": float(step)})
                model.setdefault("train_loss", {})[step] = float(step)
        elif action[0] == "flush":
            writer.flush()
        elif action[0] == "compact":
            writer.flush()
            store.metrics.compact(run_id)
        else:
            writer.close()
            if action[0] == "resume":
                store.metrics.drop_after(run_id, action[1])
                model = {
                    n: {s: v for s, v in points.items() if s <= action[1]} for n, points in model.items()
                }
            writer = store.metrics.writer(run_id)
    for moment in ("flushed", "closed"):
        writer.flush() if moment == "flushed" else writer.close()
        found = {name: as_dict(series) for name, series in store.metrics.read(run_id).items()}
        expected = {name: points for name, points in model.items() if points}
        assert found.keys() == expected.keys(), moment
        assert all(same(found[name], expected[name]) for name in found), moment


def test_a_fault_of_the_thread_reaches_who_logs(store: Store, run_id: int) -> None:
    writer = store.metrics.writer(run_id)
    writer.log(1, {"train_loss": 1.0})
    writer.flush()
    with store.metrics._database.transaction() as connection:
        connection.execute("ALTER TABLE metric_rows RENAME TO elsewhere")
    with pytest.raises(StoreError):
        _log_many(writer, 100_000)
    with pytest.raises(StoreError):
        writer.flush()
    with pytest.raises(StoreError):
        writer.close()


def test_a_thread_that_ends_while_one_logs_has_left_its_fault(
    store: Store, run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = store.metrics.writer(run_id)

    def end() -> bool:  # the thread's last moments fall just where somebody asks whether it lives
        writer._fault = StoreError("the disk is full")
        return False

    with monkeypatch.context() as ending:
        ending.setattr(writer._thread, "is_alive", end)
        with pytest.raises(StoreError, match="the disk is full"):
            writer.log(1, {"train_loss": 1.0})
    writer._fault = None
    writer.close()


def test_a_fault_beside_another_error_hides_neither(store: Store, run_id: int) -> None:
    def fail() -> None:
        with store.metrics.writer(run_id) as writer:
            with store.metrics._database.transaction() as connection:
                connection.execute("ALTER TABLE metric_rows RENAME TO elsewhere")
            writer.log(1, {"train_loss": 1.0})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fail()
    assert "metrics could not be written" in caught.value.__notes__[0]


def test_logging_waits_for_a_slow_disk_and_loses_nothing(
    store: Store, run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_module, "_QUEUE_STEPS", 4)
    with store.metrics.writer(run_id) as writer:
        helper = threading.Thread(target=_log_many, args=(writer, 1000))
        with store.metrics._database.transaction():  # keeps the writer's thread waiting
            helper.start()
            time.sleep(0.4)
            assert helper.is_alive()  # it waits
        helper.join(20)
        assert not helper.is_alive()
    assert len(store.metrics.read(run_id)["train_loss"]) == 1000


def _log_many(writer: metrics_module.MetricWriter, count: int) -> None:
    for step in range(count):
        writer.log(step, {"train_loss": 1.0})


def test_a_closed_writer_says_so(store: Store, run_id: int) -> None:
    writer = store.metrics.writer(run_id)
    writer.close()
    writer.close()
    for act in (lambda: writer.log(1, {"a": 1.0}), writer.flush):
        with pytest.raises(ValueError, match="closed"):
            act()


def test_a_program_that_ends_without_closing_does_not_hang(home: Home, store: Store, run_id: int) -> None:
    code = (
        "import sys; from pathlib import Path; from dlm.store import Home\n"
        "store = Home.open(Path(sys.argv[1])).store(sys.argv[2])\n"
        "writer = store.metrics.writer(1); writer.log(1, {'a': 1.0}); writer.flush(); writer.log(2, {'a': 1.0})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(home.root), ID], timeout=30, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert 1 in as_dict(store.metrics.read(run_id)["a"])


def test_a_blob_of_the_wrong_length_is_damage(store: Store, run_id: int) -> None:
    with store.metrics.writer(run_id) as writer:
        writer.log(1, {"a": 1.0})
    with store.metrics._database.transaction() as connection:
        connection.execute("UPDATE metric_blobs SET steps = x'00'")
    with pytest.raises(StoreError, match="damaged"):
        store.metrics.read(run_id)
