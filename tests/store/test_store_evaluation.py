"""Graded answers are written once; verdicts are remembered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dlm.errors import MissingRecordError
from dlm.store import EvalResult, GateVerdict, RunSpec, Store

from .conftest import Publish

RESULT = EvalResult(
    3, 1, "key", "place", "p", "out\ud800", 0.5, {"a": 0.25}, ("f", "g"), False, None, "why", "stop", 7
)


def _run(store: Store) -> int:
    with store.lock("test"):
        return store.runs.start(RunSpec("eval")).id


def test_a_result_comes_back_as_it_was_and_is_never_overwritten(store: Store) -> None:
    run = _run(store)
    store.evaluations.record(run, [RESULT])
    store.evaluations.record(run, [replace(RESULT, score=1.0), replace(RESULT, repeat=0, error="grader")])
    first, second = store.evaluations.results(run)
    assert second == replace(RESULT, output="out\\ud800")
    assert (first.repeat, first.error, first.scored, second.scored) == (0, "grader", False, True)
    assert store.evaluations.done(run) == {(3, 0), (3, 1)}
    assert store.evaluations.results(_run(store)) == ()


def test_all_or_none(store: Store) -> None:
    run = _run(store)
    with pytest.raises(TypeError):
        store.evaluations.record(run, [RESULT, replace(RESULT, repeat=2, dimensions={"a": object()})])  # type: ignore[dict-item]
    assert not store.evaluations.results(run)
    with pytest.raises(MissingRecordError):
        store.evaluations.record(99, [RESULT])


def test_verdicts_of_a_version_in_their_order(store: Store, publish: Publish) -> None:
    first, second = publish().name, publish().name
    told = GateVerdict(first, "base", "fail", "one failed", "hash", {"runs": {"a": [1, None]}}, "sha")
    stored = store.evaluations.record_verdict(told)
    assert replace(stored, id=0, at="") == told
    assert stored.at
    store.evaluations.record_verdict(replace(told, candidate=second, verdict="pass"))
    store.evaluations.record_verdict(replace(told, verdict="unreachable"))
    assert [one.verdict for one in store.evaluations.verdicts(first)] == ["fail", "unreachable"]
    assert len(store.evaluations.verdicts()) == 3
    with pytest.raises(ValueError, match="maybe"):
        store.evaluations.record_verdict(replace(told, verdict="maybe"))
