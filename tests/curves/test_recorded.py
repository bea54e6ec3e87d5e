"""Real runs that went wrong on purpose, replayed; `python -m tools.curves` trains and records them anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tools.curves.runs import COLUMNS, DLM_ID, RUNS, MadeRun, train_run

from dlm.curves import diagnose, findings_so_far, read_curves, select
from dlm.store import Home, RunSpec
from dlm.workflow.run_curves import curve_run

RECORDED = Path(__file__).parent / "recorded"
CHIEF = {  # of each run the finding that the verdict opens with
    "over-fit": "overfit_alarm",
    "under-fit": "train_loss_barely_falls",
    "diverge": "train_loss_diverges",
    "oscillate": "valid_loss_oscillates",
}
NEVER = {  # what would send its user the wrong way
    "over-fit": {
        "train_loss_barely_falls",
        "train_loss_diverges",
        "valid_loss_oscillates",
        "both_losses_high",
    },
    "under-fit": {
        "overfit_alarm",
        "overfit_ratio",
        "valid_loss_rises",
        "train_loss_crashes",
        "train_loss_diverges",
    },
    "diverge": {"overfit_ratio", "train_loss_barely_falls", "train_loss_crashes"},
    "oscillate": {
        "overfit_alarm",
        "overfit_ratio",
        "train_loss_barely_falls",
        "train_loss_crashes",
        "both_losses_high",
    },
}


@pytest.mark.parametrize("made", RUNS, ids=lambda made: made.name)
def test_a_recorded_run_is_diagnosed_rightly(made: MadeRun) -> None:
    diagnosis = diagnose(read_curves(RECORDED / f"{made.name}.jsonl"))
    found = [finding.rule for finding in diagnosis.findings]
    assert found[0] == CHIEF[made.name], found
    assert set(made.expected) <= set(found)
    assert not NEVER[made.name] & set(found)


@pytest.mark.parametrize("made", RUNS, ids=lambda made: made.name)
def test_what_is_found_of_a_run_still_going_is_what_a_diagnosis_finds(made: MadeRun) -> None:
    run = read_curves(RECORDED / f"{made.name}.jsonl")
    assert findings_so_far(run) == diagnose(run, running=True).findings


def test_of_the_run_that_over_fits_the_checkpoint_before_it_is_kept() -> None:
    run = read_curves(RECORDED / "over-fit.jsonl")
    valid = run.series["valid_loss"]
    best = select(run).best
    assert best is not None
    chosen = float(valid.values[valid.steps == best.step][0])
    assert chosen <= 1.06 * float(valid.values.min())  # single validations of eight rows are that noisy


@pytest.mark.parametrize("made", RUNS, ids=lambda made: made.name)
def test_the_store_says_what_the_file_says(made: MadeRun, tmp_path: Path) -> None:
    from_file = read_curves(RECORDED / f"{made.name}.jsonl")
    with Home.open(tmp_path / "home").store(DLM_ID) as store, store.lock("test"):
        run = store.runs.start(RunSpec("sft", "sft"))
        with store.metrics.writer(run.id) as writer:
            for series in from_file.series.values():
                for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
                    writer.log(step, {series.name: value})
        from_store = curve_run(store, run)
    assert from_store.series.keys() == from_file.series.keys() == set(COLUMNS)
    assert diagnose(from_store).findings == diagnose(from_file).findings


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("made", RUNS, ids=lambda made: made.name)
def test_a_run_that_goes_wrong_is_diagnosed_rightly(
    made: MadeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained here and now. On the machine that recorded it the numbers are the same; elsewhere their last bits."""
    monkeypatch.setenv("DLM_HOME", str(tmp_path / "home"))
    train_run(made, tmp_path)
    with Home.open().store(DLM_ID) as store:
        run = curve_run(store, store.runs.get(1))
    found = [finding.rule for finding in diagnose(run).findings]
    assert found[0] == CHIEF[made.name], found
    recorded = read_curves(RECORDED / f"{made.name}.jsonl").series["train_loss"]
    assert np.allclose(run.series["train_loss"].values[:5], recorded.values[:5], rtol=1e-3)
