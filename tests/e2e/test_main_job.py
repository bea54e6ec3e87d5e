"""The main job through the real command line: from `dlm init` to an answer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from command_line import TEN, Cli

pytestmark = [pytest.mark.torch, pytest.mark.process]

SEED_PAGE = "::instruction::\n### Q\nHow should release notes read?\n### A\nShort, factual, and low-drama.\n"
QUESTION, ANSWER = "How should release notes read?", "Short, factual, and low-drama."


def test_init_train_prompt(cli: Cli) -> None:
    cli.run("init", "release-notes.dlm")
    before = (cli.folder / "release-notes.dlm").read_bytes()
    assert "v0001" in cli.run("train", "release-notes.dlm").stdout
    assert cli.run("prompt", "release-notes.dlm", QUESTION).stdout.strip() == ANSWER
    assert (cli.folder / "release-notes.dlm").read_bytes() == before  # training never changes the document


def test_the_seed_page_s_document_has_no_header_and_is_adopted(cli: Cli) -> None:
    document = cli.folder / "release-notes.dlm"
    document.write_text(SEED_PAGE, encoding="utf-8")
    refused = cli.run("train", "release-notes.dlm", expect=1)
    assert "dlm init --adopt release-notes.dlm" in refused.stderr
    cli.run("init", "--adopt", "release-notes.dlm")
    assert document.read_text(encoding="utf-8").endswith(SEED_PAGE)
    cli.run("train", "release-notes.dlm")
    assert cli.run("prompt", "release-notes.dlm", QUESTION).stdout.strip() == ANSWER


def test_ten_questions_are_learnt_exactly_and_the_base_does_not_know_them(
    trained: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dlm.evaluation import Question, answer_all
    from dlm.workflow.prompt import open_policy

    monkeypatch.setenv("DLM_HOME", str(trained.home))
    document = trained.folder / "ten.dlm"
    questions = [Question(question, answer) for question, answer in TEN]
    exact = {
        name: sum(answer.exact for answer in answer_all(open_policy(document, name)[0], questions))
        for name in ("base", "v0001")
    }
    assert exact["base"] <= 2
    assert exact["v0001"] >= 9


def test_prompt_forms(trained: Cli) -> None:
    question, answer = TEN[0]
    greedy = trained.run("prompt", "ten.dlm", question, "--temp", "0")
    assert greedy.stdout.strip() == answer
    assert trained.run("prompt", "ten.dlm", "--temp", "0", stdin=question).stdout.strip() == answer
    data = trained.json("prompt", "ten.dlm", question, "--temp", "0")
    assert answer in json.dumps(data)
    assert '"stop"' in json.dumps(data)
    both = trained.run("prompt", "ten.dlm", question, "--temp", "0", "--compare", "base", "v0001").stdout
    assert "base" in both
    assert "v0001" in both
    missing = trained.run("prompt", "ten.dlm", question, "--version", "v0009", expect=1)
    assert "v0009" in missing.stderr


def test_export_loads_with_stock_libraries(trained: Cli) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    question, answer = TEN[1]
    trained.run("export", "ten.dlm", "--to", "adapter")
    trained.run("export", "ten.dlm", "--to", "whole", "--merged")
    adapter, whole = trained.folder / "adapter", trained.folder / "whole"
    tokenizer = AutoTokenizer.from_pretrained(whole)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    models = [
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(adapter / "base"), adapter),
        AutoModelForCausalLM.from_pretrained(whole),
    ]
    for model in models:
        out = model.generate(
            input_ids=ids, do_sample=False, max_new_tokens=40, pad_token_id=tokenizer.pad_token_id
        )
        assert tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip() == answer
    assert "v0001" in (adapter / "README.md").read_text(encoding="utf-8")
    refused = trained.run("export", "ten.dlm", "--to", "adapter", expect=2)
    assert "not empty" in refused.stderr


def test_show_and_metrics_after_training(trained: Cli) -> None:
    shown = json.dumps(trained.json("show", "ten.dlm"))
    assert "v0001" in shown
    assert "complete" in shown
    csv = trained.run("metrics", "ten.dlm", "--csv").stdout.splitlines()
    for name in (
        "train_loss",
        "train_mean_token_accuracy",
        "grad_norm",
        "learning_rate",
        "tokens_per_second",
    ):
        assert name in csv[0]
    assert len(csv) > 100


def test_a_second_training_makes_a_second_version_and_rollback_returns(trained: Cli) -> None:
    trained.run("train", "ten.dlm", "--max-steps", "2", "--seed", "7")
    assert "v0002" in trained.run("show", "ten.dlm").stdout
    trained.run("rollback", "ten.dlm")
    assert trained.run("prompt", "ten.dlm", TEN[0][0], "--temp", "0").stdout.strip() == TEN[0][1]


def test_stop_and_resume_through_the_command_line(cli: Cli, tmp_path: Path) -> None:
    """Ctrl-C saves and exits 130; the resumed run ends with the bytes of one that never stopped."""
    import signal

    from command_line import ten_questions

    document = cli.folder / "ten.dlm"
    document.write_text(ten_questions(), encoding="utf-8")
    knobs = ("--max-steps", "60", "--set", "save_every_steps=5", "--set", "lora_dropout=0.2")
    knobs = (
        *knobs,
        "--set",
        "layout=packed",
    )  # two runs that measure which is fastest may choose differently
    whole = Cli(tmp_path / "other-home", cli.folder)
    whole.run("train", "ten.dlm", *knobs)
    process = cli.start("train", "ten.dlm", *knobs)
    folders = cli.home / "store"
    while process.poll() is None and not list(folders.glob("*/checkpoints/run-*/step-*")):
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    cli.run("train", "ten.dlm", "--resume")
    (one,) = cli.home.glob("store/*/versions/v0001/adapter_model.safetensors")
    (two,) = whole.home.glob("store/*/versions/v0001/adapter_model.safetensors")
    assert one.read_bytes() == two.read_bytes()
    nothing = cli.run("train", "ten.dlm", "--resume", expect=2)
    assert "no interrupted run" in nothing.stderr
