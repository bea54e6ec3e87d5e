"""A few-thousand-parameter Llama and a byte-level stand-in for the chat renderer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from dlm.training.examples import Example, Row
from dlm.training.layout import Layout
from dlm.training.objectives import Reference
from dlm.training.pairs import Pair, PairExample

BOS, END, PAD = 256, 257, 258


class ByteChat:
    """Bytes as ids; BOS before a prompt, END after a completion."""

    def prompt_ids(self, question: str) -> list[int]:
        return [BOS, *question.encode(), 10]

    def completion_ids(self, answer: str) -> list[int]:
        return [*answer.encode(), END]

    def text_ids(self, prose: str) -> list[int]:
        return [BOS, *prose.encode(), END]


class Recorder:
    """An observer that keeps what it is told and asks for a stop after `stop_after` steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.history: dict[int, dict[str, float]] = {}
        self.saved: list[int] = []
        self.stop_after = stop_after
        self.flushed = 0

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.history[step] = dict(values)

    def before_checkpoint(self) -> None:
        self.flushed = len(self.history)

    def checkpoint_saved(self, step: int) -> None:
        assert self.flushed == len(self.history)
        self.saved.append(step)

    def stop_requested(self) -> str:
        return "the test" if len(self.history) == self.stop_after else ""


def tiny_model(*, dropout: float = 0.0, dora: bool = False) -> torch.nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=END,
    )
    lora = LoraConfig(
        r=4,
        lora_alpha=12,
        lora_dropout=dropout,
        target_modules="all-linear",
        use_dora=dora,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(LlamaForCausalLM(config), lora)


def chat_row(prompt: str, answer: str, line: int = 1) -> Row:
    return Row("chat", prompt, answer, "doc.dlm", line)


def example(prompt: str, answer: str, line: int = 1) -> Example:
    chat = ByteChat()
    ids = (*chat.prompt_ids(prompt), *chat.completion_ids(answer))
    return Example(chat_row(prompt, answer, line), ids, len(chat.prompt_ids(prompt)))


def pair_example(prompt: str, chosen: str, rejected: str, line: int = 1) -> PairExample:
    chat, pair = ByteChat(), Pair(prompt, chosen, rejected, "doc.dlm", line)
    sides = (tuple(chat.completion_ids(answer)) for answer in (chosen, rejected))
    return PairExample(pair, tuple(chat.prompt_ids(prompt)), *sides)


def reference_of(model: torch.nn.Module, pairs: Sequence[PairExample]) -> Reference:
    """Log-probs of both answers of each pair, dropout off."""
    with torch.no_grad():
        sums = plain_layout().scores(model.eval(), pairs).sums().view(-1, 2)
    return {
        pair.pair.key: (float(chosen), float(rejected))
        for pair, (chosen, rejected) in zip(pairs, sums, strict=True)
    }


def plain_layout() -> Layout:
    """Padded rows, through the trunk and then the head: what `Layout.of` finds for `tiny_model`."""
    return Layout("plain", PAD, "cpu", headless=True)
