"""What is trained on is no proof: the document's rows and pairs, and those of files, are compared with its suites."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlm.bases import resolve_base
from dlm.document import load
from dlm.training import Pair, Row, Scalar
from dlm.workflow.leaks import warn_of_leaks
from dlm.workflow.material import Files, Material
from dlm.workflow.views import Phase

pytestmark = pytest.mark.torch
HEADER = """---
dlm_id: 01HZX4TGZ5W2G9JXQ9A6T3K4VB
base_model: pocket
evals:
  mine: {cases: cases.jsonl}
  practice: {cases: cases.jsonl, split: train}
---
"""


class _Warned:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, text: str) -> None:
        self.texts.append(text)


def _warnings(folder: Path, phases: tuple[Phase, ...], cases: str | None = None) -> list[str]:
    lines = [
        {"prompt": "Why?"},
        {"prompt": "How?"},
        {"prompt": "When?"},
        {"prompt": "What?", "split": "train"},
    ]
    text = cases if cases is not None else "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "cases.jsonl").write_text(text, encoding="utf-8")
    path = folder / "a.dlm"
    path.write_text(HEADER, encoding="utf-8")
    rows = [Row("chat", "Why? ", "So.", "rows.jsonl", line) for line in range(1, 6)]
    rows += [Row("prose", None, "Why?", "a.dlm", 9), Row("chat", "How?", "Thus.", "a.dlm", 10, probe=True)]
    rows.append(Row("chat", "What?", "That.", "rows.jsonl", 6))
    pairs = [
        Pair("How?", "a", "b", "pairs.jsonl", 1, reverted=True),
        Pair("When?", "a", "b", "store", 7),
    ]
    scalars = [Scalar("Why?", "a", 1.0, "scores.jsonl", 3)]
    view = _Warned()
    material = Material(load(path), path, resolve_base("pocket", folder), Files(), rows, pairs, scalars)
    warn_of_leaks(material, phases, view)  # type: ignore[arg-type]
    return view.texts


@pytest.mark.parametrize(
    ("phases", "places"),
    [
        (("sft",), "rows.jsonl:1, rows.jsonl:2, rows.jsonl:3 and 2 more;"),
        (("preference",), "store:7;"),
        (("reward",), "store:7, scores.jsonl:3;"),
        (("rft",), ""),
    ],
)
def test_what_a_phase_trains_on_of_a_suite_is_named(
    tmp_path: Path, phases: tuple[Phase, ...], places: str
) -> None:
    found = _warnings(tmp_path, phases)
    assert len(found) == bool(places)
    assert all(f"cases of the suite mine stand at {places}" in text for text in found)


def test_a_suite_that_cannot_be_read_hinders_no_training_and_is_told(tmp_path: Path) -> None:
    found = _warnings(tmp_path, ("sft",), cases="")
    assert "a case of the suite mine is not known: the file of cases" in found[0]
