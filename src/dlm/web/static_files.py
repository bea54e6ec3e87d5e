"""Scripts, styles and pictures of the pages, in memory, under an address that names their content.

A browser keeps each file as long as it likes: another version of dlm has other addresses. Each kind of page has one script
and one style under `page/`, joined from the files that `PAGES` names.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from dlm.web.joining import join_modules, library_as_constant

__all__ = ["PAGES", "StaticFiles", "answer", "static_files"]

FOLDER = Path(__file__).parent / "static"


class Page(NamedTuple):
    """What a kind of page is joined from: modules in the order in which they run, style sheets, libraries by the name they give."""

    modules: tuple[str, ...]
    sheets: tuple[str, ...] = ("base",)
    libraries: tuple[tuple[str, str], ...] = ()


PAGES = {
    "plain": Page(("live",)),
    "waiting": Page(("live", "waiting")),
    "training": Page(
        ("live", "training"),
        ("base", "vendor/uplot-1.6.32.min", "training"),
        (("uPlot", "vendor/uplot-1.6.32.min"),),
    ),
    "data": Page(("live", "data"), ("base", "data")),
    "prompt": Page(("live", "prompt"), ("base", "prompt")),
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
    for name, page in PAGES.items():
        libraries = [
            library_as_constant(gives, contents[f"{path}.js"].decode()) for gives, path in page.libraries
        ]
        contents[f"page/{name}.js"] = "".join([*libraries, join_modules(modules, page.modules)]).encode()
        contents[f"page/{name}.css"] = b"\n".join(contents[f"{sheet}.css"] for sheet in page.sheets)
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
