"""Bug 12, and what else a stop must not cost: a resumed run is the run that never stopped, or it says why it is not."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bases_on_the_spot import make_base
from dlm.errors import InterruptedRunError, NonFiniteError, StoreError, UsageError
from dlm.store import Home, Store
from dlm.training import checkpoints
from dlm.workflow.train import RunReport, TrainOptions, train
from killed_training import MOMENTS, train_and_die

pytestmark = [pytest.mark.torch, pytest.mark.big]

DLM_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
ROWS = "".join(f"### Q\nWhat is number {i}?\n### A\nIt is {i * 7}.\n" for i in range(26))
PROBE = "### Q !probe\nWhich number is 3?\n### A\nIt is 21.\n"
TOO_LONG = "### Q\nWhat is long?\n### A\n" + "Very, very long. " * 60 + "\n"
BODY = f"::instruction::\n{ROWS}{PROBE}{TOO_LONG}"
KNOBS = {
    "max_steps": 12,
    "save_every_steps": 4,
    "eval_every_steps": 3,
    "lora_dropout": 0.3,
    "layout": "plain",
}
"""The layout is set: which one is fastest may differ between two runs, and with it the last bits."""
TIMED = ("tokens_per_second", "peak_memory_mb")  # of a machine, not of a run
LEFT_BY_A_STOP = ("interrupted", "resumed", "checkpoint")  # a polite stop saves one more


@dataclasses.dataclass
class Result:
    """What a store holds after a run, as far as it must not depend on whether the run was stopped."""

    adapter: bytes
    versions: list[str]
    current: str
    series: dict[str, tuple[list[int], list[float]]]
    events: list[tuple[str, Any]]

    @classmethod
    def read(cls, home: Path) -> Result:
        with opened(home) as store:
            current = store.versions.current()
            assert current is not None
            (run,) = store.runs.list()
            assert run.status == "complete"
            series = {
                name: (list(map(int, one.steps)), list(map(float, one.values)))
                for name, one in store.metrics.read(run.id).items()
                if name not in TIMED
            }
            events = [(e.kind, e.data) for e in store.runs.events(run.id) if e.kind not in LEFT_BY_A_STOP]
            on_disk = sorted(path.name for path in (store.folder / "versions").iterdir())
            assert on_disk == [version.name for version in store.versions.list()]
            adapter = (current.folder / "adapter_model.safetensors").read_bytes()
            return cls(adapter, on_disk, current.name, series, events)


def opened(home: Path) -> Store:
    found = Home.open(home).find(DLM_ID)
    assert found is not None
    return found


def status_of(home: Path, run_id: int = 1) -> str:
    with opened(home) as store:
        return store.runs.get(run_id).status


class Watching:
    """A view that remembers, and does something after one step."""

    def __init__(self, at: int = 0, act: Callable[[], None] = lambda: None) -> None:
        self.notes: list[str] = []
        self.steps: list[int] = []
        self.resumed_at: int | None = None
        self._at, self._act = at, act

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.notes.append(f"warning: {text}")

    def briefing(self, briefing: Any) -> None:
        self.resumed_at = briefing.resumed_at

    def step(self, step: int, total: int, values: Mapping[str, float]) -> None:
        self.steps.append(step)
        if step == self._at:
            self._act()

    def checkpoint(self, step: int) -> None: ...
    def stopping(self) -> None: ...


def go(document: Path, view: Watching | None = None, /, **options: Any) -> RunReport:
    options = {"knobs": KNOBS, "device": "cpu", **options}
    (report,) = train(document, TrainOptions(**options), view or Watching()).runs
    return report


def resume(document: Path, view: Watching | None = None, /, **options: Any) -> RunReport:
    return go(document, view, **{"knobs": {}, "resume": True, **options})


def stop_at(document: Path, step: int, number: int = signal.SIGINT, /, **options: Any) -> None:
    """Train, and ask politely for a stop after `step`."""
    with pytest.raises(InterruptedRunError) as fault:
        go(document, Watching(step, lambda: os.kill(os.getpid(), number)), **options)
    assert fault.value.exit_code == 130
    assert "--resume" in fault.value.next_step


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One document on one base; each test has a home of its own. Do not change it: take `make_document`."""
    folder = tmp_path_factory.mktemp("resume")
    make_base(folder / "llama", "llama")
    path = folder / "doc.dlm"
    path.write_text(f"---\ndlm_id: {DLM_ID}\nbase_model: ./llama\n---\n{BODY}", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(document: Path) -> Result:
    """The run that never stopped."""
    home = document.parent / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLM_HOME", str(home))
        report = go(document)
    assert report.skipped == 1
    result = Result.read(home)
    assert result.series["train_loss"][0] == list(range(1, 13))
    assert result.series["valid_loss"][0] == [3, 6, 9, 12]
    assert [kind for kind, _ in result.events] == [
        "skipped_rows",
        "findings",
        "probe_answers",
        "probe_answers",
        "diagnosis",
    ]
    return result


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DLM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# --- stopped and gone on with ------------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize("moment", MOMENTS)
def test_bug_12_killed_and_resumed_is_the_run_that_never_stopped(
    document: Path, whole: Result, home: Path, moment: str
) -> None:
    assert train_and_die(home, document, KNOBS, moment) == -signal.SIGKILL
    with opened(home) as store:
        assert store.versions.current() is None
        assert store.versions.list() == ()
    report = resume(document, view := Watching())
    assert Result.read(home) == whole
    assert report.version == "v0001"
    assert {name for name in report.last if name not in TIMED} == set(whole.series)
    if moment == "step 9":
        assert view.steps == [9, 10, 11, 12]
    with pytest.raises(UsageError, match="no interrupted run"):
        resume(document)


@pytest.mark.process
def test_killed_twice_and_resumed_twice(document: Path, whole: Result, home: Path) -> None:
    assert train_and_die(home, document, KNOBS, "step 6") == -signal.SIGKILL
    with pytest.raises(InterruptedRunError):
        resume(document, Watching(9, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    resume(document)
    assert Result.read(home) == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_bug_12_a_polite_stop_saves_the_step_it_stands_at(
    document: Path, whole: Result, home: Path, number: int
) -> None:
    stop_at(document, 6, number)
    assert status_of(home) == "interrupted"
    with opened(home) as store:
        assert signal.Signals(number).name in store.runs.get(1).message
    resume(document, view := Watching())
    assert (view.resumed_at, view.steps) == (6, [7, 8, 9, 10, 11, 12])
    assert Result.read(home) == whole


@pytest.mark.parametrize("kind", [OSError, SafetensorError])
def test_a_full_disk_leaves_the_run_resumable(
    document: Path, whole: Result, home: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """safetensors tells of a full disk by an error of its own kind."""
    saved = 0

    def save_until_full(tensors: Any, path: str) -> None:
        nonlocal saved
        saved += 1
        if saved == 2:
            raise kind(f"I/O error: No space left on device: {path}")
        save_file(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", save_until_full)
        with pytest.raises(StoreError, match="No space left") as fault:
            go(document)
    assert "--resume" in fault.value.next_step
    with opened(home) as store:
        run = store.runs.get(1)
        assert (run.status, run.resumable) == ("interrupted", True)
        assert "No space left" in run.message
        assert checkpoints.saved_steps(store.checkpoints(1)) == [4]
    resume(document)
    assert Result.read(home) == whole


@pytest.mark.parametrize("file", ["optimizer.safetensors", "adapter_model.safetensors", "progress.json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    document: Path, whole: Result, home: Path, file: str
) -> None:
    stop_at(document, 10)
    with opened(home) as store:
        newest = store.checkpoints(1) / "step-00000010"
    (newest / file).write_bytes((newest / file).read_bytes()[:-5])

    def last_step() -> int:
        with opened(home) as store:
            return int(store.metrics.read(1)["train_loss"].steps[-1])

    seen: list[int] = []
    assert last_step() == 10
    resume(document, view := Watching(9, lambda: seen.append(last_step())))
    assert seen[0] <= 9  # what came after the checkpoint is forgotten before the first new step
    assert any(note.startswith("warning: the checkpoint of step 10 is damaged") for note in view.notes)
    assert (view.resumed_at, view.steps) == (8, [9, 10, 11, 12])
    assert Result.read(home) == whole


def test_numbers_that_are_not_finite_end_the_run(document: Path, home: Path) -> None:
    """A resumed run would come to the same step again: it is `failed`, not `interrupted`."""
    with pytest.raises(NonFiniteError):
        go(document, knobs={**KNOBS, "learning_rate": 10.0, "weight_decay": 1e30, "warmup_ratio": 0.0})
    assert status_of(home) == "failed"
    with pytest.raises(UsageError, match="no interrupted run"):
        resume(document)


# --- a run is resumed only as the run it was ---------------------------------------------------------------------

Make = Callable[..., Path]


def refused(document: Path, names: str, /, **options: Any) -> None:
    with pytest.raises(UsageError, match="cannot be resumed") as fault:
        resume(document, **options)
    assert names in fault.value.message
    assert "--fresh" in fault.value.next_step
    assert status_of(Path(os.environ["DLM_HOME"])) == "interrupted"


def edit(document: Path, old: str, new: str) -> None:
    text = document.read_text(encoding="utf-8")
    assert old in text
    document.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_other_rows_are_refused_and_the_old_ones_accepted_again(make_document: Make) -> None:
    document = make_document()
    stop_at(document, 2)
    edit(document, "It is 21.", "It is 22.")
    refused(document, "the rows")
    edit(document, "It is 22.", "It is 21.")
    resume(document)


def test_text_that_is_no_row_may_change(make_document: Make) -> None:
    document = make_document()
    stop_at(document, 2)
    edit(document, "base_model:", "# a comment\nbase_model:")
    resume(document)


def test_another_flag_is_refused_by_name(make_document: Make) -> None:
    document = make_document()
    stop_at(document, 2)
    refused(document, "learning_rate", knobs={"learning_rate": 0.5})
    refused(document, "max_steps (12, now 13)", knobs={"max_steps": 13})
    resume(document, knobs={"max_steps": 12})


def test_a_knob_changed_in_the_header_is_refused_by_name(make_document: Make) -> None:
    document = make_document(header="training:\n  lora_r: 4\n")
    stop_at(document, 2)
    edit(document, "lora_r: 4", "lora_r: 5")
    refused(document, "lora_r (4, now 5)")
    edit(document, "  lora_r: 5\n", "  lora_r: 4\n  seed: 1\n")
    refused(document, "seed (42, now 1)")
    edit(document, "  seed: 1\n", "  seed: 42\n")
    resume(document)


def test_a_header_overruled_by_a_flag_is_not_held_against_the_run(
    make_document: Make, tmp_path: Path
) -> None:
    document = make_document(header="training:\n  lora_r: 4\n")
    stop_at(document, 2, knobs={**KNOBS, "lora_r": 2})
    refused(document, "lora_r (2, now 4)", knobs={"lora_r": 4})
    resume(document)
    with opened(tmp_path / "home") as store:
        folder = store.versions.get("v0001").folder
    assert json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["r"] == 2


@pytest.mark.parametrize("prompt", ["Be kind.", "Be brief. "])
def test_another_system_prompt_is_refused(make_document: Make, prompt: str) -> None:
    document = make_document("qwen2", header="system_prompt: Be brief.\n")
    stop_at(document, 2)
    edit(document, "system_prompt: Be brief.", f"system_prompt: {json.dumps(prompt)}")
    refused(document, "the system prompt")
    edit(document, f"system_prompt: {json.dumps(prompt)}", "system_prompt: Be brief.")
    resume(document)


def test_another_base_under_the_same_name_is_refused(make_document: Make) -> None:
    document = make_document()
    stop_at(document, 2)
    weights = document.parent / "llama" / "model.safetensors"
    kept = weights.read_bytes()
    tensors = load_file(weights)
    tensors["model.norm.weight"] += 1e-3
    save_file(tensors, weights, metadata={"format": "pt"})
    refused(document, "the base's files")
    weights.write_bytes(kept)
    resume(document)


def test_rows_files_are_remembered(make_document: Make, tmp_path: Path) -> None:
    document, extra = make_document(), tmp_path / "rows.jsonl"
    row = '{"prompt": "Who?", "completion": "We."}\n'
    extra.write_text(row, encoding="utf-8")
    stop_at(document, 2, rows_files=[extra])
    extra.write_text(row.replace("We", "They"), encoding="utf-8")
    refused(document, str(extra))
    extra.write_text(row, encoding="utf-8")
    resume(document)


# --- --fresh, and neither ----------------------------------------------------------------------------------------


def test_fresh_gives_the_old_run_up_and_frees_its_checkpoints(document: Path, home: Path) -> None:
    stop_at(document, 6)
    report = go(document, view := Watching(), fresh=True, knobs={"max_steps": 1})
    assert (report.run_id, report.version) == (2, "v0001")
    assert any("run 1" in note and "discarded" in note for note in view.notes)
    with opened(home) as store:
        assert (store.runs.get(1).status, store.runs.get(1).message) == ("failed", "discarded by --fresh")
        assert checkpoints.saved_steps(store.checkpoints(1)) == []


def test_fresh_keeps_the_old_run_when_the_new_one_cannot_start(
    document: Path, whole: Result, home: Path
) -> None:
    stop_at(document, 6)
    with pytest.raises(UsageError, match="target_modules"):
        go(document, fresh=True, knobs={"target_modules": ["no_such_layer"]})
    assert status_of(home) == "interrupted"
    resume(document)
    assert Result.read(home) == whole


def test_with_neither_flag_the_old_run_is_mentioned_and_kept(document: Path, home: Path) -> None:
    stop_at(document, 6)
    go(document, view := Watching(), knobs={"max_steps": 1})
    assert any("run 1 was interrupted" in note and "--resume" in note for note in view.notes)
    assert status_of(home, 1) == "interrupted"
    with opened(home) as store:
        assert checkpoints.saved_steps(store.checkpoints(1)) == [4, 6]


def test_nothing_to_resume(document: Path, home: Path) -> None:
    with pytest.raises(UsageError, match="no interrupted run") as fault:
        resume(document)
    assert fault.value.exit_code == 2
    go(document, knobs={"max_steps": 1})
    with pytest.raises(UsageError, match="no interrupted run"):
        resume(document)
    shutil.rmtree(home)
