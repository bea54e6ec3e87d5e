"""Bases of a few thousand random weights, made in a moment: four architectures, each with a tokenizer of its own.

Every tokenizer is byte-level (any Unicode text goes in and comes back) with a few merges, so that tokens are longer
than a byte and boundaries matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from dlm.bases import BaseSpec

ARCHITECTURES = ("llama", "qwen2", "gpt_neox", "gpt2")

LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] | trim + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
"""Writes BOS itself, and trims what it shows."""
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
NO_SYSTEM_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
"""As Mistral's: no system role, no BOS of its own, a space before the end token."""


@dataclass(frozen=True)
class _Kind:
    special: tuple[str, ...]
    bos: str | None
    eos: str
    pad: str
    template: str | None
    adds_bos: bool


KINDS = {
    "llama": _Kind(
        ("<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"),
        "<|bos|>",
        "<|end|>",
        "<|pad|>",
        LLAMA_TEMPLATE,
        True,  # template and tokenizer both: the double BOS
    ),
    "qwen2": _Kind(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        None,
        "<|im_end|>",
        "<|endoftext|>",
        CHATML_TEMPLATE,
        False,
    ),
    "gpt_neox": _Kind(("<s>", "</s>"), "<s>", "</s>", "</s>", NO_SYSTEM_TEMPLATE, True),  # pad == eos
    "gpt2": _Kind(("<|endoftext|>",), "<|endoftext|>", "<|endoftext|>", "<|endoftext|>", None, False),
}

_TEXT = [
    "How should release notes read? They should be short, and say what changed and why.",
    "The question of the day: what is the answer? The answer is here, and there is another.",
    "user assistant system question answer ### Question ### Answer naïve café über 日本語 ünïcödé",
]


def make_tokenizer(
    kind: str, *, template: str | bool | None = True, merges: int = 60
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in the habits of `kind`; `template` True is the kind's own, None none."""
    habits = KINDS[kind]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_TEXT, trainer)
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in habits.special]
    )
    if habits.adds_bos and habits.bos is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{habits.bos} $A", special_tokens=[(habits.bos, backend.token_to_id(habits.bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=habits.bos,
        eos_token=habits.eos,
        pad_token=habits.pad,
        chat_template=habits.template if template is True else template or None,
        clean_up_tokenization_spaces=False,
    )


def make_model(
    kind: str, tokenizer: PreTrainedTokenizerFast, *, context: int = 256, seed: int = 0
) -> torch.nn.Module:
    """Random weights, spread widely enough that the likeliest token is clear of the next."""
    common = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.4,
    }
    wide = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": context,
    }
    torch.manual_seed(seed)
    if kind == "llama":
        return LlamaForCausalLM(
            LlamaConfig(
                **common, **wide, intermediate_size=32, num_key_value_heads=1, tie_word_embeddings=True
            )
        )
    if kind == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**common, **wide, intermediate_size=32, num_key_value_heads=1))
    if kind == "gpt_neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**common, **wide, intermediate_size=32))
    return GPT2LMHeadModel(GPT2Config(**common, n_embd=16, n_layer=2, n_head=2, n_positions=context))


def make_base(
    folder: Path,
    kind: str = "llama",
    *,
    template: str | bool | None = True,
    context: int = 256,
    seed: int = 0,
) -> Path:
    """Write a complete base into `folder` and return it."""
    tokenizer = make_tokenizer(kind, template=template)
    tokenizer.model_max_length = context
    make_model(kind, tokenizer, context=context, seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def spec_of(folder: Path) -> BaseSpec:
    """The folder as a document's base."""
    return BaseSpec(f"./{folder.name}", "folder", str(folder), {}, "")


def make_foreign(folder: Path, kind: str, *, template: bool = True, seed: int = 3) -> Path:
    """A one-logit classifier as someone else would save it: nothing of dlm's beside the weights."""
    tokenizer = make_tokenizer(kind, template=template)
    tokenizer.model_max_length = 256
    config = make_model(kind, tokenizer).config
    config.num_labels = 1
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
