"""Where things lie on disk: the home of all stores, and the folders inside one store.

$DLM_HOME/
  dlm-home.json            the marker: this folder is ours
  consent/                 commands named by documents that may run (see `consent`)
  store/<dlm_id>/
    store.sqlite3          runs, events, metrics, versions, promotions
    lock                   held by the process that trains (see `lock`)
    versions/v0001/        PEFT folders with a version.json
    checkpoints/run-000001/
    references/            log-probs of answers under a reference, to be used again; can be made anew at any time
    staging/               half-made versions and things being deleted; emptied at the next lock
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dlm.errors import ForeignFolderError, StoreError
from dlm.store.files import flush

__all__ = ["HOME_MARKER", "StoreLayout", "create_home", "home_exists", "home_root"]

HOME_MARKER = "dlm-home.json"
HOME_FORMAT = 1
_TOOL = "dlm document trainer"  # other programs called dlm exist; a bare "dlm" would not tell us apart
_TEMPORARY = ".dlm-home-"
_HARMLESS = {".DS_Store", "lost+found"}  # what systems themselves put into an empty folder or volume
_SAFE_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")


def home_root(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of all stores: `$DLM_HOME`, else the platform's data folder for dlm. Absolute; may not exist yet."""
    named = (os.environ if environ is None else environ).get("DLM_HOME", "")
    if named:
        return Path(os.path.abspath(os.path.expanduser(named)))
    import platformdirs  # only when no folder is named: keeps start-up short

    return Path(platformdirs.user_data_dir("dlm", appauthor=False))


def home_exists(root: Path) -> bool:
    """Whether `root` is a home of ours already. False: it is absent or empty and may become one. Writes nothing.

    Raises:
        ForeignFolderError: the folder holds something that dlm did not make.
        StoreError: it cannot be read, or a newer dlm made it.
    """
    try:
        if _marker_is_ours(root):
            return True
        entries = {
            entry.name for entry in root.iterdir() if not entry.name.startswith(_TEMPORARY)
        } - _HARMLESS
        # Looked at twice: another process may have made the home between the two lines above.
        if not entries or _marker_is_ours(root):
            return bool(entries)
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        raise _foreign(root, "it is not a folder") from None
    except OSError as error:
        raise StoreError(
            f"the folder of all stores cannot be read: {error.strerror}",
            where=str(root),
            next_step="set DLM_HOME to a folder of your own",
        ) from error
    shown = ", ".join(sorted(entries)[:3])
    raise _foreign(root, f"it has no {HOME_MARKER}, but holds {shown}{', …' if len(entries) > 3 else ''}")


def create_home(root: Path) -> None:
    """Make `root` a home unless it is one. Several processes may do so at once.

    Raises:
        ForeignFolderError, StoreError: as `home_exists`; or the folder cannot be made.
    """
    if home_exists(root):
        return
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)  # what people teach their models is private
        temporary = root / f"{_TEMPORARY}{secrets.token_hex(8)}"
        temporary.write_text(json.dumps({"tool": _TOOL, "format": HOME_FORMAT}) + "\n", encoding="utf-8")
        flush(temporary)
        os.replace(temporary, root / HOME_MARKER)
    except OSError as error:
        raise StoreError(
            f"the folder of all stores cannot be made: {error.strerror}",
            where=str(root),
            next_step="set DLM_HOME to a folder that can be written",
        ) from error


def _marker_is_ours(root: Path) -> bool:
    """Whether a marker is there and ours; raises when it is someone else's or newer."""
    try:
        text = (root / HOME_MARKER).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return False
    try:
        marker = json.loads(text)
    except ValueError:
        marker = None
    if not isinstance(marker, dict) or marker.get("tool") != _TOOL:
        raise _foreign(root, f"its {HOME_MARKER} was written by something else")
    if marker.get("format") != HOME_FORMAT:
        raise StoreError(
            "the folder of all stores was made by a newer dlm",
            expected=f"format {HOME_FORMAT}",
            found=f"format {marker.get('format')}",
            where=str(root),
            next_step="pip install --upgrade dlm",
        )
    return True


def _foreign(root: Path, reason: str) -> ForeignFolderError:
    return ForeignFolderError(
        f"this folder was not made by dlm, and is left as it is: {reason}",
        expected="a folder of dlm's own, or an empty one",
        where=str(root),
        next_step="set DLM_HOME to another folder, for example: export DLM_HOME=~/dlm-home",
    )


@dataclass(frozen=True)
class StoreLayout:
    """The paths inside one store's folder."""

    folder: Path

    @classmethod
    def of(cls, root: Path, dlm_id: str) -> StoreLayout:
        """The layout of the store of one document.

        Raises:
            StoreError: the id cannot be a folder name (it may come from a stranger's document).
        """
        if not _SAFE_ID.fullmatch(dlm_id):
            raise StoreError(
                "the document's dlm_id cannot name a store",
                expected="26 letters and digits, as `dlm init` makes them",
                found=repr(dlm_id),
            )
        return cls(root / "store" / dlm_id)

    @property
    def database(self) -> Path:
        return self.folder / "store.sqlite3"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def versions(self) -> Path:
        return self.folder / "versions"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def references(self) -> Path:
        return self.folder / "references"

    @property
    def staging(self) -> Path:
        return self.folder / "staging"

    def run_checkpoints(self, run_id: int) -> Path:
        """The folder of one run's checkpoints."""
        return self.checkpoints / f"run-{run_id:06d}"

    def create(self) -> None:
        """Make the folders that are missing."""
        try:
            for folder in (self.versions, self.checkpoints, self.references, self.staging):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the store's folders cannot be made: {error.strerror}",
                where=str(self.folder),
                next_step="make the folder writable, or set DLM_HOME to another one",
            ) from error
