"""Saving and resuming pocket's training, and publishing it: safetensors and JSON, renamed into place."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from tools.pocket.muon import Muon
from tools.pocket.tokenizer import write_tokenizer

# What a Llama of any transformers version needs; defaults that only clutter stay out.
_CONFIG_NAMES = (
    "attention_bias",
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "mlp_bias",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "rms_norm_eps",
    "tie_word_embeddings",
    "use_cache",
    "vocab_size",
)

__all__ = ["load_state", "publish", "save_state"]


def save_state(
    folder: Path, model: LlamaForCausalLM, muon: Muon, adam: torch.optim.AdamW, state: dict[str, Any]
) -> None:
    """Write everything a resumed run needs; a kill at any moment leaves the old state or the new one."""
    fresh, old = folder.with_suffix(".new"), folder.with_suffix(".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    tensors = {f"model.{name}": value.detach().clone() for name, value in model.named_parameters()}
    tensors |= {f"muon.{number}": buffer.clone() for number, buffer in enumerate(muon.buffers)}
    for number, entry in adam.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{key}": torch.as_tensor(value).clone() for key, value in entry.items()}
    save_file(tensors, fresh / "tensors.safetensors")
    (fresh / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_state(
    folder: Path, model: LlamaForCausalLM, muon: Muon, adam: torch.optim.AdamW
) -> dict[str, Any] | None:
    """Restore a saved run into the given objects; `None` when there is none."""
    if not folder.exists() and folder.with_suffix(".old").exists():
        folder.with_suffix(".old").rename(folder)
    if not (folder / "state.json").exists():
        return None
    tensors = load_file(folder / "tensors.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
        for number, buffer in enumerate(muon.buffers):
            buffer.copy_(tensors[f"muon.{number}"])
    saved = adam.state_dict()
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, number, field = key.split(".")
            saved["state"].setdefault(int(number), {})[field] = value
    adam.load_state_dict(saved)
    state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return state


def publish(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the model as a Hugging Face checkpoint into `folder`, each file renamed into place.

    The file holds fp16, half the size, and the config says float32: loading widens it, since fp16 matrix
    products are slow on CPU.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder.parent / f".{folder.name}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    write_tokenizer(tokenizer, fresh)
    whole = model.config.to_dict()
    config = {name: whole[name] for name in _CONFIG_NAMES}
    config |= {"architectures": ["LlamaForCausalLM"], "dtype": "float32", "rope_theta": 10000.0}
    (fresh / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    ids = {
        "bos_token_id": config["bos_token_id"],
        "eos_token_id": config["eos_token_id"],
        "pad_token_id": config["pad_token_id"],
    }
    (fresh / "generation_config.json").write_text(json.dumps(ids, indent=2) + "\n", encoding="utf-8")
    # The head is tied to the embeddings and is therefore not stored.
    weights = {
        name: value.detach().to(torch.float16).contiguous()
        for name, value in model.named_parameters()
        if name != "lm_head.weight"
    }
    save_file(weights, fresh / "model.safetensors", metadata={"format": "pt"})
    for file in sorted(fresh.iterdir()):
        file.chmod(0o644)
        os.replace(file, folder / file.name)
    fresh.rmdir()
