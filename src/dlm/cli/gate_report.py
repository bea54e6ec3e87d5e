"""A gate's verdict as people and `--json` see it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlm.cli.consent import require_consent
from dlm.cli.evaluation_view import EvaluationProgress
from dlm.cli.output import Output, typed

if TYPE_CHECKING:
    from dlm.evaluation import ConditionResult
    from dlm.store import GateVerdict
    from dlm.workflow.gate_round import Judged

__all__ = ["NOT_PASSED", "gate_data", "judge_version", "look_ahead", "print_gate", "verdict_data"]

NOT_PASSED = 3  # exit code


def look_ahead(output: Output, document: Path, *, device: str, trust: bool) -> None:
    """Before a training that the gate follows: a gate that cannot be read, or not be passed, is told now.

    Raises:
        UsageError: it cannot be read.
    """
    from dlm.store import Home
    from dlm.workflow import gate_round

    def allow(argv: Sequence[str]) -> None:
        require_consent(argv, document=document, home=Home.open(), trust=trust)

    with EvaluationProgress(output) as view:
        gate_round.warn_of_reach(document, gate_round.GateOptions(device=device, allow=allow), view)


def judge_version(output: Output, document: Path, version: str, *, device: str, trust: bool) -> Judged:
    """Ask the gate about a version that was just trained, show what it says, and promote it when it passes."""
    from dlm.store import Home
    from dlm.workflow import gate_round

    options = gate_round.GateOptions(
        candidate=version,
        promote=True,
        device=device,
        allow=lambda argv: require_consent(argv, document=document, home=Home.open(), trust=trust),
    )
    with EvaluationProgress(output) as view:
        judged = gate_round.gate(document, options, view)
    print_gate(output, document, judged)
    return judged


def print_gate(output: Output, document: Path, judged: Judged) -> None:
    """The conditions as a table, and the verdict."""
    gating, result = judged.gating, judged.asked.result
    output.heading(f"{gating.candidate.name} against {gating.baseline_name}: {result.verdict.upper()}")
    told = {name: made for name, made in judged.asked.settings.items() if made is not None}
    if told:
        output.pairs({"answers": _how_made(told)})
    rows = [
        (
            one.status,
            _condition(one),
            _number(one.value),
            _number(one.needed),
            _number(one.ceiling),
            _difference(one),
        )
        for one in result.conditions
    ]
    output.table(
        ("", "condition", "value", "needed", "gold", "change, 95 %"),
        rows,
        right=("value", "needed", "gold"),
        spare=("gold", "change, 95 %"),
    )
    for one in result.conditions:
        if one.detail:
            output.line(f"  {one.metric}: {one.detail}")
    output.line()
    output.line(f"{result.reason}")
    name = gating.candidate.name
    if judged.current:
        output.line(f"{name} is current")
    elif result.verdict == "pass" and judged.with_current:
        output.line(f"next: {typed('dlm', 'promote', str(document), name)}")
    elif result.verdict == "pass":
        ask = typed("dlm", "gate", str(document), "--candidate", name)
        output.line(
            f"a pass against {gating.baseline_name}, which is not what is current, promotes nothing; {ask} compares with "
            "what is"
        )
    else:
        output.line(
            f"{name} is kept and not current; {typed('dlm', 'promote', str(document), name, '--force', '--reason', '…')} "
            "makes it current all the same"
        )


def _how_made(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """How the answers that were judged were made. A gate's are greedy, one a case; the budget is each suite's."""
    budgets = ", ".join(f"{made['max_new_tokens']} in {suite}" for suite, made in settings.items())
    return f"greedy, one a case, at most tokens: {budgets}"


def gate_data(judged: Judged) -> dict[str, Any]:
    """The verdict for `--json`."""
    gating, asked = judged.gating, judged.asked
    return {
        "candidate": gating.candidate.name,
        "baseline": gating.baseline_name,
        "verdict": asked.result.verdict,
        "reason": asked.result.reason,
        "verdict_id": asked.record.id,
        "current": judged.current,
        "conditions": [_data(one) for one in asked.record.details["conditions"]],
        "runs": {name: {"candidate": pair[0], "baseline": pair[1]} for name, pair in asked.runs.items()},
        "settings": {name: None if made is None else dict(made) for name, made in asked.settings.items()},
        "lineage": list(asked.record.details["lineage"]),
    }


def verdict_data(record: GateVerdict) -> dict[str, Any]:
    """A verdict that was recorded, for `--json`."""
    return {
        "id": record.id,
        "at": record.at,
        "baseline": record.baseline,
        "verdict": record.verdict,
        "reason": record.reason,
        "conditions": [_data(one) for one in record.details.get("conditions", ())],
    }


def _data(one: Mapping[str, Any]) -> dict[str, Any]:
    """A condition's result as it is recorded, by the names of `--json`."""
    difference = one["difference"]
    return {
        "condition": one["text"],
        **{name: one[name] for name in ("status", "metric", "value", "baseline", "needed")},
        "gold": one["ceiling"],
        "difference": None
        if difference is None
        else {name: difference[name] for name in ("value", "low", "high", "n")},
        "detail": one["detail"],
    }


def _condition(one: ConditionResult) -> str:
    """Short where several metrics stand in one: how many, and the one that decided."""
    text = one.text.partition(" if unreachable ")[0]
    if not text.startswith("best of "):
        return text
    names, relation, bound = re.split(r"\s*(>=|<=|>|<)\s*", text.removeprefix("best of "), maxsplit=1)
    return f"best of {names.count(',') + 1} {relation} {bound}: {one.metric}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _difference(one: ConditionResult) -> str:
    if one.difference is None:
        return "–"
    if one.difference.n < 2:
        return f"{one.difference.value:+.4f} (one case)"
    return f"{one.difference.value:+.4f} ({one.difference.low:+.4f} to {one.difference.high:+.4f})"
