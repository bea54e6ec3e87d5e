"""`dlm import` and `dlm export-data`: what they print, refuse and leave."""

from __future__ import annotations

import json
from pathlib import Path

from dlm.store import Home, RunSpec

from .conftest import DLM_ID, Dlm
from .test_schemas import validate

PAIR = {"type": "pair", "source": "grader", "prompt": "p", "chosen": "c", "rejected": "r", "chosen_score": 8.9, "rejected_score": 5.4}  # fmt: skip
SCALAR = {"prompt": "p", "response": "a", "score": 7}


def write(name: str, *lines: object) -> str:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    Path(name).write_text(text, encoding="utf-8")
    return name


def test_import_then_export_then_nothing_new(dlm: Dlm, document: Path) -> None:
    file = write("data.jsonl", PAIR, SCALAR)
    data = validate(dlm.json("import", "notes.dlm", file, "--judge", "me", "--source", "hand"))
    assert data["added"] == {"pair grader": 1, "scalar hand": 1}
    told = dlm("import", "notes.dlm", file, "--judge", "me").stdout
    assert "2 signals known already\nnothing is new\n" in told
    data = validate(dlm.json("export-data", "notes.dlm", "--to", "out.jsonl"))
    assert (data["signals"], data["runs"], data["tab"]) == (2, 0, None)
    assert [json.loads(line)["type"] for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()] == ["pair", "scalar"]  # fmt: skip
    assert "1 signal in r.csv" in dlm("export-data", "notes.dlm", "--to", "r.csv", "--tab", "reward", "--format", "csv").stdout  # fmt: skip
    assert not validate(dlm.json("import", "notes.dlm", "out.jsonl"))["added"]


def test_runs_with_their_curves(dlm: Dlm, document: Path) -> None:
    run = {
        "type": "run",
        "ref": "elsewhere",
        "kind": "preference",
        "method": "orpo",
        "started_at": "2026-03-14T09:30:00Z",
    }
    curve = {
        "type": "series",
        "run": "elsewhere",
        "name": "train_loss",
        "steps": [1, 2],
        "values": [2.0, 1.0],
    }
    file = write("data.jsonl", run, curve, {**PAIR, "used_by": ["elsewhere"]})
    data = validate(dlm.json("import", "notes.dlm", file))
    assert (data["runs"], data["points"]) == ([{"id": 1, "ref": "elsewhere", "new": True}], 2)
    assert "preference (orpo)" in dlm("show", "notes.dlm").stdout
    assert dlm.json("metrics", "notes.dlm", "--run-id", "1")["data"]
    assert validate(dlm.json("export-data", "notes.dlm", "--to", "o.jsonl", "--tab", "orpo", "--run", "1"))["signals"] == 1  # fmt: skip
    data = validate(dlm.json("export-data", "notes.dlm", "--to", "all.jsonl", "--with-runs"))
    assert (data["signals"], data["runs"]) == (1, 1)
    dlm("export-data", "notes.dlm", "--to", "none.jsonl", "--run", "9", expect=1)


def test_a_dry_run_writes_nothing(dlm: Dlm, document: Path) -> None:
    file = write("data.jsonl", PAIR)
    assert "1 signal and 0 runs would be read" in dlm("import", "notes.dlm", file, "--dry-run").stdout
    assert validate(dlm.json("import", "notes.dlm", file, "--dry-run"))["signals"] == 1
    assert Home.open().find(DLM_ID) is None


def test_bad_lines_are_named_with_their_file(dlm: Dlm, document: Path) -> None:
    good, bad = write("good.jsonl", PAIR), write("bad.jsonl", PAIR, '{"prompt": "p"}', "", "not JSON")
    told = dlm("import", "notes.dlm", good, bad, expect=1).stderr
    assert "bad.jsonl:2:1: expected a type" in told
    assert "bad.jsonl:4:1: not JSON" in told
    assert validate(dlm.json("import", "notes.dlm", good, bad, expect=1)) == {}
    assert Home.open().find(DLM_ID) is None
    assert "holds no signals" in dlm("import", "notes.dlm", write("empty.jsonl", ""), expect=2).stderr
    assert "cannot read" in dlm("import", "notes.dlm", "missing.jsonl", expect=2).stderr
    dlm("import", "notes.dlm", expect=2)


def test_what_cannot_be_exported_is_said(dlm: Dlm, document: Path) -> None:
    told = dlm("export-data", "notes.dlm", "--to", "out.jsonl", expect=2).stderr
    assert "nothing to export" in told
    assert "dlm import notes.dlm FILE" in told
    dlm("import", "notes.dlm", write("data.jsonl", PAIR, SCALAR))
    assert "pairs only" in dlm("export-data", "notes.dlm", "--to", "o", "--format", "openai", expect=2).stderr
    assert (
        "there is no flag" in dlm("export-data", "notes.dlm", "--to", "o", "--flag", "odd", expect=2).stderr
    )
    dlm("export-data", "notes.dlm", "--to", "o")
    assert "--force" in dlm("export-data", "notes.dlm", "--to", "o", expect=2).stderr
    dlm("export-data", "notes.dlm", "--to", "o", "--force")
    assert not [path for path in Path().iterdir() if path.name.startswith(".o")]


def test_control_signs_of_a_file_s_names_reach_no_terminal(dlm: Dlm, document: Path) -> None:
    run = {"type": "run", "ref": "\x1b[31mred", "kind": "sft"}
    assert "\x1b" not in dlm("import", "notes.dlm", write("data.jsonl", run)).output


def test_filters(dlm: Dlm, document: Path) -> None:
    lines = [
        {**PAIR, "prompt": f"number {i}", "judge": "a" if i % 2 else "b", "chosen_score": 5.4 + i}
        for i in range(6)
    ]
    dlm("import", "notes.dlm", write("data.jsonl", *lines))

    def count(*options: str) -> int:
        return int(dlm.json("export-data", "notes.dlm", "--to", "o", "--force", *options)["data"]["signals"])

    assert count("--judge", "a") == 3
    assert count("--min-margin", "3") == 3
    assert count("--search", "number 4") == 1
    assert count("--source", "grader", "--standing", "store") == 6


def test_a_running_training_is_no_hindrance(dlm: Dlm, document: Path) -> None:
    with Home.open().store(DLM_ID) as store, store.lock("dlm train"):
        store.runs.start(RunSpec("sft"))
        dlm("import", "notes.dlm", write("data.jsonl", PAIR))
        assert dlm.json("export-data", "notes.dlm", "--to", "o", "--with-runs")["data"]["runs"] == 0
