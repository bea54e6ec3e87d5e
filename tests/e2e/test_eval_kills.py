"""SIGKILL at random moments of `dlm eval`, gone on with: the answers and grades of one that was never killed."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from command_line import Cli
from dlm.evaluation import ReferenceScore
from dlm.store import EvalResult, Home
from dlm.workflow.instruments import reference_scores

pytestmark = [pytest.mark.torch, pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(3600)]
DLM_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
KILLS = 50
SUITES = 6  # each a run of its own, recorded in one block: a kill comes between blocks as often as within one
DOCUMENT = f"""---
dlm_id: {DLM_ID}
base_model: pocket
evals:
{"".join(f"  tables{number}: {{task: spreadsheet, seed: {number}, n: 4}}{chr(10)}" for number in range(SUITES))}\
  graded:
    task: spreadsheet
    split: stress_heldout
    n: 2
    grader: python:rubric.py
---
"""
RUBRIC = """
def grade(sample, item):
    gold = item["reference"].split("\\n")
    return sum(row in gold for row in sample["output_text"].split("\\n")) / (len(gold) + 9)
"""


def _eval(seed: int) -> tuple[str, ...]:
    return ("eval", "tables.dlm", "--repeats", "4", "--seed", str(seed), "--trust")


def _results(cli: Cli) -> list[tuple[str, tuple[EvalResult, ...], list[ReferenceScore]]]:
    """Of every evaluation its status, its graded answers, and what it made of the references."""
    with Home.open(cli.home).store(DLM_ID) as store:
        return [
            (run.status, store.evaluations.results(run.id), reference_scores(store, run.id))
            for run in store.runs.list()
            if run.kind == "eval"
        ]


def _make(root: Path) -> Cli:
    (root / "work").mkdir(parents=True)
    cli = Cli(root / "home", root / "work")
    (cli.folder / "tables.dlm").write_text(DOCUMENT, encoding="utf-8")
    (cli.folder / "rubric.py").write_text(RUBRIC, encoding="utf-8")
    return cli


def _kill(cli: Cli, seed: int, delay_s: float) -> bool:
    """Start an evaluation and kill it; whether it was still running."""
    process = cli.start(*_eval(seed))
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=delay_s)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0), errors
    return process.returncode != 0


def test_fifty_kills_lose_no_case_and_grade_none_twice(tmp_path: Path) -> None:
    moments, killed, seed, kept = random.Random(6), 0, 0, 0
    while killed < KILLS:
        seed += 1
        doomed, whole = _make(tmp_path / f"doomed{seed}"), _make(tmp_path / f"whole{seed}")
        began = time.monotonic()
        whole.run(*_eval(seed))
        whole_s = time.monotonic() - began
        expected = _results(whole)
        assert [(status, len(results), len(given)) for status, results, given in expected] == [
            *[("complete", 16, 4)] * SUITES,
            ("complete", 8, 2),
        ]
        before = 0
        while killed < KILLS and _kill(doomed, seed, moments.uniform(1.0, whole_s)):
            killed += 1
            there = sum(len(results) + len(given) for _, results, given in _results(doomed))
            assert there >= before  # what was recorded stays
            kept += there > before
            before = there
        doomed.run(*_eval(seed))
        assert _results(doomed) == expected
    assert kept > KILLS // 5  # or hardly a kill came after something was recorded
    print(f"{killed} kills of {seed} evaluations; {kept} came after something further was recorded")
