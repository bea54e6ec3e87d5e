"""Causal language models of a few thousand random weights, four architectures, with an adapter that is not zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
)

VOCABULARY = 61
ARCHITECTURES = ("llama", "qwen2", "gpt_neox", "gpt2")


@dataclass(frozen=True)
class Grown:
    """A tree made for a test."""

    prompt: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]


def grown(seed: int, prompt: int, *branches: int) -> Grown:
    """A tree of random tokens: `prompt` of them, then one answer for each length."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, VOCABULARY, (n,), generator=generator).tolist())

    return Grown(draw(prompt), tuple(draw(n) for n in branches))


def config_of(kind: str, layers: int = 2) -> PretrainedConfig:
    """The configuration of an architecture, without dropout."""
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "vocab_size": VOCABULARY,
    }
    if kind == "llama":
        return LlamaConfig(**sizes, num_key_value_heads=2, tie_word_embeddings=True)
    if kind == "qwen2":
        return Qwen2Config(**sizes, num_key_value_heads=1)
    if kind == "gpt_neox":
        return GPTNeoXConfig(**sizes, attention_dropout=0.0, hidden_dropout=0.0)
    return GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=16,
        n_layer=layers,
        n_head=4,
        n_positions=128,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
    )


def adapted(
    config: PretrainedConfig, *, dropout: float = 0.0, dora: bool = False, dtype: torch.dtype = torch.float32
) -> Any:
    """A model with an adapter whose both halves are random: at zero, half of the gradients would be zero."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # far enough from uniform that positions and masks matter
                parameter.mul_(8)
    lora = LoraConfig(
        r=3,
        lora_alpha=7,
        lora_dropout=dropout,
        use_dora=dora,
        target_modules="all-linear",
        fan_in_fan_out=config.model_type == "gpt2",
        task_type="CAUSAL_LM",
    )
    peft = get_peft_model(model.to(dtype), lora)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return peft


def gradients(model: Any) -> torch.Tensor:
    """All gradients in one vector; they are cleared."""
    parts = [p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None]
    model.zero_grad(set_to_none=True)
    return torch.cat(parts)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    return float((found - expected).norm() / expected.norm())
