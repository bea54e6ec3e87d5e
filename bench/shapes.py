"""What the training benchmark runs on: model sizes, their weights on disk, and rows of token ids.

The rows come from a small made-up language: answers worth choosing follow one table of successors, rejected ones
another, so that there is something to learn and losses can be compared over hundreds of steps.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METHODS = ("sft", "dpo", "orpo", "reward")
REGIMES = ("equal", "spread", "grouped")
END, PAD = 2, 0  # as in the embedded base
_FIRST_SYMBOL, _SYMBOLS = 16, 128
_LAWFUL = 0.7  # share of tokens that follow the table; the others are any symbol
_SIGMA = 0.5  # of the logarithm of a length, as preference data on the Hub has it
_LONGEST = 3.0  # times the mean
_POOL_STEPS = 50  # transformers' LengthGroupedSampler sorts the rows of fifty batches


@dataclass(frozen=True)
class Size:
    """A model and the rows it is measured with."""

    name: str
    row_tokens: int  # mean tokens of a prompt with one answer
    pairs_per_step: int
    config: dict[str, Any] | None  # of a Llama with random weights; None: the embedded base

    def rows_per_step(self, method: str) -> int:
        """Supervised rows have one answer, pairs two."""
        return 2 * self.pairs_per_step if method == "sft" else self.pairs_per_step


def _llama(hidden: int, inner: int, layers: int, heads: int, key_heads: int, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": 49152,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "tie_word_embeddings": True,
        "max_position_embeddings": 2048,
        "pad_token_id": PAD,
        "bos_token_id": None,
        "eos_token_id": END,
    } | more


SIZES = {
    size.name: size
    for size in (
        Size("tiny", 144, 8, None),
        Size("135m", 256, 4, _llama(576, 1536, 30, 9, 3)),  # the shape of SmolLM2-135M
        Size("360m", 512, 16, _llama(960, 2560, 32, 15, 5)),  # SmolLM2-360M; for a GPU, as the next
        Size("0.6b", 512, 16, _llama(1024, 3072, 28, 16, 8, head_dim=128, vocab_size=151936)),  # Qwen3-0.6B
    )
}


@dataclass(frozen=True)
class RawRow:
    """Token ids of a prompt and its answers: one for supervised rows, else the chosen and the rejected one."""

    prompt: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]

    @property
    def n_tokens(self) -> int:
        """Tokens of the row, its prompt counted once."""
        return len(self.prompt) + sum(map(len, self.branches))

    @property
    def longest(self) -> int:
        return len(self.prompt) + max(map(len, self.branches))


def draw_rows(
    size: Size, method: str, ratio: float, regime: str, steps: int, seed: int
) -> list[list[RawRow]]:
    """The rows of every step.

    Args:
        ratio: mean prompt tokens over mean answer tokens.
        regime: lengths all alike; spread, rows in any order; or spread, and rows of like length in a step.
    """
    per_step = size.rows_per_step(method)
    answer = size.row_tokens / (1 + ratio)
    draw = _Draw(seed, spread=regime != "equal")
    n_branches = 1 if method == "sft" else 2
    pool_steps = max(steps, _POOL_STEPS) if regime == "grouped" else steps
    pool = [draw.row(size.row_tokens - answer, answer, n_branches) for _ in range(per_step * pool_steps)]
    if regime != "grouped":
        return [pool[step * per_step : (step + 1) * per_step] for step in range(steps)]
    pool.sort(key=lambda row: -row.longest)
    places = random.Random(seed).sample(range(pool_steps), steps)
    return [pool[place * per_step : (place + 1) * per_step] for place in places]


class _Draw:
    """Draws rows; everything follows from the seed."""

    def __init__(self, seed: int, *, spread: bool) -> None:
        self._random = random.Random(seed)
        self._spread = spread
        symbols = list(range(_FIRST_SYMBOL, _FIRST_SYMBOL + _SYMBOLS))
        language = random.Random(0)  # one language, whatever the rows' seed
        self._tables = [dict(zip(symbols, language.sample(symbols, _SYMBOLS), strict=True)) for _ in range(2)]
        self._symbols = symbols

    def row(self, prompt: float, answer: float, n_branches: int) -> RawRow:
        context = self._text(self._length(prompt), 0, None)
        branches = tuple(
            (*self._text(self._length(answer) - 1, kind, context[-1]), END) for kind in range(n_branches)
        )
        return RawRow(tuple(context), branches)

    def _length(self, mean: float) -> int:
        """Lognormal around the mean, at least two tokens."""
        scale = 1.0
        if self._spread:
            scale = min(self._random.lognormvariate(-(_SIGMA**2) / 2, _SIGMA), _LONGEST)
        return max(2, round(mean * scale))

    def _text(self, length: int, kind: int, last: int | None) -> list[int]:
        ids: list[int] = []
        while len(ids) < length:
            lawful = last is not None and self._random.random() < _LAWFUL
            last = (
                self._tables[kind][last]
                if lawful and last is not None
                else self._random.choice(self._symbols)
            )
            ids.append(last)
        return ids


def save_base(size: Size, method: str, dtype: str, folder: Path) -> None:
    """Save the weights in `dtype` ("fp32" or "bf16"), so that nobody pays for loading them in another.

    The same fp32 numbers come first whatever the type; a reward model's head is part of them.
    """
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        LlamaConfig,
        LlamaForCausalLM,
        LlamaForSequenceClassification,
    )

    torch.manual_seed(0)
    scorer = method == "reward"
    model: Any
    if size.config is None:
        import dlm.bases

        pocket = Path(dlm.bases.__file__).parent / "pocket"
        family, more = (
            (AutoModelForSequenceClassification, {"num_labels": 1}) if scorer else (AutoModelForCausalLM, {})
        )
        model = family.from_pretrained(pocket, dtype=torch.float32, **more)
    else:
        config = LlamaConfig(**size.config, num_labels=1)
        model = LlamaForSequenceClassification(config) if scorer else LlamaForCausalLM(config)
    model.to(torch_type(dtype)).save_pretrained(folder)


def torch_type(name: str) -> Any:
    """torch's name for "fp32" or "bf16"."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]


def load_base(folder: Path, method: str, dtype: str) -> Any:
    """Load what `save_base` saved."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    family = AutoModelForSequenceClassification if method == "reward" else AutoModelForCausalLM
    return family.from_pretrained(folder, dtype=torch_type(dtype))


def lora(method: str) -> Any:
    """The adapter of every side."""
    from peft import LoraConfig

    return LoraConfig(
        r=8,
        lora_alpha=16,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="SEQ_CLS" if method == "reward" else "CAUSAL_LM",
    )


def set_adapter(model: Any, seed: int) -> None:
    """Give the adapter the same first weights on every side: A as PEFT draws it, B zero."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(model.named_parameters()):
        if "lora_A" in name:
            bound = 1 / math.sqrt(weight.shape[1])
            drawn = torch.rand(weight.shape, generator=generator).mul_(2 * bound).sub_(bound)
            weight.data.copy_(drawn)
        elif "lora_B" in name:
            weight.data.zero_()


def word(token: int) -> str:
    """The word of a token; no word is part of another, which would end a row at the END inside it."""
    return f"<{token}>"


def words_tokenizer(vocab_size: int) -> Any:
    """A tokenizer whose every word is one token (`<17>` is token 17): text in, the very ids of the rows out."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word(i): i for i in range(vocab_size)}, unk_token=word(1)))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token=word(1), eos_token=word(END), pad_token=word(PAD)
    )


def as_text(ids: Sequence[int]) -> str:
    """Ids as text of `words_tokenizer`."""
    return " ".join(map(word, ids))
