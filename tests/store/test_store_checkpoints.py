"""Checkpoints of a run: listed with those that are gone, and made into versions."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from dlm.errors import LockedError, MissingRecordError, StoreError, UsageError
from dlm.store import Home, RunSpec, Store

from .conftest import DLM_ID, Publish


def save(store: Store, run_id: int, step: int, *, remember: bool = True, weights: bytes = b"") -> Path:
    """A checkpoint as training writes it."""
    folder = store.checkpoints(run_id) / f"step-{step:08d}"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(weights or f"weights of step {step}".encode())
    (folder / "optimizer.safetensors").write_bytes(b"moments")
    (folder / "progress.json").write_text("{}")
    if remember:
        store.remember_checkpoints(run_id, [step])
    return folder


@pytest.fixture
def run_id(store: Store, publish: Publish) -> int:
    """A run on v0001 that stopped after three checkpoints, the first of which was pruned."""
    publish()
    with store.lock("test"):
        spec = RunSpec(
            "preference",
            "dpo",
            {"lora_r": 4},
            "v0001",
            data_hash="d" * 64,
            base="pocket",
            base_fingerprint="f" * 64,
        )
        run = store.runs.start(spec)
        for step in (10, 20, 30):
            save(store, run.id, step)
        store.runs.finish(run.id, "interrupted")
    shutil.rmtree(store.checkpoints(run.id) / "step-00000010")
    return run.id


def test_what_was_saved_is_listed_with_what_is_gone(store: Store, run_id: int) -> None:
    found = store.saved_checkpoints(run_id)
    assert [(one.step, one.is_there) for one in found] == [(10, False), (20, True), (30, True)]
    assert [one.folder.name for one in found[1:]] == ["step-00000020", "step-00000030"]
    assert all(one.saved_at.endswith("Z") for one in found)


def test_a_checkpoint_that_nobody_recorded_has_its_folder_s_time(store: Store, run_id: int) -> None:
    folder = save(store, run_id, 40, remember=False)
    os.utime(folder, (1_700_000_000, 1_700_000_000))
    (store.checkpoints(run_id) / ".partial-50").mkdir()
    found = store.saved_checkpoints(run_id)[-1]
    assert (found.step, found.saved_at, found.is_there) == (40, "2023-11-14T22:13:20.000Z", True)


def test_a_step_is_recorded_once_however_often_it_is_saved(store: Store, run_id: int) -> None:
    before = store.runs.events(run_id)
    store.remember_checkpoints(run_id, [30, 10, 20])
    assert store.runs.events(run_id) == before
    store.remember_checkpoints(run_id, [50, 40, 50])
    assert [event.data["step"] for event in store.runs.events(run_id, "checkpoint")] == [10, 20, 30, 40, 50]


def test_listing_makes_nothing(store: Store, publish: Publish) -> None:
    run = publish().run_id
    before = sorted(store.folder.rglob("*"))
    assert store.saved_checkpoints(run) == ()
    assert sorted(store.folder.rglob("*")) == before
    with pytest.raises(MissingRecordError, match="no run 9"):
        store.saved_checkpoints(9)


def test_a_version_of_a_checkpoint_has_the_lineage_of_its_run(store: Store, run_id: int) -> None:
    version = store.publish_checkpoint(run_id, 20)
    assert (version.name, version.parent, version.phase, version.step) == ("v0002", "v0001", "preference", 20)
    assert (version.recipe, version.data_hash, version.run_id) == ({"lora_r": 4}, "d" * 64, run_id)
    assert {path.name for path in version.folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "version.json",
    }
    assert (version.folder / "adapter_model.safetensors").read_bytes() == b"weights of step 20"
    about = json.loads((version.folder / "version.json").read_text())
    assert [ancestor["name"] for ancestor in about["lineage"]] == ["v0001"]
    assert store.versions.current_name() == "v0001"  # making is not promoting
    assert store.runs.get(run_id).resumable  # and the run can go on
    assert (store.checkpoints(run_id) / "step-00000020" / "optimizer.safetensors").exists()


def test_a_checkpoint_becomes_one_version_however_often_it_is_asked_for(store: Store, run_id: int) -> None:
    first = store.publish_checkpoint(run_id, 20)
    shutil.rmtree(store.checkpoints(run_id) / "step-00000020")
    assert store.publish_checkpoint(run_id, 20) == first
    store.prune(versions=[first.name])
    with pytest.raises(MissingRecordError, match="of step 20: it was pruned"):
        store.publish_checkpoint(run_id, 20)


@pytest.mark.parametrize(
    ("step", "why", "next_step"),
    [
        (10, "it was pruned", "--step 20"),
        (25, "none was saved there", "--step 20"),
        (99, "none was saved there", "--step 30"),
    ],
)
def test_a_checkpoint_that_is_not_there_names_the_nearest(
    store: Store, run_id: int, step: int, why: str, next_step: str
) -> None:
    with pytest.raises(MissingRecordError, match=why) as raised:
        store.publish_checkpoint(run_id, step)
    assert raised.value.expected == "20, 30"
    assert next_step in raised.value.next_step


def test_no_version_of_what_answers_nothing_or_is_damaged(store: Store, run_id: int) -> None:
    with store.lock("test"):
        kinds = {kind: store.runs.start(RunSpec(kind)).id for kind in ("mine", "reward")}
    for kind, number in kinds.items():
        with pytest.raises(UsageError, match=f"run {number}.* {kind}"):
            store.publish_checkpoint(number, 1)
    (store.checkpoints(run_id) / "step-00000030" / "adapter_model.safetensors").unlink()
    with pytest.raises(StoreError, match=r"adapter_model\.safetensors is missing"):
        store.publish_checkpoint(run_id, 30)
    assert [version.name for version in store.versions.list()] == ["v0001"]


def test_nobody_takes_a_checkpoint_from_a_run_at_work(store: Store, run_id: int, home: Home) -> None:
    with home.store(DLM_ID) as other, other.lock("dlm train"), pytest.raises(LockedError):
        store.publish_checkpoint(run_id, 20)
