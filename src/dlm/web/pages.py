"""Pages: templates filled in, and faults told as pages. Text of documents and models is never markup.

Every template is rendered with autoescape; what a terminal or a reader could be fooled by (control characters, marks
that turn the writing direction) is shown as a visible escape by the filter `plain`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException

from dlm import __version__
from dlm.errors import ConflictError, DlmError, GateError, LockedError, MissingRecordError
from dlm.web.static_files import static_files

__all__ = ["fault_page", "is_fragment", "page", "plain", "plural"]

FOLDER = Path(__file__).parent

TABS = (("training", "TRAINING", "/training"), ("data", "RL DATA", "/data"), ("prompt", "PROMPT", "/prompt"))
"""Name, title and address of each tab, in their order."""

# C0 without newline and tab, DEL, C1, and the marks that turn or isolate the writing direction.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def plain(text: object) -> str:
    """The text with every character that acts instead of showing as a visible escape (`\\x1b`, `\\u202e`)."""
    return _UNSEEN.sub(
        lambda match: f"\\x{ord(match[0]):02x}" if ord(match[0]) < 256 else f"\\u{ord(match[0]):04x}",
        str(text),
    )


def plural(count: int, noun: str) -> str:
    """`1 version`, `2 versions`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": plain, "plural": plural, "when": when, "number": number}
    environment.globals |= {"tabs": TABS, "dlm_version": __version__, "static": static_files().address}
    return environment


def when(time: str | None) -> str:
    """An ISO time in UTC as local date and minute; "–" for none."""
    return "–" if not time else datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M")


def number(value: float | None, digits: int = 4) -> str:
    """Short for people: significant digits, thousands without decimals; "–" for none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.{digits}g}"


_templates = _environment()


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A template as an answer. It sees `desk`, `tab` (which of TABS is open; "" for fragments), and `seen`: the
    newest event before the request was handled, from which on the page's stream begins.
    """
    state = request.app.state
    seen = getattr(request.state, "seen", "")
    values = {"desk": state.desk, "tab": "", "seen": seen, "theme": _theme(request), **values}
    return HTMLResponse(_templates.get_template(template).render(values), status_code=status)


def _theme(request: Request) -> str:
    """The colours chosen with the switch; "" as the system has them. A cookie, since every start has another port."""
    chosen = request.cookies.get("dlm-theme", "")
    return chosen if chosen in ("light", "dark") else ""


def is_fragment(request: Request) -> bool:
    """Whether a piece of a page was asked for, by htmx, instead of a whole one."""
    return request.headers.get("HX-Request") == "true" and request.headers.get("HX-Boosted") != "true"


_STATUS = ((MissingRecordError, 404), (LockedError, 409), (ConflictError, 409), (GateError, 409))


def fault_page(request: Request, fault: DlmError | HTTPException, details: Sequence[str] = ()) -> Response:
    """A fault as the caller can show it: JSON for /api/, a message for htmx, a page for people. `details` are lines below
    the title of what is no `DlmError`, which has its own."""
    if isinstance(fault, DlmError):
        status = next((code for kind, code in _STATUS if isinstance(fault, kind)), 400)
        title, lines, hint = fault.message, fault.lines()[1:], fault.next_step
    else:
        status = fault.status_code
        title, lines, hint = str(fault.detail), list(details), ""
    if request.url.path.startswith("/api/"):
        body = {
            "error": plain(title),
            "details": [plain(line.strip()) for line in lines],
            "next": plain(hint),
        }
        return JSONResponse(body, status_code=status)
    template = "fault.html" if is_fragment(request) else "error.html"
    return page(request, template, status=status, title=title, lines=lines, code=status)
