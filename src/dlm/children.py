"""A child process that is spoken to within limits: of time, of output, and of what it may leave running.

It gets a session of its own, so that it and all it starts can be ended together. Its three pipes are served at once by
one loop, so that neither side ever waits for the other on a full pipe.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["Child", "ChildEndedError", "ChildTimeoutError", "OutputLimitError"]

_CHUNK = 1 << 16
_MOST_OUTPUT = 1 << 20  # bytes of one answer
_MOST_CHUNKS = _MOST_OUTPUT // _CHUNK + 2  # read at one time, however fast a child writes
_STDERR_KEPT = 4096  # bytes, the last ones
_LOOK_EVERY_S = 0.05  # whether it has ended while something it started holds its pipes open
_GRACE_S = 1.0  # between the end of its output and its exit code

_PASSED_ON = {
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ"),
    *("LANG", "LANGUAGE", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"),
}
_PASSED_ON_PREFIXES = ("LC_", "DLM_JUDGE_", "DLM_GRADER_")


class ChildTimeoutError(Exception):
    """The answer did not come in time; the child has been ended."""


class ChildEndedError(Exception):
    """The child ended before it answered."""


class OutputLimitError(Exception):
    """More output than an answer may have; the child has been ended."""


def environment() -> dict[str, str]:
    """What of our environment a child sees: where programs are, who and where it is, its language, its devices, and
    every `DLM_JUDGE_…` and `DLM_GRADER_…`. Not the rest: keys and tokens of other services stand there."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }


class Child:
    """A running command. `stop` ends it with everything it started, and must be called in the end.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, argv: Sequence[str], folder: Path) -> None:
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=folder,
            env=environment(),
            start_new_session=True,
        )
        pipes = self._process.stdin, self._process.stdout, self._process.stderr
        self._stdin, self._stdout, self._stderr = (pipe.fileno() for pipe in pipes if pipe is not None)
        self._selector = selectors.DefaultSelector()
        for pipe in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(pipe, False)
        for pipe in (self._stdout, self._stderr):
            self._selector.register(pipe, selectors.EVENT_READ)
        self._output = bytearray()
        self._errors = bytearray()
        self._ended = False  # no more will come from stdout
        self._code: int | None = None  # once it was ended

    @property
    def last_words(self) -> str:
        """The end of what it wrote to stderr."""
        return self._errors[-_STDERR_KEPT:].decode("utf-8", "replace").strip()

    def whole(self, data: bytes, timeout_s: float) -> tuple[bytes, int]:
        """Send everything, close its input, and return its whole output and exit code.

        Raises:
            ChildTimeoutError, OutputLimitError.
        """
        deadline = time.monotonic() + timeout_s
        self._serve(data, deadline, line=False)
        try:
            code = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise ChildTimeoutError from None
        self._read(self._stderr)
        return bytes(self._output), code

    def line(self, data: bytes, timeout_s: float) -> bytes:
        """Send a line and return the next line of its output, without the line feed.

        Raises:
            ChildTimeoutError, ChildEndedError, OutputLimitError.
        """
        self._serve(data, time.monotonic() + timeout_s, line=True)
        line, feed, rest = self._output.partition(b"\n")
        if not feed:
            raise ChildEndedError
        self._output = bytearray(rest)
        return bytes(line)

    def has_unread_output(self) -> bool:
        """Whether it wrote something that nobody has asked for, or has ended."""
        self._read(self._stdout)
        return bool(self._output) or self._ended

    def stop(self) -> int:
        """End it and what it started, and return its exit code, negative for a signal. It may be called twice."""
        if self._code is not None:
            return self._code
        try:
            if self._ended:
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_GRACE_S)  # it is on its way out: let it say with which code
        finally:
            # The group outlives its leader as long as anything of it runs.
            with suppress(ProcessLookupError, PermissionError):  # all gone; macOS says it the second way
                os.killpg(self._process.pid, signal.SIGKILL)
            code = self._code = self._process.wait()
            self._read(self._stderr)
            self._selector.close()
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()
        return code

    def _serve(self, data: bytes, deadline: float, *, line: bool) -> None:
        """Write `data` and read, until there is a line, or (without `line`) until the output ends."""
        rest = memoryview(data)
        self._selector.register(self._stdin, selectors.EVENT_WRITE)
        writing = True
        try:
            while not (self._ended and (line or self._closed(self._stderr))):
                if line and not rest and b"\n" in self._output:
                    return
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ChildTimeoutError
                ready = self._selector.select(min(left, _LOOK_EVERY_S))
                for key, _ in ready:
                    if key.fd == self._stdin:
                        rest = self._write(rest)
                    else:
                        self._read(key.fd)
                if not ready and self._process.poll() is not None:
                    self._read(self._stdout)
                    self._ended = True
                    return
                if writing and (not rest or self._ended):
                    writing = False
                    self._selector.unregister(self._stdin)
                    if not line and self._process.stdin is not None:
                        self._process.stdin.close()
        finally:
            if writing:
                self._selector.unregister(self._stdin)

    def _closed(self, pipe: int) -> bool:
        return pipe not in self._selector.get_map()

    def _write(self, rest: memoryview) -> memoryview:
        try:
            return rest[os.write(self._stdin, rest[:_CHUNK]) :]
        except BlockingIOError:
            return rest
        except BrokenPipeError:
            return rest[:0]  # it does not read; it may answer all the same

    def _read(self, pipe: int) -> None:
        """Take what is there, but no endless stream of it; on the end of stdout nothing more will come."""
        for _ in range(_MOST_CHUNKS):
            if self._closed(pipe):
                return
            try:
                data = os.read(pipe, _CHUNK)
            except BlockingIOError:
                return
            if not data:
                self._selector.unregister(pipe)
                self._ended = self._ended or pipe == self._stdout
            elif pipe == self._stdout:
                self._output += data
                if len(self._output) > _MOST_OUTPUT:
                    raise OutputLimitError
            else:
                self._errors += data
                del self._errors[:-_STDERR_KEPT]
