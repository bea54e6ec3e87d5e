"""What the TRAINING tab tells of reinforcement runs and of gates' verdicts, without a browser: the pages as they are sent."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from command_line import Cli
from dlm.store import Home, RunSpec, Store
from dlm.web.chart_data import Query, draw
from dlm.web.charts import charts_of
from dlm.web.diagnoses import Diagnoses
from dlm.web.gate_verdicts import _condition as condition_of
from dlm.web.gate_verdicts import verdicts_of
from dlm.web.run_rows import RunRows
from dlm.web.series_cache import SeriesCache
from dlm.web.static_files import static_files
from recorded_runs import DLM_ID, record_rft, record_verdict
from web_server import Served, serving


@pytest.fixture
def store(recorded: Cli) -> Iterator[Store]:
    with Home.open(recorded.home).store(DLM_ID) as opened:
        yield opened


@pytest.fixture
def person(recorded: Cli, store: Store) -> Iterator[httpx.Client]:
    with serving(recorded, "notes.dlm") as served:
        yield from _person(served)


def _person(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.base, follow_redirects=True) as client:
        client.get(served.url)
        yield client


def test_an_rft_run_s_first_charts_are_its_rewards_lengths_and_errors(store: Store) -> None:
    run = store.runs.get(record_rft(store))
    charts = {one.id: one for one in charts_of(run.kind, run.method, store.metrics.names(run.id))}
    assert list(charts)[:3] == ["reward", "tokens", "errors"]
    cache = SeriesCache()
    drawn = {
        (chart, line.name): line
        for chart in list(charts)[:3]
        for line in draw(store, cache, run, charts[chart], Query())
    }
    assert set(drawn) == {
        ("reward", "train_mean_reward"),
        ("reward", "full_valid_mean_reward"),
        ("tokens", "completion_tokens_mean"),
        ("errors", "train_sample_parse_error_count"),
        ("errors", "train_other_error_count"),
        ("errors", "mean_unresponsive_rewards"),
    }
    held = store.metrics.read(run.id)
    for (_, name), line in drawn.items():
        np.testing.assert_array_equal(line.x, held[name].steps)
        np.testing.assert_array_equal(line.values, held[name].values)


def test_an_rft_run_is_as_far_as_its_rewards_and_not_its_losses(store: Store) -> None:
    run_id = record_rft(store, steps=20)
    row = next(one for one in RunRows(SeriesCache()).all(store) if one.run.id == run_id)
    assert (row.steps, row.progress) == (20, 1.0)
    assert row.reward == pytest.approx(0.5 + 0.05 * 19.5)  # the mean of the last tenth
    assert (row.last_reward, row.held_out_reward) == (pytest.approx(1.5), pytest.approx(2.4))
    sft = next(one for one in RunRows(SeriesCache()).all(store) if one.run.id == 1)
    assert (sft.steps, sft.reward, sft.held_out_reward) == (120, None, None)


def test_the_page_of_an_rft_run(person: httpx.Client, store: Store) -> None:
    run_id = record_rft(store)
    text = person.get(f"/training?run={run_id}").text
    assert "<dt>Held-out reward</dt>" in text
    assert "<dt>Final loss</dt>" not in text
    assert (
        text.index('data-chart="reward"')
        < text.index('data-chart="errors"')
        < text.index('data-chart="loss"')
    )
    marks = person.get(f"/api/marks/{run_id}").json()
    assert [(one["step"], one["x"]) for one in marks["checkpoints"]] == [(6, 6.0)]


def test_verdicts_are_those_of_the_run_s_versions_newest_first(store: Store) -> None:
    record_verdict(store, "v0001", "missing")
    record_verdict(store, "v0002", "pass", "v0001")
    record_verdict(store, "v0001", "fail")
    found = verdicts_of(store, {"v0001"})
    assert [(one.word, one.is_newest, one.held) for one in found] == [
        ("FAIL", True, 1),
        ("MISSING", False, 1),
    ]
    condition = found[0].conditions[1]
    assert (condition.status, condition.value, condition.needed, condition.gold) == (
        "FAIL",
        0.625,
        0.875,
        1.0,
    )
    assert (condition.change, condition.cases) == ("-0.1250 (-0.2500 to +0.0000)", 8)
    assert verdicts_of(store, set()) == []


def test_one_case_has_no_interval_in_a_verdict() -> None:
    told = dict.fromkeys(("text", "status", "metric", "value", "baseline", "needed", "ceiling", "detail"))
    alone = told | {"difference": {"value": 0.1, "low": 0.1, "high": 0.1, "n": 1}}
    assert condition_of(alone).change == "+0.1000 (one case)"


def test_a_verdict_is_told_beside_its_version_and_its_texts_are_text(
    person: httpx.Client, store: Store
) -> None:
    assert "What the gate said" not in person.get("/training?run=1").text
    record_verdict(store, "v0001")
    text = person.get("/training?run=1").text
    story = person.get("/training/runs/1/story").text
    for told in (text, story):
        assert "v0001 against base" in told
        assert "2 conditions held" not in told
        assert "1 of 3 conditions held" in told
        assert "-0.1250 (-0.2500 to +0.0000)" in told
        assert "&lt;img src=x" in told
        assert "<img src=x" not in told
        assert "\\x1b[31mred" in told
    assert "What the gate said" not in person.get("/training?run=2").text


def test_a_verdict_changes_the_mark_that_pages_follow(store: Store) -> None:
    before = store.following.states()
    record_verdict(store, "v0001")
    assert store.following.states() != before


def test_scripts_and_styles_are_asked_for_once_under_an_address_that_names_them(
    person: httpx.Client,
) -> None:
    address = static_files().address
    assert f'src="{address}/page/training.js"' in person.get("/training").text
    for name in ("vendor/uplot-1.6.32.min.js", "page/training.js", "page/training.css", "icon.svg"):
        found = person.get(f"{address}/{name}")
        assert (found.status_code, found.headers["Cache-Control"]) == (
            200,
            "public, max-age=31536000, immutable",
        )
        assert found.content == static_files().contents[name]
    for path in ("/static/base.css", "/static/000000000000/base.css", f"{address}/vendor/README.md", address):
        assert person.get(path).status_code == 404


def test_a_run_without_losses_is_judged_again_while_it_runs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlm.web.diagnoses._AGAIN_S", 0.0)
    diagnoses = Diagnoses()
    with store.lock("dlm train notes.dlm --phase rft"):
        run = store.runs.start(RunSpec("rft", "grpo", planned_steps=9))
        assert diagnoses.of(store, run, "running") is None
        with store.metrics.writer(run.id) as writer:
            for step in (1, 2):
                writer.log(step, {"train_mean_reward": 0.5})
                writer.flush()
                judged = diagnoses.of(store, run, "running")
                assert judged is not None
                assert judged is diagnoses.of(store, run, "running")
                assert len(judged.curves.series["train_mean_reward"]) == step
