"""The study's data and document: what it trains on is never what it is proven on."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlm.document import load
from dlm.evaluation import read_suite, suite_names
from dlm.tasks import spreadsheet
from dlm.workflow.gating import read_gate

FOLDER = Path(__file__).parents[2] / "examples" / "spreadsheet"


@pytest.fixture(autouse=True)
def _beside_each_other(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its modules import each other as those of a script do; under these names nobody else shall find them."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("data", "lost", "measures", "report"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in ("data", "lost", "measures", "report"):
        sys.modules.pop(name, None)


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"study_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _study(arms: dict[str, list[float]], *, longer: bool = False, **others: dict[str, float]) -> Any:
    """The study's answers by sentence (those on tables of 54 rows where `longer`) where an arm's seeds keep these shares of rows, the base .98; `others` are of arms: gains of
    further measures.
    """
    measures = _module("measures")

    def cell(kept: float, gains: dict[str, float]) -> dict[str, Any]:
        def cases(name: str, value: float) -> list[float]:
            return [value + gains.get(name, 0.0) + 0.001 * (case % 3) for case in range(12)]

        graded = {
            grader: {
                "cases": {
                    name: cases(
                        name, kept if name == "data_preservation" and grader == measures.STRICT else 0.2
                    )
                    for name in ("data_preservation", "unit_consistency", "row_precision", "score")
                },
                "flags": {},
            }
            for grader in (measures.STRICT, measures.PUBLISHED)
        }
        suites = dict.fromkeys(("tables", "stress", "stress-starving"), graded)
        curves = {"rewards/accuracies": [[1, 2], [0.5, 1.0]], "val_pref_acc": [[1, 2], [0.9, 1.0]]}
        training = {"cpu_seconds": 60.0, "resumed": False, "run": {"elapsed_s": 4000.0}, "curves": curves}
        ceiling = {"means": {"data_preservation": 0.3}}
        return {
            "answers": {sampling: {"suites": suites} for sampling in ("greedy", "sampled")},
            "trainings": [training],
            "gold": {"ceilings": {"stress-starving-published": ceiling}},
        }

    cells = {
        arm: {seed: cell(kept, others.get(arm.replace("-", "_"), {})) for seed, kept in enumerate(seeds, 1)}
        for arm, seeds in arms.items()
    }
    study = measures.Study(cell(0.98, {}), cells)
    found = measures.answers_longer(study) if longer else measures.answers(study)
    return {answer.sentence: answer.word for answer in found}


WORKS, SAME, WORSE = [0.995] * 3, [0.98] * 3, [0.97] * 3


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


def test_what_counts_as_yes() -> None:
    rft, long, sft, dpo, concluded, budget, textbook, blind = _study({})
    assert set(_study({}).values()) == {"not run"}
    found = _study({"rft": WORKS, "sft-stress": WORSE, "dpo": WORSE, "rft-long": SAME})
    assert (found[rft], found[sft], found[dpo], found[concluded]) == ("yes", "no", "no", "yes")
    assert (found[long], found[textbook], found[budget], found[blind]) == ("no", "yes", "not run", "not run")
    assert _study({"rft": [0.995, 0.995, 0.98]})[rft] == "yes"  # on the mean, and surely in two seeds
    assert _study({"rft": [0.999, 0.98, 0.98]})[rft] == "no"  # in one
    assert _study({"rft": WORKS}, rft={"row_precision": -0.01})[rft] == "no"  # at the price of surplus rows
    found = _study({"rft": WORKS, "sft-stress": WORKS, "dpo": WORSE})
    assert found[concluded] == "no"
    found = _study({"rft": SAME, "sft-stress": SAME, "dpo": WORSE, "rft-long": WORKS})
    assert (found[long], found[concluded]) == ("yes", "could not be told")  # its compute is not matched


def test_sentences_that_wait_or_cannot_tell() -> None:
    *_, budget, _, blind = _study({})
    whole = {arm: SAME[:count] for arm, count in _module("measures").PLANNED.items()}
    assert _study(whole)[budget] == "yes"
    assert _study(whole, dpo={"data_preservation": 0.2})[budget] == "no"  # above what the references reach
    assert _study(whole)[blind] == "could not be told"  # it did not raise even what it was rewarded for
    assert _study(whole, rft_published={"score": 0.1})[blind] == "no"
    assert _study(whole, rft_published={"score": 0.1, "row_precision": -0.1})[blind] == "yes"


def test_tables_of_54_rows() -> None:
    study = _module("study")
    assert set(study.AT_54_ROWS.cells) == {
        "base",
        *(f"{arm}-{seed}" for arm in _module("measures").LONGER for seed in (1, 2, 3)),
        *(f"sft-mixed-{seed}" for seed in (1, 2)),  # beside the comparison
    }
    document = load(FOLDER / "longer.dlm")
    trained = {case.prompt for case in spreadsheet.of_split("stress_train", rows=54)}
    for name in suite_names(document):
        suite = read_suite(document, FOLDER, name)
        cases = study.AT_54_ROWS.cases(name.removesuffix("-published"))
        assert [case.prompt for case in suite.cases] == [case.prompt for case in cases], name
        assert not trained & {case.prompt for case in cases}
        assert {len(case.rows) for case in cases} == {54} or not suite.stress
    found = _study({"rft": WORKS, "sft-stress": WORSE, "dpo": WORSE}, longer=True)
    assert list(found.values()) == ["yes", "yes", "no", "no", "no", "no", "yes", "yes"]
    found = _study({"rft": WORKS}, longer=True, rft={"row_precision": -0.01})
    assert list(found.values())[:3] == ["no", "yes", "not run"]  # the price is asked beside what counts


def test_a_resumed_run_is_taken_at_its_time_by_the_clock() -> None:
    training = {"cpu_seconds": 60.0, "run": {"elapsed_s": 4000.0}}
    measures = _module("measures")
    assert measures.training_seconds({"trainings": [{**training, "resumed": False}]}) == 60
    assert measures.training_seconds({"trainings": [{**training, "resumed": True}]}) == 4000
