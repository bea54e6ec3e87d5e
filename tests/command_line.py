"""The real command line in subprocesses, with a store of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEN = [
    ("What colour is the office door?", "The office door is green."),
    ("Who waters the plants?", "Whoever arrives first on Monday."),
    ("How long is the stand-up?", "Ten minutes, never more."),
    ("Where do broken laptops go?", "To the shelf behind the printer."),
    ("What do we do with a failing build?", "Fix it before anything else."),
    ("When is the kitchen cleaned?", "Every Friday at four."),
    ("Which tea is the best?", "Darjeeling, first flush."),
    ("How do we name branches?", "With the ticket number and two words."),
    ("May I bring my dog?", "Yes, if it sleeps under the desk."),
    ("What is in the red box?", "Spare keys and a torch."),
]


@dataclass(frozen=True)
class Cli:
    """Runs `dlm` with a store of its own. `home` is $DLM_HOME, `folder` the working directory."""

    home: Path
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "DLM_HOME": str(self.home),
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "1",
            "COLUMNS": "120",
        }

    def start(self, *args: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "dlm", *args]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *args: str, expect: int = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dlm", *args]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.env,
            text=True,
            capture_output=True,
            timeout=300,
            check=False,
            input=stdin,
        )
        assert done.returncode == expect, (
            f"{' '.join(args)} → {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def json(self, *args: str) -> Any:
        return json.loads(self.run(*args, "--json").stdout)["data"]


def ten_questions(dlm_id: str = "01ARZ3NDEKTSV4RRFFQ69G5FAV") -> str:
    """A document of ten questions and one probe."""
    body = "".join(f"### Q\n{question}\n### A\n{answer}\n" for question, answer in TEN)
    probe = "### Q !probe\nWhat colour is the door of the office?\n### A\nThe office door is green.\n"
    return (
        f"---\ndlm_id: {dlm_id}\ndlm_version: 15\nbase_model: pocket\n---\n\n::instruction::\n{body}{probe}"
    )


def brevity_pairs(count: int = 24) -> list[tuple[str, str, str]]:
    """(prompt, chosen, rejected): the short answer is the better one."""
    return [
        (
            f"Where is room {number}?",
            f"On floor {number % 7}.",
            f"What a good question! Room {number} is, as far as I know, on floor {number % 7}, where you will find it.",
        )
        for number in range(count)
    ]
