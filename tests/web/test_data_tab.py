"""The RL DATA tab in a real browser, against a real server: counts, review by keyboard, apply as previewed, votes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tools.docs import page_data

from command_line import Cli
from dlm import review
from dlm.document import load
from dlm.store import Home, RunSpec, SignalFilter, Store, count_signals, find_signals
from dlm.web import data_actions
from dlm.web.app import create_app
from dlm.web.desk import Desk
from dlm.web.security import TOKEN_HEADER, Keys
from mined_pairs import TEXTS, mine
from recorded_runs import DLM_ID, HOSTILE, recorded_document
from web_server import Served, accessible_in_both, serving, wait_until, watched

TABS = ("preference", "reward", "dpo", "orpo")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """`notes.dlm` with the page's own data, imported; nothing was trained or mined for it."""
    root = tmp_path_factory.mktemp("filled")
    cli = Cli(root / "home", root / "work")
    cli.folder.mkdir()
    (cli.folder / "notes.dlm").write_text(recorded_document(), encoding="utf-8")
    lines = "".join(json.dumps(line) + "\n" for line in page_data.lines())
    (cli.folder / "data.jsonl").write_text(lines, encoding="utf-8")
    cli.run("import", "notes.dlm", "data.jsonl")
    return cli


@pytest.fixture(scope="module")
def server(filled: Cli) -> Iterator[Served]:
    with serving(filled, "notes.dlm") as opened:
        yield opened


@pytest.fixture
def mined(cli: Cli) -> Cli:
    """A document with three mined pairs that wait for review, and one whose texts would like to be markup."""
    path = cli.folder / "notes.dlm"
    path.write_text(recorded_document(), encoding="utf-8")
    with Home.open(cli.home).store(DLM_ID) as store:
        mine(store, path, texts=(*TEXTS, (HOSTILE, f"{HOSTILE} better", f"</li></ol><h1>{HOSTILE}</h1>")))
    return cli


def store_of(cli: Cli) -> Store:
    found = Home.open(cli.home).find(DLM_ID)
    assert found is not None
    return found


def counts(cli: Cli) -> dict[str, int]:
    with store_of(cli) as store:
        return {tab: count_signals(store.signals.index, SignalFilter(tab)) for tab in TABS}


def shown_counts(page: Any) -> dict[str, int]:
    links = page.get_by_role("navigation", name="Kinds of data").get_by_role("link")
    texts = [text.split() for text in links.all_inner_texts()]
    return {name.lower(): int(number.replace(",", "")) for name, number in texts}


def focused(page: Any) -> str:
    """The prompt of the card that has the focus."""
    return str(page.evaluate("document.activeElement.querySelector('h2')?.textContent ?? ''"))


def test_counts_are_the_store_s_and_a_page_s_data_is_shown(filled: Cli, server: Served, page: Any) -> None:
    with watched(page, server.base):
        page.goto(server.url)
        page.get_by_role("link", name="RL DATA").click()
        page.wait_for_url("**/data")
        assert shown_counts(page) == counts(filled) == dict(zip(TABS, (163, 76, 3, 40), strict=True))
        page.goto(f"{server.base}/data?order=oldest")
        card = page.get_by_role("listitem", name="Research best practices for reducing latency in REST APIs.")
        chosen = card.get_by_role("group", name="Chosen answer", exact=True)
        rejected = card.get_by_role("group", name="Rejected answer", exact=True)
        assert "8.9" in chosen.inner_text()
        assert "# Best practices for reducing latency in REST APIs" in chosen.inner_text()
        assert "5.4" in rejected.inner_text()
        assert chosen.bounding_box()["x"] < rejected.bounding_box()["x"]
        assert card.get_by_text("topic drift", exact=True).is_visible()
        card.get_by_role("button", name="Differences and origin").click()
        assert "fits another question better" in card.get_by_text("takes up").inner_text()
        assert card.get_by_text("run 1 (preference dpo); run 2 (preference orpo)").is_visible()
        for tab, address in (
            ("training", "/training?run=1"),
            ("reward", "/data?tab=reward"),
            ("orpo", "/data?tab=orpo"),
        ):
            page.goto(server.base + address)
            assert page.get_by_role("heading").count() > 1, tab


def test_search_and_filters_narrow_the_list_and_stand_in_the_address(
    filled: Cli, server: Served, page: Any
) -> None:
    with store_of(filled) as store:
        found = count_signals(store.signals.index, SignalFilter(search="latency rest"))
    page.goto(server.url)
    with watched(page, server.base):
        page.goto(f"{server.base}/data")
        page.keyboard.press("/")
        page.keyboard.type("latency rest")
        summary = page.locator("#summary")
        wait_until(lambda: summary.inner_text().endswith(f"of {found} signals"))
        wait_until(lambda: "search=latency+rest" in page.evaluate("location.href"))
        page.get_by_label("Flag").select_option("topic_drift")
        wait_until(lambda: "flag=topic_drift" in page.evaluate("location.href"))
        before = summary.inner_text()
        page.reload()
        assert page.locator("#summary").inner_text() == before
        assert page.get_by_label("Flag").input_value() == "topic_drift"
        page.goto(f"{server.base}/data?tab=preference&page=9")
        assert page.locator("#summary").inner_text() == "161–163 of 163 signals"
        page.goto(f"{server.base}/data?search=nothing+like+this")
        assert page.get_by_text("No signal fits this filter.").is_visible()
        page.goto(f"{server.base}/data?tab=preference")
        page.get_by_text("What the surface of these pairs gives away").click()
        page.get_by_role("link", name="21 pairs").wait_for()


def test_a_list_is_exported_as_the_command_writes_it(filled: Cli, server: Served, page: Any) -> None:
    page.goto(server.url)
    page.goto(f"{server.base}/data?tab=preference&search=latency&flag=topic_drift")
    with page.expect_download() as download:
        page.get_by_role("link", name="dlm JSONL").click()
    options = (
        "--tab",
        "preference",
        "--search",
        "latency",
        "--flag",
        "topic_drift",
        "--to",
        "here.jsonl",
        "--force",
    )
    filled.run("export-data", "notes.dlm", *options)
    there = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    here = (filled.folder / "here.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(there) == sorted(here) != []
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == "preference-csv.csv"


def as_shown(before: str, shown: list[list[str]]) -> str:
    """The text after a change that a page shows: of every line the numbers before and after, the sign, the text."""
    lines = before.splitlines(keepends=True)
    for _, number, sign, text in shown:
        assert sign in " +"
        if sign == "+":
            lines.insert(int(number) - 1, f"{text}\n")
        else:
            assert lines[int(number) - 1] == f"{text}\n"
    return "".join(lines)


def test_two_pairs_are_reviewed_by_keyboard_and_applied_as_previewed(mined: Cli, page: Any) -> None:
    path = mined.folder / "notes.dlm"
    before = path.read_text(encoding="utf-8")
    with serving(mined, "notes.dlm") as server, watched(page, server.base):
        page.goto(server.url)
        page.goto(f"{server.base}/data?standing=staged&order=oldest")
        page.keyboard.press("j")
        wait_until(lambda: focused(page) == TEXTS[0][0])  # keys wait for the page's load
        for key in ('"', "\\", "]"):  # no key of ours, and none that ends the script
            page.keyboard.press(key)
        page.evaluate(
            "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'a', repeat: true, bubbles: true}))"
        )
        for key in "arua":  # faster than any answer: the second decision was a slip, and is undone
            page.keyboard.press(key)
        wait_until(lambda: focused(page) == TEXTS[2][0])
        page.keyboard.press("e")
        page.get_by_role("textbox", name="Chosen").fill("On the shelf.\nNot behind it.")
        page.keyboard.press("Control+Enter")
        wait_until(lambda: focused(page) == TEXTS[2][0])
        with store_of(mined) as store:
            assert [pair.status for pair in store.mining.pairs()] == [
                "accepted",
                "accepted",
                "staged",
                "staged",
            ]
            assert store.mining.pair(3).chosen == "On the shelf.\nNot behind it."
        wait_until(lambda: page.get_by_role("link", name="Apply 2 accepted pairs").is_visible())
        page.keyboard.press("p")
        change = page.get_by_role("region", name="Change of the document")
        shown = change.evaluate(
            "box => [...box.children].map(line => [...line.children].map(part => part.textContent))"
        )
        assert path.read_text(encoding="utf-8") == before
        page.get_by_text("live", exact=True).wait_for()  # its scripts listen
        assert accessible_in_both(page) == []
        page.keyboard.press("y")
        page.get_by_role("heading", name="2 pairs written").wait_for()
        assert path.read_bytes() == as_shown(before, shown).encode()
        triples = [triple for section in load(path).sections for triple in section.triples]
        assert [(one.prompt, one.chosen, one.rejected) for one in triples] == list(TEXTS[:2])
        page.goto(f"{server.base}/data?standing=document")
        assert page.locator("#summary").inner_text() == "1–2 of 2 signals"


def test_decisions_and_edits_are_undone_one_by_one_even_on_another_page(cli: Cli, page: Any) -> None:
    path = cli.folder / "notes.dlm"
    path.write_text(recorded_document(), encoding="utf-8")
    old_ends = ("Where do laptops go?", "To the shelf.\r\nAt once.", "Away.")
    with Home.open(cli.home).store(DLM_ID) as store:
        mine(store, path, texts=(TEXTS[0], old_ends))

    def pairs() -> list[tuple[str, str]]:
        with store_of(cli) as store:
            return [(pair.status, pair.chosen) for pair in store.mining.pairs()]

    with serving(cli, "notes.dlm") as server, watched(page, server.base):
        page.goto(server.url)
        page.goto(f"{server.base}/data?order=oldest&standing=waiting")
        page.keyboard.press("a")
        wait_until(lambda: focused(page) == old_ends[0])
        page.keyboard.press("e")
        page.get_by_role("textbox", name="Chosen").fill("On the floor.")
        page.keyboard.press("Control+Enter")
        wait_until(lambda: pairs() == [("accepted", TEXTS[0][1]), ("staged", "On the floor.")])
        wait_until(lambda: focused(page) == old_ends[0])
        page.keyboard.press("u")  # the edit, which was the last
        wait_until(lambda: pairs() == [("accepted", TEXTS[0][1]), ("staged", old_ends[1])])
        card = page.get_by_role("listitem", name=old_ends[0])
        wait_until(lambda: "On the floor." not in card.inner_text())
        page.keyboard.press("r")
        wait_until(lambda: [status for status, _ in pairs()] == ["accepted", "rejected"])
        page.goto(f"{server.base}/data?order=oldest&standing=turned-down")
        card.get_by_role("button", name="Accept").click()
        wait_until(lambda: [status for status, _ in pairs()] == ["accepted", "accepted"])
        card.get_by_role("button", name="Undo").click()  # it was rejected before
        wait_until(lambda: [status for status, _ in pairs()] == ["accepted", "rejected"])
        for left in (["accepted", "staged"], ["staged", "staged"]):
            page.keyboard.press("u")  # of pairs that this list has not, too
            wait_until(lambda left=left: [status for status, _ in pairs()] == left)
        page.get_by_text("undone; that pair is not in this list").first.wait_for()
        page.reload()
        page.keyboard.press("u")
        page.get_by_text("nothing to undo").wait_for()


def test_an_undo_that_is_refused_is_told_and_undoes_nothing(mined: Cli, page: Any) -> None:
    with serving(mined, "notes.dlm") as server:
        page.goto(server.url)
        page.goto(f"{server.base}/data?standing=staged&order=oldest")
        page.keyboard.press("a")
        page.get_by_role("link", name="Apply 1 accepted pair").wait_for()
        with store_of(mined) as store:
            review.reject(store, [1])  # somebody else, in a terminal
        page.goto(f"{server.base}/data?tab=reward")
        page.keyboard.press("u")
        wait_until(lambda: "decided about it meanwhile" in page.locator("#toasts").inner_text())
        assert "undone" not in page.locator("#toasts").inner_text()
        with store_of(mined) as store:
            assert store.mining.pair(1).status == "rejected"


def test_an_open_list_asks_for_its_counts_when_data_changed_and_not_for_every_step(
    mined: Cli, page: Any
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/data/counts" in request.url else None)
    with (
        store_of(mined) as store,
        store.lock("dlm train notes.dlm"),
        serving(mined, "notes.dlm") as server,
        watched(page, server.base),
    ):
        run = store.runs.start(RunSpec("sft", "sft", planned_steps=9))
        page.goto(server.url)
        page.goto(f"{server.base}/data")
        page.get_by_text("live", exact=True).wait_for()
        page.evaluate(
            "() => { window.heard = 0; document.addEventListener('dlm:changed', (event) => (heard += Boolean(event.detail.points))); }"
        )
        with store.metrics.writer(run.id) as writer:
            for step in range(1, 4):
                writer.log(step, {"train_loss": 1.0 / step})
                writer.flush()
                if step > 1:  # of a run that it has just met the watcher tells no points
                    wait_until(lambda step=step: page.evaluate("heard") >= step - 1)
        page.wait_for_timeout(500)  # twice as long as the page waits before it asks
        assert asked == []
        review.accept(store, [1])
        page.get_by_role("link", name="Apply 1 accepted pair").wait_for()
        assert len(asked) == 1
        store.runs.finish(run.id, "complete")


def test_a_change_that_is_too_long_to_show_can_be_had_as_a_file(
    mined: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_actions, "SHOWN_LINES", 2)
    path = mined.folder / "notes.dlm"
    with store_of(mined) as store:
        review.accept(store, [1, 2])
        preview = review.preview_apply(store, path, [1, 2])
    keys = Keys(port=80)
    with TestClient(
        create_app(Desk(path, DLM_ID, Home.open(mined.home)), keys), base_url="http://127.0.0.1:80"
    ) as client:
        client.headers["Host"] = "127.0.0.1:80"
        client.cookies.set(keys.cookie, keys.session)
        page = client.get("/data/apply").text
        assert f"… and {len(preview.diff) - 2} more lines" in page
        assert '<a href="/data/apply/diff" download>' in page
        answer = client.get("/data/apply/diff")
    assert answer.text == review.unified_diff("notes.dlm", preview.diff)
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''notes.dlm.diff"


AT_ONCE = """() => {
  new MutationObserver((_, observer) => {
    const field = document.querySelector("#results textarea");
    if (!field) return;
    observer.disconnect();
    field.value = "Said at once.";
    field.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", ctrlKey: true, bubbles: true, cancelable: true}));
  }).observe(document.body, {childList: true, subtree: true});
}"""


def test_what_has_just_come_into_the_page_works_at_once(mined: Cli, page: Any) -> None:
    """A form that can be seen and is not alive yet would be sent by the browser itself, as an address to go to."""
    with serving(mined, "notes.dlm") as server, watched(page, server.base):
        page.goto(server.url)
        page.goto(f"{server.base}/data?standing=staged&order=oldest")
        address = page.url
        page.evaluate(AT_ONCE)
        page.keyboard.press("j")
        page.keyboard.press("e")
        card = page.get_by_role("listitem", name=TEXTS[0][0])
        wait_until(lambda: "Said at once." in card.inner_text() and focused(page) == TEXTS[0][0])
        assert page.url == address
        with store_of(mined) as store:
            assert store.mining.pair(1).chosen == "Said at once."


def test_what_is_typed_while_an_answer_is_on_its_way_is_text_where_a_field_comes(
    mined: Cli, page: Any
) -> None:
    with serving(mined, "notes.dlm") as server, watched(page, server.base):
        page.goto(server.url)
        held: list[Any] = []
        page.route(
            "**/data/decide", lambda route: held.append(route)
        )  # before the page: later it may miss the key
        page.goto(f"{server.base}/data?standing=staged&order=oldest")
        for (
            key
        ) in "a/area":  # the first is a decision; the others are a search, though its field has no focus yet
            page.keyboard.press(key)
        wait_until(lambda: page.title() and held)  # asking the page lets the route be told
        held[0].continue_()
        wait_until(lambda: page.get_by_label("Search").input_value() == "area")
        page.wait_for_url("**search=area**")
        with store_of(mined) as store:
            assert [pair.status for pair in store.mining.pairs()] == ["accepted", *["staged"] * 3]


def test_a_document_saved_since_the_preview_is_left_alone(mined: Cli, page: Any) -> None:
    path = mined.folder / "notes.dlm"
    with serving(mined, "notes.dlm") as server:
        page.goto(server.url)
        page.goto(f"{server.base}/data?standing=staged&order=oldest")
        page.keyboard.press("a")
        page.get_by_role("link", name="Apply 1 accepted pair").click()
        page.get_by_text("live", exact=True).wait_for()  # its buttons work
        edited = path.read_text(encoding="utf-8") + "\nA line of my own.\n"
        path.write_text(edited, encoding="utf-8")
        page.get_by_role("button", name="Write into the document").click()
        wait_until(lambda: "changed since this preview" in page.locator("#toasts").inner_text())
        assert path.read_text(encoding="utf-8") == edited
        # another process decides about a pair that this page still shows as waiting
        page.goto(f"{server.base}/data?standing=staged&order=oldest")
        mined.run("preference", "reject", "notes.dlm", "2")
        page.get_by_role("listitem", name=TEXTS[1][0]).get_by_role("button", name="Accept").click()
        wait_until(lambda: "decided about it meanwhile" in page.locator("#toasts").inner_text())


@pytest.mark.parametrize("text", ["\U0001f600", "\r\n"])
def test_the_longest_answers_that_the_page_takes_can_be_saved(mined: Cli, text: str) -> None:
    answers = {"chosen": text * 500_000, "rejected": f"{text * 499_999}x"}
    with store_of(mined) as store:
        signal = next(one.id for one in find_signals(store.signals.index, SignalFilter("preference")))
        assert signal is not None
    desk = Desk(mined.folder / "notes.dlm", DLM_ID, Home.open(mined.home))
    keys = Keys(port=80)
    with TestClient(create_app(desk, keys), base_url="http://127.0.0.1:80") as client:
        client.cookies.set(keys.cookie, keys.session)
        headers = {"Host": "127.0.0.1:80", TOKEN_HEADER: keys.write}
        fields = {"signal": str(signal), "seen": "staged", **answers}
        sent = {name: (None, value) for name, value in fields.items()}  # multipart, as the form says
        answer = client.post("/data/edit", files=sent, headers=headers)
        assert answer.status_code == 200, answer.text[:500]


def test_a_vote_appears_in_reward(mined: Cli, page: Any) -> None:
    with serving(mined, "notes.dlm") as server, watched(page, server.base):
        page.goto(server.url)
        page.goto(f"{server.base}/data?order=oldest")
        page.get_by_text("live", exact=True).wait_for()  # every script of the page listens
        page.keyboard.press("j")
        wait_until(lambda: focused(page) == TEXTS[0][0])
        page.keyboard.press("+")
        card = page.get_by_role("listitem", name=TEXTS[0][0])
        good = card.get_by_role("group", name="Chosen answer", exact=True).get_by_role(
            "button", name="Good answer"
        )
        wait_until(lambda: good.get_attribute("aria-pressed") == "true")
        card.get_by_role("group", name="Rejected answer", exact=True).get_by_role(
            "button", name="Bad answer"
        ).click()
        wait_until(lambda: shown_counts(page)["reward"] == 2)
        assert counts(mined)["reward"] == 2
        good.click()  # taken back
        wait_until(lambda: shown_counts(page)["reward"] == 1)
        page.get_by_role("link", name="REWARD").click()
        page.wait_for_url("**tab=reward*")
        (left,) = page.get_by_role("list", name="Signals").get_by_role("listitem").all()
        assert TEXTS[0][2] in left.inner_text()
        assert "-1" in left.inner_text()


def test_every_page_of_the_tab_is_accessible(filled: Cli, server: Served, page: Any) -> None:
    page.goto(server.url)
    with watched(page, server.base):
        for address in ("", "?tab=reward", "?tab=dpo", "?tab=orpo", "?search=nothing+like+this"):
            page.goto(f"{server.base}/data{address}")
            if address == "?tab=dpo":
                page.get_by_role("button", name="Differences and origin").first.click()
                page.get_by_role("heading", name="Word by word").wait_for()
            assert accessible_in_both(page) == [], address
        page.goto(f"{server.base}/data/apply")
        assert page.get_by_role("heading", name="Nothing to apply").is_visible()
        assert accessible_in_both(page) == []


def test_texts_of_models_are_text(mined: Cli, browser: Any) -> None:
    phone = browser.new_context(viewport={"width": 390, "height": 800})
    page = phone.new_page()
    with serving(mined, "notes.dlm") as server, watched(page, server.base):
        page.goto(server.url)
        page.goto(f"{server.base}/data")
        text = page.get_by_role("group", name="Chosen answer", exact=True).first.inner_text()
        assert "<script>" in text
        assert "\\x1b[31mred" in text
        assert "\\u202eturned" in text
        page.get_by_role("button", name="Differences and origin").first.click()
        page.get_by_role("heading", name="Word by word").wait_for()
        page.get_by_role("button", name="Edit").first.click()
        assert HOSTILE in page.get_by_role("textbox", name="Chosen").input_value()
        assert accessible_in_both(page) == []
        assert page.title().endswith("dlm")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    phone.close()


def test_before_there_is_a_store_the_document_s_pairs_are_there(cli: Cli, page: Any) -> None:
    pair = "\n::preference::\n### Prompt\nWho?\n### Chosen\nEverybody.\n### Rejected\nNobody.\n"
    (cli.folder / "notes.dlm").write_text(recorded_document() + pair, encoding="utf-8")
    with serving(cli, "notes.dlm") as server, watched(page, server.base):
        page.goto(server.url)
        page.goto(f"{server.base}/data")
        assert shown_counts(page)["preference"] == 1
        assert Home.open(cli.home).find(DLM_ID) is None
        for tab in TABS[1:]:
            page.goto(f"{server.base}/data?tab={tab}")
            assert page.get_by_text(" yet.").first.is_visible()
        page.goto(f"{server.base}/data")
        page.get_by_role("button", name="Good answer").first.click()
        wait_until(lambda: (Home.open(cli.home).find(DLM_ID)) is not None)
        wait_until(lambda: counts(cli)["reward"] == 1)
