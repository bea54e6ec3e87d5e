"""A document with questions, a probe and pairs, a view that remembers and can stop a run, and what the runs left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

from dlm.document import render_preference
from dlm.store import Home, Store

DLM_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
ROWS = "".join(f"### Q\nWhat is number {i}?\n### A\nIt is {i * 7}.\n" for i in range(24))
PROBE = "### Q !probe\nWhich number is 3?\n### A\nIt is 21.\n"
PAIRS = [
    (f"What is number {i}?", f"{i * 7}.", f"Number {i} might well be {i * 7}, I think.") for i in range(24)
]
BODY = f"::instruction::\n{ROWS}{PROBE}\n{render_preference(PAIRS)}"


def opened() -> Store:
    found = Home.open().find(DLM_ID)
    assert found is not None
    return found


class Watching:
    """A view that remembers, and asks for a stop after one step of one phase."""

    def __init__(self, phase: str = "", at: int = 0) -> None:
        self.notes: list[str] = []
        self.briefings: list[Any] = []
        self._stop = (phase, at)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.notes.append(f"warning: {text}")

    def briefing(self, briefing: Any) -> None:
        self.briefings.append(briefing)

    def step(self, step: int, total: int, values: Mapping[str, float]) -> None:
        if (self.briefings[-1].phase, step) == self._stop:
            os.kill(os.getpid(), signal.SIGINT)

    def checkpoint(self, step: int) -> None: ...
    def stopping(self) -> None: ...


def adapters() -> dict[str, bytes]:
    """The weights of every version."""
    with opened() as store:
        return {
            version.name: (version.folder / "adapter_model.safetensors").read_bytes()
            for version in store.versions.list()
        }
