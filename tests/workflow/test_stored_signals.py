"""What the store holds trains along: imported pairs, votes and scored answers; and the log says what each run consumed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dlm.document import render_preference
from dlm.errors import InterruptedRunError, UsageError
from dlm.store import Home, NewSignal, SignalFilter, Store, count_signals, find_signals
from dlm.training import Scalar, pairs_from_scalars
from dlm.workflow.train import RunReport, TrainOptions, dry_run, train

from .conftest import Silent

pytestmark = pytest.mark.torch

Make = Callable[..., Path]
DLM_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
ROWS = "".join(f"### Q\nWhat is number {i}?\n### A\nIt is {i * 7}.\n" for i in range(3))
OWN = [("What is own?", "Own.", "It might be own.")]
KNOBS: dict[str, Any] = {"max_steps": 1, "layout": "plain"}


@pytest.fixture
def document(make_document: Make) -> Path:
    return make_document(body=f"::instruction::\n{ROWS}\n{render_preference(OWN)}")


def options(phase: Any, knobs: Mapping[str, Any] | None = None, **more: Any) -> TrainOptions:
    return TrainOptions(phase=phase, knobs={**KNOBS, **(knobs or {})}, device="cpu", **more)


def go(
    document: Path, view: Any, phase: Any, knobs: Mapping[str, Any] | None = None, **more: Any
) -> RunReport:
    (report,) = train(document, options(phase, knobs, **more), view).runs
    return report


def filled(document: Path) -> Store:
    """The document's store with three pairs, of which one was mined elsewhere, and scored answers to two prompts."""
    store = Home.open().store(DLM_ID)
    store.attach(document)
    store.signals.add(
        [NewSignal("pair", source, f"What is {source}?", "This.", "That, perhaps.") for source in ("hand", "mined", "experiment")]
        + [
            NewSignal("scalar", "grader", f"What is {i}?", answer, chosen_score=score, scale="1-10")
            for i in range(2)
            for answer, score in (("Short.", 9.0), ("A longer one.", 5.0), ("It might well be so.", 2.0))
        ]
    )  # fmt: skip
    store.signals.vote("What is 0?", "Short.", -1)
    return store


def consumed(store: Store, run_id: int) -> set[tuple[str, str]]:
    found = find_signals(store.signals.index, SignalFilter(tab="", run=run_id))
    return {(one.prompt, one.chosen) for one in found}


def test_stored_pairs_train_along_and_can_be_left_out(document: Path, view: Silent) -> None:
    with filled(document) as store:
        report = go(document, view, "preference", {"preference.method": "orpo"})
        origins = dict(view.briefings[-1].preflight.origins)
        assert origins == {str(document): 1, "store": 3}
        from dlm.workflow.signals import refresh

        refresh(store, document)
        assert count_signals(store.signals.index, SignalFilter("orpo")) == 4
        assert consumed(store, report.run_id) == {
            ("What is own?", "Own."),
            *((f"What is {source}?", "This.") for source in ("hand", "mined", "experiment")),
        }
        listed = find_signals(store.signals.index, SignalFilter("orpo"))
        assert {one.home for one in listed} == {"document", "store"}
        go(document, view, "preference", {"preference.include_mined": False})
        assert view.briefings[-1].preflight.origins["store"] == 2
        go(document, view, "preference", stored=False)
        assert "store" not in view.briefings[-1].preflight.origins
        assert [preview.briefing.phase for preview in dry_run(document, options("preference"), view)] == [
            "preference"
        ]


def test_scores_and_votes_become_pairs_of_the_reward_phase(document: Path, view: Silent) -> None:
    with filled(document) as store:
        store.signals.vote("What is 0?", "A longer one.", 1)
        knobs = {"reward.min_margin": 3.5}
        report = go(document, view, "reward", knobs)
        # of each prompt 9 against 5 and against 2; of the votes one pair, which contradicts the grader's 9 against 5
        note = next(note for note in view.briefings[-1].preflight.notes if "scored answers" in note)
        assert "8 scored answers to 2 prompts make 4 pairs" in note
        assert "left out: 3 pairs whose scores differ too little" in note
        assert view.briefings[-1].preflight.left_out == {}
        assert ("What is 0?", "It might well be so.") in consumed(store, report.run_id)
        assert ("What is own?", "Own.") in consumed(store, report.run_id)
        assert count_signals(store.signals.index, SignalFilter("orpo")) == 0


def test_an_interrupted_run_goes_on_with_the_signals_it_began_with(document: Path, view: Silent) -> None:
    class Stopping(Silent):
        def step(self, step: int, total: int, values: Mapping[str, float]) -> None:
            super().step(step, total, values)
            if step == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    knobs = {"max_steps": 3, "reward.min_margin": 0.5}
    with filled(document) as store:
        with pytest.raises(InterruptedRunError):
            go(document, Stopping(), "reward", knobs)
        store.signals.vote("What is 0?", "Short.", 1)  # the last word is another now, and there is a new one
        store.signals.vote("What is 1?", "Short.", 1)
        assert go(document, view, "reward", knobs, resume=True).steps == 3
        store.signals.vote("What is 0?", "Short.", 0)


def test_answers_are_compared_within_one_scale() -> None:
    def scored(answer: str, score: float, scale: str) -> Scalar:
        return Scalar("p", answer, score, "store", 1, scale)

    mixed = [
        scored("a", 9.0, "grader"),
        scored("b", 1.0, "vote"),
        scored("a", -1.0, "vote"),
        scored("b", 2.0, "grader"),
    ]
    pairs, counts = pairs_from_scalars(mixed, 0.5)
    assert {(pair.chosen, pair.chosen_score, pair.rejected_score) for pair in pairs} == {
        ("a", 9.0, 2.0),
        ("b", 1.0, -1.0),
    }
    assert (counts.prompts, counts.scalars, counts.repeated) == (1, 4, 0)


def test_a_run_that_was_imported_is_nothing_to_resume(document: Path, view: Silent) -> None:
    from dlm.store import RunSpec

    with Home.open().store(DLM_ID) as store:
        store.runs.record(RunSpec("preference", "dpo"), status="interrupted", imported={"ref": "elsewhere"})
        store.runs.record(RunSpec("preference", "dpo"), status="complete", imported={"ref": "elsewhere too"})
        with pytest.raises(UsageError, match="no interrupted run"):
            go(document, view, "preference", resume=True)
