"""A polite stop: the first Ctrl-C, SIGTERM or closed terminal asks for a stop at the next step, the second ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["StopRequest", "stop_on_signals"]


class StopRequest:
    """Whether someone asked for a stop, and how ("" = nobody)."""

    def __init__(self) -> None:
        self.reason = ""


@contextmanager
def stop_on_signals(announce: Callable[[], None]) -> Iterator[StopRequest]:
    """Turn SIGINT, SIGTERM and SIGHUP into a request while the block runs; outside the main thread nothing is changed.

    `announce` is called from the signal handler, at any moment: it must not take locks or use buffered streams.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    before = {
        number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN
    }  # nohup, &

    def ask(number: int, frame: FrameType | None) -> None:
        request.reason = signal.Signals(number).name
        with suppress(OSError):  # the terminal that would show it may be what is gone
            announce()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
