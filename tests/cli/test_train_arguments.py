"""The arguments of `dlm train` and `dlm prompt`, as far as they are judged before torch is needed."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from dlm.cli.commands.prompt import _read_question
from dlm.cli.commands.train import LOSS_TYPES, METHODS, _knobs
from dlm.cli.output import Output
from dlm.errors import DlmError, TextError, UsageError
from dlm.recipe import PreferenceRecipe

from .conftest import Dlm


def test_knobs_come_from_set_and_from_their_own_flags() -> None:
    assert _knobs(["lora_r=16", "learning_rate=2e-4"], {"max_steps": 5, "seed": None}) == {
        "lora_r": "16",  # as written: the recipe reads it
        "learning_rate": "2e-4",
        "max_steps": 5,
    }
    assert _knobs(["seed=3"], {"max_steps": None, "seed": 3}) == {"seed": 3}
    assert _knobs(["target_modules=[q_proj, 'v_proj']"], {}) == {"target_modules": ["q_proj", "v_proj"]}
    assert _knobs(["max_steps=null"], {"max_steps": None}) == {"max_steps": None}
    assert _knobs(["preference.beta=0.2"], {"preference.method": "simpo", "keep_best": True}) == {
        "preference.beta": "0.2",
        "preference.method": "simpo",
        "keep_best": True,
    }
    assert _knobs(["keep_best=true"], {"keep_best": True}) == {"keep_best": True}


@pytest.mark.parametrize("assignments", [["seed=3", "seed=4"], ["max_steps=4"], ["preference.method=orpo"]])
def test_a_knob_has_one_value(assignments: list[str]) -> None:
    with pytest.raises(UsageError, match="two values"):
        _knobs(assignments, {"max_steps": 5, "seed": 9, "preference.method": "dpo"})


@pytest.mark.parametrize("assignment", ["lora_rank=3", "lora_r", "=3", "lora_r=[", "x" * 10_000])
def test_knobs_that_cannot_be_read(assignment: str, dlm: Dlm, document: Path) -> None:
    dlm("train", "notes.dlm", "--set", assignment, expect=2)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "CPU", ""])
def test_devices_that_are_none(device: str, dlm: Dlm, document: Path) -> None:
    assert "cuda:N" in dlm("train", "notes.dlm", "--device", device, expect=2).stderr


def test_prompt_refuses_what_is_no_question(dlm: Dlm, document: Path) -> None:
    assert "no question" in dlm("prompt", "notes.dlm", stdin="  \n", expect=2).stderr
    assert "no question" in dlm("prompt", "notes.dlm", "", expect=2).stderr
    assert "not UTF-8" in dlm("prompt", "notes.dlm", "-", stdin=b"caf\xe9", expect=1).stderr
    assert (
        "exclude"
        in dlm("prompt", "notes.dlm", "Why?", "--compare", "a", "b", "--version", "c", expect=2).stderr
    )
    dlm("prompt", "notes.dlm", "Why?", "--temp", "-1", expect=2)
    dlm("prompt", "notes.dlm", "Why?", "--top-p", "0", expect=2)


def test_a_question_is_text() -> None:
    output = Output("prompt", as_json=False)
    document = Path("notes.dlm")
    assert _read_question(output, document, " Why? \n") == "Why?"
    with pytest.raises(TextError):
        _read_question(output, document, "caf\udce9")
    with pytest.raises(DlmError):
        _read_question(output, document, "\t")


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "-inf", "hot", ""])
def test_a_temperature_is_a_finite_number(value: str, dlm: Dlm, document: Path) -> None:
    message = dlm("prompt", "notes.dlm", "Why?", f"--temp={value}", expect=2).stderr
    assert "a finite number, 0 or more" in message
    assert "next: dlm prompt --help" in message
    dlm("prompt", "notes.dlm", "Why?", f"--top-p={value}", expect=2)
    dlm("prompt", "notes.dlm", "Why?", f"--repetition-penalty={value}", expect=2)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--phase", "sft", "--method", "dpo"], "preference.method"),
        (["--phase", "sft", "--no-mined"], "preference.include_mined"),
        (["--phase", "preference", "--set", "reward.center=0"], "reward.center"),
        (["--phase", "preference"], "nothing to train on"),
        (["--phase", "reward"], "nothing to train on"),
        (["--scalars", "notes.dlm"], "--scalars is read by the reward phase alone"),
        (["--phase", "reward", "--rows", "notes.dlm"], "--rows is not read by the reward phase"),
        (["--dry-run", "--resume"], "--dry-run"),
        (["--method", "ppo"], "ppo"),
        (["--min-margin", "-1"], "0 or more"),
        (["--set", "preference.betta=1"], "preference.beta=1"),
        (["--set", "preference.beta=0"], "preference.beta: Input should be greater than 0"),
        (["--set", "preference.label_smoothing=0.1", "--loss-type", "hinge"], "label_smoothing"),
    ],
    ids=str,
)
def test_flags_that_no_phase_reads_are_refused(args: list[str], words: str, dlm: Dlm, document: Path) -> None:
    pair = "::preference::\n### Prompt\nWhy?\n### Chosen\nSo.\n### Rejected\nNo.\n"
    if "nothing" not in words:
        document.write_text(document.read_text(encoding="utf-8") + pair, encoding="utf-8")
    assert words in dlm("train", "notes.dlm", *args, expect=2).stderr


def test_the_methods_and_losses_are_those_of_the_recipe() -> None:
    """The command line names them by hand, so that --help needs no pydantic."""
    fields = PreferenceRecipe.model_fields
    assert get_args(fields["method"].annotation) == METHODS
    assert get_args(fields["loss_type"].annotation) == LOSS_TYPES
