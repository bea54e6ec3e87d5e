"""A document, its store, and three staged pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dlm.store import Home, StagedPair, Store
from mined_pairs import mine

DLM_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
HEADER = f"---\ndlm_id: {DLM_ID}\ndlm_version: 15\nbase_model: pocket   # mine\n---\n"
BODY = (
    "\nSome prose.\n\n::instruction::\n### Q\nHow should notes read?\n### A\nBriefly.  \n\n"
    "::preference#tone::\n### Prompt\np\n### Chosen\nc\n### Rejected\nr\n"
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Home.open(tmp_path / "home").store(DLM_ID) as opened:
        yield opened


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "notes.dlm"
    path.write_bytes((HEADER + BODY).encode())
    return path


@pytest.fixture
def staged(store: Store, document: Path) -> tuple[StagedPair, ...]:
    return mine(store, document)
