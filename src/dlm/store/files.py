"""Files that must be on the disk before the database speaks of them, and folders that go away in one step."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlm.errors import StoreError

__all__ = ["disk_faults", "flush", "flush_folder", "folder_bytes", "remove", "sha256"]


@contextmanager
def disk_faults(where: Path) -> Iterator[None]:
    """Turn faults of the disk into `StoreError`."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the disk refused: {error.strerror}",
            where=str(error.filename or where),
            next_step="free some space (dlm prune DOCUMENT does) or look at the folder's permissions",
        ) from error


def flush(path: Path) -> None:
    """Return when the file, or the list of names in the folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Flush everything below a folder, then the folder."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            flush(Path(parent, name))
        flush(Path(parent))


def sha256(path: Path) -> str:
    """The hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_bytes(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links count as themselves."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size
    return sum(Path(parent, name).lstat().st_size for parent, _, names in os.walk(path) for name in names)


def remove(path: Path, staging: Path) -> None:
    """Delete a file or folder. A folder first moves to `staging` in one step, so that a half-deleted one is never
    found in its place.
    """
    if not path.is_dir() or path.is_symlink():
        path.unlink()
        return
    if path.parent != staging:
        staging.mkdir(exist_ok=True)
        path = path.rename(Path(tempfile.mkdtemp(prefix="deleted-", dir=staging)) / path.name).parent
    shutil.rmtree(path)
