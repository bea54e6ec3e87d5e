"""The same code on a CUDA device: load, train, stop, resume, sample, in fp32 and bf16, on a few thousand weights.

Run by hand where there is one: pytest -m gpu.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bases_on_the_spot import ARCHITECTURES, make_base, spec_of
from dlm.errors import InterruptedRunError
from dlm.evaluation import Question, answer_all
from dlm.model import Policy, Settings, completion_logprobs, load_policy, sample
from dlm.store import Home, Store
from dlm.workflow.prompt import answer, answer_stream, open_policy
from dlm.workflow.train import RunReport, TrainOptions, train

pytestmark = [pytest.mark.torch, pytest.mark.gpu]

DLM_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
BODY = "::instruction::\n" + "".join(
    f"### Q\nWhat is number {i}?\n### A\n{'It is ' * (i % 4)}{i * 7}.\n" for i in range(24)
)
PROBE = "### Q !probe\nWhich number is 3?\n### A\nIt is 21.\n"
KNOBS = {"max_steps": 8, "save_every_steps": 3, "eval_every_steps": 4, "lora_dropout": 0.2, "layout": "plain"}
PRECISIONS = ("fp32", "bf16")
QUESTIONS = [f"What is number {i}?" + " Say it in a few words." * (i % 3) for i in range(6)]


class Watching:
    """A view that may ask for a stop after one step."""

    def __init__(self, stop_at: int = 0) -> None:
        self.notes: list[str] = []
        self.steps: list[int] = []
        self.briefings: list[Any] = []
        self._stop_at = stop_at

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.notes.append(f"warning: {text}")

    def briefing(self, briefing: Any) -> None:
        self.briefings.append(briefing)

    def step(self, step: int, total: int, values: Mapping[str, float]) -> None:
        self.steps.append(step)
        if step == self._stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    def checkpoint(self, step: int) -> None: ...
    def stopping(self) -> None: ...


@pytest.fixture(params=ARCHITECTURES)
def document(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DLM_HOME", str(tmp_path / "home"))
    make_base(tmp_path / "base", request.param)
    path = tmp_path / "doc.dlm"
    path.write_text(f"---\ndlm_id: {DLM_ID}\nbase_model: ./base\n---\n{BODY}{PROBE}", encoding="utf-8")
    return path


def go(document: Path, view: Watching | None = None, /, resume: bool = False, **knobs: Any) -> RunReport:
    stated = {} if resume else {**KNOBS, **knobs}
    options = TrainOptions(knobs=stated, resume=resume, device="cuda")
    (report,) = train(document, options, view or Watching()).runs
    return report


def opened() -> Store:
    found = Home.open().find(DLM_ID)
    assert found is not None
    return found


def adapter_of(version: str) -> dict[str, torch.Tensor]:
    with opened() as store:
        return load_file(store.versions.get(version).folder / "adapter_model.safetensors")


def both(folder: Path, precision: str = "fp32") -> tuple[Policy, Policy]:
    """The same base on the CPU and on the GPU."""
    spec = spec_of(folder)
    return (
        load_policy(spec, device="cpu", precision=precision),
        load_policy(spec, device="cuda", precision=precision),
    )


def test_auto_picks_the_gpu_and_says_why(document: Path) -> None:
    policy = load_policy(spec_of(document.parent / "base"))
    assert policy.device.value == "cuda"
    assert torch.cuda.get_device_name() in policy.device.reason
    assert policy.dtype.value == (
        "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    )
    assert all(parameter.is_cuda for parameter in policy.model.parameters())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("adapter", ["lora", "dora"])
def test_train_and_answer(document: Path, precision: str, adapter: str) -> None:
    report = go(document, view := Watching(), precision=precision, adapter=adapter)
    assert (report.version, report.steps, view.steps) == ("v0001", 8, list(range(1, 9)))
    assert view.briefings[0].device.value == "cuda"
    assert view.briefings[0].dtype.value == precision
    assert view.briefings[0].estimate.peak_memory_mb > 0
    assert report.last["peak_memory_mb"] > 0
    for name in ("train_loss", "valid_loss", "full_valid_loss", "probe_exact_match", "entropy", "grad_norm"):
        assert torch.isfinite(torch.tensor(report.last[name])), name
    tensors = adapter_of("v0001")
    assert all(
        tensor.dtype is torch.float32 for tensor in tensors.values()
    )  # only the frozen weights are bf16
    assert all(bool(tensor.abs().sum() > 0) for name, tensor in tensors.items() if "lora_B" in name)
    policy, chosen = open_policy(document, device="cuda")
    assert chosen.value == "v0001"
    settings = Settings(temperature=0.0, max_new_tokens=12)
    told = answer(policy, "What is number 3?", settings, seed=0)
    *pieces, streamed = answer_stream(policy, "What is number 3?", settings, seed=0)
    assert "".join(map(str, pieces)) == told.text
    assert getattr(streamed, "ids", None) == told.ids


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_resumed_run_is_the_run_that_never_stopped(
    document: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """Equal to rounding: unlike a CPU's, a GPU's sums may come in any order."""
    monkeypatch.setenv("DLM_HOME", str(document.parent / "whole"))
    whole = go(document, precision=precision)
    expected = adapter_of("v0001")
    monkeypatch.setenv("DLM_HOME", str(document.parent / "home"))
    with pytest.raises(InterruptedRunError):
        go(document, Watching(stop_at=5), precision=precision)
    report = go(document, view := Watching(), resume=True)
    assert view.steps == [6, 7, 8]
    assert not any("bit for bit" in note for note in view.notes)
    found, tolerance = adapter_of("v0001"), 1e-4 if precision == "fp32" else 2e-2
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance, msg=name)
    assert report.last["num_tokens"] == whole.last["num_tokens"]
    assert report.last["learning_rate"] == whole.last["learning_rate"]
    assert report.last["train_loss"] == pytest.approx(whole.last["train_loss"], rel=10 * tolerance)


def test_a_run_that_moves_to_the_cpu_goes_on_and_says_so(document: Path) -> None:
    with pytest.raises(InterruptedRunError):
        go(document, Watching(stop_at=5), precision="fp32")
    view = Watching()
    (report,) = train(document, TrainOptions(resume=True, device="cpu"), view).runs
    assert any("began on cuda and goes on on cpu" in note for note in view.notes)
    assert (report.steps, view.steps) == (8, [6, 7, 8])


def test_the_first_steps_are_those_of_the_cpu(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same seed, same rows, no dropout: the same losses and gradients up to rounding."""
    curves = []
    for device in ("cpu", "cuda"):
        monkeypatch.setenv("DLM_HOME", str(document.parent / device))
        knobs = {**KNOBS, "lora_dropout": 0.0, "precision": "fp32"}
        train(document, TrainOptions(knobs=knobs, device=device), Watching())
        with opened() as store:
            series = store.metrics.read(1)
        curves.append({name: series[name].values for name in ("train_loss", "grad_norm", "valid_loss")})
    for name, values in curves[0].items():
        assert list(curves[1][name]) == pytest.approx(list(values), rel=2e-3, abs=1e-4), name


def test_greedy_fp32_answers_are_those_of_the_cpu(document: Path) -> None:
    cpu, cuda = both(document.parent / "base")
    prompts = [cpu.chat.prompt_ids(question) for question in QUESTIONS]
    settings = Settings(temperature=0.0, max_new_tokens=24)
    seeds = [0] * len(prompts)
    told = [[one.ids for one in sample(policy, prompts, settings, seeds)] for policy in (cpu, cuda)]
    assert told[0] == told[1]
    asked = [Question(question, "x") for question in QUESTIONS]
    assert answer_all(cpu, asked, max_new_tokens=24) == answer_all(cuda, asked, max_new_tokens=24)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_sampling_with_every_setting(document: Path, precision: str) -> None:
    """A sample's log-probs are those of its tokens; the same seeds give the same samples."""
    policy = load_policy(spec_of(document.parent / "base"), device="cuda", precision=precision)
    prompts = [policy.chat.prompt_ids(question) for question in QUESTIONS[:3]] * 2
    settings = Settings(
        temperature=0.8, top_p=0.9, top_k=40, repetition_penalty=1.1, max_new_tokens=16, stop=("zzz",)
    )
    seeds = list(range(len(prompts)))
    samples = sample(policy, prompts, settings, seeds)
    assert [one.ids for one in samples] == [one.ids for one in sample(policy, prompts, settings, seeds)]
    rows = [(prompt, one.ids) for prompt, one in zip(prompts, samples, strict=True)]
    logprobs = completion_logprobs(policy.model, rows, temperature=0.8)
    tolerance = 1e-3 if precision == "fp32" else 0.3
    for one, scored in zip(samples, logprobs, strict=True):
        assert scored.is_cuda
        assert scored.dtype is torch.float32
        assert list(one.logprobs) == pytest.approx(scored.tolist(), abs=tolerance)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_scores_are_those_of_the_cpu(document: Path, precision: str) -> None:
    cpu, cuda = both(document.parent / "base", precision)
    rows = [(cpu.chat.prompt_ids(question), cpu.chat.completion_ids("It is 21.")) for question in QUESTIONS]
    expected = completion_logprobs(cpu.model, rows)
    found = completion_logprobs(cuda.model, rows)
    tolerance = 1e-3 if precision == "fp32" else 0.5
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other.cpu(), one, rtol=0, atol=tolerance)


def test_neftune_draws_on_the_device(document: Path) -> None:
    report = go(document, precision="fp32", neftune_alpha=5.0)
    assert torch.isfinite(torch.tensor(report.last["train_loss"]))


def test_an_adapter_from_the_gpu_answers_alike_on_the_cpu(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    document.write_text(
        text.replace("base_model: ./base\n", "base_model: ./base\ntraining:\n  precision: fp32\n"),
        encoding="utf-8",
    )
    go(document, learning_rate=0.02)
    settings = Settings(temperature=0.0, max_new_tokens=16)
    told = [
        answer(open_policy(document, device=device)[0], "What is number 3?", settings, seed=0).ids
        for device in ("cpu", "cuda")
    ]
    assert told[0] == told[1]
