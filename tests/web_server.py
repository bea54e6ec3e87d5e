"""The real `dlm ui` in a subprocess, a real Chromium, and what both are asked again and again."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from command_line import Cli

__all__ = [
    "AXE",
    "NO_CHROMIUM",
    "Served",
    "accessible",
    "accessible_in_both",
    "chromium_path",
    "serving",
    "wait_until",
    "watched",
]

NO_CHROMIUM = "no Chromium"
AXE = Path(__file__).parent / "web" / "axe-4.14.1.min.js"


def chromium_path() -> str:
    """The browser of the browser tests: `$DLM_CHROMIUM`, else the system's. Without one the test is skipped; in CI it fails."""
    wanted = os.environ.get("DLM_CHROMIUM", "")
    found = wanted or next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
        "",
    )
    if found and Path(found).exists():
        return found
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"{NO_CHROMIUM}: install the package `chromium`, or name a browser in DLM_CHROMIUM")
    pytest.skip(f"{NO_CHROMIUM}: install the package `chromium`, or name a browser in DLM_CHROMIUM")


@dataclass
class Served:
    """A server of a document; `url` has the key, `base` is without."""

    process: subprocess.Popen[str]
    url: str
    told: list[str] = field(default_factory=list)

    @property
    def base(self) -> str:
        return self.url.partition("/?")[0]

    @property
    def port(self) -> int:
        return int(self.base.rpartition(":")[2])


@contextmanager
def serving(cli: Cli, document: str, *options: str) -> Iterator[Served]:
    """`dlm ui DOCUMENT` while the block runs; ended by Ctrl-C, and it must end in order. Its log stands in a failure."""
    process = cli.start("ui", document, "--no-browser", *options)
    lines: queue.Queue[str] = queue.Queue()
    told: list[str] = []

    def read(stream: Any, keep: Callable[[str], object]) -> None:
        for line in stream:
            keep(line.rstrip("\n"))
        keep("")

    threads = [
        threading.Thread(target=read, args=(process.stdout, lines.put), daemon=True),
        threading.Thread(target=read, args=(process.stderr, told.append), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        url = lines.get(timeout=60)
        assert url.startswith("http://127.0.0.1:"), (url, told)
        yield Served(process, url, told)
    except BaseException:
        print("the server said:", *told, sep="\n  ")  # captured, and shown where the test fails
        raise
    finally:
        process.send_signal(2)
        try:
            code = process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = -9
        for thread in threads:
            thread.join(timeout=5)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
    assert code == 0, (code, told)
    assert "Traceback" not in "\n".join(told), told


@contextmanager
def watched(page: Any, base: str) -> Iterator[None]:
    """While the block runs, the page asks nobody but our server, and its console stays empty of errors and warnings."""
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    yield
    elsewhere = [url for url in asked if not url.startswith((base, "data:", "blob:"))]
    assert not elsewhere
    assert not [text for text in said if text.startswith(("error", "warning"))]


def accessible(page: Any) -> list[str]:
    """What axe-core finds wrong with the page as it is now: one line a violation."""
    if not page.evaluate("typeof axe === 'object'"):
        # through the protocol, which the page's policy does not bind; a script tag would be refused, rightly
        page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        f"{one['id']}: {one['help']}: {node['html'][:160]} {node.get('failureSummary', '')[:300]}"
        for one in found
        for node in one["nodes"]
    ]


def accessible_in_both(page: Any) -> list[str]:
    """What axe-core finds in the light and in the dark, of a page that follows the system's colours."""
    found = []
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        found += [f"{scheme}: {line}" for line in accessible(page)]
    return found


def wait_until(what: Callable[[], Any], timeout_s: float = 30.0, every_s: float = 0.1) -> Any:
    """The first true value of `what()`; fails with its last value when none comes."""
    deadline = time.monotonic() + timeout_s
    while not (value := what()):
        assert time.monotonic() < deadline, f"never true: {value!r}"
        time.sleep(every_s)
    return value
