"""What the store knows that a gate judges by: evaluations made as the gate makes them, and the held-out supervised losses.

An evaluation with other settings (sampled, several answers a case, another token budget) is a look at a version and no
evidence: whoever could choose among them could look until a gate passes. Nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dlm.document import Document
from dlm.evaluation import BEYOND_CONTEXT, SHARE, Suite, SuiteEvidence, Summary, budget_for, summarise
from dlm.store import Run, Store, Version
from dlm.workflow.evaluation_options import EvalOptions

__all__ = [
    "BASE",
    "CEILING",
    "SuiteAnswers",
    "baseline_summary",
    "ceiling_figures",
    "held_out_losses",
    "suite_answers",
]

BASE: Final = "base"
CEILING: Final = "gold_ceiling"  # the kind of the event of an evaluation run that keeps it
_SAMPLING: Final = EvalOptions().sampling  # greedy, one answer a case: what `gate_round` evaluates with
_AS_ASKED: Final = "as the gate asks: greedy, one answer a case, the suite's own token budget"


@dataclass(frozen=True)
class SuiteAnswers:
    """What candidate and baseline answered in one suite. `runs`: the evaluation runs of the two; `settings`: how both were
    made, as the runs' recipes name it, None where the two were not both evaluated so."""

    evidence: SuiteEvidence
    runs: tuple[int | None, int | None]
    settings: Mapping[str, Any] | None = None


def suite_answers(
    store: Store, document: Document, folder: Path, suite: Suite, candidate: Version, baseline: Version | None
) -> SuiteAnswers:
    """The newest pair of evaluation runs that asked both sides as the gate asks, with the same base."""
    candidates = _as_the_gate_asks(store, document, folder, suite, candidate)
    baselines = _as_the_gate_asks(store, document, folder, suite, baseline)
    for run in candidates:
        for other in baselines:
            if run.recipe == other.recipe and run.base_fingerprint == other.base_fingerprint:
                after, before = (summarise(store.evaluations.results(one.id)) for one in (run, other))
                settings = {name: run.recipe[name] for name in (*_SAMPLING, "max_new_tokens")}
                evidence = SuiteEvidence(after, before, _ceiling_of(store, run))
                return SuiteAnswers(evidence, (run.id, other.id), settings)
    against = BASE if baseline is None else baseline.name
    if candidates and baselines:
        why = f"{candidate.name} and {against} stand on different bases, which cannot be compared on {suite.name}"
    else:
        who = against if candidates else candidate.name
        why = f"{who} was not evaluated on {suite.name} {_AS_ASKED} (dlm gate without --no-eval does)"
    alone = (candidates[0].id if candidates else None, baselines[0].id if baselines else None)
    return SuiteAnswers(SuiteEvidence(why=why), alone)


def baseline_summary(
    store: Store, document: Document, folder: Path, suite: Suite, baseline: Version | None
) -> Summary | None:
    """What a baseline answered, before there is a candidate; None where it was not evaluated as the gate asks."""
    runs = _as_the_gate_asks(store, document, folder, suite, baseline)
    if baseline is None:
        runs = [run for run in runs if run.base == document.header.base_model]
    return summarise(store.evaluations.results(runs[0].id)) if runs else None


def ceiling_figures(data: Mapping[str, Any]) -> dict[str, float]:
    """What the references score by metric, from a ceiling as its event keeps it: means, counts, and these as shares."""
    shares = {f"{name}{SHARE}": count / data["cases"] for name, count in data["counts"].items()}
    beyond = data.get("beyond_context", 0)  # which runs of earlier versions of dlm did not count
    return {**shares, BEYOND_CONTEXT: beyond, **data["counts"], **data["means"]}


def held_out_losses(
    store: Store, candidate: Version, baseline: Version | None
) -> tuple[float | None, float | None]:
    """The held-out supervised loss of both, where both were measured on the same rows.

    A preference or rft run measures its start and its end; two supervised runs on the same data share their held-out rows.
    """
    measured = {
        event.data["stage"]: event.data["values"].get("sft_valid_loss")
        for event in store.runs.events(candidate.run_id, "held_out")
    }
    parent = None if baseline is None else baseline.name
    if candidate.phase != "sft" and candidate.parent == parent and measured.get("version") is not None:
        return measured["version"], measured.get("start")
    if baseline is None or candidate.phase != "sft" or baseline.phase != "sft":
        return None, None
    if candidate.data_hash != baseline.data_hash or not candidate.data_hash:
        return None, None
    if store.runs.get(candidate.run_id).seed != store.runs.get(baseline.run_id).seed:
        return None, None
    found = []
    for version in (candidate, baseline):
        series = store.metrics.read(version.run_id).get("full_valid_loss")
        found.append(float(series.values[-1]) if series is not None and len(series.values) else None)
    return found[0], found[1]


def _as_the_gate_asks(
    store: Store, document: Document, folder: Path, suite: Suite, version: Version | None
) -> list[Run]:
    """Complete evaluations of a version on the suite as it is now, with the gate's settings, newest first."""
    wanted: dict[str, Any] = {
        **suite.identity,
        **_SAMPLING,
        "grader_code": suite.grader_code(folder),
        "system_prompt": document.header.system_prompt or "",
    }
    name = None if version is None else version.name
    return [
        run
        for run in reversed(store.runs.list())
        if run.kind == "eval"
        and run.status == "complete"
        and run.parent_version == name
        and all(run.recipe.get(key) == value for key, value in wanted.items())
        and run.recipe.get("max_new_tokens") == (suite.max_new_tokens or _adequate_budget(store, run))
    ]


def _adequate_budget(store: Store, run: Run) -> int:
    """The token budget of a suite that states none, from the longest reference as the run's own tokenizer counted it."""
    ceiling = store.runs.events(run.id, CEILING)
    return budget_for(ceiling[-1].data["longest"] if ceiling else None)


def _ceiling_of(store: Store, run: Run) -> dict[str, float]:
    events = store.runs.events(run.id, CEILING)
    return ceiling_figures(events[-1].data) if events else {}
