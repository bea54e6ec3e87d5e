"""Scripts, styles and pictures of the pages, in memory, under an address that names their content.

A browser keeps each file as long as it likes: another version of dlm has other addresses. Modules import each other by
relative addresses, so that they stay within one version.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

__all__ = ["StaticFiles", "answer", "static_files"]

FOLDER = Path(__file__).parent / "static"
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
