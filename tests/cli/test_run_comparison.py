"""`dlm show --compare`: a preference run with mined pairs next to one without, as trainings record them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from dlm.document import load
from dlm.store import Home, RunSpec, VersionSpec

from .conftest import DLM_ID, Dlm, Train
from .test_schemas import validate


def preference(
    document: Path,
    *,
    parent: str,
    mined: bool = True,
    right: float = 0.9,
    answer: str = "So.",
    skipped: Sequence[Mapping[str, str]] = (),
    knobs: Mapping[str, object] | None = None,
    data: str = "1" * 64,
    base: str = "f" * 64,
) -> str:
    """Record a preference run as the workflow does; returns its version's name."""
    with Home.open().store(DLM_ID) as store, store.lock("dlm train notes.dlm"):
        recipe = {"seed": 42, "preference": {"beta": 0.1, "include_mined": mined, **(knobs or {})}}
        sha256 = load(document).sha256
        spec = RunSpec(
            "preference", "dpo", recipe, parent, data, base_fingerprint=base, document_sha256=sha256
        )
        run = store.runs.start(spec)
        with store.metrics.writer(run.id) as writer:
            for step in range(1, 11):
                writer.log(step, {"train_loss": 1 / step})
        if skipped:
            store.runs.event(run.id, "skipped_rows", {"rows": list(skipped)})
        for stage, accuracy in (("start", 0.5), ("version", right)):
            values = {"full_valid_pref_acc": accuracy, "full_valid_pairs": 12.0}
            store.runs.event(run.id, "held_out", {"stage": stage, "values": values})
        told = [{"prompt": "Why, again?", "reference": "So.", "answer": answer, "exact": answer == "So."}]
        store.runs.event(run.id, "probe_answers", {"stage": "version", "answers": told})
        staging = store.versions.staging()
        (staging / "adapter_config.json").write_text("{}")
        (staging / "adapter_model.safetensors").write_bytes(answer.encode())
        made = VersionSpec(run.id, parent, "preference", 10, "pocket", base, recipe, data)
        return store.versions.publish(staging, made, True, "test").name


@pytest.fixture
def two(document: Path, train: Train) -> tuple[str, str]:
    """Runs 2 and 3: with and without mined pairs, from the same version."""
    start = train()
    mined = [{**left_out(n, "mined, and mined pairs are left out"), "kind": "mined"} for n in (9, 20)]
    answer = "Because of that."
    return (
        preference(document, parent=start, right=0.875),
        preference(document, mined=False, parent=start, right=0.625, answer=answer, skipped=mined),
    )


def left_out(line: int, reason: str) -> dict[str, str]:
    """A pair that was left out, as runs recorded it before they told the kind of reason."""
    return {"place": f"notes.dlm:{line}", "reason": reason}


def test_a_reader_sees_what_mined_pairs_do(dlm: Dlm, two: tuple[str, str]) -> None:
    told = dlm("show", "notes.dlm", "--compare", "2", two[1])
    lines = [" ".join(line.split()) for line in told.stdout.splitlines()]
    for line in (
        "made v0002 v0003",
        "from v0001 v0001",
        "preference.include_mined yes no",
        "left out: mined 0 2",
        "ranked right 0.5000 → 0.8750 0.5000 → 0.6250",
        "probes answered exactly 1 of 1 0 of 1",
        "characters, mean 3 16",
        "probe Why, again?",
        "run 3 Because of that.",
    ):
        assert line in lines
    assert not any("beta" in line for line in lines)  # the same in both
    assert "not the same ones" in told.stderr
    assert "start from" not in told.stderr
    assert "other data" not in told.stderr
    assert "another base" not in told.stderr


def test_what_was_left_out_is_counted_by_its_kind(dlm: Dlm, document: Path, two: tuple[str, str]) -> None:
    """A reason in words holds the pair's scores or another pair's place, so that each would be a line of its own."""
    close = [left_out(n, f"its scores, {n} and {n + 0.1:g}, differ by less than 0.5") for n in (1, 2, 3)]
    new = [{**one, "kind": "below_margin"} for one in close]
    twice = {**left_out(40, "the same pair as notes.dlm:9, which is kept"), "kind": "duplicate"}
    preference(document, parent="v0001", skipped=[*new, twice])
    preference(document, parent="v0001", skipped=close[:2])  # by an older dlm
    found = validate(dlm.json("show", "notes.dlm", "--compare", "4", "5"))["comparison"]["left_out"]
    assert found == [
        {"reason": "below the margin", "counts": [3, 0]},
        {"reason": "duplicate", "counts": [1, 0]},
        {"reason": close[0]["reason"], "counts": [0, 1]},
        {"reason": close[1]["reason"], "counts": [0, 1]},
    ]


def test_as_json(dlm: Dlm, two: tuple[str, str]) -> None:
    found = validate(dlm.json("show", "notes.dlm", "--compare", *two))["comparison"]
    assert [run["id"] for run in found["runs"]] == [2, 3]
    assert found["same_start"]
    assert found["same_document"]
    assert found["knobs"] == [{"name": "preference.include_mined", "values": [True, False]}]
    assert found["measures"][1] == {
        "name": "full_valid_pref_acc",
        "before": [0.5, 0.5],
        "after": [0.875, 0.625],
    }
    assert validate(dlm.json("show", "notes.dlm"))["comparison"] is None


def test_runs_that_did_not_start_alike_are_told_apart(dlm: Dlm, document: Path, two: tuple[str, str]) -> None:
    preference(document, parent=two[0])
    assert "they start from v0001 and v0002" in dlm("show", "notes.dlm", "--compare", "3", "4").stderr
    unlike = validate(dlm.json("show", "notes.dlm", "--compare", "1", "2"))["comparison"]
    assert unlike["same_data"] is None  # SFT and preference never have the same


def test_other_data_under_the_same_document_are_told(dlm: Dlm, document: Path, two: tuple[str, str]) -> None:
    """As another --pairs file gives them, while the document stays."""
    preference(document, parent="v0001", data="2" * 64)
    told = dlm("show", "notes.dlm", "--compare", "2", "4").stderr
    assert "other data" in told
    assert "not the same ones" in told
    assert "the document was changed" not in told
    found = validate(dlm.json("show", "notes.dlm", "--compare", "2", "4"))["comparison"]
    assert (found["same_data"], found["same_base"], found["same_document"]) == (False, True, True)


def test_another_base_is_told(dlm: Dlm, document: Path, two: tuple[str, str]) -> None:
    preference(document, parent="v0001", base="e" * 64)
    assert "another base" in dlm("show", "notes.dlm", "--compare", "2", "4").stderr


@pytest.mark.parametrize(("knob", "told"), [("min_margin", True), ("val_fraction", True), ("epochs", False)])
def test_knobs_that_change_what_is_held_out(
    dlm: Dlm, document: Path, two: tuple[str, str], knob: str, told: bool
) -> None:
    for value in (0.1, 0.3):
        preference(document, parent="v0001", knobs={knob: value})
    said = dlm("show", "notes.dlm", "--compare", "4", "5").stderr
    assert ("not the same ones" in said) is told


@pytest.mark.parametrize(
    ("names", "code", "says"),
    [
        (("2", "v0002"), 2, "with itself"),
        (("2", "9"), 1, "no run 9"),
        (("v0009", "2"), 1, "v0009"),
        (("two", "2"), 2, "neither a run nor a version"),
    ],
)
def test_misuse(dlm: Dlm, two: tuple[str, str], names: tuple[str, str], code: int, says: str) -> None:
    assert says in dlm("show", "notes.dlm", "--compare", *names, expect=code).stderr
