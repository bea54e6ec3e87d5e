"""The rules while a run trains: what they say, once, at steps that depend on nothing else; and what a stop leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import dlm.workflow.watching
from dlm.curves import Finding, Series
from dlm.errors import InterruptedRunError
from dlm.store import Home, RunEvent, Store
from dlm.workflow.train import RunReport, TrainOptions, train
from dlm.workflow.watching import CurveWatch, lowest_training_loss, warning_data

pytestmark = pytest.mark.torch

Make = Callable[..., Path]
DLM_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def rows(count: int = 100, *, turns_at: int = 30) -> dict[int, dict[str, float]]:
    """A run that over-fits, its logged values by step."""
    found = {step: {"train_loss": 3 * 0.96**step, "tokens_per_second": 1.0} for step in range(1, count + 1)}
    for step in range(5, count + 1, 5):
        found[step]["valid_loss"] = 1 + abs(step - turns_at) * 0.02
    return found


def watch(stop_on: Any = "never", *, total: int = 100, every: int = 10, **more: Any) -> CurveWatch:
    given = {"earlier": {}, "told": (), **more}
    return CurveWatch("sft", "sft", total, every, stop_on=stop_on, **given)


def fed(one: CurveWatch, values: Mapping[int, Mapping[str, float]]) -> list[tuple[int, str]]:
    """The steps at which something was told, and what."""
    return [(step, finding.rule) for step in sorted(values) for finding in one.add(step, values[step])]


def _reason_after(step: int) -> str:
    one = watch("severe")
    fed(one, {at: row for at, row in rows().items() if at <= step})
    return one.reason


STOP = next(step for step in rows() if _reason_after(step))  # where a run of `rows` is first a reason to stop


def series_of(values: Mapping[int, Mapping[str, float]]) -> dict[str, Series]:
    names = {name for row in values.values() for name in row}
    found = {}
    for name in names:
        steps = [step for step in sorted(values) if name in values[step]]
        points = np.array([values[step][name] for step in steps])
        found[name] = Series(name, "", np.array(steps), points, np.zeros(len(steps)))
    return found


def test_each_warning_is_told_once_and_when_it_gets_worse() -> None:
    told = fed(watch(), rows())
    rules = [rule for _, rule in told]
    assert "overfit_ratio" in rules
    assert len(told) == len(set(told))
    assert len([rule for rule in rules if rule == "valid_loss_rises"]) <= 1


def test_a_healthy_run_warns_of_nothing_and_does_not_stop() -> None:
    healthy = {step: {"train_loss": 1 + 2 * 0.97**step} for step in range(1, 101)}
    for step in range(5, 101, 5):
        healthy[step]["valid_loss"] = 1.05 + 2 * 0.97**step
    one = watch("warn")
    assert fed(one, healthy) == []
    assert one.reason == ""


def looks(monkeypatch: pytest.MonkeyPatch, findings: Iterable[Finding] = ()) -> list[int]:
    """Replace the rules; returns the list of last steps they were asked at."""
    asked: list[int] = []

    def rules(run: Any) -> tuple[Finding, ...]:
        asked.append(run.last_step)
        return tuple(findings)

    monkeypatch.setattr(dlm.workflow.watching, "findings_so_far", rules)
    return asked


@pytest.mark.parametrize(
    ("total", "every", "expected"),
    [
        (60, 6, [10, 20, 30, 40, 50, 60]),  # a short run: not at every validation
        (60, 1, [10, 20, 30, 40, 50, 60]),
        (100, 10, list(range(10, 101, 10))),
        (200, 60, [25, 50, 60, 75, 100, 120, 125, 150, 175, 180, 200]),  # rare validations: in between, too
    ],
)
def test_when_to_look_depends_on_the_step_alone(
    monkeypatch: pytest.MonkeyPatch, total: int, every: int, expected: list[int]
) -> None:
    asked = looks(monkeypatch)
    fed(watch(total=total, every=every), {step: {"train_loss": 1.0} for step in range(1, total + 1)})
    assert asked == expected


def test_a_long_run_is_looked_at_about_forty_times(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = looks(monkeypatch)
    fed(watch(total=20_000, every=2000), {step: {"train_loss": 1.0} for step in range(1, 20_001)})
    assert len(asked) == 40


@pytest.mark.parametrize(
    ("stop_on", "severity", "stops"),
    [
        ("never", "severe", False),
        ("severe", "warn", False),
        ("severe", "severe", True),
        ("warn", "warn", True),
        ("warn", "info", False),
    ],
)
def test_what_stops_a_run(monkeypatch: pytest.MonkeyPatch, stop_on: str, severity: Any, stops: bool) -> None:
    looks(monkeypatch, [Finding("a_rule", severity, "it is bad", (), "mend it")])
    one = watch(stop_on)
    fed(one, rows(10))
    assert one.reason == (f"{severity}: it is bad" if stops else "")


def test_what_was_logged_and_told_before_a_stop_counts() -> None:
    whole = watch("severe")
    told = fed(whole, rows())
    for stopped_at in (1, STOP - 7, STOP - 1):
        before = watch("severe")
        heard = fed(before, {step: row for step, row in rows().items() if step <= stopped_at})
        events = [
            RunEvent(0, 1, "warning", warning_data(step, Finding(rule, _severity(rule), "", (), "")), "")
            for step, rule in heard
        ]
        series = series_of({step: row for step, row in rows().items() if step <= stopped_at})
        after = watch("severe", earlier=series, told=events)
        assert after.reason == ""
        assert heard + fed(after, {step: row for step, row in rows().items() if step > stopped_at}) == told
        assert after.reason == whole.reason


def _severity(rule: str) -> Any:
    one = watch()
    found = [finding for step, row in rows().items() for finding in one.add(step, row)]
    return max((f.severity for f in found if f.rule == rule), key=("info", "warn", "severe").index)


def test_a_run_that_was_killed_before_the_stop_it_asked_for_stops_at_once() -> None:
    series = series_of({step: row for step, row in rows().items() if step <= STOP})
    assert watch("severe", earlier=series).reason == _reason_after(STOP)


def test_of_the_saved_steps_the_one_with_the_lowest_training_loss() -> None:
    losses = np.array([4, 3, 2, 1, 1, 1, 5, 9, 9.0])
    series = Series("train_loss", "nats", np.arange(1, 10), losses, np.zeros(9))
    assert lowest_training_loss(series, [3, 6, 9]) == 6
    assert lowest_training_loss(series, [2, 9]) == 2  # 9 stands for steps 3 to 9
    assert lowest_training_loss(series, []) is None
    broken = Series("train_loss", "nats", np.arange(1, 4), np.array([1, math.nan, 1]), np.zeros(3))
    assert lowest_training_loss(broken, [1, 2, 3]) in (1, 3)


# --- whole runs ----------------------------------------------------------------------------------------------------

FACTS = "".join(f"### Q\nWhere is number {i}?\n### A\nIn room {i * 37 % 91}.\n" for i in range(24))
TOO_FAST = {
    "max_steps": 120,
    "learning_rate": 0.05,
    "lr_scheduler": "constant",
    "lora_r": 16,
    "lora_dropout": 0,
    "eval_every_steps": 10,
    "val_fraction": 0.3,
    "layout": "plain",
    "keep_last": 1,
}


def opened() -> Store:
    found = Home.open().find(DLM_ID)
    assert found is not None
    return found


def go(document: Path, view: Any, resume: bool = False, **knobs: Any) -> RunReport:
    given = {} if resume else {**TOO_FAST, **knobs}
    (report,) = train(document, TrainOptions(knobs=given, device="cpu", resume=resume), view).runs
    return report


@pytest.fixture
def document(make_document: Make) -> Path:
    return make_document(body=f"::instruction::\n{FACTS}")


def adapter(run_id: int) -> dict[str, Any]:
    """The weights of the newest checkpoint of a run."""
    with opened() as store:
        folder = [one.folder for one in store.saved_checkpoints(run_id) if one.is_there][-1]
    return dict(load_file(folder / "adapter_model.safetensors"))


@pytest.mark.big
def test_a_severe_finding_ends_the_run_and_the_best_checkpoint_becomes_the_version(
    document: Path, view: Any
) -> None:
    watched = go(document, view)
    warned = [note for note in view.notes if note.startswith("warning: step ")]
    assert any("diverges" in note for note in warned)
    assert watched.steps == 120  # a warning stops nothing
    assert watched.diagnosis.verdict.level == "severe"
    stopped = go(document, view, stop_on="severe")
    with opened() as store:
        run = store.runs.get(stopped.run_id)
        events = store.runs.events(run.id)
        kinds = {
            kind: [event.data for event in events if event.kind == kind] for kind in {e.kind for e in events}
        }
        first = store.metrics.read(watched.run_id, ["train_loss"])["train_loss"]
        again = store.metrics.read(run.id, ["train_loss"])["train_loss"]
    (end,) = kinds["stopped_early"]
    assert end["step"] < 120
    assert end["reason"].startswith("severe: ")
    assert run.status == "complete"
    assert stopped.steps in [data["step"] for data in kinds["checkpoint"]]
    assert stopped.steps < end["step"]
    assert f"step {stopped.steps} scored best on held-out rows" in "\n".join(view.notes)
    assert any(data["severity"] == "severe" for data in kinds["warning"])
    assert len({data["rule"] for data in kinds["warning"] if data["severity"] == "warn"}) == sum(
        data["severity"] == "warn" for data in kinds["warning"]
    )
    assert kinds["diagnosis"][0]["text"] == stopped.diagnosis.verdict.text
    # until it stopped it was the run that nobody asked to stop, bit for bit
    assert again.values.tolist() == first.values[: len(again)].tolist()


@pytest.mark.big
def test_a_watched_run_has_the_bits_of_one_that_is_not(
    document: Path, view: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = go(document, view, max_steps=30)
    monkeypatch.setattr(CurveWatch, "add", lambda self, step, values: [])
    blind = go(document, view, max_steps=30)
    first, second = adapter(watched.run_id), adapter(blind.run_id)
    assert all((first[name] == second[name]).all() for name in first)


@pytest.mark.big
def test_a_stop_is_the_same_when_the_run_was_interrupted_before_it(document: Path, view: Any) -> None:
    class Stopping(type(view)):  # type: ignore[misc]
        def step(self, step: int, total: int, values: Mapping[str, float]) -> None:
            super().step(step, total, values)
            if step == 15:
                import signal

                signal.raise_signal(signal.SIGINT)

    whole = go(document, view, stop_on="severe")
    with pytest.raises(InterruptedRunError):
        go(document, Stopping(), stop_on="severe")
    resumed = go(document, view, resume=True)
    with opened() as store:
        events = [
            [
                (e.kind, dict(e.data))
                for e in store.runs.events(run)
                if e.kind in ("warning", "stopped_early", "checkpoint")
            ]
            for run in (whole.run_id, resumed.run_id)
        ]
    # the stop itself saved a checkpoint at step 15
    assert events[0] == [event for event in events[1] if event != ("checkpoint", {"step": 15})]
    assert resumed.steps == whole.steps
