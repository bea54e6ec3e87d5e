"""What a policy knows of its base, and adapters on it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from bases_on_the_spot import make_base, spec_of
from dlm.errors import BaseModelError, ContextLengthError, UsageError
from dlm.model import Policy, Settings, completion_logprobs, load_policy, sample
from dlm.model.device import choose_device, choose_dtype
from dlm.model.fingerprint import fingerprint_folder

pytestmark = pytest.mark.torch


def make_adapter(base: Path, folder: Path, kind: str = "llama", *, dora: bool = False) -> Path:
    """An adapter with weights far from zero, alpha ≠ r, and the version file that the store writes."""
    policy = load_policy(spec_of(base), device="cpu")
    torch.manual_seed(3)
    config = LoraConfig(
        r=4, lora_alpha=11, target_modules="all-linear", task_type="CAUSAL_LM", use_dora=dora, fan_in_fan_out=kind == "gpt2"
    )  # fmt: skip
    model = get_peft_model(policy.model, config)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "lora_B" in name:
                tensor.normal_(0, 0.3)
    model.save_pretrained(folder)
    (folder / "version.json").write_text(
        json.dumps({"name": "v0001", "base_fingerprint": policy.fingerprint})
    )
    return folder


@pytest.fixture
def adapter(bases: dict[str, Path], tmp_path: Path) -> Path:
    return make_adapter(bases["llama"], tmp_path / "v0001")


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def test_a_policy_says_what_it_is(policy: Policy) -> None:
    assert policy.device.value == "cpu"
    assert policy.dtype.value == "fp32"
    assert policy.dtype.reason
    assert policy.context_length == 256
    assert len(policy.fingerprint) == 64
    assert not policy.model.training
    assert not any(tensor.requires_grad for tensor in policy.model.parameters())


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gpt2"])
def test_bug_9_adapter_and_merged_model_agree(
    kind: str, dora: bool, bases: dict[str, Path], tmp_path: Path
) -> None:
    """alpha ≠ r, after save and load."""
    folder = make_adapter(bases[kind], tmp_path / "v0001", kind, dora=dora)
    policy = load_policy(spec_of(bases[kind]), folder, device="cpu")
    assert isinstance(policy.model, PeftModel)
    ids = policy.chat.prompt_ids("Why?")
    apart = logits(policy.model, ids)
    plain = logits(load_policy(spec_of(bases[kind]), device="cpu").model, ids)
    assert (apart - plain).abs().max() > 0.1
    merged = policy.model.merge_and_unload()
    torch.testing.assert_close(logits(merged, ids), apart, rtol=0, atol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    policy.tokenizer.save_pretrained(tmp_path / "merged")
    again = load_policy(spec_of(tmp_path / "merged"), device="cpu")
    torch.testing.assert_close(logits(again.model, ids), apart, rtol=0, atol=1e-4)


def test_an_adapter_samples_and_scores(bases: dict[str, Path], adapter: Path) -> None:
    policy = load_policy(spec_of(bases["llama"]), adapter, device="cpu")
    prompts = [policy.chat.prompt_ids(question) for question in ("Hi", "Why?", "Hi")]
    answers = sample(policy, prompts, Settings(max_new_tokens=20), range(3))
    rows = [(prompt, answer.ids) for prompt, answer in zip(prompts, answers, strict=True)]
    for values, answer in zip(completion_logprobs(policy.model, rows), answers, strict=True):
        torch.testing.assert_close(values, torch.tensor(answer.logprobs), rtol=0, atol=1e-4)
    base = load_policy(spec_of(bases["llama"]), device="cpu")
    assert sample(base, prompts, Settings(max_new_tokens=20), range(3)) != answers


@pytest.mark.parametrize("kind", ["gpt_neox", "gpt2"])
def test_bug_4_an_overfitted_model_stops_where_pad_is_eos(kind: str, bases: dict[str, Path]) -> None:
    """Bug 4: trained on its own completion ids, a base whose pad token is its end token ends its answers."""
    policy = load_policy(spec_of(bases[kind]), device="cpu")
    assert policy.tokenizer.pad_token_id == policy.chat.end_id
    turns = [("Why?", "Because."), ("How?", "Briefly, naïvely 日本.")]
    policy.model.requires_grad_(True)
    optimizer = torch.optim.Adam(policy.model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        for question, answer in turns:
            prompt, completion = policy.chat.prompt_ids(question), policy.chat.completion_ids(answer)
            ids = torch.tensor([prompt + completion])
            scores = policy.model(ids, attention_mask=torch.ones_like(ids)).logits[0, len(prompt) - 1 : -1]
            torch.nn.functional.cross_entropy(scores, ids[0, len(prompt) :]).backward()
        optimizer.step()
    prompts = [policy.chat.prompt_ids(question) for question, _ in turns]
    for (_, answer), got in zip(turns, sample(policy, prompts, Settings(temperature=0), [0, 0]), strict=True):
        assert (got.text, got.finish_reason) == (answer, "stop")


def test_a_trainable_adapter_is_open_and_the_base_is_not(bases: dict[str, Path], adapter: Path) -> None:
    policy = load_policy(spec_of(bases["llama"]), adapter, device="cpu", trainable=True)
    open_ones = {name for name, tensor in policy.model.named_parameters() if tensor.requires_grad}
    assert open_ones
    assert all("lora_" in name for name in open_ones)
    closed = load_policy(spec_of(bases["llama"]), adapter, device="cpu")
    assert not any(tensor.requires_grad for tensor in closed.model.parameters())


def doctor(adapter: Path, how: str) -> str:
    """Spoil an adapter; the reason that must be given."""
    weights = adapter / "adapter_model.safetensors"
    config_file = adapter / "adapter_config.json"
    tensors = load_file(weights)
    config = json.loads(config_file.read_text())
    first = sorted(tensors)[0]
    if how == "another base":
        (adapter / "version.json").write_text(json.dumps({"base_fingerprint": "f" * 64}))
        return "trained on another base"
    if how == "no weights":
        weights.rename(adapter / "adapter_model.bin")
        return "adapter_model.safetensors is missing"
    if how == "no config":
        config_file.unlink()
        return "adapter_config.json is missing"
    if how == "another kind":
        config_file.write_text(json.dumps(config | {"peft_type": "PREFIX_TUNING"}))
        return "peft_type LORA"
    if how == "config of nonsense":
        config_file.write_text(json.dumps(config | {"r": "four"}))
        return "does not fit the base"
    if how == "no such layers":
        config_file.write_text(json.dumps(config | {"target_modules": ["nonesuch"]}))
        return "does not fit the base"
    if how == "cut off":
        weights.write_bytes(weights.read_bytes()[:100])
        return "no sound safetensors"
    changed = {
        "missing tensor": {key: value for key, value in tensors.items() if key != first},
        "extra tensor": tensors | {"base_model.model.evil": torch.zeros(2)},
        "wrong shape": tensors | {first: torch.zeros(4, 3)},
        "NaN": tensors | {first: torch.full_like(tensors[first], float("nan"))},
    }
    save_file(changed[how], weights, {"format": "pt"})
    return "not finite" if how == "NaN" else "does not fit the base"


@pytest.mark.parametrize(
    "how",
    [
        "another base", "no weights", "no config", "another kind", "config of nonsense", "no such layers", "cut off",
        "missing tensor", "extra tensor", "wrong shape", "NaN",
    ],
)  # fmt: skip
def test_an_adapter_that_does_not_fit_is_refused(
    how: str, bases: dict[str, Path], adapter: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reason = doctor(adapter, how)
    capfd.readouterr()
    with pytest.raises(BaseModelError) as caught:
        load_policy(spec_of(bases["llama"]), adapter, device="cpu")
    assert reason in "\n".join(caught.value.lines())
    assert capfd.readouterr() == ("", "")


def test_an_adapter_without_a_version_file_loads(bases: dict[str, Path], adapter: Path) -> None:
    (adapter / "version.json").unlink()
    assert load_policy(spec_of(bases["llama"]), adapter, device="cpu").adapter == adapter


def test_an_adapter_of_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", "llama", seed=5)
    with pytest.raises(BaseModelError, match="trained on another base"):
        load_policy(spec_of(other), adapter, device="cpu")


# --- fingerprint, context ------------------------------------------------------------------------------------------


def test_the_fingerprint_follows_what_decides_answers(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bases["llama"], tmp_path / "base"))
    first = fingerprint_folder(folder)
    assert first == fingerprint_folder(bases["llama"])
    (folder / "README.md").write_text("a card")
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    assert fingerprint_folder(folder) == first
    prints = {first}
    for name in ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        prints.add(fingerprint_folder(folder))
        (folder / name).write_bytes(data)
    assert len(prints) == 5
    assert fingerprint_folder(folder) == first


def test_the_hubs_cache_need_not_be_read_again(tmp_path: Path, bases: dict[str, Path]) -> None:
    folder = Path(shutil.copytree(bases["llama"], tmp_path / "snapshots" / "x"))
    plain = fingerprint_folder(folder)
    weights = folder / "model.safetensors"
    blob = tmp_path / "blobs" / hashlib.sha256(weights.read_bytes()).hexdigest()
    blob.parent.mkdir()
    weights.rename(blob)
    weights.symlink_to(blob)
    assert fingerprint_folder(folder) == plain


def test_the_context_is_the_smaller_of_model_and_tokenizer(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bases["llama"], tmp_path / "base"))
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    for stated, expected in ((100, 100), (10**30, 256), (512, 256)):
        file.write_text(json.dumps(config | {"model_max_length": stated}))
        policy = load_policy(spec_of(folder), device="cpu")
        assert policy.context_length == expected
    assert policy.require_room(255) == 1
    with pytest.raises(ContextLengthError, match="at most 255 tokens"):
        policy.require_room(256)


# --- device and precision ------------------------------------------------------------------------------------------


def test_the_cpu_computes_in_fp32_unless_told() -> None:
    assert choose_dtype(None, "cpu").value == "fp32"
    assert choose_dtype("bf16", "cpu").value == "bf16"
    with pytest.raises(UsageError, match="needs a GPU"):
        choose_dtype("fp16", "cpu")
    with pytest.raises(UsageError, match="fp32, bf16, fp16"):
        choose_dtype("int8", "cpu")


def test_bf16_weights_give_fp32_scores(bases: dict[str, Path]) -> None:
    policy = load_policy(spec_of(bases["llama"]), device="cpu", precision="bf16")
    assert policy.model.dtype == torch.bfloat16
    prompt = policy.chat.prompt_ids("Hi")
    answer = sample(policy, [prompt], Settings(max_new_tokens=8), [0])[0]
    values = completion_logprobs(policy.model, [(prompt, answer.ids)])[0]
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, torch.tensor(answer.logprobs), rtol=0, atol=0.3)


@pytest.mark.parametrize("wrong", ["gpu", "cuda:x", "cpu:0", "mps:1", ""])
def test_an_unknown_device_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        choose_device(wrong)


def test_a_device_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device().value == "cpu"
    for name in ("cuda", "cuda:0", "mps"):
        with pytest.raises(UsageError, match="is not here"):
            choose_device(name)


def test_a_gpu_is_taken_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    assert choose_device().value == "cuda"
    assert "Some GPU" in choose_device().reason
    assert choose_device("cuda:0").value == "cuda:0"
    with pytest.raises(UsageError, match="is not here"):
        choose_device("cuda:1")
    assert choose_dtype(None, "cuda:0").value == "fp32"
    assert choose_dtype("fp16", "cuda").value == "fp16"
    with pytest.raises(UsageError, match="bf16"):
        choose_dtype("bf16", "cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert choose_dtype(None, "cuda").value == "bf16"
