"""The study's data and document: what it trains on is never what it is proven on."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from dlm.document import load
from dlm.evaluation import read_suite, suite_names
from dlm.workflow.gating import read_gate

FOLDER = Path(__file__).parents[2] / "examples" / "spreadsheet"


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"study_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _data(folder: Path) -> dict[str, list[dict[str, object]]]:
    return {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in _module("data").write_all(folder)
    }


def test_data_and_suites(tmp_path: Path) -> None:
    data = _data(tmp_path)
    sizes = {name: len(rows) for name, rows in data.items()}
    assert sizes == {"tables": 240, "stress": 240, "collapsed": 12, "pairs": 240, "prompts": 240}
    assert [row["prompt"] for row in data["pairs"]] == [row["prompt"] for row in data["stress"]]
    document = load(FOLDER / "sheets.dlm")
    trained = {row["prompt"] for rows in data.values() for row in rows}
    for name in suite_names(document):
        suite = read_suite(document, FOLDER, name)
        assert not trained & {case.prompt for case in suite.cases}, name
        assert suite.stress == name.startswith("stress")
    conditions, suites = read_gate(document, FOLDER / "sheets.dlm")
    assert [condition.text for condition in conditions][:5] == [
        "tables.composite >= base - 0.005",
        "tables.data_preservation >= base",
        "tables.rh_like <= base",
        "best of tables.unit_consistency, tables.format_validity, tables.completeness >= base + 0.02 "
        "if unreachable stress.data_preservation >= base + 0.02",
        "stress.data_preservation >= 0.85",
    ]
    assert {suite.name for suite in suites} >= {"tables", "stress"}


def test_where_rows_are_lost() -> None:
    lost = _module("lost")
    gold = "name,period,amount\na,Q1,1\na,Q1,1\nb,Q1,2\nc,Q2,3\n"
    assert lost.lost_places(gold, gold) == (4, [])
    assert lost.lost_places(gold, "name,period,amount\na, Q1,9\nb,Q1,2\n") == (4, [1, 3])
    assert lost.lost_places(gold, "nothing") == (4, [0, 1, 2, 3])
