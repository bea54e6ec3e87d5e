"""Preference and reward phases through the real command line, on the embedded base."""

from __future__ import annotations

import json

import pytest

from command_line import Cli, brevity_pairs, ten_questions
from dlm.document import render_preference

pytestmark = [pytest.mark.torch, pytest.mark.process]


def test_questions_and_pairs_make_two_versions(cli: Cli) -> None:
    document = ten_questions() + "\n" + render_preference(brevity_pairs()) + "\n"
    (cli.folder / "ten.dlm").write_text(document, encoding="utf-8")
    done = cli.run("train", "ten.dlm")
    assert "v0001 is current: run 1, " in done.stdout
    assert "v0002 is current: run 2 (preference, dpo), " in done.stdout
    assert "held-out pair" in done.stdout
    shown = cli.json("show", "ten.dlm")
    assert [(run["kind"], run["status"], run["parent_version"]) for run in shown["runs"]] == [
        ("sft", "complete", None),
        ("preference", "complete", "v0001"),
    ]
    assert shown["current"] == "v0002"
    assert shown["runs"][1]["val_pref_acc"] > 0.5
    assert "preference (dpo)" in cli.run("show", "ten.dlm").stdout
    assert "val_pref_acc" in cli.run("metrics", "ten.dlm").stdout


def test_preference_alone_reads_a_file_of_pairs(trained: Cli) -> None:
    lines = [
        json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected})
        for prompt, chosen, rejected in brevity_pairs()
    ]
    (trained.folder / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    args = ("train", "ten.dlm", "--phase", "preference", "--pairs", "pairs.jsonl")
    shown = trained.run(*args, "--dry-run").stdout
    assert "preference phase (dpo) from v0001: nothing was written" in shown
    assert "chosen    «" in shown
    data = trained.json(*args, "--method", "simpo", "--max-steps", "2")
    (run,) = data["runs"]
    assert (run["method"], run["version"], run["parent"], run["steps"]) == ("simpo", "v0002", "v0001", 2)
    assert "pairs" in trained.run("train", "ten.dlm", "--phase", "preference", expect=2).stderr


def test_a_reward_model_is_exported_and_loads_with_stock_libraries(trained: Cli) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = trained.folder / "ten.dlm"
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" + render_preference(brevity_pairs()) + "\n")
    trained.run("train", "ten.dlm", "--phase", "reward", "--max-steps", "3")
    assert trained.json("show", "ten.dlm")["current"] == "v0001"
    refused = trained.run("promote", "ten.dlm", "v0002", expect=2)
    assert "reward model" in refused.stderr
    assert "reward model" in trained.run("prompt", "ten.dlm", "Why?", "--version", "v0002", expect=2).stderr
    exported = trained.run("export", "ten.dlm", "--version", "v0002", "--to", "scorer")
    assert "AutoModelForSequenceClassification" in exported.stdout
    model = AutoModelForSequenceClassification.from_pretrained(trained.folder / "scorer")
    tokenizer = AutoTokenizer.from_pretrained(trained.folder / "scorer")
    ids = tokenizer("Why?", return_tensors="pt").input_ids
    assert model(ids).logits.shape == (1, 1)
