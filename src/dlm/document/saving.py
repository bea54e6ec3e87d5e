"""Documents on disk: compare-and-swap, so that an editor's save is never lost and no half file is ever seen.

A save locks the file against other dlm processes, makes sure that its bytes are still those that were read, writes
a temporary file beside it, flushes file and folder to disk, and renames. Mode and line endings are kept; a
symbolic link keeps pointing at the same file, whose content changes. A rename would replace a read-only file too, so
a file that nobody may write is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from dlm.errors import ConflictError, DlmError, TextError, UsageError

__all__ = ["create", "save"]

_BOM = b"\xef\xbb\xbf"


def save(path: str | Path, text: str | bytes, expected_sha256: str) -> str:
    """Replace the document at `path` if its bytes still hash to `expected_sha256`; the new hash.

    Text goes out as UTF-8, behind a byte order mark when the file has one (`Document.text` is without it); bytes go
    out as they are.

    Raises:
        ConflictError: the file changed, or is gone: nothing was written.
        TextError: text that no UTF-8 file can hold.
        DlmError: the file is read-only or cannot be written: nothing was written.
    """
    data = _encode(text)
    real = Path(path).resolve()
    try:
        with _locked(real):
            current = real.read_bytes()
            _expect(real, current, expected_sha256)
            if isinstance(text, str) and current.startswith(_BOM):
                data = _BOM + data
            mode = stat.S_IMODE(real.stat().st_mode)
            if not mode & 0o222:
                raise DlmError(
                    f"{path} is read-only; nothing was written",
                    next_step=f"chmod u+w {shlex.quote(str(path))}",
                )
            temporary = _write_beside(real, data, mode)
            try:
                _expect(real, real.read_bytes(), expected_sha256)  # an editor may have saved while we wrote
                os.replace(temporary, real)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _flush_folder(real.parent)
    except FileNotFoundError:
        raise ConflictError(f"{path} is gone; nothing was written") from None
    except OSError as error:
        raise DlmError(f"{path} cannot be written: {error.strerror or error}") from None
    return hashlib.sha256(data).hexdigest()


def create(path: str | Path, text: str | bytes) -> None:
    """Write a new file; a file that is already there is never touched.

    Raises:
        UsageError: something stands at `path` already.
        TextError: text that no UTF-8 file can hold.
        DlmError: the file cannot be written.
    """
    data = _encode(text)
    target = Path(path)
    try:
        temporary = _write_beside(target, data, 0o666 & ~_umask())
        try:
            os.link(temporary, target)  # unlike a rename, fails when something is there
        finally:
            temporary.unlink(missing_ok=True)
        _flush_folder(target.parent)
    except FileExistsError:
        raise UsageError(
            f"{path} is there already; nothing was written", next_step=f"dlm check {path}"
        ) from None
    except FileNotFoundError:
        raise UsageError(
            f"there is no folder {target.parent}", next_step=f"mkdir -p {target.parent}"
        ) from None
    except OSError as error:
        raise DlmError(f"{path} cannot be written: {error.strerror or error}") from None


def _encode(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    if "\x00" in text:
        raise TextError(f"the text has a NUL at character {text.index(chr(0)) + 1}; nothing was written")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextError(
            f"the text has a lone surrogate at character {error.start + 1}; nothing was written"
        ) from None


def _expect(path: Path, data: bytes, sha256: str) -> None:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ConflictError(
            f"{path} was changed by someone else since it was read; nothing was written",
            next_step="run the same command again: it reads the file as it is now",
        )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock on the file. Whoever waited for it compares hashes after, so no order is lost."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write_beside(path: Path, data: bytes, mode: int) -> Path:
    """A flushed temporary file with this content in the same folder (a rename must not cross file systems)."""
    temporary = path.parent / f".{path.name[:100]}.{secrets.token_hex(6)}.tmp"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _flush_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    value = os.umask(0o077)
    os.umask(value)
    return value
