"""Pocket's tokenizer: byte-level BPE over our own text, and its chat template.

Digits, newlines and punctuation stand alone, so that a money cell is always the same few tokens and a row
always ends in the same one. The tokenizer adds nothing by itself; the template writes the one BOS.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from dlm.tasks.draw import Draw
from tools.pocket import prose
from tools.pocket.corpus import document

__all__ = ["CHAT_TEMPLATE", "SPECIAL_TOKENS", "train_tokenizer", "write_tokenizer"]

SPECIAL_TOKENS = ("<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
VOCABULARY = 2048
CONTEXT = 2048
_PIECES = r"\p{N}|\n| ?\p{L}+|[^\s\p{L}\p{N}]|[^\S\n]+"

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{%- for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{%- endif %}"
)


def train_tokenizer(documents: int = 30_000) -> Tokenizer:
    """A BPE of 1,536 pieces from the first documents of the corpus and as much plain prose."""

    def texts() -> list[str]:
        # Tables and lists are left out but for a few: made-up names would fill the vocabulary with syllables.
        read = [document(number, 0.3) for number in range(documents)]
        rare = {"table", "list", "fact", "refusal", "copy"}
        mixed = [
            text
            for number, one in enumerate(read)
            if one.kind not in rare or number % 10 == 0
            for _, text in one.messages
        ]
        draw = Draw("tokenizer prose")
        return mixed + [prose.paragraph(draw) for _ in range(documents // 3)]

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` as transformers reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "additional_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "padding_side": "left",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
