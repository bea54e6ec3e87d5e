"""Phases: each makes its own run and version, starts where it should, and goes on after a stop as if there were none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlm.document import load, mined, render_preference
from dlm.errors import DlmError, InterruptedRunError, UsageError
from dlm.training import pairs_hash, pairs_of_document, read_pairs_file
from dlm.workflow.measuring import accuracy_of
from dlm.workflow.train import RunReport, TrainOptions, train
from watched_runs import BODY, PAIRS, ROWS, Watching, adapters, opened

pytestmark = [pytest.mark.torch, pytest.mark.big]

Make = Callable[..., Path]
KNOBS: dict[str, Any] = {
         "max_steps": 6, "save_every_steps": 2, "eval_every_steps": 3, "lora_dropout": 0.2, "layout": "plain",
         "preference.learning_rate": 1e-3, "preference.num_epochs": 9}  # fmt: skip


def go(document: Path, view: Watching | None = None, /, **options: Any) -> list[RunReport]:
    options = {"knobs": KNOBS, "device": "cpu", **options}
    if options.get("phase") in ("sft", "reward"):
        options["knobs"] = {
            name: value for name, value in options["knobs"].items() if "preference" not in name
        }
    return list(train(document, TrainOptions(**options), view or Watching()).runs)


def resume(document: Path, view: Watching | None = None, /, **options: Any) -> list[RunReport]:
    return go(document, view, **{"knobs": {}, "resume": True, **options})


def stop_in(document: Path, phase: str, step: int, /, **options: Any) -> None:
    with pytest.raises(InterruptedRunError):
        go(document, Watching(phase, step), **options)


# --- runs, versions, lineage --------------------------------------------------------------------------------------


def test_all_is_sft_then_preference_each_with_its_run_and_version(make_document: Make) -> None:
    document = make_document(body=BODY)
    sft, preference = go(document, view := Watching())
    assert (sft.phase, sft.version, sft.parent, sft.promoted) == ("sft", "v0001", None, True)
    assert (preference.phase, preference.method) == ("preference", "dpo")
    assert (preference.version, preference.parent, preference.promoted) == ("v0002", "v0001", True)
    assert [one.phase for one in view.briefings] == ["sft", "preference"]
    assert view.briefings[1].start.value == "v0001"
    with opened() as store:
        first, second = store.runs.list()
        assert (first.kind, second.kind, second.method) == ("sft", "preference", "dpo")
        assert (first.parent_version, second.parent_version) == (None, "v0001")
        assert store.versions.current_name() == "v0002"
        assert [version.name for version in store.versions.lineage("v0002")] == ["v0001", "v0002"]
        names = set(store.metrics.names(second.id))
        events = {event.kind for event in store.runs.events(second.id)}
    assert second.recipe["learning_rate"] == second.recipe["preference"]["learning_rate"] == 1e-3
    assert "preference" not in first.recipe
    assert json.loads(first.layout)["then"] == ["preference"]
    facts = json.loads(second.layout)
    assert (facts["then"], facts["layout"], facts["flags"]) == ([], "plain", KNOBS)
    assert facts["products"] in ("torch", "onednn")
    assert {"rewards/margins", "val_pref_acc", "sft_valid_loss", "probe_loss", "full_valid_pref_acc"} <= names
    assert {"held_out", "probe_answers"} <= events
    one, two = adapters().values()
    assert one != two


def test_a_report_compares_with_what_the_run_started_from(make_document: Make) -> None:
    sft, preference = go(make_document(body=BODY))
    assert sft.before == {}
    assert preference.before.keys() == preference.after.keys() >= {"full_valid_loss", "sft_valid_loss"}
    # the reference is where the run starts: no margin, every pair a tie
    assert (preference.before["full_valid_pref_acc"], preference.before["full_valid_pref_ties"]) == (0.5, 1.0)
    assert preference.before["sft_valid_loss"] == pytest.approx(sft.last["valid_loss"], abs=1e-5)
    accuracy = preference.accuracy
    assert accuracy is not None
    assert accuracy.right.value == pytest.approx(preference.after["full_valid_pref_acc"])
    assert accuracy.right.n == preference.after["full_valid_pairs"]
    assert accuracy.right.low < accuracy.right.value <= accuracy.right.high
    (before,) = [pair.before for pair in preference.probes]
    assert before == sft.probes[0].after


def test_accuracy_counts_ties_half() -> None:
    values = {"full_valid_pref_acc": 0.7, "full_valid_pref_ties": 0.2, "full_valid_pairs": 10.0}
    accuracy = accuracy_of(values)
    assert accuracy is not None
    assert (accuracy.right.value, accuracy.right.n, accuracy.ties) == (pytest.approx(0.7), 10, 0.2)
    assert accuracy_of({"full_valid_loss": 1.0}) is None


def test_preference_alone_starts_from_current_or_from_the_base(make_document: Make) -> None:
    document = make_document(body=BODY)
    (fresh,) = go(document, view := Watching(), phase="preference")
    assert (fresh.version, fresh.parent) == ("v0001", None)
    assert "no version yet" in view.briefings[0].start.reason
    (other,) = go(
        document, phase="preference", knobs={**KNOBS, "preference.method": "simpo", "preference.beta": 2}
    )
    assert (other.method, other.parent) == ("simpo", "v0001")
    with opened() as store:
        store.versions.promote("v0001", "test")
    (third,) = go(
        document, view := Watching(), phase="preference", knobs={**KNOBS, "preference.method": "orpo"}
    )
    assert (third.method, third.parent) == ("orpo", "v0001")
    assert "current" in view.briefings[0].start.reason


def test_start_names_another_place_to_begin(make_document: Make) -> None:
    document = make_document(body=BODY)
    (first,) = go(document, phase="sft")
    (second,) = go(document, view := Watching(), phase="sft", start="v0001")
    assert (second.version, second.parent) == ("v0002", "v0001")
    assert view.briefings[0].start.reason == "--start v0001"
    assert second.smoothed_loss < first.smoothed_loss  # it goes on with what v0001 has learnt
    (third,) = go(document, phase="preference", start="base")
    assert third.parent is None  # although v0002 is current
    both = go(document, phase="all", start="v0001")
    assert [run.parent for run in both] == ["v0001", both[0].version]


def test_a_stopped_run_goes_on_from_where_start_let_it_begin(make_document: Make) -> None:
    document = make_document(body=BODY)
    go(document, phase="sft")
    (whole,) = go(document, phase="sft", start="v0001")
    stop_in(document, "sft", 3, phase="sft", start="v0001")
    (resumed,) = resume(document, phase="sft")
    assert resumed.parent == "v0001"
    made = adapters()
    assert made[resumed.version] == made[whole.version]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"phase": "sft", "start": "v0009"}, "v0009"),
        ({"phase": "reward", "start": "v0001"}, "not read by the reward phase"),
        ({"phase": "sft", "start": "v0001", "resume": True}, "--resume goes on from where the run began"),
    ],
)
def test_a_start_that_cannot_be_is_refused(make_document: Make, options: dict[str, Any], words: str) -> None:
    document = make_document(body=BODY)
    with pytest.raises(DlmError, match=words):
        go(document, **options)


def test_an_adapter_keeps_its_shape(make_document: Make) -> None:
    document = make_document(body=BODY)
    go(document, phase="sft", knobs={**KNOBS, "lora_r": 3})
    (report,) = go(document, view := Watching(), phase="preference")
    resolved = view.briefings[0].resolved
    assert (resolved.recipe.lora_r, resolved.origins["lora_r"]) == (3, "as v0001 has it")
    with opened() as store:
        folder = store.versions.get(report.version).folder
    assert json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["r"] == 3
    with pytest.raises(UsageError, match="lora_r"):
        go(document, phase="preference", knobs={**KNOBS, "lora_r": 5})


def test_with_a_gate_nothing_is_promoted_and_preference_follows_all_the_same(make_document: Make) -> None:
    document = make_document(body=BODY, header="gate:\n  conditions:\n    - probes >= 1\n")
    sft, preference = go(document)
    assert (sft.promoted, preference.promoted, preference.parent) == (False, False, "v0001")
    with opened() as store:
        assert store.versions.current_name() is None


def test_preference_can_be_switched_off_and_runs_alone_without_rows(make_document: Make) -> None:
    off = "training:\n  preference:\n    enabled: false\n"
    document = make_document(body=BODY, header=off)
    view = Watching()
    assert [run.phase for run in go(document, view)] == ["sft"]
    assert any("24 preference pairs not trained on" in note for note in view.notes)
    assert [run.phase for run in go(document, phase="preference")] == ["preference"]
    document, view = make_document(body=render_preference(PAIRS)), Watching()
    assert [run.phase for run in go(document, view)] == ["preference"]
    assert any("runs alone" in note for note in view.notes)


def test_a_reward_model_is_kept_and_never_current(make_document: Make) -> None:
    document = make_document(body=BODY)
    go(document, phase="sft")
    (report,) = go(document, phase="reward")
    assert (report.phase, report.method, report.parent) == ("reward", "bradley-terry", None)
    assert (report.version, report.promoted, report.probes) == ("v0002", False, [])
    assert report.accuracy is not None
    with opened() as store:
        assert store.versions.current_name() == "v0001"
        assert not store.versions.get("v0002").answers


def test_what_is_left_out_is_counted_by_reason(make_document: Make, tmp_path: Path) -> None:
    provenance = mined(
        judge_name="sway", judge_score_chosen=0.9, judge_score_rejected=0.1,
        mined_at="2026-04-23T18:42:11Z", mined_run_id=7,
    )  # fmt: skip
    found = render_preference([("What is mined?", "This.", "Surely not this one.")], provenance=provenance)
    document = make_document(body=BODY + "\n" + found)
    scored = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"p{i}", "chosen": "a", "rejected": "bb", "chosen_score": 1.0, "rejected_score": 1.0 - gap}
        for i, gap in enumerate((0.2, 0.5, 0.9))
    ]
    scored.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    knobs = {**KNOBS, "preference.min_margin": 0.5, "preference.include_mined": False}
    (report,) = go(document, view := Watching(), phase="preference", pairs_files=[scored], knobs=knobs)
    assert view.briefings[0].preflight.left_out == {"mined": 1, "below_margin": 1}
    assert report.skipped == 2
    with opened() as store:
        run = store.runs.get(report.run_id)
    assert run.data_hash == pairs_hash([*pairs_of_document(load(document)), *read_pairs_file(scored)])


def test_lost_facts_are_warned_of(make_document: Make) -> None:
    knobs = {**KNOBS, "preference.learning_rate": 0.5, "warmup_ratio": 0.0}
    _, preference = go(make_document(body=BODY), view := Watching(), knobs=knobs)
    assert preference.after["sft_valid_loss"] > 1.1 * preference.before["sft_valid_loss"]
    assert any(note.startswith("warning: the loss of held-out questions rose by") for note in view.notes)


def test_the_best_checkpoint_becomes_the_version(make_document: Make) -> None:
    knobs = {**KNOBS, "keep_best": True, "keep_last": 1, "eval_every_steps": 1, "learning_rate": 0.3,
             "warmup_ratio": 0.0, "max_steps": 12}  # fmt: skip
    (report,) = go(
        make_document(body=f"::instruction::\n{ROWS}"), view := Watching(), phase="sft", knobs=knobs
    )
    with opened() as store:
        losses, full = (store.metrics.read(1)[name] for name in ("valid_loss", "full_valid_loss"))
    best = int(losses.steps[losses.values.argmin()])
    assert 1 <= best < 12  # else the last one is the best, and nothing is tested
    assert report.steps == best
    assert full.steps.tolist() == [best]  # what was measured of the version stands at its step
    assert any(f"step {best} scored best" in note for note in view.notes)
    assert report.after["full_valid_loss"] == pytest.approx(float(losses.values.min()), abs=1e-6)


# --- stopped and gone on with -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("phase", "step"), [("sft", 3), ("preference", 3), ("preference", 5)])
def test_a_stopped_invocation_ends_as_the_one_that_never_stopped(
    make_document: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, phase: str, step: int
) -> None:
    document = make_document(body=BODY)
    whole = go(document)
    expected = adapters()
    monkeypatch.setenv("DLM_HOME", str(tmp_path / "other"))
    stop_in(document, phase, step)
    left = resume(document, view := Watching())
    assert [run.phase for run in left] == (["sft", "preference"] if phase == "sft" else ["preference"])
    assert view.briefings[0].resumed_at == step
    assert adapters() == expected
    assert (left[-1].before, left[-1].after) == (whole[-1].before, whole[-1].after)
    assert left[-1].probes == whole[-1].probes
    with pytest.raises(UsageError, match="no interrupted run"):
        resume(document)


def test_a_phase_that_never_began_is_gone_on_with(
    make_document: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process died after the SFT version was made and before the preference run was recorded."""
    document = make_document(body=BODY)
    with monkeypatch.context() as patch:
        patch.setattr("dlm.workflow.loading.prepare_preference", _die)
        with pytest.raises(KeyboardInterrupt):
            go(document)
    with opened() as store:
        assert [run.status for run in store.runs.list()] == ["complete"]
    (preference,) = resume(document)
    assert (preference.phase, preference.parent, preference.version) == ("preference", "v0001", "v0002")
    with opened() as store:  # with the flags of the first invocation
        assert store.runs.get(2).recipe["preference"]["learning_rate"] == 1e-3


def _die(*args: Any, **options: Any) -> None:
    raise KeyboardInterrupt


def test_a_run_goes_on_from_the_version_it_began_with(make_document: Make) -> None:
    document = make_document(body=BODY)
    go(document, phase="sft")
    stop_in(document, "preference", 3, phase="preference")
    go(document, phase="sft", knobs={**KNOBS, "seed": 9})
    (report,) = resume(document)
    assert (report.version, report.parent) == ("v0003", "v0001")


def test_the_phase_can_be_named_when_going_on(make_document: Make) -> None:
    document = make_document(body=BODY)
    stop_in(document, "sft", 3)
    with pytest.raises(UsageError, match="no interrupted run"):
        resume(document, phase="preference")
    assert [run.phase for run in resume(document, phase="sft")] == ["sft"]


def test_other_pairs_and_other_knobs_are_refused(make_document: Make, tmp_path: Path) -> None:
    document, extra = make_document(body=BODY), tmp_path / "pairs.jsonl"
    line = json.dumps({"prompt": "Who?", "chosen": "We.", "rejected": "They."}) + "\n"
    extra.write_text(line, encoding="utf-8")
    stop_in(document, "preference", 3, phase="preference", pairs_files=[extra])
    for knobs, words in (
        ({"preference.beta": 0.7}, r"preference.beta \(0.1, now 0.7\)"),
        ({"preference.learning_rate": 0.5}, r"preference.learning_rate \(0.001, now 0.5\)"),
    ):
        with pytest.raises(UsageError, match=words):
            resume(document, knobs=knobs)
    extra.write_text(line.replace("We", "You"), encoding="utf-8")
    with pytest.raises(UsageError, match="the pairs") as fault:
        resume(document)
    assert str(extra) in fault.value.message
    extra.write_text(line, encoding="utf-8")
    (report,) = resume(document)
    assert report.phase == "preference"


def test_the_choices_of_the_first_start_hold(make_document: Make) -> None:
    """Layout and kernels are chosen by measurement, so that a second start might choose others."""
    document = make_document(body=BODY)
    knobs = {name: value for name, value in KNOBS.items() if name != "layout"}
    stop_in(document, "preference", 3, phase="preference", knobs=knobs)
    with opened() as store:
        facts = json.loads(store.runs.get(1).layout)
    resume(document, view := Watching())
    briefing = view.briefings[0]
    assert (briefing.layout.value, briefing.products.value) == (facts["layout"], facts["products"])
    assert briefing.layout.reason == briefing.products.reason == "as the run began"


@pytest.mark.parametrize("knob", ["learning_rate", "num_epochs"])
@pytest.mark.parametrize("phase", ["preference", "reward"])
def test_knobs_that_a_phase_replaces_are_refused_by_name(make_document: Make, phase: str, knob: str) -> None:
    with pytest.raises(UsageError, match=knob) as caught:
        go(make_document(body=BODY), phase=phase, knobs={knob: "3"})
    assert caught.value.next_step == f"--set {phase}.{knob}=3"
