"""What a training leaves behind, told: the summary at the end, and the same as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlm.cli.output import Output, duration, plural, typed
from dlm.cli.recommending import StoredRun, candidate_line
from dlm.cli.reward_report import change, held_out_questions, items_of_rewards, reward_data

if TYPE_CHECKING:
    from dlm.store import Version
    from dlm.workflow.views import RunReport

__all__ = ["print_report", "report_data"]

NOT_OF_THE_LOSS = ("learning_rate", "num_epochs", "min_margin", "include_mined")  # of the knobs of a phase
LAST_TENTH = 0.1  # of the steps: what a report's `smoothed_loss` is the mean of


def print_report(output: Output, document: Path, dlm_id: str, runs: Sequence[RunReport]) -> None:
    """The summary of each run, and what to type next."""
    for run in runs:
        output.heading(_heading(run))
        output.pairs(_items(document, dlm_id, run))
        for pair in run.probes:
            output.line()
            before = "base" if run.phase == "sft" else run.parent or "base"
            output.pairs(
                {"probe": pair.after.prompt, before: pair.before.answer, run.version: pair.after.answer}
            )
        output.line()
    last = runs[-1]
    if last.phase == "reward":
        command = typed("dlm", "export", str(document), "--version", last.version, "--to", "DIR")
        output.line(f"next: {command}")
    else:
        version = () if last.promoted else ("--version", last.version)
        output.line(f'next: {typed("dlm", "prompt", str(document), *version)} "…"')
    output.line(f"      {typed('dlm', 'metrics', str(document), '--run-id', str(last.run_id))}")


def _heading(run: RunReport) -> str:
    if run.phase == "reward":
        state = "is a reward model: it scores answers and is never current"
    else:
        state = "is current" if run.promoted else "is kept, not promoted"
    phase = "" if run.phase == "sft" else f" ({run.phase}, {run.method})"
    return f"{run.version} {state}: run {run.run_id}{phase}, {plural(run.steps, 'step')} in {duration(run.elapsed_s)}"


def _items(document: Path, dlm_id: str, run: RunReport) -> dict[str, str]:
    last = run.last
    if run.phase == "rft":
        items = items_of_rewards(run)
    else:
        items = {"training loss": f"{run.smoothed_loss:.4f} (mean of the last tenth of the steps)"}
    if run.phase == "sft":
        if "train_mean_token_accuracy" in last:
            items["token accuracy"] = (
                f"{last['train_mean_token_accuracy']:.1%} of the last step's tokens to learn"
            )
        if "full_valid_loss" in last:
            items["validation loss"] = f"{last['full_valid_loss']:.4f}"
    elif run.phase != "rft":
        items |= _items_of_pairs(run)
    if run.skipped:
        noun = {"sft": "row", "rft": "prompt"}.get(run.phase, "pair")
        items["left out"] = plural(run.skipped, noun) + (" that did not fit" if run.phase == "sft" else "")
    if run.probes:
        items["probes"] = _probes(run)
    items |= _items_of_curves(document, run)
    previous = _previous(dlm_id, run)
    if previous is not None:
        items["before it was"] = f"{previous}: {typed('dlm', 'rollback', str(document))}"
    return items


def _items_of_curves(document: Path, run: RunReport) -> dict[str, str]:
    """The verdict of the rules, and the checkpoint to keep where it is not the version itself."""
    items = {"curves": run.diagnosis.verdict.text}
    if run.diagnosis.findings:
        items["curves"] += (
            f"\n{typed('dlm', 'diagnose', str(document), '--run-id', str(run.run_id))} says why"
        )
    best = run.selection.best
    wrong = run.diagnosis.verdict.level in ("warn", "severe")
    if run.phase != "reward" and best is not None and best.step != run.steps and (best.saved_step or wrong):
        stored = StoredRun(document, run.run_id, run.version, {run.steps: run.version})
        items["better kept"] = candidate_line(run.curves, best, stored)
    return items


def _items_of_pairs(run: RunReport) -> dict[str, str]:
    """What held-out pairs and rows say of a preference or reward run; before → after where both were measured."""
    before, after = run.before, run.after
    items = {}
    if run.accuracy is None:
        items["ranked right"] = "not measured: no pairs are held out (from 20 pairs on some are)"
    else:
        right = run.accuracy.right
        ties = f", {run.accuracy.ties:.1%} ties counted half" if run.accuracy.ties else ", no ties"
        items["ranked right"] = (
            f"{right.value:.3f} [{right.low:.3f}, {right.high:.3f}] of {plural(right.n, 'held-out pair')}{ties}; "
            + ("an untrained reference scores 0.5" if run.method == "dpo" else "guessing scores 0.5")
        )
        items["margin"] = (
            f"{after['full_valid_rewards/margins']:.4f} (mean reward of the chosen over the rejected)"
        )
    accuracy = "full_valid_mean_token_accuracy"
    if accuracy in after:
        items["token accuracy"] = (
            change(before.get(accuracy), after[accuracy], "{:.1%}") + " of chosen answers"
        )
    return items | held_out_questions(run)


def _probes(run: RunReport) -> str:
    exact = sum(pair.after.exact for pair in run.probes)
    before = sum(pair.before.exact for pair in run.probes)
    start = "the base" if run.phase == "sft" else "before"
    text = f"{exact} of {len(run.probes)} answered exactly ({start}: {before})"
    if run.phase == "sft":
        return text
    lengths = [
        sum(len(answer.answer) for answer in answers) / len(run.probes)
        for answers in ([pair.before for pair in run.probes], [pair.after for pair in run.probes])
    ]
    return f"{text}; mean answer {lengths[0]:.0f} → {lengths[1]:.0f} characters"


def _previous(dlm_id: str, run: RunReport) -> str | None:
    """The version that was current before this one; of a version of the same phase and loss with its training loss at
    the end, measured as `smoothed_loss` is.

    None where there was none, or its files are gone and nobody can go back.
    """
    from dlm.store import Home

    store = Home.open().find(dlm_id)
    if store is None:
        return None
    with store:
        moves = [move for move in store.versions.promotions() if move.version == run.version]
        name = moves[-1].previous if moves else None
        previous = store.versions.get(name) if name else None
        if previous is None or previous.removed_at:
            return None
        if _loss_of(previous) != _loss_of(store.versions.get(run.version)):
            return previous.name
        if previous.phase == "rft":
            return previous.name
        losses = store.metrics.read(previous.run_id, ["train_loss"]).get("train_loss")
        loss = losses.tail_mean(LAST_TENTH) if losses is not None else math.nan
        return f"{previous.name} (loss {loss:.4f})"


def _loss_of(version: Version) -> tuple[str, dict[str, Any], str | None]:
    """What a version's training loss measures: only losses of which all of it is the same can be compared.

    DPO's is measured against the version that the run started from, unless its reference is the base.
    """
    knobs = version.recipe.get(version.phase, {})
    moving = knobs.get("method") == "dpo" and knobs.get("reference") == "pre_adapter"
    of_the_loss = {name: value for name, value in knobs.items() if name not in NOT_OF_THE_LOSS}
    return version.phase, of_the_loss, version.parent if moving else None


def report_data(document: Path, runs: Sequence[RunReport]) -> dict[str, Any]:
    """The runs as `dlm/train/2` holds them."""
    return {
        "document": str(document),
        "dry_run": False,
        "runs": [_run_data(run) for run in runs],
        "preview": [],
    }


def _run_data(run: RunReport) -> dict[str, Any]:
    from dlm.workflow.run_curves import verdict_data

    accuracy = run.accuracy
    return {
        "phase": run.phase,
        "method": run.method,
        "run_id": run.run_id,
        "version": run.version,
        "parent": run.parent,
        "promoted": run.promoted,
        "steps": run.steps,
        "elapsed_s": run.elapsed_s,
        "smoothed_loss": run.smoothed_loss,
        "last": dict(run.last),
        "before": dict(run.before),
        "after": dict(run.after),
        "preference_accuracy": None
        if accuracy is None
        else {**asdict(accuracy.right), "ties": accuracy.ties},
        "reward": reward_data(run),
        "probes": [{"before": asdict(pair.before), "after": asdict(pair.after)} for pair in run.probes],
        "skipped": run.skipped,
        "verdict": verdict_data(run.diagnosis, run.selection),
    }
