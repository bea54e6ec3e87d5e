"""Which document a store belongs to, and freeing space."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dlm.errors import CopiedDocumentError, LockedError, MissingRecordError, StoreError, UsageError
from dlm.store import Home, RunSpec, Store, Version, checkpoint_step

ID = "01J9Z3W5E8RT2Y4VQ7NDPXK6MA"
Publish = Callable[..., Version]


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "notes.dlm"
    path.write_text(f"---\ndlm_id: {ID}\n---\n")
    return path


def test_the_same_document_may_come_again(
    store: Store, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.document() is None
    assert store.attach(document) == ""
    assert store.attach(document) == ""
    monkeypatch.chdir(document.parent)
    assert store.attach(Path("notes.dlm")) == ""
    assert store.document() == document


def test_an_editor_may_replace_the_file(store: Store, document: Path) -> None:
    store.attach(document)
    replacement = document.with_name("notes.tmp")
    replacement.write_text(document.read_text())
    os.replace(replacement, document)
    assert store.attach(document) == ""


def test_a_copy_is_refused_until_it_has_its_own_id(store: Store, document: Path, tmp_path: Path) -> None:
    store.attach(document)
    copy = tmp_path / "copy.dlm"
    shutil.copy(document, copy)
    with pytest.raises(CopiedDocumentError) as caught:
        store.attach(copy)
    assert caught.value.next_step == f"dlm init --new-id {copy}"
    assert str(document) in caught.value.expected
    assert store.document() == document
    document.write_text("---\ndlm_id: 01J9Z3W5E8RT2Y4VQ7NDPXK6MB\n---\n")  # the first one got the new id
    assert "moved" in store.attach(copy)
    assert store.document() == copy


def test_a_moved_document_is_followed(store: Store, document: Path, tmp_path: Path) -> None:
    store.attach(document)
    moved = tmp_path / "elsewhere.dlm"
    document.rename(moved)
    assert store.attach(moved) == f"the document has moved from {document} to {moved}"
    assert store.attach(moved) == ""


def test_links_are_no_copies(store: Store, document: Path, tmp_path: Path) -> None:
    store.attach(document)
    (tmp_path / "soft.dlm").symlink_to(document)
    os.link(document, tmp_path / "hard.dlm")
    store.attach(tmp_path / "soft.dlm")
    store.attach(tmp_path / "hard.dlm")
    store.attach(document)


def test_another_file_in_the_old_place_is_no_copy(store: Store, document: Path, tmp_path: Path) -> None:
    store.attach(document)
    document.rename(tmp_path / "moved.dlm")
    document.mkdir()
    assert "moved" in store.attach(tmp_path / "moved.dlm")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"notes-\xff")
    try:
        odd.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    document = odd / "notes.dlm"
    document.write_text(f"---\ndlm_id: {ID}\n---\n")
    with Home.open(odd / "home").store(ID) as store:
        assert store.attach(document) == ""
        assert store.document() == document
        with store.lock(f"dlm train {document}"):
            run = store.runs.start(RunSpec("sft"))
            store.runs.event(run.id, "file", {"path": str(document)})
            assert store.runs.events(run.id)[0].data == {"path": str(document)}
            assert "udcff" in store.runs.finish(run.id, "failed", f"cannot read {document}").message
        document.rename(tmp_path / "moved.dlm")
        assert "moved" in store.attach(tmp_path / "moved.dlm")


def test_a_document_that_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        store.attach(tmp_path / "absent.dlm")


@pytest.mark.parametrize(
    ("name", "step"),
    [("step-00000120", 120), ("step-7", 7), (".partial-step-7", None), ("notes", None), ("step-", None)],
)
def test_checkpoints_are_known_by_name(name: str, step: int | None) -> None:
    assert checkpoint_step(name) == step


def checkpoint(store: Store, run_id: int, *steps: int) -> None:
    for step in steps:
        folder = store.checkpoints(run_id) / f"step-{step:08d}"
        folder.mkdir()
        (folder / "optimizer.safetensors").write_bytes(b"x" * 1000)


def steps_of(store: Store, run_id: int) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in store.checkpoints(run_id).iterdir())


@pytest.fixture
def four_runs(store: Store) -> dict[str, int]:
    """A run in each ended status, with checkpoints of steps 9, 10 and 100."""
    runs = {}
    with store.lock("test"):
        for status in ("complete", "failed", "interrupted", "stopped"):
            runs[status] = store.runs.start(RunSpec("sft")).id
            checkpoint(store, runs[status], 9, 10, 100)
            store.runs.finish(runs[status], status)
    return runs


@pytest.mark.parametrize("keep", [0, 1, 2, 3])
def test_prune_keeps_the_newest_checkpoints(store: Store, four_runs: dict[str, int], keep: int) -> None:
    report = store.prune(keep_last=keep)
    newest_first = [100, 10, 9]
    for status, run_id in four_runs.items():
        kept = max(keep, 1) if status in ("interrupted", "stopped") else keep
        assert steps_of(store, run_id) == sorted(newest_first[:kept]), status
    assert sum(item.bytes for item in report.items if item.kind == "checkpoint") == 1000 * (
        12 - 2 * keep - 2 * max(keep, 1)
    )
    assert store.prune(keep_last=keep).items == ()  # nothing is left to do


def test_a_dry_run_says_the_same_and_does_nothing(store: Store, four_runs: dict[str, int]) -> None:
    planned = store.prune(keep_last=1, dry_run=True)
    assert all(steps_of(store, run_id) == [9, 10, 100] for run_id in four_runs.values())
    done = store.prune(keep_last=1)
    assert planned.items == done.items
    assert planned.bytes == done.bytes >= 8000
    assert (planned.dry_run, done.dry_run) == (True, False)


def test_half_written_checkpoints_go(store: Store, four_runs: dict[str, int]) -> None:
    partial = store.checkpoints(four_runs["complete"]) / ".partial-step-200"
    partial.mkdir()
    (partial / "weights").write_bytes(b"x" * 10)
    kept = store.checkpoints(four_runs["complete"]) / "notes"
    kept.mkdir()
    report = store.prune(keep_last=3)
    assert [(item.kind, item.path, item.bytes) for item in report.items] == [("leftover", partial, 10)]
    assert kept.exists()


def test_a_running_run_keeps_its_checkpoints(store: Store) -> None:
    with store.lock("test"):
        run = store.runs.start(RunSpec("sft"))
        checkpoint(store, run.id, 1, 2)
        staging = store.versions.staging()
        assert store.prune(keep_last=0).items == ()
        assert steps_of(store, run.id) == [1, 2]
        assert staging.exists()


def test_prune_waits_for_nobody(home: Home, store: Store) -> None:
    with home.store(ID) as other, other.lock("dlm train notes.dlm"), pytest.raises(LockedError):
        store.prune()


def test_versions_go_only_by_name_and_never_when_needed(store: Store, publish: Publish) -> None:
    publish()  # v0001: parent of the current one
    publish()  # v0002: aside
    publish("v0001", weights=b"x" * 500)  # v0003: current
    for name in ("v0001", "v0003"):
        with pytest.raises(UsageError, match=f"{name} is .* and stays"):
            store.prune(versions=["v0002", name])
    with pytest.raises(MissingRecordError):
        store.prune(versions=["v0009"])
    assert len(store.versions.list()) == 3
    assert [item for item in store.prune().items if item.kind == "version"] == []
    (store.folder / "checkpoints" / ".DS_Store").write_bytes(b"")  # a stranger's file is nobody's checkpoint
    report = store.prune(versions=["v0002", "v0002"])
    assert store.prune(versions=["v0002"]).items == ()
    assert [item.path.name for item in report.items if item.kind == "version"] == ["v0002"]
    assert [version.name for version in store.versions.list()] == ["v0001", "v0003"]
    removed = store.versions.get("v0002")
    assert removed.removed_at is not None
    assert store.versions.list(removed=True)[1] == removed
    assert not removed.folder.exists()
    with pytest.raises(StoreError, match="pruned"):
        store.versions.promote("v0002", "x")
    assert store.versions.rollback("x").name == "v0001"  # the pruned one is jumped over
    with pytest.raises(UsageError, match="first"):
        store.versions.rollback("x")
    assert publish().name == "v0004"
    store.prune(versions=["v0003"])
    assert store.versions.rollback("x").name == "v0001"


def test_a_version_whose_pruning_was_cut_short_is_finished_later(store: Store, publish: Publish) -> None:
    publish()
    publish()
    store.versions.mark_removed("v0001")  # and the process dies here
    with store.lock("test") as recovery:
        assert [item.path.name for item in recovery.removed] == ["v0001"]
    assert not (store.folder / "versions" / "v0001").exists()


@pytest.mark.parametrize("kind", ["sft", "preference"])
def test_prune_frees_cached_log_probs_unless_a_run_may_go_on_with_them(store: Store, kind: str) -> None:
    cached = store.references / "0123.safetensors"
    cached.write_bytes(b"x" * 100)
    with store.lock("test"):
        run = store.runs.start(RunSpec(kind))
        store.runs.finish(run.id, "interrupted")
    found = [(item.kind, item.path, item.bytes) for item in store.prune(dry_run=True).items]
    assert found == ([] if kind == "preference" else [("cache", cached, 100)])
    with store.lock("test"):
        store.runs.finish(run.id, "failed", "discarded")
    assert store.prune().bytes == 100
    assert not cached.exists()
    assert store.references.is_dir()
