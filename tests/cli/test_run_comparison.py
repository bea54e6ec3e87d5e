"""`dlm show --compare`: a preference run with mined pairs next to one without, as trainings record them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlm.document import load
from dlm.store import Home, RunSpec, VersionSpec

from .conftest import DLM_ID, Dlm, Train
from .test_schemas import validate


def preference(document: Path, *, mined: bool, parent: str, right: float, answer: str) -> str:
    """Record a preference run as the workflow does; returns its version's name."""
    with Home.open().store(DLM_ID) as store, store.lock("dlm train notes.dlm"):
        recipe = {"seed": 42, "preference": {"beta": 0.1, "include_mined": mined}}
        spec = RunSpec("preference", "dpo", recipe, parent, document_sha256=load(document).sha256)
        run = store.runs.start(spec)
        with store.metrics.writer(run.id) as writer:
            for step in range(1, 11):
                writer.log(step, {"train_loss": 1 / step})
        if not mined:
            rows = [
                {"place": f"notes.dlm:{n}", "reason": "mined, and mined pairs are left out"} for n in (9, 20)
            ]
            store.runs.event(run.id, "skipped_rows", {"rows": rows})
        for stage, accuracy in (("start", 0.5), ("version", right)):
            values = {"full_valid_pref_acc": accuracy, "full_valid_pairs": 12.0}
            store.runs.event(run.id, "held_out", {"stage": stage, "values": values})
        told = [{"prompt": "Why, again?", "reference": "So.", "answer": answer, "exact": answer == "So."}]
        store.runs.event(run.id, "probe_answers", {"stage": "version", "answers": told})
        staging = store.versions.staging()
        (staging / "adapter_config.json").write_text("{}")
        (staging / "adapter_model.safetensors").write_bytes(answer.encode())
        made = VersionSpec(run.id, parent, "preference", 10, "pocket", "f" * 64, recipe, "d" * 64)
        return store.versions.publish(staging, made, True, "test").name


@pytest.fixture
def two(document: Path, train: Train) -> tuple[str, str]:
    """Runs 2 and 3: with and without mined pairs, from the same version."""
    start = train()
    return (
        preference(document, mined=True, parent=start, right=0.875, answer="So."),
        preference(document, mined=False, parent=start, right=0.625, answer="Because of that."),
    )


def test_a_reader_sees_what_mined_pairs_do(dlm: Dlm, two: tuple[str, str]) -> None:
    told = dlm("show", "notes.dlm", "--compare", "2", two[1])
    lines = [" ".join(line.split()) for line in told.stdout.splitlines()]
    for line in (
        "made v0002 v0003",
        "from v0001 v0001",
        "preference.include_mined yes no",
        "left out: mined, and mined pairs are left out 0 2",
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
    preference(document, mined=True, parent=two[0], right=0.9, answer="So.")
    assert "they start from v0001 and v0002" in dlm("show", "notes.dlm", "--compare", "3", "4").stderr
    validate(dlm.json("show", "notes.dlm", "--compare", "1", "2"))  # SFT against preference


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
