"""A document with a store made by hand, so that pages have all there is to show without a training; and the browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import Cli
from dlm.store import Home
from recorded_runs import DLM_ID, record_runs, recorded_document
from web_server import Served, chromium_path, serving


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    folder = tmp_path / "work"
    folder.mkdir()
    return Cli(tmp_path / "home", folder)


@pytest.fixture
def recorded(cli: Cli) -> Cli:
    """`notes.dlm` with two runs, three checkpoints, two versions, probes; nothing was trained for it."""
    (cli.folder / "notes.dlm").write_text(recorded_document(), encoding="utf-8")
    with Home.open(cli.home).store(DLM_ID) as store:
        store.attach(cli.folder / "notes.dlm")
        record_runs(store)
    return cli


@pytest.fixture
def served(recorded: Cli) -> Iterator[Served]:
    with serving(recorded, "notes.dlm") as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    path = chromium_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()
