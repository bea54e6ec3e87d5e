"""Runs and their events: what is kept, and which status may follow which."""

from __future__ import annotations

import re
from datetime import datetime

import pytest

from dlm.errors import MissingRecordError, StoreError, UsageError
from dlm.store import RUN_STATUSES, Home, RunSpec, Store

ID = "01J9Z3W5E8RT2Y4VQ7NDPXK6MA"
FULL = RunSpec(
    kind="preference",
    method="dpo",
    recipe={"lora_r": 8, "learning_rate": 2e-4, "target_modules": ["q_proj"], "max_steps": None},
    parent_version=None,
    data_hash="d" * 64,
    base="pocket",
    base_fingerprint="f" * 64,
    libraries={"torch": "2.13.0"},
    threads=2,
    layout="plain",
    seed=2**63 - 1,
    document_sha256="a" * 64,
    planned_steps=1938,
)


def test_a_run_keeps_all_it_was_told(home: Home, store: Store) -> None:
    with store.lock("test"):
        run = store.runs.start(FULL)
    for name in RunSpec.__dataclass_fields__:
        assert getattr(run, name) == getattr(FULL, name), name
    assert (run.id, run.status, run.finished_at, run.message, run.version) == (1, "running", None, "", None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", run.started_at)
    store.close()
    with home.store(ID) as again:
        assert again.runs.get(1) == run


def test_ids_count_up_over_all_kinds(store: Store) -> None:
    with store.lock("test"):
        assert [store.runs.start(RunSpec(kind)).id for kind in ("sft", "mine", "eval", "reward", "rft")] == [
            1,
            2,
            3,
            4,
            5,
        ]
        store.runs.finish(2, "complete")
    assert [run.id for run in store.runs.list()] == [1, 2, 3, 4, 5]
    for found, expected in (
        (store.runs.latest(), 5),
        (store.runs.latest("mine"), 2),
        (store.runs.latest(status="complete"), 2),
        (store.runs.latest("sft", "running"), 1),
    ):
        assert found is not None
        assert found.id == expected
    assert store.runs.latest("preference") is None


def test_what_is_not_there_is_named(store: Store) -> None:
    with pytest.raises(MissingRecordError, match="no run 7") as caught:
        store.runs.get(7)
    assert "no runs yet" in caught.value.found
    for act in (
        lambda: store.runs.event(7, "a", {}),
        lambda: store.runs.events(7),
        lambda: store.runs.finish(7, "complete"),
        lambda: store.checkpoints(7),
        lambda: store.metrics.read(7),
        lambda: store.metrics.writer(7),
        lambda: store.metrics.drop_after(7, 0),
    ):
        with pytest.raises(MissingRecordError):
            act()
    with store.lock("test"):
        with pytest.raises(MissingRecordError, match="v0009"):
            store.runs.start(RunSpec("sft", parent_version="v0009"))
        with pytest.raises(ValueError, match="kind"):
            store.runs.start(RunSpec("dance"))
    assert store.runs.list() == ()


MAY_FOLLOW = {
    "running": {"complete", "failed", "interrupted", "stopped"},
    "complete": set(),
    "failed": set(),
    "interrupted": {"failed"},
    "stopped": {"failed"},
}


@pytest.mark.parametrize("before", RUN_STATUSES)
@pytest.mark.parametrize("after", RUN_STATUSES)
def test_which_status_may_follow_which(store: Store, before: str, after: str) -> None:
    with store.lock("test"):
        run = store.runs.start(RunSpec("sft"))
        if before != "running":
            store.runs.finish(run.id, before, "why")
        if after == "running":
            if before in ("interrupted", "stopped"):
                resumed = store.runs.resume(run.id)
                assert (resumed.status, resumed.finished_at, resumed.message) == ("running", None, "")
                assert [event.kind for event in store.runs.events(run.id)] == ["resumed"]
            else:
                with pytest.raises(UsageError, match="nothing to resume"):
                    store.runs.resume(run.id)
        elif after in MAY_FOLLOW[before]:
            ended = store.runs.finish(run.id, after, "because")
            assert (ended.status, ended.message) == (after, "because")
            assert ended.finished_at is not None
        elif after == before:
            assert store.runs.finish(run.id, after, "again").message == "why"
        else:
            with pytest.raises(StoreError, match=f"cannot become {after}"):
                store.runs.finish(run.id, after)


def test_a_status_must_be_an_end(store: Store) -> None:
    with store.lock("test"):
        run = store.runs.start(RunSpec("sft"))
    for status in ("running", "done"):
        with pytest.raises(ValueError, match="no way to finish"):
            store.runs.finish(run.id, status)


def test_events_keep_their_order_and_their_data(store: Store) -> None:
    with store.lock("test"):
        run, other = store.runs.start(RunSpec("sft")), store.runs.start(RunSpec("sft"))
    answers = [{"question": "é?\n", "answer": "a\u2028b", "score": float("inf"), "n": [1, None]}, {}]
    store.runs.event(run.id, "probe_answer", answers[0])
    store.runs.event(run.id, "warning", {"text": "x"})
    store.runs.event(other.id, "probe_answer", {"other": True})
    store.runs.event(run.id, "probe_answer", answers[1])
    assert [event.kind for event in store.runs.events(run.id)] == ["probe_answer", "warning", "probe_answer"]
    assert [event.data for event in store.runs.events(run.id, "probe_answer")] == answers


def test_runs_left_by_a_dead_process_become_interrupted(home: Home, store: Store) -> None:
    """A store object dropped without a word stands for the process here; test_store_crash kills real ones."""
    with home.store(ID) as dead, dead.lock("test"):
        run, other = dead.runs.start(RunSpec("sft")), dead.runs.start(RunSpec("mine"))
        dead.runs.finish(other.id, "complete")
        with dead.metrics.writer(run.id) as writer:
            writer.log(1, {"train_loss": 1.0})
    assert store.runs.get(run.id).status == "running"
    with store.lock("test") as recovery:
        assert [left.id for left in recovery.interrupted] == [run.id]
        ended = store.runs.get(run.id)
        assert ended.status == "interrupted"
        assert ended.resumable
        logged = store.metrics.read(run.id)["train_loss"].times[-1]
        assert ended.finished_at is not None
        assert abs(datetime.fromisoformat(ended.finished_at).timestamp() - logged) < 0.002
        assert store.runs.get(other.id).status == "complete"
        assert [event.kind for event in store.runs.events(run.id)] == ["interrupted"]
        bare = store.runs.start(RunSpec("sft"))
    with store.lock("test"):
        assert store.runs.get(bare.id).finished_at == bare.started_at  # never heard of again
