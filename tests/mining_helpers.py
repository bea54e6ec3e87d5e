"""What tests of mining share: candidates made by hand, a view that remembers, a judge by rule, a process that kills itself."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dlm.judging import Item, Verdict
from dlm.store import Candidate

DLM_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def candidate(
    number: int,
    text: str,
    score: float | None = None,
    *,
    finish: str = "stop",
    skip: str | None = None,
    attempts: int = 1,
) -> Candidate:
    """The `number`-th sample of a question, numbered so in the store."""
    return Candidate(
        "key",
        "Why?",
        number,
        number,
        text,
        len(text),
        finish,
        skip,
        id=number,
        score=score,
        attempts=attempts,
    )


class Watcher:
    """A view that remembers; `at` is called with every sign of progress, and may raise or kill."""

    def __init__(self, at: Callable[[str], None] = lambda moment: None) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self._at = at

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def sampled(self, questions: int, of: int) -> None:
        self._at(f"sampled {questions}")

    def judged(self, answers: int, of: int) -> None:
        self._at(f"judged {answers}")

    def stopping(self) -> None:
        self.notes.append("stopping")


def rule_score(text: str) -> float:
    """A score that depends on the text alone and looks like chance."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:4], "big") / 2**32


class RuleJudge:
    """Scores by `rule_score`, and writes every text that it is asked about into a file."""

    name, default_threshold, scale = "rule", 0.1, "0 to 1"

    def __init__(self, log: Path, fails: Callable[[int], bool] = lambda number: False) -> None:
        self._log, self._fails = log, fails
        self._number = 0

    def score(self, items: Sequence[Item]) -> Iterator[Verdict]:
        for item in items:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"{item.prompt}\t{item.candidate!r}\n")
            self._number += 1
            if self._fails(self._number):
                yield Verdict(None, error="it fell over", failures=("crashed", "timed_out"))
            else:
                yield Verdict(rule_score(item.candidate), reasoning="by rule", seconds=0.5)

    def close(self) -> None: ...


def mine_and_die(home: Path, document: Path, log: Path, moment: str, settings: dict[str, Any]) -> int:
    """Mine with the rule judge in a process of its own that kills itself at `moment`; returns its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dlm.workflow.mining"])
    process = context.Process(target=_mine, args=(home, document, log, moment, settings))
    process.start()
    process.join(timeout=240)
    return process.exitcode if process.exitcode is not None else 0


def _mine(home: Path, document: Path, log: Path, moment: str, settings: dict[str, Any]) -> None:
    from dlm.mining import MineSettings
    from dlm.workflow import mining

    os.environ["DLM_HOME"] = str(home)
    mining.make_judge = lambda spec, context: RuleJudge(log)

    def die(now: str) -> None:
        if now == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    options = mining.MineOptions(MineSettings(**settings), version="base", device="cpu")
    mining.mine_pairs(document, options, Watcher(die))
