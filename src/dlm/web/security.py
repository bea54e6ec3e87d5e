"""Who may talk to the server, and what a page may do: looked at before any handler runs.

- Only requests to our own host name are answered, so that a foreign name that was pointed at loopback gets nothing.
- Every page needs the cookie that the opened URL's token was exchanged for; another user of this machine has neither.
- A write needs more: a second token in the header `X-DLM-Token`, which a form of another site cannot send, and an
  origin that is ours. Only the opened URL leads to it, behind the `#` of where it redirects to; no page holds it.
- Bodies are counted as they arrive; beyond the limit nothing more is read.
- A page may load, run and call nothing but what this server serves, and inline scripts and styles never run.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["MAX_BODY_BYTES", "TOKEN_HEADER", "Guard", "Keys"]

TOKEN_HEADER = "X-DLM-Token"
MAX_BODY_BYTES = 4 * 1024 * 1024  # two answers of 500,000 characters, whatever these are
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_OPEN = ("/static/",)  # nothing of the document is in there, and the page that refuses needs its style

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Keys:
    """The secrets of one server: `opening` stands in the URL that is opened, `session` in the cookie, `write` in
    the storage of our origin, for writes. Three, so that none but `opening` gives another away: a cookie goes to every
    port of this host, storage to one.
    """

    port: int
    opening: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    session: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    write: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def cookie(self) -> str:
        """The cookie's name: two servers on one host must not overwrite each other's."""
        return f"dlm-{self.port}"

    @property
    def hosts(self) -> tuple[str, ...]:
        return (f"127.0.0.1:{self.port}", f"localhost:{self.port}")


class Guard:
    """The ASGI application `app` behind these rules."""

    def __init__(self, app: ASGIApp, keys: Keys, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._app, self._keys, self._max_body_bytes = app, keys, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no websockets here
        answer = self._refusal(scope)
        if answer is not None:
            await answer(scope, receive, _dressed(send))
            return
        meter = _Meter(receive, self._max_body_bytes)
        try:
            await self._app(scope, meter, meter.guarded(_dressed(send)))
        except _TooLargeError:
            meter.too_large = True
        if meter.too_large and not meter.answered:
            await _too_large(self._max_body_bytes)(scope, receive, _dressed(send))

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that may not pass, None for one that may."""
        headers, keys, path = Headers(scope=scope), self._keys, scope["path"]
        if headers.get("host", "") not in keys.hosts:
            return _refused("this server answers only at its own address")
        size = headers.get("content-length", "")
        if size and (not (size.isascii() and size.isdecimal()) or int(size[:20]) > self._max_body_bytes):
            return _too_large(self._max_body_bytes)
        reads = scope["method"] in _READS
        if reads and path.startswith(_OPEN):
            return None
        if reads and path == "/" and (given := _query(scope, "token")):
            return self._opened(scope, given)
        if not _same(_cookie(headers, keys.cookie), keys.session):
            return _refused(
                "open the address that `dlm ui` printed: it holds the key to these pages. "
                "After a restart of the server it is another one"
            )
        if not reads:
            return self._refused_write(headers)
        return None

    def _refused_write(self, headers: Headers) -> Response | None:
        ours = {f"http://{host}" for host in self._keys.hosts}
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if (origin is not None and origin not in ours) or (site is not None and site != "same-origin"):
            return _refused("a page of another site may not write here")
        if not _same(headers.get(TOKEN_HEADER, ""), self._keys.write):
            return _refused(
                "this browser may look, not write: open the address that `dlm ui` printed in it again. It hands over the "
                f"token that goes into the header {TOKEN_HEADER}"
            )
        return None

    def _opened(self, scope: Scope, given: str) -> Response:
        """The opened URL's token is exchanged for the cookie and the write token, and leaves the address bar."""
        if not _same(given, self._keys.opening):
            return _refused("this address is of another server: open the one that `dlm ui` printed last")
        rest = [(name, value) for name, value in _queries(scope) if name != "token"]
        # A fragment outlives further redirects and is sent to nobody: `shell.js` takes it.
        query = f"?{urlencode(rest)}" if rest else ""
        answer = RedirectResponse(f"/{query}#write={self._keys.write}", status_code=303)
        # lax: a click on the address in a terminal that is itself a web page has to arrive. A GET changes nothing here.
        answer.set_cookie(self._keys.cookie, self._keys.session, httponly=True, samesite="lax", path="/")
        return answer


class _TooLargeError(Exception):
    """More body than the limit."""


class _Meter:
    """A `receive` that counts. Whatever the application makes of the end of a body that was too large is not sent."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit, self._seen = receive, limit, 0
        self.answered = self.too_large = False

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            if self._seen > self._limit:
                self.too_large = True
                raise _TooLargeError
        return message

    def guarded(self, send: Send) -> Send:
        """`send`, which remembers that an answer has begun."""

        async def wrapped(message: Message) -> None:
            if self.too_large and not self.answered:
                return
            self.answered = True
            await send(message)

        return wrapped


def _dressed(send: Send) -> Send:
    """A `send` that adds the headers of every answer."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return wrapped


def _refused(text: str) -> Response:
    return PlainTextResponse(text + "\n", status_code=403)


def _too_large(limit: int) -> Response:
    return PlainTextResponse(
        f"the request's body is larger than {limit:,} bytes\n",
        status_code=413,
        headers={"Connection": "close"},
    )


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


def _queries(scope: Scope) -> list[tuple[str, str]]:
    found = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=None)
    return [(name, value) for name, values in found.items() for value in values]


def _query(scope: Scope, name: str) -> str:
    return next((value for key, value in _queries(scope) if key == name), "")


def _cookie(headers: Headers, name: str) -> str:
    """The cookie of that name; other servers of this host may have set cookies that do not parse."""
    for text in headers.getlist("cookie"):
        for part in text.split(";"):
            key, _, value = part.strip().partition("=")
            if key == name:
                return value
    return ""
