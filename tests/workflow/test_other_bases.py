"""The border to the libraries: four architectures train and answer through the same code as the embedded base."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bases_on_the_spot import ARCHITECTURES
from dlm.errors import BaseModelError
from dlm.evaluation import Question, answer_all
from dlm.model import Settings
from dlm.workflow.export import export
from dlm.workflow.prompt import answer, answer_stream, open_policy
from dlm.workflow.train import TrainOptions, TrainView, train

pytestmark = [pytest.mark.torch, pytest.mark.big]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("adapter", ["lora", "dora"])
def test_one_step_and_an_answer(
    architecture: str, adapter: str, make_document: Callable[..., Path], view: TrainView
) -> None:
    document = make_document(architecture)
    knobs = {"max_steps": 1, "adapter": adapter, "learning_rate": 0.05, "warmup_ratio": 0.0}
    (report,) = train(document, TrainOptions(knobs=knobs), view).runs
    assert report.version == "v0001"
    assert report.steps == 1
    assert report.last["train_loss"] > 0
    base, chosen_base = open_policy(document, "base")
    policy, chosen = open_policy(document)
    assert (chosen_base.value, chosen.value) == ("base", "v0001")
    moved = [p for name, p in policy.model.named_parameters() if "lora_B" in name]
    assert moved
    assert all(bool(p.abs().sum() > 0) for p in moved)
    settings = Settings(temperature=0.0, max_new_tokens=8)
    whole = answer(policy, "What is number 3?", settings, seed=0)
    assert whole.finish_reason in ("stop", "length")
    *pieces, streamed = answer_stream(policy, "What is number 3?", settings, seed=0)
    assert "".join(str(piece) for piece in pieces) == whole.text
    assert getattr(streamed, "ids", None) == whole.ids
    assert base.fingerprint == policy.fingerprint


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_merged_export_answers_like_the_version(
    architecture: str, make_document: Callable[..., Path], view: TrainView, tmp_path: Path
) -> None:
    document = make_document(architecture)
    train(
        document,
        TrainOptions(knobs={"max_steps": 3, "learning_rate": 0.05, "lora_r": 2, "lora_alpha": 7}),
        view,
    )
    export(document, tmp_path / "merged", merged=True)
    text = document.read_text(encoding="utf-8").replace(f"./{architecture}", "./merged")
    other = tmp_path / "other.dlm"
    other.write_text(
        text.replace("01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAW"), encoding="utf-8"
    )
    adapted, _ = open_policy(document)
    merged, chosen = open_policy(other)
    assert chosen.value == "base"
    ids = torch.tensor([adapted.chat.prompt_ids("What is number 3?")])
    with torch.no_grad():
        difference = (adapted.model(ids).logits - merged.model(ids).logits).abs().max()
    assert float(difference) <= 1e-4


def _widen_the_head(folder: Path) -> None:
    """Random heads of std .02 bound the logits so tightly that some tokens can never be the likeliest one."""
    weights = load_file(folder / "model.safetensors")
    heads = ("lm_head.weight", "embed_out.weight", "model.embed_tokens.weight", "transformer.wte.weight")
    for name in heads:
        if name in weights:
            weights[name] = torch.randn(weights[name].shape, generator=torch.Generator().manual_seed(3))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_training_ids_are_serving_ids(make_document: Callable[..., Path], view: TrainView) -> None:
    """Over-fitted on one answer, the version says it and stops: EOS was a live label (bugs 3, 4, 5)."""
    for architecture in ARCHITECTURES:
        document = make_document(architecture, body="::instruction::\n### Q\nHi?\n### A\nYes é.\n")
        shutil.rmtree(document.parent / "home", ignore_errors=True)
        _widen_the_head(document.parent / architecture)
        knobs = {"min_steps": 150, "learning_rate": 0.02, "lora_r": 8, "lora_alpha": 16}
        train(document, TrainOptions(knobs=knobs), view)
        policy, _ = open_policy(document)
        (told,) = answer_all(policy, [Question("Hi?", "Yes é.")], max_new_tokens=30)
        assert told.answer == "Yes é.", architecture
        assert told.finish_reason == "stop"


def test_a_base_that_changed_is_refused_on_resume(
    make_document: Callable[..., Path], view: TrainView
) -> None:
    document = make_document()
    train(document, TrainOptions(knobs={"max_steps": 1}), view)
    config = document.parent / "llama" / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace("{", '{\n  "note": 1,', 1), encoding="utf-8")
    with pytest.raises(BaseModelError) as fault:
        open_policy(document)
    assert "base" in fault.value.message
