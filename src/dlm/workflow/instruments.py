"""What a document's evaluations say about where its failures are decided. No torch: it reads what was recorded."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dlm.document import Document
from dlm.errors import UsageError
from dlm.evaluation import (
    ReferenceScore,
    Suite,
    TeacherForced,
    read_suite,
    suite_names,
    summarise,
    summarise_references,
)
from dlm.evaluation.instrument import Advice, SuiteSigns, advise
from dlm.grading.spreadsheet_strict import dropped_places
from dlm.store import EvalResult, Run, Store
from dlm.workflow.gate_evidence import BASE, CEILING

__all__ = ["REFERENCES", "advise_on_evaluations", "reference_scores", "teacher_forced"]

REFERENCES: Final = (
    "references_given"  # the kind of the events of an evaluation run that keep what it made of them
)


def advise_on_evaluations(
    store: Store, document: Document, path: Path, version: str | None, suites: Sequence[str] = ()
) -> list[Advice]:
    """Advice on every failing dimension of a version's evaluations: of each suite the one with the most answers a case, the
    newest of these. `version` None: the base.

    Raises:
        UsageError: a suite that cannot be read, or none was evaluated.
    """
    found: list[Advice] = []
    evaluated = False
    for name in suites or suite_names(document):
        suite = read_suite(document, path.parent, name)
        runs = [run for run in store.runs.list() if _is_of(run, suite, version)]
        if runs:
            evaluated = True
            run = max(runs, key=lambda run: (int(run.recipe["repeats"]), run.id))
            found += advise(_signs(store, suite, run), str(path))
    if not evaluated:
        raise UsageError(
            f"{version or BASE} has not been evaluated on the document's suites as they are now",
            next_step=shlex.join(["dlm", "eval", str(path), "--version", version or BASE, "--repeats", "8"]),
        )
    return found


def reference_scores(store: Store, run_id: int) -> list[ReferenceScore]:
    """What an evaluation run made of its references when they were given, by case; empty for a run that did not look."""
    found: dict[int, ReferenceScore] = {}
    for event in store.runs.events(run_id, REFERENCES):
        for values in event.data["references"]:
            score = ReferenceScore(*values)
            found.setdefault(score.case_index, score)
    return [found[index] for index in sorted(found)]


def teacher_forced(store: Store, run_id: int) -> TeacherForced | None:
    """The figures of `reference_scores`; None where there are none."""
    return summarise_references(reference_scores(store, run_id))


def _is_of(run: Run, suite: Suite, version: str | None) -> bool:
    same = all(run.recipe.get(key) == value for key, value in suite.identity.items())
    return run.kind == "eval" and run.status == "complete" and run.parent_version == version and same


def _signs(store: Store, suite: Suite, run: Run) -> SuiteSigns:
    results = store.evaluations.results(run.id)
    events = store.runs.events(run.id, CEILING)
    gold: Mapping[str, Any] = events[-1].data if events else {"means": {}, "cases": 1, "reachable": 1}
    return SuiteSigns(
        suite=suite.name,
        summary=summarise(results),
        results=results,
        ceiling=gold["means"],
        gold_truncated=(gold["cases"] - gold["reachable"]) / gold["cases"],
        gold_beyond_context=gold.get("beyond_context", 0) / gold["cases"],
        references=teacher_forced(store, run.id),
        positions=_positions(suite, results) if suite.grader.text.startswith("spreadsheet:") else (),
    )


def _positions(suite: Suite, results: Sequence[EvalResult]) -> list[float]:
    """Where rows are missing, in answers that were neither cut nor unreadable."""
    cases = {case.key: case for case in suite.cases}
    return [
        place
        for result in results
        if result.error is None and "truncated" not in result.flags
        for place in dropped_places(cases[result.case_key].item(result.output, truncated=False))
    ]
