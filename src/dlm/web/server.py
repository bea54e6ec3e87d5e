"""Serving the app: a socket on loopback, the address with its token, an orderly end."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import uvicorn

from dlm.errors import DlmError
from dlm.web.app import create_app
from dlm.web.desk import Desk
from dlm.web.live import Feed
from dlm.web.security import Keys

__all__ = ["serve"]

HOST = "127.0.0.1"


def serve(document: Path, port: int, opened: Callable[[str], None]) -> None:
    """Serve the pages of a document until Ctrl-C. `opened(url)` is called once the port listens.

    Raises:
        DlmError: the document cannot be read, or the port is taken.
    """
    desk = Desk.at(document)
    with _listen(port) as listener:
        keys = Keys(listener.getsockname()[1])
        app = create_app(desk, keys)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="on",
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=64 * 1024,
        )
        opened(f"http://{HOST}:{keys.port}/?token={keys.opening}")
        with suppress(KeyboardInterrupt):  # which uvicorn raises again once it has ended in order
            _Server(config, app.state.feed).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends event streams first: an open page would otherwise keep the server waiting."""

    def __init__(self, config: uvicorn.Config, feed: Feed) -> None:
        super().__init__(config)
        self._feed = feed

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._feed.end()
        super().handle_exit(sig, frame)


def _listen(port: int) -> socket.socket:
    """A socket that listens already, so that a browser that is faster than the server waits instead of failing."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        taken = error.errno == errno.EADDRINUSE
        raise DlmError(
            f"port {port} of this machine "
            + ("is taken by another program" if taken else "is not open to you"),
            next_step="dlm ui DOCUMENT --port 0 takes any free one",
        ) from error
    return listener
