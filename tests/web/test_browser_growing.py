"""Pages in a real Chromium while a run is logged by hand: what moves, what stays, and what the page asks for meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from command_line import Cli
from dlm.store import Home, RunSpec, Store
from recorded_runs import DLM_ID, record_run, recorded_document, values_of
from web_server import Served, serving, wait_until, watched

pytestmark = pytest.mark.big

Log = Callable[..., None]


@pytest.fixture
def store(cli: Cli) -> Iterator[Store]:
    (cli.folder / "notes.dlm").write_text(recorded_document(), encoding="utf-8")
    with Home.open(cli.home).store(DLM_ID) as opened:
        yield opened


@pytest.fixture
def server(cli: Cli, store: Store) -> Iterator[Served]:
    with serving(cli, "notes.dlm") as served:
        yield served


@contextmanager
def training(store: Store, kind: str = "sft", planned: int = 200) -> Iterator[tuple[int, Log]]:
    """A run that goes on while the block runs: its number, and what logs its steps from one to another."""
    with store.lock("dlm train notes.dlm"):
        run = store.runs.start(RunSpec(kind, kind, planned_steps=planned))
        with store.metrics.writer(run.id) as writer:

            def log(first: int, last: int, **more: float) -> None:
                for step in range(first, last + 1):
                    values = (
                        values_of(step, planned) if kind == "sft" else {"train_mean_reward": step / planned}
                    )
                    writer.log(step, values | more)
                writer.flush()

            yield run.id, log
        store.runs.finish(run.id, "complete")


def opened(page: Any, served: Served, path: str) -> None:
    page.goto(served.url)
    page.goto(served.base + path)
    page.get_by_text("live", exact=True).wait_for()
    page.get_by_role("img", name="Loss. Run").wait_for()


def drawn(page: Any, title: str = "Loss") -> int:
    return int(page.get_by_role("region", name=title).first.get_attribute("data-points") or 0)


def tile(page: Any, title: str) -> list[str]:
    """The figure below that title of the head, and the small print beside it."""
    return list(page.locator("#head dl > div").filter(has_text=title).locator("dd > *").all_inner_texts())


def row(page: Any, run: int) -> str:
    return str(page.locator("#runs").get_by_role("row", name=f"Run {run} ").inner_text())


def test_a_page_in_use_is_left_alone_by_a_run_that_begins(page: Any, store: Store, server: Served) -> None:
    """What somebody looks at stays as it is, and is not asked for again; a page that nobody touched goes on to the new run."""
    record_run(store, steps=30)
    opened(page, server, "/training")
    page.get_by_label("Log y").check()
    other = page.context.new_page()
    asked: list[str] = []
    with watched(page, server.base), watched(other, server.base):
        opened(other, server, "/training?x=tokens")
        page.on("request", lambda request: asked.append(request.url))
        plot = page.get_by_role("img", name="Loss. Run 1")
        plot.hover()
        with training(store) as (run, log):
            page.get_by_text(f"Run {run} has begun").wait_for()
            other.get_by_role("heading", name=f"Run {run}").wait_for()
            assert other.get_by_label("Tokens", exact=True).is_checked()
            for step in range(1, 41):
                log(step, step)
                page.wait_for_timeout(40)
            wait_until(lambda: "40 / 200" in row(page, run))
            wait_until(lambda: "no points" not in row(page, run))
            picture = page.locator('[data-chart="loss"] canvas').element_handle()
        page.locator(f'#runs tr[data-run="{run}"]').get_by_text("COMPLETE").wait_for()
        assert page.get_by_role("heading", name="Run 1").is_visible()
        assert page.get_by_label("Log y").is_checked()
        assert picture.evaluate("canvas => canvas.isConnected")  # not drawn anew when that run ended
        assert not [url for url in asked if "/api/chart" in url]
    other.close()


def test_what_a_zoomed_page_says_of_a_growing_run(page: Any, store: Store, server: Served) -> None:
    with watched(page, server.base), training(store) as (run, log):
        log(1, 40)
        opened(page, server, f"/training?run={run}&low=1&high=8")
        loss = page.get_by_role("region", name="Loss").first
        loss.get_by_text("In words").click()
        stop = page.get_by_role("button", name="Stop")
        stop.focus()
        started = tile(page, "Wall time")
        assert drawn(page) == 9 + 1  # with one beyond, so that a line leaves the picture
        log(41, 100)
        tail = [values_of(step, 200)["train_loss"] for step in range(91, 101)]
        wait_until(lambda: tile(page, "Loss")[0] == f"{sum(tail) / len(tail):.4g}")
        accuracy = values_of(100, 200)["train_mean_token_accuracy"]
        assert tile(page, "Token accuracy")[1] == f"last batch {accuracy:.1%}"
        wait_until(lambda: tile(page, "Wall time") != started)
        wait_until(lambda: "at step 100; lowest" in loss.locator(".summary").inner_text())
        assert "100 points" in str(loss.get_by_role("img").get_attribute("aria-label"))
        assert drawn(page) == 9 + 1  # the stretch holds none of them
        assert stop.evaluate("button => button === document.activeElement")


def test_a_view_that_holds_everything_goes_on_growing(page: Any, store: Store, server: Served) -> None:
    with watched(page, server.base), training(store) as (run, log):
        log(1, 40)
        opened(page, server, f"/training?run={run}")
        plot = page.get_by_role("img", name="Loss. Run")
        plot.focus()
        page.keyboard.press("-")
        assert "low=" not in page.url  # there is nothing to see beside the whole
        page.keyboard.press("+")
        page.wait_for_url("**low=**")
        wait_until(lambda: drawn(page) < 44)
        page.keyboard.press("-")
        assert "low=" not in page.url
        wait_until(lambda: drawn(page) == 44)
        page.keyboard.press("Home")  # what somebody points at stays in the legend while points come
        legend = page.get_by_role("region", name="Loss").first.get_by_role("list")
        wait_until(lambda: f"{values_of(1, 200)['train_loss']:.4g}" in legend.inner_text())
        pointed = legend.inner_text()
        page.get_by_role("region", name="Loss").get_by_text("As a table").click()
        table = page.get_by_role("region", name="Loss as a table")
        picture = page.locator('[data-chart="loss"] canvas').element_handle()
        log(41, 60, probe_exact_match=0.5)
        wait_until(lambda: drawn(page) == 66)
        page.get_by_text(
            "3 more metrics"
        ).wait_for()  # a chart of its own, beside which the others stay as they are
        assert legend.inner_text() == pointed
        assert picture.evaluate("canvas => canvas.isConnected")
        summary = page.get_by_role("region", name="Loss").first.get_by_text("As a table")
        assert summary.evaluate("summary => summary === document.activeElement")
        table.get_by_role("cell", name="60", exact=True).wait_for()

        # a stretch that ends later than the run has come grows up to its end, and not beyond
        opened(page, server, f"/training?run={run}&low=51&high=67.5&smoothing=0.9")
        before = drawn(page)
        log(61, 64)
        wait_until(lambda: drawn(page) == before + 4)
        log(65, 90)
        wait_until(lambda: drawn(page) == before + 8 + 1)  # up to 68; and the validation of step 70
        shown = page.get_by_role("region", name="Loss").first.get_by_role("list").inner_text()
        page.reload()
        wait_until(lambda: drawn(page) == before + 9)
        assert page.get_by_role("region", name="Loss").first.get_by_role("list").inner_text() == shown


def test_a_reinforcement_run_gets_its_figures_with_its_first_steps(
    page: Any, store: Store, server: Served
) -> None:
    with training(store, "rft") as (run, log):
        page.goto(server.url)
        page.goto(f"{server.base}/training?run={run}")
        page.get_by_text("live", exact=True).wait_for()
        log(1, 20)
        wait_until(lambda: tile(page, "Held-out reward") == ["–", "the newest"])
        assert tile(page, "Reward")[0] == "0.0975"
        page.locator("#findings").get_by_text("there are no points").wait_for(state="detached")


def test_at_most_ten_runs_are_laid_over(page: Any, store: Store, server: Served) -> None:
    for _ in range(12):
        record_run(store, steps=2)
    with watched(page, server.base):
        opened(page, server, "/training?run=12")
        for run in range(1, 11):
            page.get_by_label(f"Lay the curves of run {run} over").check()
        page.get_by_label("Lay the curves of run 11 over").click()
        page.get_by_text("at most 10 runs").wait_for()
        assert not page.get_by_label("Lay the curves of run 11 over").is_checked()
        wait_until(lambda: drawn(page) == 11 * 2)
        page.reload()
        wait_until(lambda: drawn(page) == 11 * 2)
    page.goto(f"{server.base}/training?run=12&with={','.join(map(str, range(1, 12)))}")
    page.get_by_text("at most ten runs by their numbers, such as 2,7").wait_for()


def test_a_chart_that_did_not_come_is_asked_for_again(page: Any, store: Store, server: Served) -> None:
    record_run(store, steps=30)
    lost: list[bool] = []
    page.route("**/api/chart*", lambda route: route.abort() if lost else route.continue_())
    opened(page, server, "/training?run=1")
    lost.append(True)
    page.get_by_label("Tokens", exact=True).check()
    page.get_by_text("Failed to fetch").first.wait_for()
    lost.clear()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # the page opens its stream anew
    wait_until(lambda: page.get_by_text("Failed to fetch").count() == 0 and drawn(page) == 33)
