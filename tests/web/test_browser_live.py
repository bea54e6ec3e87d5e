"""A real training on the embedded base, looked at while it runs: charts grow, it is stopped, resumed, killed, asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from command_line import Cli, ten_questions
from dlm.store import Home
from web_server import Served, accessible, serving, wait_until, watched

pytestmark = [pytest.mark.torch, pytest.mark.process, pytest.mark.big]

DLM_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
STEPS = 150  # long enough to be watched, stopped and killed


@contextmanager
def training(cli: Cli) -> Iterator[subprocess.Popen[bytes]]:
    """`dlm train` in the background, as in another terminal."""
    words = ("train", "ten.dlm", "--phase", "sft", "--set", f"min_steps={STEPS}")
    with subprocess.Popen(
        [sys.executable, "-m", "dlm", *words],
        cwd=cli.folder,
        env=cli.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def status(page: Any) -> str:
    return str(page.locator("#status").inner_text())


def steps(page: Any) -> int:
    return int(page.locator('[data-live="steps"]').first.inner_text().replace(",", ""))


def points(page: Any) -> int:
    return int(page.get_by_role("region", name="Loss").get_attribute("data-points") or 0)


def picture(page: Any) -> str:
    """The chart's pixels."""
    return str(page.evaluate("document.querySelector('[data-chart=\"loss\"] canvas')?.toDataURL() ?? ''"))


def in_status(page: Any, word: str, cli: Cli, timeout_s: float = 200.0) -> None:
    """Wait until the page says so; when it never does, tell what the store says."""
    try:
        page.locator("#status").filter(has_text=word).wait_for(timeout=1000 * timeout_s)
    except Exception as fault:
        fault.add_note(f"the page, at {page.url}, says {page.locator('body').inner_text()[:400]!r}")
        fault.add_note(
            f"the store has {[(run['id'], run['status']) for run in cli.json('show', 'ten.dlm')['runs']]}"
        )
        raise


def test_a_training_is_watched_stopped_resumed_and_killed(page: Any, cli: Cli) -> None:
    (cli.folder / "ten.dlm").write_text(ten_questions(), encoding="utf-8")
    with serving(cli, "ten.dlm") as served, watched(page, served.base):
        page.goto(served.url)
        page.get_by_role("heading", name="Nothing has trained yet").wait_for()

        with training(cli) as trainer:
            in_status(page, "RUNNING", cli)  # the page has reloaded by itself
            wait_until(lambda: points(page) > 3)
            before, seen, painted = steps(page), points(page), picture(page)
            wait_until(lambda: steps(page) > before + 5 and points(page) > seen and picture(page) != painted)
            assert accessible(page) == []

            page.get_by_role("button", name="Stop").click()
            in_status(page, "INTERRUPTED", cli)
            assert trainer.wait(timeout=60) == 130
            stopped_at = steps(page)
            assert 0 < stopped_at < STEPS

        page.get_by_role("button", name="Resume").click()
        in_status(page, "RUNNING", cli)
        in_status(page, "COMPLETE", cli)
        assert steps(page) == STEPS
        wait_until(lambda: points(page) >= STEPS)
        row = page.get_by_role("row", name="Run 1")
        for words in ("COMPLETE", "v0001", f"{STEPS} / {STEPS}"):
            row.filter(has_text=words).wait_for()
        [run] = cli.json("show", "ten.dlm")["runs"]
        assert (run["status"], run["steps"], run["version"]) == ("complete", STEPS, "v0001")

        with training(cli) as killed:
            page.get_by_role("link", name="Run 2").wait_for(timeout=200_000)
            in_status(page, "RUNNING", cli)
            wait_until(lambda: points(page) > 3)
            os.kill(killed.pid, signal.SIGKILL)
            killed.wait()
            in_status(page, "INTERRUPTED", cli, timeout_s=15.0)
        ask_and_vote(page, served, cli)


def ask_and_vote(page: Any, served: Served, cli: Cli) -> None:
    """The version of this training beside the base; a vote and a preference become signals."""
    page.goto(served.base + "/prompt")
    page.get_by_label("Question").fill("Who waters the plants?")
    page.get_by_label("Beside").select_option("base")
    page.keyboard.press("Control+Enter")
    prefer = page.get_by_role("button", name="Prefer").first
    prefer.wait_for(timeout=200_000)
    articles = page.get_by_role("article")
    assert articles.nth(0).get_by_text("Whoever arrives first on Monday.").count() == 1
    assert articles.nth(1).get_by_role("heading", name="base").count() == 1
    assert accessible(page) == []
    page.locator("body").click()
    page.keyboard.press("1")
    wait_until(lambda: votes(cli) == [("Whoever arrives first on Monday.", 1.0)])
    page.keyboard.press("1")
    wait_until(lambda: votes(cli) == [])
    page.keyboard.press("2")
    wait_until(lambda: votes(cli) == [("Whoever arrives first on Monday.", -1.0)])
    prefer.click()
    page.get_by_text("kept as a pair").first.wait_for()
    with Home.open(cli.home).store(DLM_ID) as store:
        [pair] = store.mining.pairs()
    assert (pair.status, pair.prompt) == ("staged", "Who waters the plants?")
    assert pair.chosen == "Whoever arrives first on Monday."


def votes(cli: Cli) -> list[tuple[str, float]]:
    with Home.open(cli.home).store(DLM_ID) as store:
        found = store.signals.votes([("Who waters the plants?", "Whoever arrives first on Monday.")])
    return [(answer, float(score)) for (_, answer), score in found.items()]


def test_the_process_that_answers_ends_with_the_server(cli: Cli, page: Any, tmp_path: Path) -> None:
    (cli.folder / "ten.dlm").write_text(ten_questions(), encoding="utf-8")
    with serving(cli, "ten.dlm") as served:
        page.goto(served.url)
        page.goto(served.base + "/prompt")
        page.get_by_label("Question").fill("Anyone?")
        page.get_by_label("Tokens at most").fill("8")
        page.get_by_role("button", name="Ask").click()
        page.get_by_text("token", exact=False).filter(has_text="·").first.wait_for(timeout=200_000)
        [child] = children(served.process.pid)
        served.process.kill()  # not in order
        served.process.wait()
        wait_until(
            lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text()
        )
        served.process.returncode = 0  # what `serving` asserts is about an orderly end


def children(pid: int) -> list[int]:
    """The processes that a process started, on Linux."""
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.exists():
        pytest.skip("no /proc here")
    return [int(one) for task in tasks.iterdir() for one in (task / "children").read_text().split()]
