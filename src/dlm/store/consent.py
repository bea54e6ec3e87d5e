"""Which commands of documents may run: asked once, remembered by what the command is.

A document may come from someone else, and its `judge:` may name a command. Consent is remembered for the arguments, the
folder they run in, the program that the first of them is, and the bytes of every file among them: another argument, an
edited script, or the same script in another folder (where it may import something else) asks again. What a script
imports, and modules named by `python -m`, are not read.

`$DLM_HOME/consent/<key>.json`, one file for each consent: two processes cannot lose one another's, and deleting a file
takes it back.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlm.errors import ConsentError
from dlm.store.database import utc_now
from dlm.store.files import disk_faults, flush, sha256
from dlm.store.layout import create_home

__all__ = ["CommandIdentity", "Consents", "identify"]

_GRADER = "dlm-grader"  # no program: how `dlm.grading.GraderSpec.consent_argv` names Python files that grade


@dataclass(frozen=True)
class CommandIdentity:
    """What a consent is for.

    Attributes:
        argv: the arguments, the program first, as written.
        folder: where it runs, absolute.
        files: every argument that is a file there, with the SHA-256 of its bytes; the program by its place.
    """

    argv: tuple[str, ...]
    folder: Path
    files: tuple[tuple[str, str], ...]

    @property
    def key(self) -> str:
        """64 hex digits that change with any part of it."""
        parts = [list(self.argv), str(self.folder), [list(file) for file in self.files]]
        return hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()


def identify(argv: Sequence[str], folder: Path) -> CommandIdentity:
    """Read what a command is now.

    Raises:
        StoreError: a file of it cannot be read.
    """
    folder = Path(os.path.abspath(folder))
    found: dict[str, str] = {}
    for place in _files_of(argv, folder):
        with disk_faults(place):
            found[str(place)] = sha256(place)
    return CommandIdentity(tuple(argv), folder, tuple(sorted(found.items())))


def _files_of(argv: Sequence[str], folder: Path) -> list[Path]:
    """The program, and what among the other arguments (`--rules=FILE` too) is a file."""
    named = [folder / argv[0]] if os.sep in argv[0] else [Path(shutil.which(argv[0]) or "")]
    words = (text for word in argv[1:] for text in (word, word.partition("=")[2]))
    named += [folder / word for word in words if word]
    return [place for place in named if os.path.isfile(place)]  # False, too, for what can be no name


def _visible(text: str) -> str:
    """The text without what a terminal would obey or hide: control characters and marks of direction are spelt out."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


class Consents:
    """The consents of one home. Looking makes nothing."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._folder = home / "consent"

    def given(self, command: CommandIdentity) -> bool:
        """Whether this very command was allowed before."""
        return self._place(command).is_file()

    def remember(self, command: CommandIdentity, named_by: str) -> None:
        """Allow this command from now on; `named_by` is the document, for whoever reads the file.

        Raises:
            StoreError: it cannot be written.
        """
        create_home(self._home)
        record = {
            "format": 1,
            "argv": command.argv,
            "folder": str(command.folder),
            "files": dict(command.files),
            "named_by": named_by,
            "given_at": utc_now(),
        }
        place = self._place(command)
        with disk_faults(place):
            place.parent.mkdir(mode=0o700, exist_ok=True)
            temporary = place.with_suffix(f".{secrets.token_hex(8)}")
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="ascii")
            flush(temporary)
            os.replace(temporary, place)

    def require(
        self,
        argv: Sequence[str],
        folder: Path,
        *,
        named_by: str,
        trust: bool = False,
        ask: Callable[[str], bool] | None = None,
    ) -> None:
        """Return when a command that a document names may run; a yes is remembered, `trust` holds for this time only.

        Args:
            argv: the command's arguments.
            folder: where it will run.
            named_by: the document.
            trust: the person said --trust.
            ask: puts a question to a person and returns whether they said yes; None where nobody can be asked.

        Raises:
            ConsentError: nobody could be asked, or the answer was no.
            StoreError: the command's files cannot be read, or the yes cannot be written down.
        """
        if trust:
            return
        command = identify(argv, folder)
        if self.given(command):
            return
        grades = argv[0] == _GRADER
        what = "a Python grader" if grades else "a command"
        shown, named_by = _visible(shlex.join(argv[1:] if grades else argv)), _visible(named_by)
        if ask is None:
            raise ConsentError(
                f"{named_by} names {what} that you have not allowed yet, and nobody is there to be asked",
                expected="your consent: --trust, or a terminal to ask at",
                found=shown,
                next_step=f"read {'it' if grades else 'the command and its files'}; then type the same again with --trust",
            )
        files = "".join(f"\n  file    {_visible(place)}" for place, _ in command.files)
        question = (
            f"{named_by} names {what}, which runs with your rights:\n  {'grader ' if grades else 'command'} {shown}\n"
            f"  in      {_visible(str(command.folder))}"
            f"{files}\nRun it? (asked again when it or one of these files changes)"
        )
        if not ask(question):
            raise ConsentError(
                f"the {'Python grader' if grades else 'command'} that {named_by} names was not allowed; nothing was run",
                found=shown,
                next_step="name one that runs nothing of the document's: --judge sway, or a grader that dlm grader list shows",
            )
        self.remember(command, named_by)

    def _place(self, command: CommandIdentity) -> Path:
        return self._folder / f"{command.key}.json"
