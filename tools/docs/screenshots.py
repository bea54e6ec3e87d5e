"""The README's pictures of the browser: both tabs over the example data, drawn by a real Chromium from the real `dlm ui`.

    python tools/docs/screenshots.py [FOLDER]        default: docs/images

Same data, same window, same fonts: the same pictures. `DLM_CHROMIUM` names another browser than the system's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tools.docs import page_data

DOCUMENT = """---
dlm_id: 01JX5W3CE8T4NQ2RZ7V9BKMD6H
base_model: pocket
---

Answers are concrete: what to do first, how to measure it, when to stop.
"""
WIDTH, HEIGHT = 1280, 1180
SHOTS = (
    ("training", "/training?run=1", "light"),
    ("training-dark", "/training?run=1", "dark"),
    ("data", "/data?tab=preference&order=oldest", "light"),
    ("data-dark", "/data?tab=preference&order=oldest", "dark"),
)


@contextmanager
def served() -> Iterator[str]:
    """The address of a server over the example data, in a store of its own."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "guides"
        work.mkdir()
        (work / "guides.dlm").write_text(DOCUMENT, encoding="utf-8")
        (work / "data.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in page_data.lines()), encoding="utf-8"
        )
        environment = {**os.environ, "DLM_HOME": str(Path(folder) / "home")}
        command = [sys.executable, "-m", "dlm"]
        subprocess.run(
            [*command, "import", "guides.dlm", "data.jsonl"], cwd=work, env=environment, check=True
        )
        server = subprocess.Popen(
            [*command, "ui", "guides.dlm", "--port", "0", "--no-browser"],
            cwd=work,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.send_signal(2)
            server.wait(timeout=30)


def shoot(browser: Any, url: str, name: str, address: str, scheme: str, folder: Path) -> None:
    """One picture of the top of a page, once nothing moves any more."""
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(url)
    page.goto(url.partition("/?")[0] + address)
    page.locator("#live.on").wait_for()
    page.wait_for_timeout(1500)  # charts draw themselves when they come into view
    page.evaluate("document.querySelector('.foot').textContent = ''")  # a path of this machine
    page.screenshot(path=str(folder / f"{name}.png"))
    context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parents[2] / "docs" / "images")
    folder: Path = parser.parse_args().folder
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    path = os.environ.get("DLM_CHROMIUM") or shutil.which("chromium")
    with served() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for name, address, scheme in SHOTS:
            shoot(browser, url, name, address, scheme, folder)
            print(folder / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
