"""`dlm train`, `prompt`, `export` and `demo` as commands: what they print, and that their JSON fits the schemas.

What they learn is for tests/e2e; here a few steps are enough.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
import pytest

from dlm.cli.preview import _shown
from dlm.document import render_preference

from .conftest import BODY, HEADER, Dlm
from .test_schemas import validate

pytestmark = pytest.mark.torch

PROBE = "### Q !probe\nWhy not?\n### A\nBecause of that.\n"


@pytest.fixture
def document() -> Path:
    path = Path("my notes.dlm")
    path.write_text(HEADER + BODY + PROBE, encoding="utf-8")
    return path


@pytest.fixture
def trained(dlm: Dlm, document: Path) -> str:
    """The document after a training of two steps."""
    dlm("train", str(document), "--max-steps", "2", "--device", "cpu")
    return str(document)


def test_train_tells_before_during_and_after(dlm: Dlm, document: Path) -> None:
    result = dlm("train", str(document), "--max-steps", "2", "--set", "lora_r=4", "--seed", "7")
    assert "lora_r 4  (flag)" in result.stderr
    assert "step 1/2" in result.stderr
    assert "step 2/2" in result.stderr
    assert result.stdout.startswith("v0001 is current: run 1, 2 steps in ")
    assert "probes          0 of 1 answered exactly" in result.stdout
    assert "\n  curves          " in result.stdout  # the verdict of the rules
    assert "dlm prompt 'my notes.dlm'" in result.stdout


def test_train_says_what_was_current_before_and_how_to_go_back(dlm: Dlm, document: Path) -> None:
    assert "before it was" not in dlm("train", str(document), "--max-steps", "1").stdout
    text = dlm("train", str(document), "--max-steps", "1").stdout
    assert "v0002 is current: run 2, 1 step in " in text
    first = dlm.json("metrics", str(document), "--run-id", "1")["data"]["metrics"]["train_loss"]["last"]
    assert f"  before it was   v0001 (loss {first:.4f}): dlm rollback 'my notes.dlm'\n" in text
    dlm("rollback", str(document))
    assert "v0001 (loss" in dlm("train", str(document), "--max-steps", "1").stdout


def test_prompt_and_export_of_a_copy_warn(dlm: Dlm, trained: str) -> None:
    shutil.copy(trained, "copy.dlm")
    envelope = dlm.json("prompt", "copy.dlm", "Why?", "--max-new-tokens", "1")
    assert "dlm init --new-id copy.dlm" in envelope["warnings"][0]
    assert "two documents" in dlm("export", "copy.dlm", "--to", "out").stderr


def test_train_json(dlm: Dlm, document: Path) -> None:
    Path("rows.jsonl").write_text(
        json.dumps({"prompt": "Who?", "completion": "We."}) + "\n", encoding="utf-8"
    )
    result = dlm("train", str(document), "--max-steps", "2", "--rows", "rows.jsonl", "--json")
    data = validate(json.loads(result.stdout))
    (run,) = data["runs"]
    assert (run["phase"], run["version"], run["steps"]) == ("sft", "v0001", 2)
    assert run["probes"][0]["after"]["reference"] == "Because of that."
    assert not data["dry_run"]
    validate(dlm.json("show", str(document)))
    validate(dlm.json("metrics", str(document)))
    validate(dlm.json("train", str(document), "--resume", expect=2))


PAIRS = [(f"Where is room {i}?", f"Up {i}.", f"It may well be somewhere up {i}.") for i in range(24)]


@pytest.fixture
def paired(document: Path) -> str:
    """The document with pairs."""
    text = document.read_text(encoding="utf-8") + "\n" + render_preference(PAIRS) + "\n"
    document.write_text(text, encoding="utf-8")
    return str(document)


@pytest.mark.big
def test_the_loss_of_the_version_before_is_told_only_where_it_is_the_same_loss(dlm: Dlm, paired: str) -> None:
    args = ("train", paired, "--max-steps", "1", "--device", "cpu", "--phase", "preference")
    simpo = ("--method", "simpo")
    dlm(*args, *simpo)
    assert "before it was   v0001 (loss " in dlm(*args, *simpo, "--set", "preference.num_epochs=2").stdout
    assert "before it was   v0002: dlm rollback" in dlm(*args).stdout
    # measured against v0002, and this one against v0003: each begins at log 2
    assert "before it was   v0003: dlm rollback" in dlm(*args).stdout


@pytest.mark.big
def test_train_of_pairs_reports_each_phase(dlm: Dlm, paired: str) -> None:
    args = ("train", paired, "--max-steps", "2", "--device", "cpu")
    shown = dlm(*args, "--loss-type", "hinge")
    assert "run 1: sft phase from the base" in shown.stderr
    assert "run 2: preference phase (dpo) from v0001" in shown.stderr
    assert "preference.loss_type hinge  (flag)" in shown.stderr
    assert "from the cache" in shown.stderr
    assert "ranked right " in shown.stderr
    assert "v0002 is current: run 2 (preference, dpo), 2 steps" in shown.stdout
    assert "ranked right    " in shown.stdout
    assert "an untrained reference scores 0.5" in shown.stdout
    assert "mean answer " in shown.stdout
    assert "before it was   v0001: dlm rollback" in shown.stdout
    data = validate(dlm.json(*args, "--phase", "preference", "--keep-last", "1", "--keep-best"))
    (run,) = data["runs"]
    assert (run["phase"], run["parent"]) == ("preference", "v0002")
    assert run["preference_accuracy"]["n"] >= 1
    assert run["before"].keys() == run["after"].keys()
    reward = validate(dlm.json(*args, "--phase", "reward"))["runs"][0]
    assert (reward["method"], reward["promoted"]) == ("bradley-terry", False)
    listed = validate(dlm.json("show", paired))
    assert [one["kind"] for one in listed["runs"]] == ["sft", "preference", "preference", "reward"]
    assert listed["store"]["references_bytes"] > 0
    assert "ranked right" in dlm("show", paired).stdout
    assert "val_pref_acc" in dlm("metrics", paired).stdout
    validate(dlm.json("metrics", paired, "--run-id", "2"))
    freed = validate(dlm.json("prune", paired))
    assert "cache" in {item["kind"] for item in freed["items"]}
    exported = validate(dlm.json("export", paired, "--version", "v0004", "--to", "scorer"))
    assert "AutoModelForSequenceClassification" in exported["usage"]


@pytest.mark.big
def test_a_dry_run_shows_what_the_model_would_see(dlm: Dlm, paired: str, own_home: Path) -> None:
    shown = dlm("train", paired, "--dry-run").stdout
    assert "sft phase from the base: nothing was written" in shown
    assert "preference phase (dpo) from the base: nothing was written" in shown
    assert "answer    «B¦eca¦use¦.¦<|end|>»" in shown
    assert "<|user|>¦⏎¦" in shown
    assert "\x1b" not in shown
    assert not own_home.exists()
    data = validate(dlm.json("train", paired, "--dry-run", "--phase", "preference", "--min-margin", "1"))
    (preview,) = data["preview"]
    assert (data["dry_run"], data["runs"]) == (True, [])
    assert preview["knobs"]["preference.min_margin"] == {"value": 1.0, "origin": "flag"}
    prompt, chosen, rejected = preview["rows"][0]["parts"]
    for part in (prompt, chosen, rejected):
        assert len(part["ids"]) == len(part["tokens"]) == len(part["scored"])
    assert not any(prompt["scored"])
    assert all(chosen["scored"])
    from dlm.workflow.views import Part

    part = Part("chosen", [1, 2, 3], ["a\x1b", "b\n", "c"], [False, True, True])
    assert _shown(part, coloured=True) == "a\\x1b¦" + click.style("b⏎¦c", fg="green", underline=True)
    assert _shown(part, coloured=False) == "a\\x1b¦«b⏎¦c»"


def test_prompt_streams_the_answer_and_nothing_else(dlm: Dlm, trained: str) -> None:
    whole = validate(dlm.json("prompt", trained, "Why?", "--max-new-tokens", "5"))
    (answer,) = whole["answers"]
    shown = dlm("prompt", trained, "Why?", "--max-new-tokens", "5")
    assert shown.stdout == answer["text"] + "\n"
    assert answer["finish_reason"] != "length" or "--max-new-tokens" in shown.stderr
    assert dlm("prompt", trained, stdin="Why?\n").stdout == dlm("prompt", trained, "Why?").stdout


def test_prompt_compares_two_versions(dlm: Dlm, trained: str) -> None:
    data = validate(
        dlm.json("prompt", trained, "Why?", "--compare", "base", "v0001", "--temp", "1", "--seed", "3")
    )
    assert [answer["version"] for answer in data["answers"]] == ["base", "v0001"]
    text = dlm("prompt", trained, "Why?", "--compare", "base", "v0001").stdout
    assert text.startswith("== base\n")
    assert "\n\n== v0001\n" in text


def test_prompt_before_any_training_says_that_the_base_answers(dlm: Dlm, document: Path) -> None:
    envelope = dlm.json("prompt", str(document), "Why?", "--max-new-tokens", "3")
    validate(envelope)
    assert "base" in envelope["warnings"][0]
    validate(dlm.json("prompt", str(document), "Why?", "--version", "v0007", expect=1))


def test_export_says_what_it_wrote_and_how_to_load_it(dlm: Dlm, trained: str) -> None:
    result = dlm("export", trained, "--to", "out")
    assert "v0001 as a PEFT adapter in out: " in result.stdout
    assert "PeftModel.from_pretrained" in result.stdout
    data = validate(dlm.json("export", trained, "--to", "whole", "--merged", "--version", "v0001"))
    assert "model.safetensors" in data["files"]
    assert "not empty" in dlm("export", trained, "--to", "out", expect=2).stderr


@pytest.mark.process  # two whole trainings of pocket: too long for make quick
def test_the_demo_tells_its_story(dlm: Dlm) -> None:
    data = validate(dlm.json("demo"))
    assert data["created"]
    assert sum(answer["exact"] for answer in data["after"]) > sum(
        answer["exact"] for answer in data["before"]
    )
    assert "dlm init demo/again.dlm --template release-notes" in dlm("demo").stdout
