"""Pages in a real Chromium, over a store that was made by hand: drawn, usable by keyboard, accessible, quiet."""

from __future__ import annotations

from typing import Any

import pytest

from command_line import Cli
from dlm.store import Home, RunSpec, SignalFilter, find_signals
from recorded_runs import DLM_ID, record_run, record_verdict, recorded_document, values_of
from web_server import Served, accessible, accessible_in_both, serving, wait_until, watched

pytestmark = pytest.mark.big


def open_tab(page: Any, served: Served, path: str = "/training") -> None:
    page.goto(served.url)
    page.goto(served.base + path)
    page.get_by_text("live", exact=True).wait_for()


def drawn(page: Any, title: str) -> int:
    """How many points the chart of that title shows."""
    chart = page.get_by_role("region", name=title)
    return int(chart.get_attribute("data-points") or 0)


def chart_words(page: Any, title: str) -> str:
    return str(page.get_by_role("img", name=title).get_attribute("aria-label"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_is_accessible_and_asks_nobody_else(
    browser: Any, served: Served, recorded: Cli, scheme: str, width: int
) -> None:
    with Home.open(recorded.home).store(DLM_ID) as store:
        record_verdict(store, "v0002", "fail", "v0001")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    with watched(page, served.base):
        open_tab(page, served, "/training?run=2&with=1")
        page.get_by_text("v0002 against v0001").click()
        page.get_by_role("rowheader", name="tables.score >= 0.875").wait_for()
        page.get_by_role("img", name="Loss. Run 2").wait_for()
        page.get_by_text("more metrics").click()
        page.get_by_text("In words").first.click()
        page.get_by_text("As a table").first.click()
        page.get_by_role("cell").first.wait_for()
        assert accessible(page) == []
        for path in ("/prompt", "/training?run=3"):
            page.goto(served.base + path)
            page.get_by_text("live", exact=True).wait_for()
            assert accessible(page) == []
        overflow = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert overflow <= 0
    # Not within the block above: a browser writes a refused page into its console as an error.
    page.goto(served.base + "/training?run=99")
    assert "no run 99" in page.get_by_role("heading", level=1).inner_text()
    assert accessible(page) == []
    context.close()


def test_a_document_that_was_never_trained(browser: Any, cli: Cli) -> None:
    header = "---\ndlm_id: 01J9Z3W5E8RT2Y4VQ7NDPXK6MA\ndlm_version: 15\nbase_model: pocket\n---\n"
    (cli.folder / "new.dlm").write_text(header + "Prose.\n", encoding="utf-8")
    with serving(cli, "new.dlm") as served:
        page = browser.new_page()
        with watched(page, served.base):
            open_tab(page, served)
            page.get_by_role("heading", name="Nothing has trained yet").wait_for()
            assert accessible_in_both(page) == []
        page.close()


def test_the_figures_of_a_run_are_those_of_the_store(page: Any, served: Served, recorded: Cli) -> None:
    told = {run["id"]: run for run in recorded.json("show", "notes.dlm")["runs"]}
    with watched(page, served.base):
        open_tab(page, served, "/training?run=2")
        table = page.get_by_role("table").filter(has=page.get_by_role("columnheader", name="Phase"))
        words = {1: "COMPLETE", 2: "COMPLETE", 3: "INTERRUPTED"}
        for run_id, run in told.items():
            row = table.get_by_role("row", name=f"Run {run_id}")
            text = row.inner_text()
            assert words[run_id] in text
            assert f"{run['steps']} / {run['planned_steps']}" in text
            assert f"{run['train_loss']:.4g}" in text
            assert (run["version"] or "–") in text
        # the colours of the page: loss is orange, accuracy green, gradient norm purple, learning rate blue
        colours = {
            title: page.get_by_role("heading", name=title, exact=False).first.evaluate(
                "e => getComputedStyle(e).color"
            )
            for title in ("Loss", "Token accuracy", "Gradient norm", "Learning rate")
        }
        assert colours == {
            "Loss": "rgb(194, 65, 12)",
            "Token accuracy": "rgb(21, 128, 61)",
            "Gradient norm": "rgb(126, 34, 206)",
            "Learning rate": "rgb(29, 78, 216)",
        }
        for title in ("Reward accuracy", "Margin", "Log-probabilities"):
            page.get_by_role("heading", name=title).scroll_into_view_if_needed()
            page.get_by_role("img", name=f"{title}. Run 2").wait_for()
        assert "40 points" in chart_words(page, "Loss")


def test_the_view_is_in_the_address_and_comes_back(page: Any, served: Served) -> None:
    with watched(page, served.base):
        open_tab(page, served, "/training?run=1")
        page.get_by_role("img", name="Loss. Run 1").wait_for()
        assert drawn(page, "Loss") == 120 + 12
        page.get_by_label("Lay the curves of run 2 over").check()
        wait_until(lambda: drawn(page, "Loss") == 120 + 12 + 40 + 4)
        page.get_by_label("Tokens", exact=True).check()
        page.get_by_label("Log y").check()
        plot = page.get_by_role("img", name="Loss. Run 1")
        plot.focus()
        page.keyboard.press("+")
        page.wait_for_url("**low=**")
        whole = page.get_by_role("button", name="Whole run")
        assert whole.is_enabled()
        address = page.url
        for part in ("run=1", "with=2", "x=tokens", "log=1", "low=", "high="):
            assert part in address
        few = wait_until(lambda: drawn(page, "Loss") < 176 and drawn(page, "Loss"))
        page.reload()
        wait_until(lambda: drawn(page, "Loss") == few)
        assert page.get_by_label("Log y").is_checked()
        assert page.get_by_label("Lay the curves of run 2 over").is_checked()
        page.keyboard.press("0")
        wait_until(lambda: drawn(page, "Loss") == 176)
        assert "low=" not in page.url


def test_the_first_charts_come_within_the_page(page: Any, served: Served) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with watched(page, served.base):
        for view in ("", "&with=2,77&x=tokens&smoothing=0.95&log=1&low=1000&high=5000"):
            open_tab(page, served, f"/training?run=1{view}")
            for title in ("Loss", "Token accuracy", "Gradient norm", "Learning rate"):
                wait_until(lambda title=title: drawn(page, title) > 0)
            assert not [url for url in asked if "/api/chart" in url]
        page.get_by_label("Token accuracy. Run 1").focus()
        page.keyboard.press("0")
        wait_until(lambda: drawn(page, "Loss") == 176)
        assert [url for url in asked if "/api/chart" in url]


def test_every_table_follows_the_view(page: Any, served: Served) -> None:
    """Their requests must not push each other out of a queue."""
    with watched(page, served.base):
        open_tab(page, served, "/training?run=1")
        page.get_by_role("img", name="Token accuracy. Run 1").wait_for()
        for title in ("Loss", "Token accuracy", "Gradient norm", "Learning rate"):
            page.get_by_role("region", name=title).first.get_by_text("As a table").click()
        tables = page.get_by_role("region", name="as a table")
        heads = lambda: [head.inner_text() for head in tables.locator("th:first-child").all()]  # noqa: E731
        wait_until(lambda: heads() == ["Step"] * 4 or heads() == ["step"] * 4)
        before = heads()
        page.get_by_label("Wall time", exact=True).check()
        wait_until(lambda: len(heads()) == 4 and not set(heads()) & set(before))


def test_runs_that_are_not_there_are_left_out_and_said_once(page: Any, served: Served) -> None:
    with watched(page, served.base):
        page.goto(served.url)
        page.goto(f"{served.base}/training?run=1&with=77,2")
        page.get_by_text("run 77").wait_for()
        wait_until(lambda: drawn(page, "Loss") == 176)
        assert "with=2" in page.url
        page.reload()
        wait_until(lambda: drawn(page, "Loss") == 176)
        assert page.get_by_text("run 77").count() == 0
    answer = page.request.get(
        f"{served.base}/api/chart?chart=loss&run=1&with=77"
    )  # an address from elsewhere
    assert answer.ok


def test_an_answer_to_a_probe_is_voted_on_in_any_tab(page: Any, served: Served, recorded: Cli) -> None:
    """The key of writes is handed to one tab; another one, and a reload, has it too. The cookie alone has not."""

    def votes() -> list[float]:
        with Home.open(recorded.home).store(DLM_ID) as store:
            found = find_signals(store.signals.index, SignalFilter("reward"))
            return [one.chosen_score for one in found]

    page.goto(served.url)
    assert "write=" not in page.url
    second = page.context.new_page()
    with watched(second, served.base):
        open_page = f"{served.base}/training?run=2"
        second.goto(open_page)
        group = second.get_by_role("group", name="Your vote on the answer of v0002")
        good = group.get_by_role("button", name="Good answer")
        good.click()
        wait_until(lambda: good.get_attribute("aria-pressed") == "true")
        assert votes() == [1.0]
        second.reload()
        assert good.get_attribute("aria-pressed") == "true"
        good.click()
        wait_until(lambda: good.get_attribute("aria-pressed") == "false")
        assert votes() == []
    second.evaluate("localStorage.clear()")
    good.click()
    second.get_by_text("may look, not write").wait_for()
    assert votes() == []


def test_a_drag_zooms_every_chart(page: Any, served: Served) -> None:
    with watched(page, served.base):
        open_tab(page, served, "/training?run=1")
        page.get_by_role("img", name="Token accuracy. Run 1").wait_for()
        wait_until(lambda: drawn(page, "Loss") == 132)
        box = page.get_by_role("img", name="Loss. Run 1").bounding_box()
        page.mouse.move(box["x"] + 150, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + 250, box["y"] + 60, steps=4)
        page.mouse.up()
        wait_until(lambda: 0 < drawn(page, "Loss") < 132)
        wait_until(lambda: drawn(page, "Token accuracy") == drawn(page, "Loss"))
        page.get_by_role("button", name="Whole run").click()
        wait_until(lambda: drawn(page, "Token accuracy") == 132)


def test_a_chart_is_read_by_keyboard(page: Any, served: Served) -> None:
    with watched(page, served.base):
        open_tab(page, served, "/training?run=1")
        plot = page.get_by_role("img", name="Loss. Run 1")
        plot.wait_for()
        plot.focus()
        page.keyboard.press("Home")
        wait_until(lambda: page.get_by_role("status").filter(has_text="step 1: train").count())
        page.keyboard.press("ArrowRight")
        wait_until(lambda: page.get_by_role("status").filter(has_text="step 3: train").count())


def test_a_promotion_and_a_rollback(page: Any, served: Served, recorded: Cli) -> None:
    with watched(page, served.base):
        open_tab(page, served, "/training?run=1")
        page.get_by_role("button", name="Promote v0001").click()
        knobs = page.get_by_role("region", name="Recipe").get_by_text("All ")
        knobs.click()  # what is unfolded stays so when the page learns of the promotion, and keeps the focus
        wait_until(lambda: recorded.json("show", "notes.dlm")["current"] == "v0001", every_s=0.5)
        page.locator("#story").get_by_role("row", name="120").get_by_text("current").wait_for()
        assert page.get_by_role("region", name="Recipe").get_by_role("definition").first.is_visible()
        assert knobs.evaluate("summary => summary === document.activeElement")
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Roll back").click()
        wait_until(lambda: recorded.json("show", "notes.dlm")["current"] == "v0002", every_s=0.5)
        page.get_by_role("button", name="Promote step 60").click()
        wait_until(lambda: recorded.json("show", "notes.dlm")["current"] == "v0003", every_s=0.5)


def test_probes_and_the_recipe_beside_the_parents(page: Any, served: Served) -> None:
    open_tab(page, served, "/training?run=2")
    probes = page.get_by_role("region", name="Probes")
    assert "<script>" in probes.inner_text()  # as text
    assert page.title() == "Run 2 · notes.dlm · dlm"  # what the script would have changed
    recipe = page.get_by_role("region", name="Recipe")
    row = recipe.get_by_role("row", name="learning_rate")
    assert row.inner_text().split() == ["learning_rate", "0.005", "0.0002"]


def test_the_colours_follow_the_switch(page: Any, served: Served) -> None:
    open_tab(page, served)
    background = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    switch = page.get_by_role("button", name="Colours")
    switch.click()
    switch.click()
    assert page.evaluate(background) != light
    page.reload()
    assert page.evaluate(background) != light
    assert page.get_by_role("button", name="Colours: dark").is_visible()


def test_a_run_is_followed_to_its_end(page: Any, cli: Cli) -> None:
    """Written by hand, so that it takes seconds; test_browser_live.py has a real training."""
    (cli.folder / "notes.dlm").write_text(recorded_document(), encoding="utf-8")
    with Home.open(cli.home).store(DLM_ID) as store:
        record_run(store, steps=30)
        with (
            serving(cli, "notes.dlm") as served,
            watched(page, served.base),
            store.lock("dlm train notes.dlm"),
        ):
            open_tab(page, served)
            page.get_by_role("heading", name="Run 1").wait_for()
            run = store.runs.start(RunSpec("sft", "sft", planned_steps=100))
            page.get_by_role(
                "heading", name="Run 2"
            ).wait_for()  # a page that names no run follows the newest
            with store.metrics.writer(run.id) as writer:
                for step in range(1, 101):
                    writer.log(step, values_of(step, 100))
                    if step in (30, 60, 100):
                        writer.flush()
                        wait_until(lambda step=step: drawn(page, "Loss") >= step)
                assert page.locator("#status").inner_text() == "RUNNING"
                assert accessible_in_both(page) == []
                # a metric that appears at the end brings a chart of its own, and the others stay
                writer.log(100, {"probe_exact_match": 0.5})
            store.runs.finish(run.id, "complete")
            page.locator("#status").filter(has_text="COMPLETE").wait_for()
            page.get_by_text("more metrics").click()
            page.get_by_role("heading", name="probe_exact_match").wait_for()
            wait_until(lambda: drawn(page, "Loss") == 110)
            assert page.locator('[data-live="steps"]').first.inner_text() == "100"
