"""`dlm ui`: the document's runs and preference data in the browser, live."""

from __future__ import annotations

import webbrowser
from pathlib import Path

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
            webbrowser.open(url)

    serve(document, port, opened)
