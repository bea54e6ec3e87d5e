"""How a training looks to a person who watches, and to a log file."""

from __future__ import annotations

import contextlib
import os
import pty
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dlm.cli.briefing import briefing_items, finding_lines
from dlm.cli.output import Output
from dlm.cli.progress import TrainProgress, is_follower

pytestmark = pytest.mark.torch


@pytest.fixture
def briefing() -> Any:
    from dlm.recipe import Choice, Recipe, resolve
    from dlm.training import Estimate, Finding, Plan, Preflight, Row, Spread
    from dlm.training.examples import SkippedRow
    from dlm.workflow.train import Briefing

    plan = Plan(n_examples=40, rows_per_step=8, micro_rows=4, total_steps=100, eval_every=10, save_every=10)
    row = Row("chat", "a\x1b[31m", "b", "notes.dlm", 9)
    preflight = Preflight(
        rows={"train": 40, "validation": 4, "probes": 0},
        origins={"notes.dlm": 40},
        tokens={"whole": Spread(3, 20, 99, 900), "prompt": Spread(1, 8, 50, 300)},
        max_len=Choice(2048, "the base's context"),
        skipped=[SkippedRow(row, "3,000 tokens")],
        split_prose=2,
        special_tokens=[("notes.dlm:4", "<|end|>")],
        split_reason="4 of 44 rows are held out",
        plan=plan,
        epochs=Choice(20.0, "raised so that\x1b[2J"),
        micro=Choice(4, "rows are short"),
        order=Choice(True, "less padding"),
        trainable_parameters=10,
        total_parameters=1000,
    )
    resolved = resolve(Recipe(), {}, {"seed": 3})
    estimate = Estimate(61.0, 512.0)
    device = Choice("cpu", "no GPU"), Choice("fp32", "exact"), Choice(1, "small")
    return Briefing(
        "sft",
        "sft",
        Choice("the base", "a fresh adapter"),
        1,
        0,
        Path("notes.dlm"),
        "pocket",
        *device,
        Choice("packed", "12 ms a step"),
        Choice("onednn", "twice as fast"),
        {"prose": 0, "instruction": 2},
        resolved,
        preflight,
        [Finding("too_long", "warning", "left out: 3,000 tokens", ("notes.dlm:9",))],
        estimate,
    )


def run(view: TrainProgress, briefing: Any, total: int = 100) -> None:
    view.briefing(briefing)
    for step in range(1, total + 1):
        held_out = {"valid_loss": 0.5} if step % 50 == 0 else {}
        view.step(step, total, {"train_loss": 1 / step, "tokens_per_second": 1000.0, **held_out})
        view.checkpoint(step)


def test_off_a_terminal_about_twenty_plain_lines(briefing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    output = Output("train", as_json=False)
    with TrainProgress(output) as view:
        run(view, briefing)
    shown = capsys.readouterr()
    assert shown.out == ""
    steps = [line for line in shown.err.splitlines() if line.startswith("step ")]
    assert 20 <= len(steps) <= 24
    assert steps[0].startswith("step 1/100  loss 1.0000  1,000 tokens/s")
    assert "left" in steps[1]
    assert steps[-1].startswith("step 100/100  loss 0.0100")
    assert "validation loss 0.5000" in steps[-1]
    assert "\x1b" not in shown.err
    assert any("notes.dlm:9: left out: 3,000 tokens" in warning for warning in output.warnings)
    assert any("<|end|>" in warning for warning in output.warnings)


def test_the_preflight_shows_values_with_their_reasons(briefing: Any) -> None:
    items = briefing_items(briefing)
    assert "no GPU" in items["device"]
    assert "exact" in items["device"]
    assert "seed 3  (flag)" in items["knobs"]
    assert "the base's context" in items["tokens"]
    assert items["estimate"] == "1:01 min, 512 MB of memory"
    assert "2 texts" in items["prose"]
    assert items["left out"] == "1 too long"
    assert items["starts from"] == "the base (a fresh adapter)"
    assert items["layout"] == "packed (12 ms a step)"
    assert items["products"] == "onednn (twice as fast)"
    assert items["order"] == "by length (less padding)"
    assert "median 20 (prompt 8)" in items["tokens"]


def with_rows(briefing: Any, **changes: Any) -> str:
    preflight = replace(briefing.preflight, **changes)
    return str(briefing_items(replace(briefing, preflight=preflight))["rows"]).splitlines()[0]


def test_rows_are_counted_without_those_left_out(briefing: Any) -> None:
    from dlm.training.examples import SkippedRow

    (skipped,) = briefing.preflight.skipped
    probe = SkippedRow(replace(skipped.row, probe=True), "3,000 tokens")
    trained = replace(briefing.preflight.plan, n_examples=38)
    two = {"split_prose": 0, "rows": {"train": 40, "validation": 4, "probes": 3}, "plan": trained}
    assert with_rows(briefing, **two, skipped=[skipped] * 3 + [probe]) == (
        "train 38, validation 3, probes 2; 4 left out"
    )
    alone = {"rows": {"train": 12, "validation": 0, "probes": 0}, "skipped": [skipped]}
    assert with_rows(briefing, **alone) == "train 11; 1 left out"
    assert with_rows(briefing) == "train 40, validation 4; 1 of them left out"
    assert with_rows(briefing, skipped=[]) == "train 40, validation 4"


@pytest.mark.parametrize(
    ("epochs", "text"),
    [(1.0, "1 epoch"), (20.0, "20 epochs"), (1 / 23, "0.043 epochs"), (123.25, "123.2 epochs")],
)
def test_epochs_are_counted_in_short_numbers(briefing: Any, epochs: float, text: str) -> None:
    from dlm.recipe import Choice

    preflight = replace(briefing.preflight, epochs=Choice(epochs, "why"))
    assert f": {text} (why)" in briefing_items(replace(briefing, preflight=preflight))["steps"]


def test_a_resumed_run_names_only_the_knobs_that_are_not_at_their_defaults(briefing: Any) -> None:
    resolved = briefing.resolved
    resumed = replace(resolved, origins=dict.fromkeys(resolved.origins, "as the run began"))
    knobs = briefing_items(replace(briefing, resolved=resumed))["knobs"]
    assert knobs == "as the run began:\nseed 3"


def test_the_word_on_stopping_is_true_at_any_moment(capfd: pytest.CaptureFixture[str]) -> None:
    TrainProgress(Output("train", as_json=False)).stopping()
    said = " ".join(capfd.readouterr().err.split())
    assert said == (
        "stopping as soon as the step in hand is done; what is trained so far is kept; Ctrl-C again ends at once"
    )


def test_a_short_run_shows_every_step(briefing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with TrainProgress(Output("train", as_json=True)) as view:
        run(view, briefing, total=3)
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines() if line.startswith("step ")] == [
        "1/3",
        "2/3",
        "3/3",
    ]


def read_terminal(master: int) -> Iterator[bytes]:
    """What is written to a terminal until its other end closes."""
    with contextlib.suppress(OSError):  # EIO: nobody has it open any more
        while piece := os.read(master, 65536):
            yield piece


def test_on_a_terminal_a_live_line_with_remarks_above_it(
    briefing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, slave = pty.openpty()
    pieces: list[bytes] = []
    reader = threading.Thread(target=lambda: pieces.extend(read_terminal(master)))
    reader.start()
    with os.fdopen(slave, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "100")
        with TrainProgress(Output("train", as_json=False)) as view:
            view.note("a remark")
            run(view, briefing, total=4)
            view.note("at the end")
    reader.join()
    os.close(master)
    shown = b"".join(pieces).decode()
    assert "a remark\r\n" in shown
    assert "at the end\r\n" in shown
    assert "4/100" in shown
    assert "\\x1b[2J" in shown  # what a document says never clears a screen


def test_a_reader_of_remarks_that_leaves_ends_nothing(briefing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, text: str) -> None:
            raise BrokenPipeError

        def isatty(self) -> bool:
            return False

        closed = False
        flush = close = lambda self: None

    monkeypatch.setattr("sys.stderr", Gone())
    with TrainProgress(Output("train", as_json=False)) as view:
        run(view, briefing, total=3)


def test_a_resumed_run_counts_its_time_from_where_it_went_on(
    briefing: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("time.monotonic", lambda: clock.now)
    with TrainProgress(Output("train", as_json=False)) as view:
        view.briefing(replace(briefing, resumed_at=90))
        for step in range(91, 100):
            clock.now += 1.0
            view.step(step, 100, {"train_loss": 1.0})
    lines = capsys.readouterr().err.splitlines()
    assert "run 1: sft phase from the base, going on after step 90" in lines
    assert "step 96/100  loss 1.0000  4.0 s left" in lines


def test_many_findings_of_a_kind_are_counted(briefing: Any) -> None:
    from dlm.training import Finding

    found = [Finding("duplicate", "note", "the same row", (f"notes.dlm:{line}",)) for line in range(25)]
    found.append(Finding("too_long", "warning", "left out", ("notes.dlm:99",)))
    lines = finding_lines(found)
    assert len(lines) == 12
    assert ("warning", "notes.dlm:99: left out") in lines
    assert lines[-1] == ("note", "and 15 more: duplicate")


def test_only_the_main_process_of_several_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_follower()
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert is_follower() == (rank == "1")


def test_pairs_are_watched_by_what_they_rank(briefing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    values = {"train_loss": 0.5, "rewards/accuracies": 0.75, "rewards/margins": 0.125, "val_pref_acc": 0.9}
    with TrainProgress(Output("train", as_json=False)) as view:
        view.briefing(briefing)
        view.step(1, 1, {**values, "tokens_per_second": 10.0})
    shown = capsys.readouterr().err
    assert "loss 0.5000  ranked right 0.75  margin 0.125" in shown
    assert "held-out pairs ranked right 0.9000" in shown


def test_pairs_that_tie_are_not_called_ranked_wrong(
    briefing: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first step the policy is its own reference: no pair is ranked, and none is ranked wrong."""
    start = {"rewards/accuracies": 0.0, "rewards/ties": 1.0, "rewards/margins": 0.0}
    later = {"rewards/accuracies": 0.5, "rewards/ties": 0.25, "rewards/margins": 0.1}
    with TrainProgress(Output("train", as_json=False)) as view:
        view.briefing(briefing)
        view.step(1, 2, {**start, "val_pref_acc": 0.5, "val_pref_ties": 0.9999999})
        view.step(2, 2, {**later, "val_pref_acc": 0.5, "val_pref_ties": 0.0})
    first, second = capsys.readouterr().err.splitlines()[-2:]
    assert "all pairs tie" in first
    assert "held-out pairs all tie" in first
    assert "ranked right" not in first
    assert "ranked right 0.50 (25% ties)" in second
    assert "held-out pairs ranked right 0.5000" in second
