"""The server as a program: what it prints, what it does without, and that it never loads torch."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import pytest
from click.testing import CliRunner

from command_line import Cli
from dlm.cli.main import app
from recorded_runs import DLM_ID
from web_server import Served, serving, wait_until

LOOK_AT_EVERY_PAGE = """
import sys
from pathlib import Path
from fastapi.testclient import TestClient
from dlm.store import Home
from dlm.web.app import create_app
from dlm.web.desk import Desk
from dlm.web.security import Keys
keys = Keys(port=80)
server = create_app(Desk(Path("notes.dlm").absolute(), sys.argv[1], Home.open()), keys)
with TestClient(server, base_url="http://127.0.0.1:80") as client:
    client.headers["Host"] = "127.0.0.1:80"
    client.cookies.set(keys.cookie, keys.session)
    for path in ("/training?run=1", "/training/runs/1/findings", "/api/marks/1", "/api/chart?chart=loss&run=1", "/prompt", "/data"):
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.text)
heavy = [name for name in ("torch", "transformers", "peft", "safetensors", "tokenizers") if name in sys.modules]
assert not heavy, heavy
"""


def test_the_address_stands_on_a_line_of_its_own_and_opens_the_first_page(served: Served) -> None:
    assert served.url.startswith("http://127.0.0.1:")
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    with opener.open(served.url, timeout=30) as answer:
        assert answer.status == 200
        assert "Run 3" in answer.read().decode()


def test_no_page_loads_torch(recorded: Cli) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK_AT_EVERY_PAGE, DLM_ID],
        cwd=recorded.folder,
        env=recorded.env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_without_the_web_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, recorded: Cli
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    done = CliRunner().invoke(app, ["ui", str(recorded.folder / "notes.dlm")])
    assert done.exit_code == 1
    assert "dlm ui needs the web extra" in done.stderr
    assert "found: no fastapi" in done.stderr
    assert "pip install 'dlm[web]'" in done.stderr


def test_a_document_that_cannot_be_read_is_said(cli: Cli) -> None:
    done = cli.run("ui", "none.dlm", "--no-browser", expect=2)
    assert "none.dlm" in done.stderr
    assert done.stdout == ""


def test_looking_changes_nothing(recorded: Cli) -> None:
    before = {path: path.stat().st_mtime_ns for path in recorded.home.rglob("*") if path.is_file()}
    with serving(recorded, "notes.dlm") as served:
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        with opener.open(served.url, timeout=30) as answer:
            assert answer.status == 200
    names = {path.name for path in before} | {"store.sqlite3-wal", "store.sqlite3-shm"}
    changed = {
        path.name
        for path in recorded.home.rglob("*")
        if path.is_file() and before.get(path) != path.stat().st_mtime_ns
    }
    assert changed <= names - {"store.sqlite3", "adapter_config.json", "version.json"}


def test_the_key_is_not_among_the_arguments_of_the_browser(
    recorded: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those can be read by every user of the machine."""
    told = tmp_path / "told"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{told}.new" && mv "{told}.new" "{told}"\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for number in (signal.SIGINT, signal.SIGTERM):
        told.unlink(missing_ok=True)
        with recorded.start("ui", "notes.dlm") as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            key = url.partition("token=")[2]
            assert key
            wait_until(told.exists)
            [argument] = told.read_text().split()
            page = Path(urllib.parse.unquote(urllib.parse.urlsplit(argument).path))
            assert argument.startswith("file:")
            assert key not in argument
            assert url in page.read_text()
            assert page.stat().st_mode & 0o777 == 0o600
            assert page.parent.stat().st_mode & 0o777 == 0o700
            process.send_signal(number)
            process.wait(timeout=30)
        assert not page.parent.exists()
