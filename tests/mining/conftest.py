"""A trained-looking store on a base of a few thousand random weights, and a judge that counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bases_on_the_spot import make_base
from mining_helpers import DLM_ID, Watcher


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("bases") / "llama", "llama")


@pytest.fixture
def document(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten questions, a probe and a hand-written pair on the small base, with a home of its own."""
    monkeypatch.setenv("DLM_HOME", str(tmp_path / "home"))
    questions = "".join(f"### Q\nWhat is number {i}?\n### A\nIt is {i * 7}.\n" for i in range(10))
    path = tmp_path / "doc.dlm"
    path.write_text(
        f"---\ndlm_id: {DLM_ID}\nbase_model: {base}\n---\n::instruction::\n{questions}"
        "### Q !probe\nWhat is number 3, please?\n### A\nIt is 21.\n\n"
        "::preference::\n### Prompt\nWhat is number 1?\n### Chosen\nSeven.\n### Rejected\nNo idea at all.\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def view() -> Watcher:
    return Watcher()
