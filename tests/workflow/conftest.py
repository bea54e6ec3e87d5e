"""A store of one's own, a silent view, and a document on a base of a few thousand random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bases_on_the_spot import make_base
from dlm.workflow.train import Briefing

ROWS = "".join(f"### Q\nWhat is number {i}?\n### A\nIt is {i * 7}.\n" for i in range(6))


class Silent:
    """A view that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.briefings: list[Briefing] = []
        self.steps: list[int] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.notes.append(f"warning: {text}")

    def briefing(self, briefing: Briefing) -> None:
        self.briefings.append(briefing)

    def step(self, step: int, total: int, values: Mapping[str, float]) -> None:
        self.steps.append(step)

    def checkpoint(self, step: int) -> None:
        assert self.steps[-1] == step

    def stopping(self) -> None:
        self.notes.append("stopping")


@pytest.fixture
def view() -> Silent:
    return Silent()


@pytest.fixture
def make_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`make_document(architecture="llama", body=…, training=…)` writes a document on a fresh base beside it."""
    monkeypatch.setenv("DLM_HOME", str(tmp_path / "home"))

    def make(architecture: str = "llama", body: str = f"::instruction::\n{ROWS}", header: str = "") -> Path:
        base = make_base(tmp_path / architecture, architecture)
        path = tmp_path / "doc.dlm"
        path.write_text(
            f"---\ndlm_id: 01ARZ3NDEKTSV4RRFFQ69G5FAV\nbase_model: ./{base.name}\n{header}---\n{body}",
            encoding="utf-8",
        )
        return path

    return make
