"""Pairs that a run may use: found out before anything trains, without those that were reverted, from scores, too."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlm import review
from dlm.document import load, render_preference
from dlm.errors import DlmError, InterruptedRunError, NonFiniteError, UsageError
from dlm.store import Home, Store
from dlm.training import pairs_hash, pairs_of_document
from dlm.workflow.train import RunReport, TrainOptions, dry_run, train
from mined_pairs import TEXTS, mine

pytestmark = pytest.mark.torch

Make = Callable[..., Path]
DLM_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
ROWS = "".join(f"### Q\nWhat is number {i}?\n### A\nIt is {i * 7}.\n" for i in range(6))
KNOBS: dict[str, Any] = {"max_steps": 1, "layout": "plain"}
PAIRS = [(f"What is {i}?", f"{i}.", f"It might be {i}.") for i in range(3)]


def options(phase: Any = "all", files: dict[str, Any] | None = None, **knobs: Any) -> TrainOptions:
    return TrainOptions(phase=phase, knobs={**KNOBS, **knobs}, device="cpu", **(files or {}))


def go(document: Path, view: Any, phase: Any = "all", **more: Any) -> list[RunReport]:
    return list(train(document, options(phase, **more), view).runs)


def opened() -> Store:
    found = Home.open().find(DLM_ID)
    assert found is not None
    return found


def body(*pairs: tuple[str, str, str]) -> str:
    return f"::instruction::\n{ROWS}\n{render_preference(pairs) if pairs else ''}"


# --- known before the first phase trains ---------------------------------------------------------------------------

UNUSABLE = {
    "equal": [("p", "the same", "the same")],
    "contradiction": [("p", "one", "other"), ("p", "other", "one")],
    "too long": [("p", "one", "far " * 400)],  # which only the base's tokenizer knows
}


@pytest.mark.parametrize("why", UNUSABLE)
def test_pairs_that_cannot_be_used_are_refused_before_sft_trains(
    make_document: Make, view: Any, why: str
) -> None:
    document = make_document(body=body(*UNUSABLE[why]))
    with pytest.raises(DlmError) as alone:
        go(document, view, "preference")
    with pytest.raises(DlmError) as both:
        go(document, view)
    assert (type(both.value), both.value.message) == (type(alone.value), alone.value.message)
    assert both.value.next_step == f"{alone.value.next_step}; or --phase sft, which trains without pairs"
    with opened() as store:
        assert (store.runs.list(), store.versions.list()) == ((), ())
    assert [run.phase for run in go(document, view, "sft")] == ["sft"]


def test_flags_that_leave_no_pair_are_refused_before_sft_trains(
    make_document: Make, view: Any, tmp_path: Path
) -> None:
    document, file = make_document(), tmp_path / "pairs.jsonl"
    line = {"prompt": "p", "chosen": "c", "rejected": "r", "chosen_score": 0.5, "rejected_score": 0.4}
    file.write_text(json.dumps(line) + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match="all 1 pairs are left out as asked for") as fault:
        go(document, view, files={"pairs_files": [file]}, **{"preference.min_margin": 0.2})
    assert fault.value.found == "1 below the margin"
    with opened() as store:
        assert store.runs.list() == ()


@pytest.mark.parametrize("fault", [NonFiniteError("no numbers"), RuntimeError("no memory")])
def test_a_later_phase_that_fails_says_what_the_first_one_left(
    make_document: Make, view: Any, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fail(*args: Any, **more: Any) -> Any:
        raise fault

    document = make_document(body=body(*PAIRS))
    monkeypatch.setattr("dlm.training.preference.compute_reference", fail)
    with pytest.raises(type(fault)):
        go(document, view)
    kept = "the sft phase before it is done: v0001 is kept and current"
    if isinstance(fault, NonFiniteError):
        assert fault.message == f"no numbers\n{kept}"
    else:
        assert kept in view.notes
    with opened() as store:
        assert [run.status for run in store.runs.list()] == ["complete"]
        assert store.versions.current_name() == "v0001"
    fault, view.notes[:] = NonFiniteError("refused"), []
    with pytest.raises(NonFiniteError) as alone:
        go(document, view, "preference")
    assert alone.value.message == "refused"  # no phase came before it


def stop_at_once(document: Path, view: Any, asked: TrainOptions) -> None:
    """Train until the first step, then press Ctrl-C."""

    def step(number: int, *_: Any) -> None:
        view.steps.append(number)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view, "step", step)
        with pytest.raises(InterruptedRunError):
            train(document, asked, view)


def test_a_resumed_run_is_refused_and_told_of_alike(
    make_document: Make, view: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **more: Any) -> Any:
        raise NonFiniteError("refused", next_step="mend")

    document, resumed = make_document(body=body(*PAIRS)), TrainOptions(resume=True, device="cpu")
    two_steps = TrainOptions(knobs={**KNOBS, "max_steps": 2}, device="cpu")
    stop_at_once(document, view, two_steps)
    with monkeypatch.context() as patch:
        patch.setattr("dlm.workflow.loading.refuse_without_pairs", refuse)
        with pytest.raises(NonFiniteError) as early:
            train(document, resumed, view)
        assert early.value.next_step == "mend; or --resume --phase sft, which trains without pairs"
        train(document, replace(resumed, phase="sft"), view)
    stop_at_once(document, view, replace(two_steps, phase="preference"))
    monkeypatch.setattr("dlm.workflow.loading.prepare_preference", refuse)
    with pytest.raises(NonFiniteError) as late:
        train(document, resumed, view)
    assert late.value.message == "refused\nthe sft phase before it is done: v0001 is kept and current"


# --- a dry run computes no reference -------------------------------------------------------------------------------


def test_a_dry_run_takes_no_reference(
    make_document: Make, view: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts pairs and shows the first ones; log-probs of all of them are the work of a run."""

    def refuse(*args: Any, **more: Any) -> Any:
        raise AssertionError("a dry run has no use for a reference")

    document = make_document(body=body(*PAIRS))
    for room in ("sft", "preference"):
        monkeypatch.setattr(f"dlm.training.{room}.compute_reference", refuse)
    sft, preference = dry_run(document, options(), view)
    assert sft.briefing.preflight.rows["pairs"] == preference.briefing.preflight.rows["train"] == 3
    assert sft.briefing.preflight.reference is preference.briefing.preflight.reference is None
    assert preference.briefing.preflight.tokens["whole"].total > 0
    assert len(preference.rows) == 3


# --- reverted ------------------------------------------------------------------------------------------------------


def test_reverted_pairs_that_came_back_are_not_trained_on(make_document: Make, view: Any) -> None:
    """An old copy of the document is restored after its pairs were reverted; one pair was copied out by hand."""
    document = make_document(body=body())
    with Home.open().store(DLM_ID) as store:
        first, second, _ = mine(store, document)
        review.apply(store, document)
        old = document.read_text(encoding="utf-8")
        review.revert(store, document, [first.id, second.id])
        review.reject(store, [second.id])
    document.write_text(old + "\n" + render_preference([TEXTS[1]]), encoding="utf-8")
    (preview,) = dry_run(document, options("preference"), view)
    assert preview.briefing.preflight.left_out == {"reverted": 2}
    (report,) = go(document, view, "preference")
    assert view.briefings[0].preflight.left_out == {"reverted": 2}
    assert view.briefings[0].preflight.rows["train"] == 2  # what was applied still, and what a person wrote
    assert report.skipped == 2
    with opened() as store:
        assert store.runs.get(report.run_id).data_hash != pairs_hash(pairs_of_document(load(document)))
        review.accept(store, [first.id, second.id])  # as the message of a refused run says
    (preview,) = dry_run(document, options("preference"), view)
    assert preview.briefing.preflight.left_out == {"duplicate": 1}  # the one that was copied out


def test_reverted_pairs_alone_are_nothing_to_train_on(make_document: Make, view: Any) -> None:
    document = make_document(body=body())
    with Home.open().store(DLM_ID) as store:
        mine(store, document)
        review.apply(store, document)
        old = document.read_text(encoding="utf-8")
        review.revert(store, document)
    document.write_text(old, encoding="utf-8")
    with pytest.raises(UsageError) as fault:
        go(document, view)
    assert fault.value.message == "nothing to train on: all 3 pairs are left out"
    assert fault.value.found == "3 reverted"


# --- scores --------------------------------------------------------------------------------------------------------


def test_a_reward_model_is_trained_on_scored_answers(make_document: Make, view: Any, tmp_path: Path) -> None:
    document, file = make_document(), tmp_path / "scalars.jsonl"
    rows = [
        {"prompt": f"What is {i}?", "response": answer, "score": score}
        for i in range(10)
        for answer, score in ((f"{i}.", 0.9), (f"It is {i}.", 0.6), (f"It might well be {i}.", 0.1))
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = {"scalars_files": [file]}
    knobs = {"max_steps": 3, "reward.min_margin": 0.4, "reward.margin_scale": 1.0}
    (report,) = go(document, view, "reward", files=files, **knobs)
    flight = view.briefings[0].preflight
    assert (
        flight.rows["train"] + flight.rows["validation"] == 20
    )  # .9 and .6 against .1; .9 and .6 are too near
    assert any("30 scored answers to 10 prompts make 20 pairs" in note for note in flight.notes)
    assert (report.phase, report.steps, report.version) == ("reward", 3, "v0001")
    assert report.accuracy is not None
    file.write_text(file.read_text(encoding="utf-8").replace("0.9", "0.8"), encoding="utf-8")
    (other,) = go(document, view, "reward", files=files, **knobs)
    with opened() as store:
        assert store.runs.get(1).data_hash != store.runs.get(other.run_id).data_hash
        losses = [store.metrics.read(run)["train_loss"].values[0] for run in (1, other.run_id)]
    assert losses[0] != losses[1]  # the margin that a pair is to have is that of its scores
