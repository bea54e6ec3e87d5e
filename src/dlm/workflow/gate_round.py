"""From a new version to a verdict: evaluate what is missing of both sides, ask the gate, promote what passed.

Torch is loaded where a version has to answer, and not for a verdict on what is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlm.document import load
from dlm.errors import MissingRecordError
from dlm.evaluation import (
    Ceilings,
    Condition,
    ConditionResult,
    Evidence,
    SuiteEvidence,
    Summary,
    judge_baseline,
    not_askable,
    out_of_reach,
)
from dlm.store import Home, Store
from dlm.workflow.gate_evidence import BASE, baseline_summary
from dlm.workflow.gating import Asked, Gating, ask_gate, plan_gate, read_gate, require_current_baseline

if TYPE_CHECKING:
    from dlm.workflow.evaluating import EvalView

__all__ = ["Foreseen", "GateOptions", "Judged", "foresee", "gate", "warn_of_reach"]


@dataclass(frozen=True)
class GateOptions:
    """What the caller asks for. `candidate`, `baseline` None: see `plan_gate`; `evaluate`: answer what was not evaluated
    yet; `promote`: make a candidate that passed the current version; `allow`: see `EvalOptions`."""

    candidate: str | None = None
    baseline: str | None = None
    evaluate: bool = True
    promote: bool = False
    device: str = "auto"
    allow: Callable[[Sequence[str]], None] = lambda argv: None


@dataclass(frozen=True)
class Judged:
    """A verdict, what it was about, whether the candidate is current now, and whether it was compared with what is."""

    gating: Gating
    asked: Asked
    current: bool
    with_current: bool


def gate(path: Path, options: GateOptions, view: EvalView) -> Judged:
    """Ask a document's gate.

    Raises:
        UsageError: no gate, no version, a condition that cannot be read.
        GateError: a pass is to promote the candidate, and the baseline is not what is current.
        DlmError: as `evaluate`.
    """
    document = load(path)
    with _store(path, document.header.dlm_id) as store:
        gating = plan_gate(document, path, store, options.candidate, options.baseline)
        if options.promote:
            require_current_baseline(store, gating)
    if options.evaluate and gating.suites:
        from dlm.workflow.evaluating import EvalOptions, evaluate  # torch: not for a verdict on what is known

        versions = (gating.baseline_name, gating.candidate.name)
        names = tuple(suite.name for suite in gating.suites)
        evaluate(path, EvalOptions(names, versions, device=options.device, allow=options.allow), view)
    with _store(path, document.header.dlm_id) as store:
        asked, name = ask_gate(gating, store), gating.candidate.name
        # another version may have become current while these were answering
        with_current = (store.versions.current_name() or BASE) in (name, gating.baseline_name)
        if asked.result.verdict == "pass" and options.promote and with_current:
            store.versions.promote(name, f"the gate passed against {gating.baseline_name}")
        return Judged(gating, asked, store.versions.current_name() == name, with_current)


def warn_of_reach(path: Path, options: GateOptions, view: EvalView) -> None:
    """Before anything is trained: read the gate, and say which of its conditions no model can meet, and which the baseline
    does not, where it was evaluated.

    Raises:
        UsageError: the gate or a suite cannot be read.
    """
    document = load(path)
    _, suites = read_gate(document, path)
    names = tuple(suite.name for suite in suites)
    figures: dict[str, Ceilings] = {}
    if names:
        from dlm.workflow.evaluating import EvalOptions, ceilings, flat

        found = ceilings(path, EvalOptions(names, device=options.device, allow=options.allow), view)
        figures = {name: flat(ceiling) for name, ceiling in found.items() if ceiling is not None}
    known = foresee(path, figures)
    for one in known.short:
        view.warn(
            f"the gate that follows asks {one.text!r}, and {known.baseline} has {one.value:.4f} "
            f"({one.detail or 'too little to build on'}): no version will pass against it; start from another base or a "
            "better version, or write conditions of your own under gate"
        )
    for condition, why in known.missing:
        view.warn(f"the gate that follows cannot ask {condition.text!r}, so that no version will pass: {why}")
    for condition, why in known.unreachable:
        view.warn(f"no model can meet the gate's condition {condition.text!r}: {why}")


@dataclass(frozen=True)
class Foreseen:
    """What is known of a gate before there is a candidate. `baseline`: what the candidate will be compared with; `short`:
    conditions that are asked of it and that it does not meet; `unreachable`: those that no model can meet, with why;
    `missing`: those that cannot be asked, with why; `unevaluated`: suites in which something is asked of it or against it, and
    it was not evaluated as the gate asks."""

    baseline: str
    short: tuple[ConditionResult, ...]
    unreachable: tuple[tuple[Condition, str], ...]
    missing: tuple[tuple[Condition, str], ...]
    unevaluated: tuple[str, ...]


def foresee(path: Path, ceilings: Mapping[str, Ceilings]) -> Foreseen:
    """Ask a document's gate what can be known without a candidate. `ceilings`: what the references score, by suite.

    Raises:
        UsageError: the gate or a suite cannot be read.
    """
    document = load(path)
    conditions, suites = read_gate(document, path)
    name, answered = BASE, dict[str, Summary | None]()
    store = Home.open().find(document.header.dlm_id)
    if store is not None:
        with store:
            baseline = store.versions.current()
            name = BASE if baseline is None else baseline.name
            for suite in suites:
                answered[suite.name] = baseline_summary(store, document, path.parent, suite, baseline)
    known = {
        suite.name: SuiteEvidence(baseline=answered.get(suite.name), ceiling=ceilings.get(suite.name, {}))
        for suite in suites
    }
    asked = judge_baseline(conditions, Evidence(known))
    return Foreseen(
        name,
        tuple(one for one in asked if one.status != "PASS"),
        tuple(out_of_reach(conditions, known)),
        tuple(not_askable(conditions, known)),
        tuple(
            suite
            for suite, evidence in known.items()
            if evidence.baseline is None and any(suite in one.suites_of_baseline for one in conditions)
        ),
    )


def _store(path: Path, dlm_id: str) -> Store:
    store = Home.open().find(dlm_id)
    if store is None:
        raise MissingRecordError(
            f"{path} has not been trained yet: there is no version to judge", next_step=f"dlm train {path}"
        )
    return store
