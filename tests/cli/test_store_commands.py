"""`dlm show`, `metrics`, `promote`, `rollback` and `prune` on a recorded store."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.cli.commands.metrics import _report
from dlm.curves import Series
from dlm.store import Home, Run, RunSpec

from .conftest import BODY, DLM_ID, HEADER, Dlm, Train


def test_show_before_any_training(dlm: Dlm, document: Path, own_home: Path) -> None:
    assert "not yet: dlm train notes.dlm" in dlm("show", "notes.dlm").stdout
    assert not own_home.exists()  # looking makes nothing


def test_show_tells_versions_runs_and_size(dlm: Dlm, train: Train) -> None:
    train()
    train(promote=False)
    train(status="failed", message="the loss is nan")
    text = dlm("show", "notes.dlm").stdout
    assert "current  v0001" in text
    assert "the loss is nan" in text
    data = dlm.json("show", "notes.dlm")["data"]
    assert [version["current"] for version in data["versions"]] == [True, False]
    assert [run["status"] for run in data["runs"]] == ["complete", "complete", "failed"]
    assert data["runs"][0]["steps"] == data["runs"][0]["planned_steps"] == 3
    assert data["store"]["bytes"] > 6000
    assert data["changed_since_training"] is False


def test_show_sees_a_change_since_the_training(dlm: Dlm, train: Train, document: Path) -> None:
    train()
    document.write_text(document.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert "changed since the last training" in dlm("show", "notes.dlm").stdout


def test_a_run_whose_process_died_shows_as_interrupted(dlm: Dlm, train: Train) -> None:
    train(status="running")
    (run,) = dlm.json("show", "notes.dlm")["data"]["runs"]
    assert run["status"] == "interrupted"
    assert "dlm train notes.dlm --resume" in dlm("show", "notes.dlm").stdout
    assert "interrupted" in dlm("metrics", "notes.dlm").stdout
    assert "interrupted" in dlm("metrics", "notes.dlm", "--watch").stdout


def test_show_works_while_a_training_runs(dlm: Dlm, train: Train) -> None:
    train()
    with Home.open().store(DLM_ID) as store, store.lock("dlm train notes.dlm"):
        run = store.runs.start(RunSpec("sft", planned_steps=10))
        data = dlm.json("show", "notes.dlm")["data"]
        assert data["runs"][-1]["status"] == "running"
        assert data["holder"]["command"] == "dlm train notes.dlm"
        assert "at work" in dlm("show", "notes.dlm").stdout
        assert "held by" in dlm("prune", "notes.dlm", expect=1).stderr
        store.runs.finish(run.id, "stopped")


def test_a_document_with_problems_still_shows_its_store(dlm: Dlm, train: Train, document: Path) -> None:
    train()
    document.write_text(
        HEADER.replace("\n", "\r\n") + "\n::instruction::\n### Q\n", encoding="utf-8", newline=""
    )
    text = dlm("show", "notes.dlm").stdout
    assert "v0001" in text
    assert "dlm check notes.dlm" in text
    dlm("metrics", "notes.dlm")
    document.write_text(BODY, encoding="utf-8")
    assert "--adopt" in dlm("show", "notes.dlm", expect=1).stderr


def test_the_store_of_someone_else_is_left_alone(dlm: Dlm, document: Path, own_home: Path) -> None:
    own_home.mkdir()
    (own_home / "precious.txt").write_text("mine", encoding="utf-8")
    assert "DLM_HOME" in dlm("show", "notes.dlm", expect=1).stderr
    assert [path.name for path in own_home.iterdir()] == ["precious.txt"]


def test_metrics_of_the_newest_and_of_a_named_run(dlm: Dlm, train: Train) -> None:
    train(losses=(3.0, 0.25, 0.5))
    train(losses=(9.0, 8.0))
    text = dlm("metrics", "notes.dlm", "--run-id", "1").stdout
    assert "run 1 (sft) is complete: step 3 of 3, v0001" in text
    (loss,) = (line.split() for line in text.splitlines() if line.startswith("train_loss"))
    assert loss == ["train_loss", "0.5", "0.25", "2", "nats"]
    (rate,) = (line.split() for line in text.splitlines() if line.startswith("learning_rate"))
    assert rate[2] == "–"
    assert "run 2 (sft)" in dlm("metrics", "notes.dlm").stdout
    assert "from 1 to 2" in dlm("metrics", "notes.dlm", "--run-id", "3", expect=1).stderr


def test_metrics_as_csv_reads_back_exactly(dlm: Dlm, train: Train) -> None:
    train(losses=(1 / 3, 2 / 7))
    rows = list(csv.DictReader(io.StringIO(dlm("metrics", "notes.dlm", "--csv").stdout)))
    assert [float(row["train_loss"]) for row in rows] == [1 / 3, 2 / 7]
    assert [row["valid_loss"] for row in rows] == ["", "0.75"]
    only = dlm("metrics", "notes.dlm", "--csv", "--names", "valid_loss").stdout
    assert only == "step,valid_loss\n2,0.75\n"


SERIES = {
    name: [(step, step / 7) for step in range(1, 101)]
    for name in ("train_loss", "train_mean_token_accuracy", "grad_norm", "learning_rate", "entropy")
} | {"valid_loss": [(10, 12345.678), (100, 1e-7)], "full_valid_loss": [(100, 0.5)]}


@pytest.mark.parametrize("wanted", [None, ["learning_rate", "train_loss", "grad_norm", "entropy"]], ids=str)
@given(width=st.integers(40, 120), height=st.integers(8, 60))
def test_a_watched_report_fits_the_screen_and_ends_with_the_newest_step(
    wanted: list[str] | None, width: int, height: int
) -> None:
    run = Run(7, "sft", "sft", planned_steps=1000, status="running", started_at="2026-01-01T00:00:00Z")
    series = {
        name: Series(name, "nats", *map(np.array, (*zip(*points, strict=True), [0.0] * len(points))))
        for name, points in SERIES.items()
    }
    if wanted:
        series = {name: series[name] for name in wanted}
    lines = _report(run, "running", series, wanted, width, height).splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert lines[-1].split()[0] == "100"
    for name in wanted[: len(wanted) if height > 16 else 1] if wanted else ["train_loss"]:
        assert any(name in line.split() for line in lines)


def test_without_a_terminal_nothing_is_left_out(train: Train, dlm: Dlm) -> None:
    train()
    assert "learning_rate" in dlm("metrics", "notes.dlm").stdout.split("newest")[1]
    assert "started" in dlm("show", "notes.dlm").stdout


def test_a_runs_message_stands_under_the_table(train: Train, dlm: Dlm) -> None:
    train()
    train(status="failed", message="it went wrong")
    lines = dlm("show", "notes.dlm").stdout.splitlines()
    assert lines[-1] == "  run 2  it went wrong"
    assert lines[-2].split()[:3] == ["2", "sft", "failed"]


def test_a_copy_is_told_that_the_store_is_of_another(dlm: Dlm, train: Train, document: Path) -> None:
    train()
    train()
    shutil.copy(document, "my copy.dlm")
    for args in (["show"], ["metrics"], ["rollback"], ["prune"]):
        message = dlm(args[0], "my copy.dlm", *args[1:]).stderr
        assert "two documents carry the dlm_id" in message
        assert "dlm init --new-id 'my copy.dlm'" in message
        assert str(document.resolve()) in message
    assert "two documents" in dlm.json("show", "my copy.dlm")["warnings"][0]
    Path("link.dlm").symlink_to(document)
    for path in ("notes.dlm", "./notes.dlm", "link.dlm"):
        assert dlm("show", path).stderr == ""
    document.unlink()  # moved, not copied
    assert dlm("show", "my copy.dlm").stderr == ""


def test_messages_name_the_document_as_it_is_typed(dlm: Dlm, train: Train, document: Path) -> None:
    train()
    document.rename("my notes.dlm")
    for args in (["promote", "v0009"], ["metrics", "--run-id", "9"], ["prune", "--version", "v0001"]):
        command, *rest = args
        fault = dlm.json(command, "my notes.dlm", *rest, expect=2 if command == "prune" else 1)["error"]
        assert "dlm show 'my notes.dlm'" in fault["next_step"]
    assert "dlm promote 'my notes.dlm' VERSION" in dlm("rollback", "my notes.dlm", expect=2).stderr
    shown = dlm("metrics", "my notes.dlm", "--names", "zzz", expect=2).stderr
    assert "next: dlm metrics 'my notes.dlm' --run-id 1 shows" in shown
    assert "dlm init 'no such.dlm'" in dlm("show", "no such.dlm", expect=2).stderr


@pytest.mark.parametrize(
    "args",
    [
        ["show", "."],
        ["metrics", "notes.dlm", "--csv", "--watch"],
        ["metrics", "notes.dlm", "--names", "zzz"],
        ["train", "notes.dlm", "--set", "seed=3", "--seed", "4"],
        ["prompt", "notes.dlm", "Why?", "--compare", "a", "b", "--version", "c"],
        ["export", "notes.dlm", "--to", "out", "--version", "base"],
        ["init", "--new-id", "notes.dlm", "--base", "pocket"],
        ["init", "--adopt", "notes.dlm", "--template", "qa"],
    ],
    ids=str,
)
def test_misuse_says_what_to_do_next(args: list[str], dlm: Dlm, train: Train) -> None:
    train()
    assert "\n  next: " in dlm(*args, expect=2).stderr


def test_the_base_is_not_exported(dlm: Dlm, train: Train) -> None:
    train()
    message = dlm("export", "notes.dlm", "--to", "out", "--version", "base", expect=2).stderr
    assert "base itself is not exported" in message


def test_metrics_that_are_not_there(dlm: Dlm, train: Train) -> None:
    train()
    assert "--names train_loss" in dlm("metrics", "notes.dlm", "--names", "train_los", expect=2).stderr
    dlm("metrics", "notes.dlm", "--names", " , ", expect=2)
    dlm("metrics", "notes.dlm", "--csv", "--json", expect=2)
    with Home.open().store(DLM_ID) as store, store.lock("test"):
        run = store.runs.start(RunSpec("sft"))
        assert "no metrics yet" in dlm("metrics", "notes.dlm").stdout
        store.runs.finish(run.id, "failed")


def test_metrics_events_are_in_json(dlm: Dlm, train: Train) -> None:
    train()
    (event,) = dlm.json("metrics", "notes.dlm")["data"]["events"]
    assert event["kind"] == "skipped_row"
    assert event["data"]["reason"] == "too long"


def test_watch_follows_a_run_to_its_end(train: Train, dlm: Dlm, document: Path) -> None:
    train()
    command = [sys.executable, "-m", "dlm", "metrics", "notes.dlm", "--watch", "--names", "train_loss"]
    with Home.open().store(DLM_ID) as store, store.lock("dlm train notes.dlm"):
        run = store.runs.start(RunSpec("sft", planned_steps=3))
        with store.metrics.writer(run.id) as writer:
            writer.log(1, {"train_loss": 3.0})
            writer.flush()
            watcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert watcher.stdout is not None
            assert watcher.stdout.readline() == "step 1/3  train_loss 3\n"
            writer.log(2, {"train_loss": 2.0})
            writer.flush()
            assert watcher.stdout.readline() == "step 2/3  train_loss 2\n"
        store.runs.finish(run.id, "complete")
        rest, _ = watcher.communicate(timeout=30)
    assert rest == f"run {run.id} is complete\n"
    assert watcher.returncode == 0


def test_promote_and_rollback(dlm: Dlm, train: Train) -> None:
    train()
    train()
    assert "v0001 is current again; before it was v0002" in dlm("rollback", "notes.dlm").stdout
    dlm("rollback", "notes.dlm", expect=2)
    dlm("promote", "notes.dlm", "v0002", "--reason", "it answers better")
    assert "already" in dlm("promote", "notes.dlm", "v0002").stdout
    moves = dlm.json("show", "notes.dlm")["data"]["promotions"]
    assert [(move["version"], move["kind"]) for move in moves][-2:] == [
        ("v0001", "rollback"),
        ("v0002", "promote"),
    ]
    assert moves[-1]["reason"] == "it answers better"
    assert "no version v0009" in dlm("promote", "notes.dlm", "v0009", expect=1).stderr


def test_prune_says_how_much_and_dry_run_frees_nothing(dlm: Dlm, train: Train, own_home: Path) -> None:
    train()
    train()
    before = sorted(own_home.rglob("step-*"))
    assert "would free 2 kB in 2 items" in dlm("prune", "notes.dlm", "--dry-run").stdout
    assert sorted(own_home.rglob("step-*")) == before
    assert "freed 2 kB in 2 items" in dlm("prune", "notes.dlm").stdout
    assert len(list(own_home.rglob("step-*"))) == 2
    assert "nothing to remove" in dlm("prune", "notes.dlm").stdout
    assert "current" in dlm("prune", "notes.dlm", "--version", "v0002", expect=2).stderr
    dlm("prune", "notes.dlm", "--version", "v0001")
    assert "pruned" in dlm("show", "notes.dlm").stdout


@pytest.mark.parametrize("command", [["metrics"], ["prune"], ["rollback"], ["promote", "v0001"]], ids=str)
def test_commands_that_need_a_store_say_train_first(command: list[str], dlm: Dlm, document: Path) -> None:
    name, *rest = command
    assert "dlm train notes.dlm" in dlm(name, "notes.dlm", *rest, expect=1).stderr


def test_many_readers_at_once(dlm: Dlm, train: Train) -> None:
    train()
    command = [sys.executable, "-m", "dlm", "show", "notes.dlm", "--json"]
    codes: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: codes.append(subprocess.run(command, capture_output=True, check=False).returncode)
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 4


def test_a_damaged_database_is_said_in_words(dlm: Dlm, train: Train, own_home: Path) -> None:
    train()
    (database,) = own_home.rglob("store.sqlite3")
    for extra in own_home.rglob("store.sqlite3-*"):
        extra.unlink()
    database.write_bytes(b"rubbish" * 1000)
    assert "damaged" in dlm("show", "notes.dlm", expect=1).stderr


def test_a_moved_document_keeps_its_store(dlm: Dlm, train: Train) -> None:
    train()
    shutil.move("notes.dlm", "renamed.dlm")
    assert "v0001" in dlm("show", "renamed.dlm").stdout
