"""The PROMPT tab in a real browser; what a model would answer is answered in its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from command_line import Cli
from dlm.store import Home, StagedPair
from recorded_runs import DLM_ID, HOSTILE, record_runs, recorded_document
from web_server import accessible_in_both, serving, wait_until, watched

pytestmark = pytest.mark.torch  # the page asks for the training extra, though nothing here loads it

PROBE = "Who reads \u202enotes\u202c?"


def answers(*texts: str) -> str:
    """The lines of `/api/ask`."""
    told: list[dict[str, Any]] = [{"kind": "starting"}]
    for slot, text in enumerate(texts):
        about = {"slot": slot, "version": f"v000{slot + 1}"}
        told.append({"kind": "answers", **about})
        told.append(
            {"kind": "done", "text": text, "finish_reason": "stop", "tokens": 3, "seconds": 0.1, **about}
        )
    return "".join(json.dumps(one) + "\n" for one in [*told, {"kind": "end"}])


def staged(cli: Cli) -> tuple[StagedPair, ...]:
    with Home.open(cli.home).store(DLM_ID) as store:
        return store.mining.pairs()


def test_a_probe_is_asked_as_written_and_a_preference_is_kept_once(cli: Cli, page: Any) -> None:
    document = recorded_document().replace("Who reads notes?", PROBE)
    (cli.folder / "notes.dlm").write_text(document, encoding="utf-8")
    with Home.open(cli.home).store(DLM_ID) as store:
        store.attach(cli.folder / "notes.dlm")
        record_runs(store)
    asked: list[dict[str, Any]] = []

    def answer(route: Any) -> None:
        asked.append(route.request.post_data_json)
        route.fulfill(content_type="application/x-ndjson", body=answers("People.", HOSTILE))

    with serving(cli, "notes.dlm") as server, watched(page, server.base):
        page.goto(server.url)
        page.route("**/api/ask", answer)
        page.goto(f"{server.base}/prompt")
        page.get_by_text("live", exact=True).wait_for()
        page.get_by_role("button", name="Who reads").click()
        page.get_by_label("Beside").select_option("v0001")
        page.keyboard.press("Control+Enter")
        page.get_by_role("button", name="Prefer").nth(1).wait_for()
        assert [one["question"] for one in asked] == [PROBE]
        assert "<script>" in page.get_by_role("article").nth(1).inner_text()
        assert page.title().endswith("dlm")
        assert accessible_in_both(page) == []
        page.locator("body").click()
        for key in "36":  # faster than any answer: the first one stands
            page.keyboard.press(key)
        page.get_by_text("kept as a pair").first.wait_for()
        assert page.get_by_role("button", name="Prefer", pressed=True).count() == 1
        assert accessible_in_both(page) == []
        wait_until(lambda: [(one.chosen, one.rejected) for one in staged(cli)] == [("People.", HOSTILE)])


def test_a_preference_that_is_refused_can_be_given_again(cli: Cli, page: Any) -> None:
    (cli.folder / "notes.dlm").write_text(recorded_document(), encoding="utf-8")
    with serving(cli, "notes.dlm") as server:
        page.goto(server.url)
        page.route(
            "**/api/ask",
            lambda route: route.fulfill(content_type="application/x-ndjson", body=answers("One.", "Two.")),
        )
        page.goto(f"{server.base}/prompt")
        page.get_by_text("live", exact=True).wait_for()
        page.get_by_label("Question").fill("Which?")
        page.get_by_label("Beside").select_option("base")
        page.get_by_role("button", name="Ask").click()
        prefer = page.get_by_role("button", name="Prefer").first
        prefer.click()  # of a version that this store has not
        page.get_by_text("no version v0001").wait_for()
        assert prefer.is_enabled()
        assert prefer.get_attribute("aria-pressed") == "false"
