"""From a new version to a verdict: evaluate what is missing of both sides, ask the gate, promote what passed.

Torch is loaded where a version has to answer, and not for a verdict on what is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlm.document import load
from dlm.errors import MissingRecordError
from dlm.evaluation import out_of_reach
from dlm.store import Home, Store
from dlm.workflow.gating import Asked, Gating, ask_gate, baseline_shortfalls, plan_gate, read_gate

if TYPE_CHECKING:
    from dlm.workflow.evaluating import EvalView

__all__ = ["GateOptions", "Judged", "gate", "warn_of_reach"]


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
    """A verdict, what it was about, and whether the candidate is current now."""

    gating: Gating
    asked: Asked
    current: bool


def gate(path: Path, options: GateOptions, view: EvalView) -> Judged:
    """Ask a document's gate.

    Raises:
        UsageError: no gate, no version, a condition that cannot be read.
        DlmError: as `evaluate`.
    """
    document = load(path)
    with _store(path, document.header.dlm_id) as store:
        gating = plan_gate(document, path, store, options.candidate, options.baseline)
    if options.evaluate and gating.suites:
        from dlm.workflow.evaluating import EvalOptions, evaluate  # torch: not for a verdict on what is known

        versions = (gating.baseline_name, gating.candidate.name)
        names = tuple(suite.name for suite in gating.suites)
        evaluate(path, EvalOptions(names, versions, device=options.device, allow=options.allow), view)
    with _store(path, document.header.dlm_id) as store:
        asked = ask_gate(gating, store)
        if asked.result.verdict == "pass" and options.promote:
            store.versions.promote(gating.candidate.name, f"the gate passed against {gating.baseline_name}")
        return Judged(gating, asked, store.versions.current_name() == gating.candidate.name)


def warn_of_reach(path: Path, options: GateOptions, view: EvalView) -> None:
    """Before anything is trained: read the gate, and say which of its conditions no model can meet, and which the baseline
    does not, where it was evaluated.

    Raises:
        UsageError: the gate or a suite cannot be read.
    """
    document = load(path)
    conditions, suites = read_gate(document, path)
    names = tuple(suite.name for suite in suites)
    if not names:
        return
    store = Home.open().find(document.header.dlm_id)
    if store is not None:
        with store:
            baseline, short = baseline_shortfalls(store, document, path)
        for one in short:
            budget = one.status == "UNREACHABLE"
            why = "its references do not reach that within the budget" if budget else "too little to build on"
            view.warn(
                f"the gate that follows asks {one.text!r}, and {baseline} has {one.value:.4f} ({why}): no version will pass "
                "against it; start from another base or a better version, or write conditions of your own under gate"
            )
    from dlm.workflow.evaluating import EvalOptions, ceilings, flat

    found = ceilings(path, EvalOptions(names, device=options.device, allow=options.allow), view)
    figures = {name: flat(ceiling) for name, ceiling in found.items() if ceiling is not None}
    for condition, why in out_of_reach(conditions, figures):
        view.warn(
            f"no model can meet the gate's condition {condition.text!r}: {why} (dlm eval {path} --gold)"
        )


def _store(path: Path, dlm_id: str) -> Store:
    store = Home.open().find(dlm_id)
    if store is None:
        raise MissingRecordError(
            f"{path} has not been trained yet: there is no version to judge", next_step=f"dlm train {path}"
        )
    return store
