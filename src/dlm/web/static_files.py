"""Scripts, styles and pictures of the pages, in memory, under an address that names their content.

A browser keeps each file as long as it likes: another version of dlm has other addresses. Modules import each other by
relative addresses, so that they stay within one version.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

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
    name = request.path_params["name"]
    if request.url.path != f"{found.address}/{name}" or name not in found.contents:
        raise HTTPException(404)
    return Response(
        found.contents[name],
        media_type=_KINDS[Path(name).suffix],
        headers={"Cache-Control": "public, max-age=31536000, immutable"},
    )
