"""Folders that cannot be a base are refused with the reason, quietly and without a traceback."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bases_on_the_spot import make_tokenizer, spec_of
from dlm.errors import BaseModelError
from dlm.model import load_policy

pytestmark = pytest.mark.torch


def edit_json(name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        data = json.loads((folder / name).read_text())
        change(data)
        (folder / name).write_text(json.dumps(data))

    return edit


def config(**values: Any) -> Callable[[Path], None]:
    return edit_json("config.json", lambda data: data.update(values))


def edit_weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return edit


def remove(*names: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return edit


def write(name: str, data: str | bytes) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)

    return edit


def all_of(*edits: Callable[[Path], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        for one in edits:
            one(folder)

    return edit


class _Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("a pickle was opened",)


def pickled_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb()))


def cut_off(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def poison(value: float) -> Callable[[Path], None]:
    return edit_weights(lambda tensors: tensors["model.norm.weight"].fill_(value))


def big_tokenizer(folder: Path) -> None:
    tokenizer = make_tokenizer("llama")
    tokenizer.add_tokens(["much", "more", "words"])
    tokenizer.save_pretrained(folder)


INDEX = json.dumps(
    {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors", "x": "../evil.safetensors"}}
)
DOCTORED = {
    "no config": (remove("config.json"), "config.json is missing"),
    "config not JSON": (write("config.json", "{'a': 1"), "cannot be read as JSON"),
    "config not UTF-8": (write("config.json", b"\xff\xfe{}"), "cannot be read as JSON"),
    "config nested too deep": (write("config.json", "[" * 100_000), "cannot be read as JSON"),
    "config a list": (write("config.json", "[]"), "not a JSON object"),
    "own code": (config(auto_map={"AutoModelForCausalLM": "evil.Model"}), "never runs code"),
    "own tokenizer code": (
        edit_json("tokenizer_config.json", lambda data: data.update(auto_map={"AutoTokenizer": ["evil.T", None]})),
        "never runs code",
    ),
    "no model type": (edit_json("config.json", lambda data: data.pop("model_type")), "not a causal language model"),
    "unknown model type": (config(model_type="nonesuch"), "model_type 'nonesuch'"),
    "model type a list": (config(model_type=["llama"]), "not a causal language model"),
    "encoder": (config(model_type="bert", architectures=["BertForMaskedLM"]), "left to right"),
    "encoder without architectures": (config(model_type="bert", architectures=None), "left to right"),
    "classifier": (config(architectures=["LlamaForSequenceClassification"]), "LlamaForSequenceClassification"),
    "quantised": (config(quantization_config={"quant_method": "gptq", "bits": 4}), "quantised"),
    "absurd vocabulary": (config(vocab_size=10**12), "vocab_size"),
    "absurd depth": (config(num_hidden_layers=10**9), "num_hidden_layers"),
    "width of text": (config(hidden_size="16"), "hidden_size"),
    "no heads": (config(num_attention_heads=0), "cannot be loaded|heads"),
    "heads of text": (config(num_attention_heads="two"), "num_attention_heads"),
    "another width": (config(intermediate_size=30), "wrong shape"),
    "fewer layers": (config(num_hidden_layers=1), "does not have"),
    "more layers": (config(num_hidden_layers=3), "lacks weights"),
    "untied": (config(tie_word_embeddings=False), "lacks weights"),
    "no weights": (remove("model.safetensors"), "no weights"),
    "pickle only": (pickled_only, "pickled"),
    "cut off": (cut_off, "no sound safetensors file"),
    "not safetensors": (write("model.safetensors", b"PK\x03\x04 zip"), "no sound safetensors file"),
    "empty weights": (write("model.safetensors", b""), "no sound safetensors file"),
    "missing shard": (all_of(remove("model.safetensors"), write("model.safetensors.index.json", INDEX)), "weights are missing"),
    "empty index": (all_of(remove("model.safetensors"), write("model.safetensors.index.json", "{}")), "lists no weights"),
    "missing tensor": (edit_weights(lambda tensors: tensors.__delitem__("model.norm.weight")), "lacks weights"),
    "extra tensor": (edit_weights(lambda tensors: tensors.update(evil=torch.zeros(3))), "does not have"),
    "wrong shape": (edit_weights(lambda t: t.update({"model.norm.weight": torch.ones(15)})), "model.norm.weight .15 stored, 16 expected"),
    "NaN": (poison(float("nan")), "not finite"),
    "infinity": (poison(float("inf")), "not finite"),
    "no tokenizer": (remove("tokenizer.json"), "no tokenizer"),
    "tokenizer not JSON": (write("tokenizer.json", "{"), "cannot be read as JSON"),
    "tokenizer of nonsense": (write("tokenizer.json", '{"version": "1.0", "model": {"type": "Magic"}}'), "tokenizer"),
    "tokenizer empty": (write("tokenizer.json", "{}"), "tokenizer"),
    "tokenizer too large": (big_tokenizer, "larger than its embeddings"),
    "generation config not JSON": (write("generation_config.json", "{"), "cannot be"),
    "template broken": (write("chat_template.jinja", "{% for %}"), "template"),
    "template without question": (write("chat_template.jinja", "hello"), "does not show the question"),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCTORED)
def test_a_doctored_folder_is_refused_with_the_reason(
    name: str,
    bases: dict[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    edit, reason = DOCTORED[name]
    folder = Path(shutil.copytree(bases["llama"], tmp_path / "base"))
    edit(folder)
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()
    with pytest.raises(BaseModelError) as caught:
        load_policy(spec_of(folder), device="cpu")
    text = "\n".join(caught.value.lines())
    assert re.search(reason, text), text
    assert caught.value.next_step
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "a pickle was opened").exists()


def test_a_sound_folder_loads_in_silence(bases: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    load_policy(spec_of(bases["llama"]), device="cpu")
    assert capfd.readouterr() == ("", "")


def test_shards_load(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bases["llama"], tmp_path / "base"))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, keys in files.items():
        save_file({key: tensors[key] for key in keys}, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: file for file, keys in files.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    policy = load_policy(spec_of(folder), device="cpu")
    assert torch.equal(policy.model.state_dict()["model.norm.weight"], tensors["model.norm.weight"])


def test_a_folder_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="is not there"):
        load_policy(spec_of(tmp_path / "gone"))


_HUB = """
import os, pathlib, shutil, sys
from dlm.bases import BaseSpec
from dlm.errors import DlmError
from dlm.model import load_policy

def attempt():
    try:
        print("loaded", load_policy(BaseSpec("hf:org/name", "hub", "org/name", {}, ""), device="cpu").folder)
    except DlmError as error:
        print(*error.lines(), sep="; ")

os.environ["HF_HUB_OFFLINE"] = "1"
attempt()
del os.environ["HF_HUB_OFFLINE"]
attempt()
base, repository = sys.argv[1:]
shutil.copytree(base, repository + "/snapshots/" + "0" * 40)
os.makedirs(repository + "/refs")
pathlib.Path(repository, "refs", "main").write_text("0" * 40)
attempt()
os.remove(repository + "/snapshots/" + "0" * 40 + "/model.safetensors")
attempt()
"""


@pytest.mark.process
def test_a_hub_model_is_its_local_copy_or_an_error_that_says_what_to_do(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    """Offline by wish; with the Hub out of reach; with a local copy, which needs no network; with half a copy."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    repository = tmp_path / "hub" / "hub" / "models--org--name"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _HUB, str(bases["llama"]), str(repository)],
        env={**kept, "HF_HOME": str(tmp_path / "hub"), "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    by_wish, out_of_reach, local, half = done.stdout.splitlines()
    assert "org/name is not on this machine; " in by_wish
    assert "HF_HUB_OFFLINE is set" in by_wish
    for line in (by_wish, out_of_reach, half):
        assert "go online once" in line
        assert "base_model: ./folder" in line
    assert "the Hub cannot be reached" in out_of_reach
    assert "as a whole" in half
    assert local == f"loaded {repository / 'snapshots' / ('0' * 40)}"
    assert done.stderr == ""
