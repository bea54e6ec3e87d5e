"""`dlm checkpoints`, `dlm promote --run-id --step`: a recorded store, the table, OpenAI's shape."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dlm.curves import read_curves
from dlm.store import Home, RunSpec

from .conftest import DLM_ID, Dlm, Train
from .test_schemas import SCHEMAS

import jsonschema  # isort: skip


SAVED = (10, 20, 30, 40)
VALID = {10: 1.2, 20: 0.8, 30: 1.1, 40: 1.9}


@pytest.fixture
def run_id(document: Path, train: Train) -> int:
    """A run of forty steps that over-fits: four checkpoints, the first of which was pruned; its version is the last."""
    with Home.open().store(DLM_ID) as store, store.lock("dlm train notes.dlm"):
        store.attach(document)
        run = store.runs.start(RunSpec("sft", "sft", {"lora_r": 8}, base="pocket", planned_steps=40))
        with store.metrics.writer(run.id) as writer:
            for step in range(1, 41):
                writer.log(step, {"train_loss": 2 / step, "train_mean_token_accuracy": 1 - 1 / step})
                if step in VALID:
                    writer.log(step, {"valid_loss": VALID[step], "valid_mean_token_accuracy": 0.5})
            writer.log(40, {"full_valid_loss": 1.8, "full_valid_mean_token_accuracy": float("nan")})
        for step in SAVED:
            folder = store.checkpoints(run.id) / f"step-{step:08d}"
            folder.mkdir()
            (folder / "adapter_config.json").write_text("{}")
            (folder / "adapter_model.safetensors").write_bytes(b"weights")
            store.remember_checkpoints(run.id, [step])
        shutil.rmtree(store.checkpoints(run.id) / "step-00000010")
        store.runs.finish(run.id, "interrupted")
    return run.id


def test_the_table_says_what_is_there_and_what_to_keep(dlm: Dlm, run_id: int) -> None:
    lines = dlm("checkpoints", "notes.dlm").stdout.splitlines()
    assert lines[0] == "run 1 (sft) is interrupted: 4 checkpoints saved"
    table = {line.split()[0]: line for line in lines[1:6]}
    assert "valid_loss" in table["step"]
    assert "pruned" in table["10"]
    assert "saved" in table["20"]
    assert "lowest validation loss" in table["20"]
    assert "8.00 severe" in table["20"]
    assert "dlm promote notes.dlm --run-id 1 --step 20" in lines[-1]


def test_json_is_openai_s_list_field_by_field(dlm: Dlm, run_id: int, own_home: Path) -> None:
    found = dlm.json("checkpoints", "notes.dlm", "--run-id", str(run_id))
    jsonschema.validate(found, SCHEMAS["checkpoints"], cls=jsonschema.Draft202012Validator)
    assert list(found) == ["object", "data", "first_id", "last_id", "has_more"]
    assert [one["step_number"] for one in found["data"]] == [40, 30, 20]  # the newest first, what is there
    newest = found["data"][0]
    assert (found["first_id"], found["last_id"]) == (newest["id"], found["data"][-1]["id"])
    assert newest["metrics"] == {
        "step": 40,
        "train_loss": 0.05,
        "train_mean_token_accuracy": 0.975,
        "valid_loss": 1.9,
        "valid_mean_token_accuracy": 0.5,
        "full_valid_loss": 1.8,
    }
    assert newest["fine_tuning_job_id"] == f"ftjob-{DLM_ID}-1"
    assert Path(newest["fine_tuned_model_checkpoint"]).name == "step-00000040"
    assert abs(newest["created_at"] - datetime.now(UTC).timestamp()) < 3600


def test_the_list_is_read_back_by_diagnose(dlm: Dlm, run_id: int) -> None:
    Path("list.json").write_text(dlm("checkpoints", "notes.dlm", "--json").stdout, encoding="utf-8")
    run = read_curves("list.json")
    assert run.saved_steps == (20, 30, 40)
    data = dlm.json("diagnose", "list.json")["data"]["runs"][0]
    best = data["selection"]["candidates"][0]
    assert (best["step"], best["saved_step"], best["checkpoint"]) == (20, 20, f"ftckpt-{DLM_ID}-1-20")


def test_promote_makes_a_version_of_a_checkpoint(dlm: Dlm, run_id: int) -> None:
    text = dlm(
        "promote", "notes.dlm", "--run-id", "1", "--step", "20", "--reason", "before it over-fits"
    ).stdout
    assert text == "v0001 is made of step 20 of run 1\nv0001 is current\n"
    assert "v0001" in dlm("checkpoints", "notes.dlm").stdout
    dlm("promote", "notes.dlm", "--run-id", "1", "--step", "40")
    again = dlm.json("promote", "notes.dlm", "--run-id", "1", "--step", "20")["data"]
    assert (again["current"], again["previous"], again["made"]) == ("v0001", "v0002", False)
    assert (again["run_id"], again["step"]) == (1, 20)
    assert "v0002 is current again" in dlm("rollback", "notes.dlm").stdout


def test_promoting_an_earlier_checkpoint_leaves_the_run_its_version(dlm: Dlm, run_id: int) -> None:
    dlm("promote", "notes.dlm", "--run-id", "1", "--step", "40")
    before = dlm.json("diagnose", "notes.dlm")["data"]["runs"][0]["version"]
    assert before == "v0001"
    dlm("promote", "notes.dlm", "--run-id", "1", "--step", "20")
    dlm("promote", "notes.dlm", "--run-id", "1", "--step", "30")
    assert dlm.json("diagnose", "notes.dlm")["data"]["runs"][0]["version"] == "v0001"
    for command in ("diagnose", "checkpoints"):
        text = dlm(command, "notes.dlm").stdout
        assert "it is v0002" in text  # step 20, the lowest, is a version already
        assert "dlm promote" not in text
    with Home.open().store(DLM_ID) as store:
        assert [one.version for one in store.runs.list()] == ["v0001"]


def test_a_file_s_first_page_says_that_there_is_more(dlm: Dlm) -> None:
    rows = [
        {
            "object": "fine_tuning.job.checkpoint",
            "id": f"c{step}",
            "created_at": step,
            "step_number": step,
            "metrics": {"valid_loss": 1.0} if step < 300 else None,
        }
        for step in (300, 200, 100)
    ]
    Path("page.json").write_text(json.dumps({"object": "list", "data": rows, "has_more": True}))
    text = dlm("checkpoints", "page.json").stdout
    assert "3 checkpoints" in text
    assert "the list says has_more" in text
    found = dlm.json("checkpoints", "page.json")
    jsonschema.validate(found, SCHEMAS["checkpoints"], cls=jsonschema.Draft202012Validator)
    assert found["has_more"] is True
    assert [one["step_number"] for one in found["data"]] == [300, 200, 100]
    several = dlm("diagnose", "page.json", "page.json").stdout
    assert several.count("the list says has_more") == several.count("cannot say") == 2


def test_a_gate_keeps_the_version_of_a_checkpoint_from_becoming_current(
    dlm: Dlm, run_id: int, document: Path
) -> None:
    text = document.read_text(encoding="utf-8")
    gated = text.replace("base_model: pocket\n", "base_model: pocket\ngate: {conditions: [probes]}\n")
    document.write_text(gated, encoding="utf-8")
    refused = dlm("promote", "notes.dlm", "--run-id", "1", "--step", "20", expect=3)
    assert "v0001 is made of step 20" in refused.stdout
    assert "which v0001 has not passed" in refused.stderr
    data = dlm.json("show", "notes.dlm")["data"]
    assert (data["current"], [version["name"] for version in data["versions"]]) == (None, ["v0001"])
    why = ("--force", "--reason", "it is needed today")
    gone = dlm("promote", "notes.dlm", "v0009", expect=1).stderr
    assert "no version v0009" in gone  # not that a gate was not asked about it
    assert "v0001 is current" in dlm("promote", "notes.dlm", "--run-id", "1", "--step", "20", *why).stdout


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ([], "neither"),
        (["v0001", "--run-id", "1", "--step", "2"], "a version, and"),
        (["--run-id", "1"], "a run without"),
        (["--step", "1"], "a step without"),
    ],
)
def test_promote_wants_a_version_or_a_checkpoint(dlm: Dlm, train: Train, args: list[str], found: str) -> None:
    train()
    result = dlm("promote", "notes.dlm", *args, expect=2)
    assert f"found: {found}" in result.stderr
    assert "dlm checkpoints notes.dlm" in result.stderr


def test_what_is_missing_is_said(dlm: Dlm, run_id: int, train: Train) -> None:
    assert "it was pruned" in dlm("promote", "notes.dlm", "--run-id", "1", "--step", "10", expect=1).stderr
    assert "no run 7" in dlm("checkpoints", "notes.dlm", "--run-id", "7", expect=1).stderr
    with Home.open().store(DLM_ID) as store, store.lock("mine"):
        for kind in ("mine", "sft"):
            run = store.runs.start(RunSpec(kind))
            store.runs.finish(run.id, "failed", "it went wrong")
    for command in ("checkpoints", "diagnose"):
        mined = dlm(command, "notes.dlm", "--run-id", "2", expect=2).stderr
        assert "run 2 is a mine run: it trained nothing" in mined
        assert "dlm metrics notes.dlm --run-id 2" in mined
        empty = dlm(command, "notes.dlm", expect=1).stderr  # the newest training
        assert "run 3 has no metrics: it is failed" in empty
        assert "it went wrong" in empty


def test_nothing_was_trained_yet(dlm: Dlm, document: Path) -> None:
    for command in ("checkpoints", "diagnose"):
        assert "has not been trained yet" in dlm(command, "notes.dlm", expect=1).stderr
    with Home.open().store(DLM_ID):
        pass
    for command in ("checkpoints", "diagnose"):
        assert "nothing was trained yet" in dlm(command, "notes.dlm", expect=1).stderr
    ask = "dlm eval notes.dlm --version base --repeats 8 --why says it of the base; or dlm train notes.dlm"
    assert ask in dlm("diagnose", "notes.dlm", "--evals", expect=1).stderr


def test_errors_keep_our_own_shape(dlm: Dlm, document: Path) -> None:
    envelope = json.loads(dlm("checkpoints", "notes.dlm", "--json", expect=1).stdout)
    assert envelope["schema"] == "dlm/error/1"
