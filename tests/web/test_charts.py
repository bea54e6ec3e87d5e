"""Charts of a run: what is drawn, in the binary form that the page reads."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dlm.curves import Series
from dlm.store import Home, Store
from dlm.web.chart_data import Query, draw, encode, query_of, table
from dlm.web.charts import chart_of, charts_of
from dlm.web.series_cache import SeriesCache
from recorded_runs import DLM_ID, record_run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Home.open(tmp_path / "home").store(DLM_ID) as opened:
        yield opened


def decoded(body: bytes) -> tuple[dict[str, object], list[list[np.ndarray]]]:
    """What static/js/curves.js does."""
    (length,) = struct.unpack_from("<I", body)
    header = json.loads(body[4 : 4 + length])
    at = -(-(4 + length) // 8) * 8
    lines = []
    for line in header["lines"]:
        arrays = []
        for kind in ["<f8", "<f4"] + ["<f4"] * line["smoothed"]:
            arrays.append(np.frombuffer(body, kind, line["count"], at))
            at += -(-arrays[-1].nbytes // 8) * 8
        lines.append(arrays)
    assert at == len(body)
    return header, lines


def test_a_preference_run_has_the_four_charts_then_its_own_then_what_is_left(store: Store) -> None:
    run = store.runs.get(record_run(store, "preference", 20))
    charts = charts_of(run.kind, run.method, store.metrics.names(run.id))
    assert [one.id for one in charts] == [
        "loss", "accuracy", "norm", "rate", "ranked", "margin", "logps", "metric:num_tokens", "metric:tokens_per_second",
    ]  # fmt: skip
    assert [guide.value for guide in charts[0].guides] == [pytest.approx(math.log(2))]
    assert [guide.value for guide in charts[4].guides] == [0.5]
    assert [line.colour for line in charts[6].lines] == ["chosen", "rejected"]


def test_every_metric_of_a_run_is_drawn_somewhere() -> None:
    present = {
        "train_mean_reward",
        "entropy",
        "kl",
        "completion_tokens_mean",
        "train_sample_parse_error_count",
    }
    charts = charts_of("rft", "grpo", present)
    drawn = {name for chart in charts for line in chart.lines if (name := line.name_in(present))}
    assert drawn == present
    assert [chart.id for chart in charts][:3] == ["reward", "tokens", "errors"]


def test_what_is_sent_is_what_the_store_holds(store: Store) -> None:
    run = store.runs.get(record_run(store, steps=50))
    panel = chart_of("loss", run.kind, run.method, store.metrics.names(run.id))
    assert panel is not None
    query = Query(smoothing=0.6)
    header, lines = decoded(encode(panel, query, draw(store, SeriesCache(), run, panel, query)))
    held = store.metrics.read(run.id)
    assert header["axis"] == "step"
    (x, values, smooth), (valid_x, valid) = lines
    np.testing.assert_array_equal(x, held["train_loss"].steps)
    np.testing.assert_allclose(values, held["train_loss"].values, rtol=1e-6)
    assert len(smooth) == 50
    np.testing.assert_array_equal(valid_x, held["valid_loss"].steps)
    np.testing.assert_allclose(valid, held["valid_loss"].values, rtol=1e-6)


def test_axes_of_time_and_tokens(store: Store) -> None:
    run = store.runs.get(record_run(store, steps=30))
    panel = chart_of("loss", run.kind, run.method, store.metrics.names(run.id))
    assert panel is not None
    cache = SeriesCache()
    (train, _) = draw(store, cache, run, panel, Query(axis="tokens"))
    np.testing.assert_allclose(train.x, 100 * np.arange(1, 31))
    (train, _) = draw(store, cache, run, panel, Query(axis="time"))
    assert (np.diff(train.x) >= 0).all()
    assert train.x[0] >= 0


def test_a_zoom_shows_points_that_the_whole_left_out(store: Store) -> None:
    run = store.runs.get(record_run(store, steps=900))
    panel = chart_of("loss", run.kind, run.method, store.metrics.names(run.id))
    assert panel is not None
    cache = SeriesCache()
    whole = draw(store, cache, run, panel, Query(most=60))[0]
    near = draw(store, cache, run, panel, Query(most=60, low=400, high=440))[0]
    assert len(whole.x) <= 60
    assert near.x.tolist() == list(range(399, 442))


def test_numbers_that_are_none_are_told_and_not_drawn(store: Store) -> None:
    run_id = record_run(store, steps=10)
    with store.metrics.writer(run_id) as writer:
        writer.log(11, {"train_loss": math.nan})
        writer.log(12, {"train_loss": math.inf})
    run = store.runs.get(run_id)
    panel = chart_of("loss", run.kind, run.method, store.metrics.names(run.id))
    assert panel is not None
    train = draw(store, SeriesCache(), run, panel, Query(smoothing=0.5))[0]
    assert (train.not_finite, train.first_not_finite, len(train.x)) == (2, 11, 10)
    assert train.smooth is not None
    assert np.isfinite(train.smooth).all()


def test_the_table_has_every_line_and_few_rows(store: Store) -> None:
    run = store.runs.get(record_run(store, steps=500))
    panel = chart_of("loss", run.kind, run.method, store.metrics.names(run.id))
    assert panel is not None
    heads, rows = table(draw(store, SeriesCache(), run, panel, Query()), 40)
    assert heads == [f"run {run.id} train", f"run {run.id} validation"]
    assert len(rows) <= 40
    assert rows[0][0] == 1
    assert rows[-1][0] == 500


def test_a_cached_series_is_read_anew_when_the_store_has_more(store: Store) -> None:
    run_id = record_run(store, steps=5)
    cache = SeriesCache()
    before = cache.read(store, run_id, "train_loss")
    assert before is cache.read(store, run_id, "train_loss")
    with store.metrics.writer(run_id) as writer:
        writer.log(6, {"train_loss": 1.0})
    after = cache.read(store, run_id, "train_loss")
    assert isinstance(after, Series)
    assert len(after) == 6


def test_the_cache_forgets_what_was_used_least() -> None:
    cache = SeriesCache(most_points=10)
    made: list[str] = []

    def make(name: str, count: int) -> np.ndarray:
        return cache.derived(name, lambda: made.append(name) or np.zeros(count))

    for name in ("a", "b", "a", "c", "a", "b"):
        make(name, 4)
    assert made == ["a", "b", "c", "b"]
    make("large", 11)
    make("large", 11)
    assert made[-2:] == ["large", "large"]


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ({}, Query(smoothing=0.6)),
        ({"x": "tokens", "smoothing": "0", "low": "1e3", "high": "-2.5"}, Query("tokens", 1e3, -2.5, 0.0)),
        ({"x": "days", "smoothing": "7", "low": "nan", "high": "inf"}, Query(smoothing=0.99)),
        ({"x": "", "smoothing": "a lot", "low": "", "high": "\x00"}, Query(smoothing=0.6)),
    ],
)
def test_an_address_is_read_as_the_page_s_script_reads_it(address: dict[str, str], wanted: Query) -> None:
    assert query_of(address) == wanted
