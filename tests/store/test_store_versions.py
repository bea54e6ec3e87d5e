"""Versions and the current pointer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dlm.errors import MissingRecordError, StoreError, UsageError
from dlm.store import Home, RunSpec, Store, Version, VersionSpec

ID = "01J9Z3W5E8RT2Y4VQ7NDPXK6MA"
Publish = Callable[..., Version]


def current_name(store: Store) -> str | None:
    current = store.versions.current()
    return current.name if current else None


def test_a_published_version_is_current_and_ends_its_run(store: Store, publish: Publish) -> None:
    assert store.versions.current() is None
    version = publish()
    assert version.name == "v0001"
    assert version == store.versions.get("v0001") == store.versions.current()
    assert (version.parent, version.phase, version.step, version.recipe) == (None, "sft", 10, {"lora_r": 8})
    assert version.bytes == len("{}") + len("weights")
    run = store.runs.get(version.run_id)
    assert (run.status, run.version) == ("complete", "v0001")
    assert run.finished_at == version.created_at
    assert list((store.folder / "staging").iterdir()) == []


def test_without_promotion_the_pointer_stays(store: Store, publish: Publish) -> None:
    publish(promote=False)
    assert store.versions.current() is None
    publish()
    publish(promote=False)
    assert current_name(store) == "v0002"
    assert [version.name for version in store.versions.list()] == ["v0001", "v0002", "v0003"]
    assert [run.status for run in store.runs.list()] == ["complete"] * 3


def test_a_folder_explains_itself(store: Store, publish: Publish, tmp_path: Path) -> None:
    publish()
    publish("v0001")
    version = publish("v0002", weights=b"abc")
    shutil.copytree(version.folder, tmp_path / "copy")
    about = json.loads((tmp_path / "copy" / "version.json").read_text())
    assert [ancestor["name"] for ancestor in about["lineage"]] == ["v0001", "v0002"]
    assert (about["name"], about["parent"], about["dlm_id"], about["recipe"]) == (
        "v0003",
        "v0002",
        ID,
        {"lora_r": 8},
    )
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert about["files"]["adapter_model.safetensors"] == {"bytes": 3, "sha256": digest}
    assert [version.name for version in store.versions.lineage("v0003")] == ["v0001", "v0002", "v0003"]


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("empty", [True, False])
def test_half_an_adapter_is_not_published(store: Store, missing: str, empty: bool) -> None:
    with store.lock("test"):
        run = store.runs.start(RunSpec("sft"))
        staging = store.versions.staging()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            if name != missing:
                (staging / name).write_text("x")
            elif empty:
                (staging / name).write_text("")
        spec = VersionSpec(run.id, None, "sft", 1, "pocket", "f")
        with pytest.raises(StoreError, match=missing):
            store.versions.publish(staging, spec, True, "test")
        assert store.versions.list() == ()
        assert store.runs.get(run.id).status == "running"


def test_a_spec_of_what_is_not_there_is_refused(store: Store, tmp_path: Path, publish: Publish) -> None:
    publish()
    with store.lock("test"):
        staging = store.versions.staging()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (staging / name).write_text("x")
        with pytest.raises(MissingRecordError, match="no run 9"):
            store.versions.publish(staging, VersionSpec(9, None, "sft", 1, "pocket", "f"), True, "test")
        with pytest.raises(MissingRecordError, match="no version v0009"):
            store.versions.publish(staging, VersionSpec(1, "v0009", "sft", 1, "pocket", "f"), True, "test")
        with pytest.raises(ValueError, match="no staging folder"):
            store.versions.publish(tmp_path, VersionSpec(1, None, "sft", 1, "pocket", "f"), True, "test")
    assert [version.name for version in store.versions.list()] == ["v0001"]


def test_a_version_from_an_ended_run_leaves_the_run_as_it_is(store: Store, publish: Publish) -> None:
    first = publish()
    before = store.runs.get(first.run_id)
    publish(run_id=first.run_id)
    after = store.runs.get(first.run_id)
    assert (after.finished_at, after.status, after.version) == (before.finished_at, "complete", first.name)
    with store.lock("test"):
        stopped = store.runs.start(RunSpec("sft"))
        store.runs.finish(stopped.id, "stopped")
    publish(run_id=stopped.id)
    assert store.runs.get(stopped.id).status == "stopped"


def test_rollback_walks_back_and_is_recorded(store: Store, publish: Publish) -> None:
    for _ in range(3):
        publish()
    assert store.versions.rollback("worse").name == "v0002"
    assert store.versions.rollback("worse still").name == "v0001"
    with pytest.raises(UsageError, match="v0001 is the first"):
        store.versions.rollback("no")
    assert store.versions.promote("v0003", "after all").name == "v0003"
    assert store.versions.rollback("no").name == "v0001"
    moves = [(move.previous, move.version, move.kind, move.reason) for move in store.versions.promotions()]
    assert moves[3:] == [
        ("v0003", "v0002", "rollback", "worse"),
        ("v0002", "v0001", "rollback", "worse still"),
        ("v0001", "v0003", "promote", "after all"),
        ("v0003", "v0001", "rollback", "no"),
    ]


def test_rollback_of_nothing_is_misuse(store: Store, publish: Publish) -> None:
    publish(promote=False)
    with pytest.raises(UsageError, match="no version is current"):
        store.versions.rollback("x")


def test_promoting_the_current_version_again_records_nothing(store: Store, publish: Publish) -> None:
    publish()
    publish()
    store.versions.promote("v0002", "again")
    assert len(store.versions.promotions()) == 2
    assert store.versions.rollback("x").name == "v0001"


def test_a_version_is_named_when_it_is_missing(store: Store, publish: Publish) -> None:
    with pytest.raises(MissingRecordError, match="no version v0001") as caught:
        store.versions.get("v0001")
    assert "no versions yet" in caught.value.message
    publish()
    with pytest.raises(MissingRecordError) as caught:
        store.versions.promote("v1", "x")
    assert "v0001" in caught.value.expected


@pytest.mark.parametrize("fault", ["folder", "config", "cut", "grown"])
def test_a_damaged_version_is_refused_with_what_to_do(store: Store, publish: Publish, fault: str) -> None:
    publish()
    version = publish()
    weights = version.folder / "adapter_model.safetensors"
    if fault == "folder":
        shutil.rmtree(version.folder)
    elif fault == "config":
        (version.folder / "adapter_config.json").unlink()
    else:
        weights.write_bytes(b"w" if fault == "cut" else b"weights and more")
    with pytest.raises(StoreError, match="v0002 is not complete") as caught:
        store.versions.current()
    assert "dlm rollback" in caught.value.next_step
    assert store.versions.current_name() == "v0002"
    assert store.versions.rollback("damaged").name == "v0001"
    assert current_name(store) == "v0001"
    with pytest.raises(StoreError, match="not complete"):
        store.versions.promote("v0002", "x")
    assert current_name(store) == "v0001"


def test_an_unpublished_folder_goes_and_a_strangers_folder_stays(store: Store, publish: Publish) -> None:
    version = publish()
    versions = store.folder / "versions"
    shutil.copytree(
        version.folder, versions / "v0002"
    )  # as a process leaves it that dies before the transaction
    (versions / "v0007").mkdir()
    (versions / "v0007" / "mine.txt").write_text("keep")
    (store.folder / "staging" / "version-x").mkdir()
    with store.lock("test") as recovery:
        assert {item.path.name for item in recovery.removed} == {"v0002", "version-x"}
    assert not (versions / "v0002").exists()
    assert (versions / "v0007" / "mine.txt").exists()
    assert publish().name == "v0008"  # a folder nobody explains is never overwritten


def test_a_store_copied_elsewhere_works(home: Home, store: Store, publish: Publish, tmp_path: Path) -> None:
    publish()
    store.close()
    shutil.copytree(home.root, tmp_path / "elsewhere")
    shutil.rmtree(home.root)
    with Home.open(tmp_path / "elsewhere").store(ID) as copied:
        current = copied.versions.current()
        assert current is not None
        assert current.folder == tmp_path / "elsewhere" / "store" / ID / "versions" / "v0001"
        with copied.lock("test"):
            assert copied.runs.start(RunSpec("sft", parent_version="v0001")).id == 2


def test_names_go_on_after_9999(store: Store, publish: Publish) -> None:
    (store.folder / "versions" / "v9999").mkdir()
    assert publish().name == "v10000"
    assert publish("v10000").name == "v10001"
    assert [version.name for version in store.versions.lineage("v10001")] == ["v10000", "v10001"]


def test_a_reward_model_is_never_current(store: Store, publish: Publish) -> None:
    first = publish()
    with store.lock("test"):
        run = store.runs.start(RunSpec("reward"))
        staging = store.versions.staging()
        (staging / "adapter_config.json").write_text("{}")
        (staging / "adapter_model.safetensors").write_bytes(b"weights")
        spec = VersionSpec(run.id, first.name, "reward", 3, "pocket", "f" * 64)
        with pytest.raises(ValueError, match="never current"):
            store.versions.publish(staging, spec, True, "no")
        scorer = store.versions.publish(staging, spec, False, "")
        assert (first.answers, scorer.answers) == (True, False)
        with pytest.raises(UsageError, match="reward model") as fault:
            store.versions.promote(scorer.name, "by hand")
    assert "dlm export" in fault.value.next_step
    assert current_name(store) == first.name
