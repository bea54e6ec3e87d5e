"""`dlm ui`: the document's runs and preference data in the browser, live."""

from __future__ import annotations

import html
import os
import signal
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from dlm.cli.extras import require_web
from dlm.cli.options import document_argument
from dlm.cli.output import Output

__all__ = ["ui"]


@click.command()
@document_argument
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=0,
    show_default=True,
    help="Port on this machine; 0 takes any free one.",
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
def ui(document: Path, port: int, no_browser: bool) -> None:
    """Runs, curves and preference data in the browser, live while training runs.

    The address is printed on a line of its own; it holds a key that only this run of the server knows. Ctrl-C ends it.
    """
    output = Output("ui", as_json=False)
    require_web("dlm ui")
    from dlm.web.server import serve  # FastAPI: not for --help

    def opened(url: str) -> None:
        output.line(url)
        output.note("Ctrl-C ends the server; a training that runs goes on")
        if not no_browser:
            webbrowser.open(while_served.enter_context(_page_to(url)).as_uri())

    with ExitStack() as while_served:
        serve(document, port, opened)


@contextmanager
def _page_to(url: str) -> Iterator[Path]:
    """A page that leads to `url`, which only this user can read: a program's arguments are everybody's, and a URL with a
    key must not be among a browser's. Gone after the block, also when the process is asked to terminate.
    """

    def leave(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        with tempfile.TemporaryDirectory(prefix="dlm-ui-") as folder:  # 0700
            page = Path(folder) / "open.html"
            text = (
                f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={html.escape(url)}">'
                f'<title>dlm</title><p><a href="{html.escape(url)}">Open dlm</a></p>\n'
            )
            with open(
                page, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)
            ) as file:
                file.write(text)
            yield page
    finally:
        signal.signal(signal.SIGTERM, before)
