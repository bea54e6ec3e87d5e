"""Scripts, styles and pictures of the pages, in memory, under an address that names their content.

A browser keeps each file as long as it likes: another version of dlm has other addresses. Each kind of page has one script
and one style under `page/`, joined from the files that `PAGES` names.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from dlm.web.joining import join_modules

__all__ = ["PAGES", "StaticFiles", "answer", "static_files"]

FOLDER = Path(__file__).parent / "static"
# by page: modules, in the order in which they run, and style sheets
PAGES = {
    "plain": (("live",), ("base",)),
    "waiting": (("live", "waiting"), ("base",)),
    "training": (("live", "training"), ("base", "vendor/uplot-1.6.32.min", "training")),
    "data": (("live", "data"), ("base", "data")),
    "prompt": (("live", "prompt"), ("base", "prompt")),
}
_KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class StaticFiles:
    """Content by path; `address` is the beginning of every file's address."""

    address: str
    contents: dict[str, bytes]


@cache
def static_files() -> StaticFiles:
    """The files that pages ask for."""
    contents = {
        path.relative_to(FOLDER).as_posix(): path.read_bytes()
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in _KINDS
    }
    modules = {
        Path(name).stem: content.decode() for name, content in contents.items() if name.startswith("js/")
    }
    for page, (entries, sheets) in PAGES.items():
        contents[f"page/{page}.js"] = join_modules(modules, entries).encode()
        contents[f"page/{page}.css"] = b"\n".join(contents[f"{sheet}.css"] for sheet in sheets)
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return StaticFiles(f"/static/{digest.hexdigest()[:12]}", contents)


async def answer(request: Request) -> Response:
    """A file; in the server's loop, since a hop to a thread costs more than the answer."""
    found = static_files()
    name = request.url.path.removeprefix(f"{found.address}/")
    if name not in found.contents:
        return PlainTextResponse(
            "no such file\n", 404
        )  # not our page: whoever asks may not know of the document
    return Response(
        found.contents[name],
        media_type=_KINDS[Path(name).suffix],
        headers={"Cache-Control": "public, max-age=31536000, immutable"},
    )
