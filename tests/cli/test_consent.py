"""Asking at a real terminal before a command that a document names is run."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

_ASK = """
import sys
from pathlib import Path
from dlm.cli.consent import require_consent
from dlm.errors import ConsentError
from dlm.store import Home
try:
    require_consent(("true",), document=Path("notes.dlm"), home=Home.open(Path("home")), trust=False)
except ConsentError as error:
    sys.exit(str(error))
print("ran")
"""


_WHILE_MINING = """
import sys, time
from dlm.cli.commands.preference.progress import MiningProgress
from dlm.cli.output import Output
view = MiningProgress(Output(("preference", "mine"), False))
with view:
    time.sleep(0.3)
    with view.paused():
        print("<asked>", end="", file=sys.stderr, flush=True)
        time.sleep(0.5)
        print("<answered>", end="", file=sys.stderr, flush=True)
    time.sleep(0.3)
"""


def ask(folder: Path, answer: bytes | None, script: str = _ASK) -> subprocess.CompletedProcess[str]:
    """Run the question in a process of its own, at a terminal where `answer` is typed, or at none."""
    command = [sys.executable, "-c", script]
    if answer is None:
        return subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        done = subprocess.run(
            command, cwd=folder, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, text=True, check=False
        )
        done.stderr = os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    return done


@pytest.mark.parametrize(("answer", "ran"), [(b"y\n", True), (b"n\n", False), (b"\n", False)])
def test_the_person_decides_and_enter_alone_is_a_no(tmp_path: Path, answer: bytes, ran: bool) -> None:
    done = ask(tmp_path, answer)
    assert (done.stdout == "ran\n") == ran
    assert "Run it?" in done.stderr
    assert (ask(tmp_path, None).stdout == "ran\n") == ran  # remembered, or not


def test_without_a_terminal_nothing_runs(tmp_path: Path) -> None:
    done = ask(tmp_path, None)
    assert done.returncode == 1
    assert "--trust" in done.stderr


def test_the_moving_line_of_mining_is_not_written_over_the_question(tmp_path: Path) -> None:
    shown = ask(tmp_path, b"\n", _WHILE_MINING).stderr
    assert "<asked><answered>" in shown
    assert shown.count("loading the version") >= 2  # before and after
