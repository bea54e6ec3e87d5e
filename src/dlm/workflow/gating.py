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
    VALIDATION,
    Condition,
    Evidence,
    GateResult,
    Suite,
    default_conditions,
    judge,
    parse_condition,
    read_suite,
    suite_names,
)
from dlm.grading import parse_grader
from dlm.store import GateVerdict, Store, Version
from dlm.workflow.gate_evidence import BASE, held_out_losses, suite_answers

__all__ = [
    "BASE",
    "Asked",
    "Gating",
    "ask_gate",
    "gate_hash",
    "plan_gate",
    "read_gate",
    "require_current_baseline",
    "require_pass",
]

# Raised whenever a condition comes to mean something else: a pass under older rules lets nothing through.
# 2: one greedy answer a case, within each suite's own budget; 3: what is there to be trained on proves nothing; 4: intervals of
# few cases are wider; 5: what improves has risen in six
_RULES: Final = 5


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
    """What came of it: every condition, the record, the evaluation runs (suite → candidate's, baseline's), and how their
    answers were made (by suite; None where the two were not both evaluated so)."""

    result: GateResult
    record: GateVerdict
    runs: Mapping[str, tuple[int | None, int | None]]
    settings: Mapping[str, Mapping[str, Any] | None]


def gate_hash(document: Document, folder: Path) -> str:
    """64 hex digits over all that decides what a verdict means: our rules, the gate, the suites, the probes, the files they name.

    Raises:
        UsageError: a suite's grader cannot be read.
    """
    header = document.header
    gate = [] if header.gate is None else list(header.gate.conditions)
    # in the header's order: the usual conditions ask the first suite of tables
    evals = [[name, suite.model_dump(mode="json", exclude_none=True)] for name, suite in header.evals.items()]
    probes = [
        [question.prompt, question.answer]
        for section in document.sections
        for question in section.questions
        if question.probe
    ]
    named = [one.cases for one in header.evals.values() if one.cases]
    named += [file for one in header.evals.values() if one.grader for file in parse_grader(one.grader).files]
    files = {name: _digest(folder / name) for name in named}
    content = ["gate", _RULES, gate, evals, probes, files, header.system_prompt]
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
    after, before = held_out_losses(store, chosen, against)
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
    if VALIDATION in names:
        read_suite(document, path.parent, VALIDATION)  # refused: in conditions that is the held-out loss
    stated = document.header.gate.conditions or _defaults(document, path, names, validation)
    if not stated:
        raise UsageError(
            "the gate has no conditions, and the document has no suites or probes to make them from",
            where=str(path),
            expected="gate.conditions, or evals in the header, or questions marked ### Q !probe",
        )
    try:
        conditions = tuple(parse_condition(text, names) for text in stated)
    except UsageError as error:
        at = shlex.join(["dlm", "check", str(path)])
        error.next_step = f"mend gate.conditions in the header; {at} names the line"
        raise
    needed = set[str]().union(*(condition.suites for condition in conditions))
    return conditions, tuple(read_suite(document, path.parent, name) for name in names if name in needed)


def ask_gate(gating: Gating, store: Store) -> Asked:
    """Judge with what the store knows, and record the verdict."""
    document, folder = gating.document, gating.path.parent
    found = {
        suite.name: suite_answers(store, document, folder, suite, gating.candidate, gating.baseline)
        for suite in gating.suites
    }
    losses = held_out_losses(store, gating.candidate, gating.baseline)
    evidence = Evidence({name: answers.evidence for name, answers in found.items()}, losses)
    result = judge(gating.conditions, evidence)
    runs = {name: answers.runs for name, answers in found.items()}
    settings = {name: answers.settings for name, answers in found.items()}
    lineage = [version.name for version in store.versions.lineage(gating.candidate.name)]
    details = {
        "conditions": [asdict(one) for one in result.conditions],
        "runs": {name: list(pair) for name, pair in runs.items()},
        "settings": settings,
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
    return Asked(result, record, runs, settings)


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
    if newest.gate_hash != now:
        raise GateError(
            f"the gate, its suites or the rules of judging changed since {version} was judged",
            found=f"{newest.verdict} on {newest.at[:10]}",
            next_step=ask,
        )
    if newest.verdict != "pass":
        raise GateError(
            f"{version} has not passed the document's gate: {newest.reason}",
            found=f"{newest.verdict} against {newest.baseline} on {newest.at[:10]}",
            next_step=f"{ask} shows why; {force} makes it current all the same",
        )
    current = store.versions.current_name() or BASE
    if current not in (version, newest.baseline):
        raise GateError(
            f"{version} was compared with {newest.baseline}, and {current} is current now",
            next_step=f"{ask} --baseline {current}",
        )
    return newest


def require_current_baseline(store: Store, gating: Gating) -> None:
    """See that a pass of this gate may promote: that it compares with what is current, which is the base where nothing is.

    Raises:
        GateError: it compares with something else; one that is easier to beat must not open the gate.
    """
    current, candidate = store.versions.current_name() or BASE, gating.candidate.name
    if current not in (candidate, gating.baseline_name):
        raise GateError(
            f"a pass against {gating.baseline_name} makes nothing current: {current} is current now",
            expected=f"--baseline {current}, or the gate without --promote",
            next_step=shlex.join(["dlm", "gate", str(gating.path), "--candidate", candidate, "--promote"]),
        )


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
    every = [read_suite(document, path.parent, name) for name in names]
    suites = [suite for suite in every if not suite.practice]  # what was trained on proves nothing
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
