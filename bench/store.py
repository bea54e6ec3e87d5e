"""How fast the store takes metrics in and gives them back: `python bench/store.py` writes bench/results/store.json.

Write: what `log` costs the training thread, and points per second until all are on the disk and compacted.
Read: one series of 1,000,000 points, from blobs and from rows; the same points deflated, to see whether that pays.
Each figure is the median of its measurements, with the smallest and the largest beside it.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from report import write_report

from dlm.store import Home, RunSpec, Store

POINTS = 1_000_000
STEPS = 50_000
NAMES = ("train_loss", "train_mean_token_accuracy", "grad_norm", "learning_rate")
REPEATS = 5


def spread(measure: str, unit: str, values: list[float]) -> dict[str, object]:
    """One row of the report."""
    return {
        "measure": measure,
        "unit": unit,
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
    }


def seconds(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def new_run(store: Store) -> int:
    with store.lock("bench"):
        return store.runs.start(RunSpec("sft")).id


def measure_writing(store: Store) -> list[dict[str, object]]:
    """STEPS steps of four metrics each, logged as fast as a loop can: a hundred times what a training does."""
    rates, log_us = [], []
    for _ in range(REPEATS):
        run_id = new_run(store)
        begin = time.perf_counter()
        with store.metrics.writer(run_id) as writer:
            for step in range(STEPS):
                writer.log(step, dict.fromkeys(NAMES, step / STEPS))
        rates.append(STEPS * len(NAMES) / (time.perf_counter() - begin))
        # At a training's pace (here 500 steps a second) the queue is never full: the cost of `log` itself.
        costs = []
        with store.metrics.writer(new_run(store)) as writer:
            for step in range(500):
                costs.append(1e6 * seconds(lambda step=step: writer.log(step, dict.fromkeys(NAMES, 1.0))))
                time.sleep(0.002)
        log_us.append(statistics.median(costs))
    return [
        spread("write, four metrics a step", "points/s", rates),
        spread("log() of four metrics, in the training thread", "µs", log_us),
    ]


def fill(store: Store, run_id: int) -> None:
    """A million rows straight into the table, as a run has them that never compacted."""
    rng = np.random.default_rng(0)
    values = (2 * np.exp(-np.arange(POINTS) / 2e5) + rng.normal(0, 0.05, POINTS)).tolist()
    connection = sqlite3.connect(store.folder / "store.sqlite3")
    with connection:
        connection.execute("INSERT OR IGNORE INTO metric_names (name) VALUES ('train_loss')")
        (name_id,) = connection.execute("SELECT id FROM metric_names WHERE name = 'train_loss'").fetchone()
        connection.executemany(
            "INSERT INTO metric_rows VALUES (?, ?, ?, ?, ?)",
            ((run_id, name_id, step, value, 1.7e9 + step * 0.1) for step, value in enumerate(values)),
        )
    connection.close()


def measure_reading(store: Store) -> list[dict[str, object]]:
    run_id = new_run(store)
    fill(store, run_id)

    def read() -> None:
        assert len(store.metrics.read(run_id)["train_loss"]) == POINTS

    rows = [seconds(read) for _ in range(REPEATS)]
    compacting = seconds(lambda: store.metrics.compact(run_id))
    blobs = [seconds(read) for _ in range(REPEATS)]
    series = store.metrics.read(run_id)["train_loss"]
    plain = b"".join(array.tobytes() for array in (series.steps, series.values, series.times))
    packed = zlib.compress(plain, 1)
    inflating = [seconds(lambda: zlib.decompress(packed)) for _ in range(REPEATS)]
    return [
        spread("read 1,000,000 points from rows", "s", rows),
        spread("read 1,000,000 points from blobs", "s", blobs),
        spread("compact 1,000,000 rows at once", "s", [compacting]),
        spread("bytes a point in blobs", "bytes", [len(plain) / POINTS]),
        spread("bytes a point if deflated", "bytes", [len(packed) / POINTS]),
        spread("reading 1,000,000 points would take longer, if deflated, by", "s", inflating),
    ]


def measure_events(store: Store) -> list[dict[str, object]]:
    run_id = new_run(store)
    costs = [1e3 * seconds(lambda: store.runs.event(run_id, "note", {"text": "x"})) for _ in range(100)]
    return [spread("record one event", "ms", costs)]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Home.open(Path(folder)).store("BENCH") as store:
        rows = measure_writing(store) + measure_reading(store) + measure_events(store)
    write_report(
        "store", rows, repeats=REPEATS, sqlite=sqlite3.sqlite_version, load_average=os.getloadavg()[0]
    )


if __name__ == "__main__":
    main()
