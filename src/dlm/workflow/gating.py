"""A document's gate, asked: what the store knows of both sides becomes evidence, the verdict is recorded, and promotion
obeys it.

Nothing here answers a question or loads torch: evaluation comes before (`evaluating`), and a suite that was not evaluated
is missing.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from dlm.document import Document
from dlm.errors import GateError, UsageError
from dlm.evaluation import (
    PROBES,
    SHARE,
    Condition,
    ConditionResult,
    Evidence,
    GateResult,
    Suite,
    SuiteEvidence,
    default_conditions,
    judge,
    judge_baseline,
    parse_condition,
    read_suite,
    suite_names,
    summarise,
)
from dlm.grading import parse_grader
from dlm.store import GateVerdict, Run, Store, Version

__all__ = [
    "BASE",
    "Asked",
    "Gating",
    "ask_gate",
    "baseline_shortfalls",
    "ceiling_figures",
    "gate_hash",
    "plan_gate",
    "read_gate",
    "require_pass",
]

BASE: Final = "base"
CEILING: Final = "gold_ceiling"  # the kind of the event of an evaluation run that keeps it


@dataclass(frozen=True)
class Gating:
    """A gate, settled: conditions, and the suites they need."""

    document: Document
    path: Path
    candidate: Version
    baseline: Version | None
    conditions: tuple[Condition, ...]
    suites: tuple[Suite, ...]

    @property
    def baseline_name(self) -> str:
        return BASE if self.baseline is None else self.baseline.name


@dataclass(frozen=True)
class Asked:
    """What came of it: every condition, the record, the evaluation runs (suite → candidate's, baseline's)."""

    result: GateResult
    record: GateVerdict
    runs: Mapping[str, tuple[int | None, int | None]]


def gate_hash(document: Document, folder: Path) -> str:
    """64 hex digits over all that decides what a verdict means: the gate, the suites, the probes, the files they name.

    Raises:
        UsageError: a suite's grader cannot be read.
    """
    header = document.header
    gate = [] if header.gate is None else list(header.gate.conditions)
    evals = {name: suite.model_dump(mode="json") for name, suite in header.evals.items()}
    probes = [
        [question.prompt, question.answer]
        for section in document.sections
        for question in section.questions
        if question.probe
    ]
    named = [one.cases for one in header.evals.values() if one.cases]
    named += [file for one in header.evals.values() if one.grader for file in parse_grader(one.grader).files]
    files = {name: _digest(folder / name) for name in named}
    content = ["gate", gate, evals, probes, files, header.system_prompt]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest(place: Path) -> str:
    return hashlib.sha256(place.read_bytes()).hexdigest() if place.is_file() else ""


def plan_gate(
    document: Document, path: Path, store: Store, candidate: str | None, baseline: str | None
) -> Gating:
    """Settle a gate.

    Args:
        candidate: a version's name; None: the newest version that answers.
        baseline: a version's name or "base"; None: the current version; where the candidate is that one, its parent; else
            the base.

    Raises:
        UsageError: the document declares no gate, or there is nothing to ask about; a condition cannot be read.
        MissingRecordError: no such version.
    """
    chosen = _candidate(store, path, candidate)
    against = _baseline(store, chosen, baseline)
    after, before = _losses(store, chosen, against)
    conditions, suites = read_gate(document, path, validation=after is not None and before is not None)
    return Gating(document, path, chosen, against, conditions, suites)


def read_gate(
    document: Document, path: Path, *, validation: bool = False
) -> tuple[tuple[Condition, ...], tuple[Suite, ...]]:
    """A document's conditions, its own or the usual ones, and the suites they need. `validation`: the held-out supervised
    loss is known of both sides, so that the usual ones may ask for it.

    Raises:
        UsageError: the document declares no gate, or one that cannot be read; nothing to make conditions from.
    """
    if document.header.gate is None:
        raise UsageError(
            "the document declares no gate",
            where=str(path),
            next_step="write into its header, for the usual conditions:  gate: {}",
        )
    names = suite_names(document)
    stated = document.header.gate.conditions or _defaults(document, path, names, validation)
    if not stated:
        raise UsageError(
            "the gate has no conditions, and the document has no suites or probes to make them from",
            where=str(path),
            expected="gate.conditions, or evals in the header, or questions marked ### Q !probe",
        )
    conditions = tuple(parse_condition(text, names) for text in stated)
    needed = set[str]().union(*(condition.suites for condition in conditions))
    return conditions, tuple(read_suite(document, path.parent, name) for name in names if name in needed)


def ask_gate(gating: Gating, store: Store) -> Asked:
    """Judge with what the store knows, and record the verdict."""
    evidence: dict[str, SuiteEvidence] = {}
    runs: dict[str, tuple[int | None, int | None]] = {}
    for suite in gating.suites:
        evidence[suite.name], runs[suite.name] = _suite_evidence(store, gating, suite)
    losses = _losses(store, gating.candidate, gating.baseline)
    result = judge(gating.conditions, Evidence(evidence, losses))
    lineage = [version.name for version in store.versions.lineage(gating.candidate.name)]
    details = {
        "conditions": [asdict(one) for one in result.conditions],
        "runs": {name: list(pair) for name, pair in runs.items()},
        "lineage": lineage,
    }
    record = store.evaluations.record_verdict(
        GateVerdict(
            candidate=gating.candidate.name,
            baseline=gating.baseline_name,
            verdict=result.verdict,
            reason=result.reason,
            gate_hash=gate_hash(gating.document, gating.path.parent),
            details=details,
            document_sha256=gating.document.sha256,
        )
    )
    return Asked(result, record, runs)


def require_pass(store: Store, document: Document, path: Path, version: str) -> GateVerdict:
    """Return the verdict that lets a version become current.

    It must be the newest on this version under the gate as the document has it now, and against what is current now (a
    version that is current itself needs none better).

    Raises:
        GateError: there is none, or it is no pass; the way on is named.
    """
    ask = shlex.join(["dlm", "gate", str(path), "--candidate", version])
    force = shlex.join(["dlm", "promote", str(path), version, "--force", "--reason", "…"])
    found = store.evaluations.verdicts(version)
    now = gate_hash(document, path.parent)
    if not found:
        raise GateError(
            f"the document declares a gate, which {version} has not passed: it was not asked yet",
            expected="a verdict that it passed, or --force with a recorded reason",
            next_step=f"{ask}, or {force}",
        )
    newest = found[-1]
    current = store.versions.current_name()
    if newest.gate_hash != now:
        raise GateError(
            f"the gate or its suites changed since {version} was judged",
            found=f"{newest.verdict} on {newest.at[:10]}",
            next_step=ask,
        )
    if newest.verdict != "pass":
        raise GateError(
            f"{version} has not passed the document's gate: {newest.reason}",
            found=f"{newest.verdict} against {newest.baseline} on {newest.at[:10]}",
            next_step=f"{ask} shows why; {force} makes it current all the same",
        )
    if current not in (None, version, newest.baseline):
        raise GateError(
            f"{version} was compared with {newest.baseline}, and {current} is current now",
            next_step=f"{ask} --baseline {current}",
        )
    return newest


def _candidate(store: Store, path: Path, name: str | None) -> Version:
    if name is None:
        found = [version for version in store.versions.list() if version.answers]
        if not found:
            raise UsageError(
                "there is no version to judge: the document has not been trained",
                next_step=shlex.join(["dlm", "train", str(path)]),
            )
        return store.versions.verify(found[-1])
    chosen = store.versions.verify(store.versions.get(name))
    if not chosen.answers:
        raise UsageError(f"{name} is a reward model: it scores answers and gives none, so no gate is for it")
    return chosen


def _baseline(store: Store, candidate: Version, name: str | None) -> Version | None:
    if name == BASE:
        return None
    if name is not None:
        found = store.versions.verify(store.versions.get(name))
        if not found.answers:
            raise UsageError(f"{name} is a reward model: nothing can be compared with it")
    else:
        current = store.versions.current()
        if current is not None and current.name == candidate.name:
            current = store.versions.get(candidate.parent) if candidate.parent else None
        if current is None:
            return None
        found = current
    if found.name == candidate.name:
        raise UsageError(
            f"{found.name} cannot be compared with itself", expected="another --baseline, or base"
        )
    return found


def _defaults(document: Document, path: Path, names: Sequence[str], validation: bool) -> list[str]:
    suites = [read_suite(document, path.parent, name) for name in names]
    tables = [
        suite for suite in suites if suite.grader.text.startswith("spreadsheet:") and suite.name != PROBES
    ]
    regular = next((suite for suite in tables if not suite.stress), None)
    stress = next((suite for suite in tables if suite.stress), None)
    used = {suite.name for suite in (regular, stress) if suite is not None and regular is not None}
    return default_conditions(
        regular.name if regular else None,
        stress.name if stress else None,
        [suite.name for suite in suites if suite.name not in used],
        counts_surplus=regular is not None and regular.grader.text == "spreadsheet:strict",
        validation=validation,
    )


def _suite_evidence(
    store: Store, gating: Gating, suite: Suite
) -> tuple[SuiteEvidence, tuple[int | None, int | None]]:
    """The newest pair of evaluation runs that asked both sides the same in the same way."""
    document, folder = gating.document, gating.path.parent
    candidates = _complete(store, document, folder, suite, gating.candidate)
    baselines = _complete(store, document, folder, suite, gating.baseline)
    for run in candidates:
        for other in baselines:
            if run.recipe == other.recipe and run.base_fingerprint == other.base_fingerprint:
                after, before = (summarise(store.evaluations.results(one.id)) for one in (run, other))
                return SuiteEvidence(after, before, _ceiling_of(store, run)), (run.id, other.id)
    who = gating.candidate.name if not candidates else gating.baseline_name
    why = f"{who} was not evaluated on {suite.name}"
    if candidates and baselines:
        why = f"{gating.candidate.name} and {gating.baseline_name} were evaluated on {suite.name} in different ways"
    alone = (candidates[0].id if candidates else None, baselines[0].id if baselines else None)
    return SuiteEvidence(why=why), alone


def baseline_shortfalls(store: Store, document: Document, path: Path) -> tuple[str, list[ConditionResult]]:
    """Before a training that the gate follows: the baseline it will be compared with, by name, and what the gate asks of
    that one and it is known not to hold. What was not evaluated yet is left to the gate.

    Raises:
        UsageError: the gate or a suite cannot be read.
    """
    conditions, suites = read_gate(document, path)
    baseline = store.versions.current()
    found: dict[str, SuiteEvidence] = {}
    for suite in suites:
        runs = _complete(store, document, path.parent, suite, baseline)
        if runs:
            summary = summarise(store.evaluations.results(runs[0].id))
            found[suite.name] = SuiteEvidence(baseline=summary, ceiling=_ceiling_of(store, runs[0]))
    name = BASE if baseline is None else baseline.name
    asked = judge_baseline(conditions, Evidence(found))
    return name, [result for result in asked if result.status != "PASS"]


def ceiling_figures(data: Mapping[str, Any]) -> dict[str, float]:
    """What the references score by metric, from a ceiling as its event keeps it: means, counts, and these as shares."""
    shares = {f"{name}{SHARE}": count / data["cases"] for name, count in data["counts"].items()}
    return {**shares, **data["counts"], **data["means"]}


def _ceiling_of(store: Store, run: Run) -> dict[str, float]:
    events = store.runs.events(run.id, CEILING)
    return ceiling_figures(events[-1].data) if events else {}


def _complete(
    store: Store, document: Document, folder: Path, suite: Suite, version: Version | None
) -> list[Run]:
    """Complete evaluations of a version on the suite as it is now, newest first."""
    wanted: dict[str, Any] = {
        **suite.identity,
        "grader_code": suite.grader_code(folder),
        "system_prompt": document.header.system_prompt or "",
    }
    if suite.max_new_tokens is not None:
        wanted["max_new_tokens"] = suite.max_new_tokens
    name = None if version is None else version.name
    return [
        run
        for run in reversed(store.runs.list())
        if run.kind == "eval"
        and run.status == "complete"
        and run.parent_version == name
        and all(run.recipe.get(key) == value for key, value in wanted.items())
    ]


def _losses(store: Store, candidate: Version, baseline: Version | None) -> tuple[float | None, float | None]:
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
