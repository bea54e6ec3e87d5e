"""TRL's trainers on rows of token ids: its part of the comparison in `trl_oracle`.

TRL's own code does all of it: a trainer is constructed, prepares the dataset, collates the rows and computes the loss.
The rows reach it as text of a tokenizer whose every word is one token (`t17` is token 17), so that it sees the very ids
that our side sees.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # ORPO and SimPO live in trl.experimental

import datasets
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from dlm.training.pairs import Pair, PairExample
from dlm.training.policy_gradient import GroupLoss

datasets.disable_progress_bars()

END, PAD, VOCABULARY = 257, 258, 259
N_ROWS, ROWS_PER_STEP, SAMPLES = 8, 4, 4

Loss = Callable[[Sequence[int]], Tensor]
"""Places of the rows of one step → the loss of that step, a scalar with gradient."""


@dataclass(frozen=True)
class Side:
    """One side's way to a loss, and what it would log about the step whose loss it computed last."""

    loss: Loss
    metrics: Callable[[], Mapping[str, float]] = dict


OUR_NAMES = {
    "accuracy": "rewards/accuracies",  # the reward trainer's name for it
    "margin": "rewards/margins",
}


# Rows and models.


@dataclass(frozen=True)
class SftTree:
    """A supervised row: one answer."""

    prompt: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]


def pairs(prompt_tokens: tuple[int, int] = (3, 9)) -> list[PairExample]:
    """Pairs of random tokens; lengths differ between rows and between the sides of a row."""
    random = torch.Generator().manual_seed(7)

    def tokens(least: int, most: int) -> tuple[int, ...]:
        count = int(torch.randint(least, most + 1, (), generator=random))
        return tuple(torch.randint(0, 256, (count,), generator=random).tolist())

    return [
        PairExample(
            Pair("", f"chosen {i}", f"rejected {i}", "rows", i),
            tokens(*prompt_tokens),
            (*tokens(1, 8), END),
            (*tokens(1, 8), END),
        )
        for i in range(N_ROWS)
    ]


def text(ids: Sequence[int]) -> str:
    return " ".join(f"t{i}" for i in ids)


@cache
def tokenizer() -> Any:
    """One word, one token; nothing is added."""
    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(VOCABULARY)}, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="t0", eos_token=f"t{END}", pad_token=f"t{PAD}"
    )


def tiny_model(scorer: bool) -> Any:
    """A Llama of a few thousand weights under a LoRA that already does something."""
    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=END,
        num_labels=1,
        initializer_range=0.2,  # wide enough that predictions differ from uniform
    )
    base = LlamaForSequenceClassification(config) if scorer else LlamaForCausalLM(config)
    lora = LoraConfig(
        r=4,
        lora_alpha=12,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="SEQ_CLS" if scorer else "CAUSAL_LM",
    )
    model = get_peft_model(base, lora)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model.train()


def trainable(model: Any) -> dict[str, Tensor]:
    """The policy's own weights by name; TRL keeps a frozen copy of the adapter, named `ref`, in the same model."""
    return {
        name: weight
        for name, weight in model.named_parameters()
        if ".default." in name and ("lora_" in name or "modules_to_save" in name)
    }


# TRL's side.


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    """Arguments that every trainer gets: fp32 on the CPU, nothing dropped, nothing recomputed, nothing reported."""
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "fp16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
        "per_device_train_batch_size": N_ROWS,
        **more,
    }


def logged(trainer: Any) -> dict[str, float]:
    """What a trainer last kept for its log, under our names."""
    kept = trainer._stored_metrics if hasattr(trainer, "_stored_metrics") else trainer._metrics
    values = {name: float(series[-1]) for name, series in kept["train"].items()}
    return values | {ours: values[name] for name, ours in OUR_NAMES.items() if name in values}


def collated(trainer: Any, call: Callable[[Any, Any], Tensor] | None = None) -> Side:
    """The loss of a trainer over rows of the dataset that it prepared."""
    compute = call or trainer.compute_loss
    rows = list(trainer.train_dataset)

    def loss(places: Sequence[int]) -> Tensor:
        inputs = trainer.data_collator([rows[place] for place in places])
        value: Tensor = compute(trainer.model, inputs)
        return value

    return Side(loss, partial(logged, trainer))


def dataset(examples: Sequence[PairExample]) -> datasets.Dataset:
    return datasets.Dataset.from_list(
        [
            {
                "prompt": text(row.prompt),
                "chosen": " " + text(row.chosen),
                "rejected": " " + text(row.rejected),
            }
            for row in examples
        ]
    )


def trl_sft(model: Any, folder: Path) -> Side:
    rows = [{"prompt": text(row.prompt), "completion": " " + text(row.chosen)} for row in pairs()]
    return collated(
        SFTTrainer(
            model=model,
            args=SFTConfig(**settings(folder, completion_only_loss=True)),
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tokenizer(),
        )
    )


def trl_dpo(model: Any, folder: Path, **config: Any) -> Side:
    return collated(
        DPOTrainer(
            model=model,
            args=DPOConfig(**settings(folder, **config)),
            train_dataset=dataset(pairs()),
            processing_class=tokenizer(),
        )
    )


def trl_simpo(model: Any, folder: Path, *, beta: float, gamma: float) -> Side:
    config = CPOConfig(
        **settings(
            folder,
            loss_type="simpo",
            cpo_alpha=0.0,
            beta=beta,
            simpo_gamma=gamma,
            remove_unused_columns=False,
        )
    )
    return collated(
        CPOTrainer(model=model, args=config, train_dataset=dataset(pairs()), processing_class=tokenizer())
    )


def trl_orpo(model: Any, folder: Path, *, alpha: float, prompt_tokens: tuple[int, int], whole: bool) -> Side:
    trainer = ORPOTrainer(
        model=model,
        args=ORPOConfig(**settings(folder, beta=alpha, remove_unused_columns=False)),
        train_dataset=dataset(pairs(prompt_tokens)),
        processing_class=tokenizer(),
    )

    def odds_ratio_term(model: Any, inputs: Any) -> Tensor:
        chosen, rejected = trainer.concatenated_forward(model, inputs)[:2]
        losses: Tensor = trainer.odds_ratio_loss(chosen, rejected)[0]
        return -losses.mean()

    return collated(trainer, None if whole else odds_ratio_term)


MARGINS = (0.0, 0.5, 1.0, 0.25, 0.0, 2.0, 0.125, 0.75)


def trl_reward(model: Any, folder: Path, *, center: float | None, margins: bool) -> Side:
    rows = dataset(pairs())
    if margins:
        rows = rows.add_column("margin", list(MARGINS))
    return collated(
        RewardTrainer(
            model=model,
            args=RewardConfig(**settings(folder, center_rewards_coefficient=center)),
            train_dataset=rows,
            processing_class=tokenizer(),
        )
    )


@dataclass(frozen=True)
class Group:
    """A prompt with its samples and their rewards."""

    prompt: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]
    rewards: tuple[float, ...]


def rollouts() -> list[Group]:
    """Two groups of fixed samples: the answers of two pairs each, behind one prompt."""
    rows = pairs()
    rewards = [(0.0, 1.0, 0.5, 1.0), (2.0, -1.0, 0.0, 0.25)]
    answers = [answer for row in rows for answer in row.branches]
    return [
        Group(rows[g].prompt, tuple(answers[g * SAMPLES : (g + 1) * SAMPLES]), rewards[g])
        for g in range(len(rewards))
    ]


GRPO = {"beta": 0.05, "clip_low": 0.2, "clip_high": 0.28}
MAX_LENGTH = 16


def trl_grpo(model: Any, folder: Path, *, loss_type: GroupLoss) -> Side:
    """Fixed samples and rewards; TRL makes advantages, old and reference log-probs of them itself.

    `num_iterations=2` is what makes it keep the old log-probs; the samples then serve every step.
    """
    groups = rollouts()
    answers = [branch for group in groups for branch in group.branches]
    rewards = [reward for group in groups for reward in group.rewards]

    def samples(prompts: list[str], trainer: Any) -> dict[str, Any]:
        return {
            "prompt_ids": [list(group.prompt) for group in groups for _ in group.branches],
            "completion_ids": [list(answer) for answer in answers],
            "logprobs": [[0.0] * len(answer) for answer in answers],  # the sampler's own; read with vLLM only
        }

    def reward(completions: list[str], **_: Any) -> list[float]:
        return rewards

    config = GRPOConfig(
        **settings(
            folder,
            loss_type=loss_type,
            beta=GRPO["beta"],
            epsilon=GRPO["clip_low"],
            epsilon_high=GRPO["clip_high"],
            num_generations=SAMPLES,
            max_completion_length=MAX_LENGTH,
            num_iterations=2,
            scale_rewards="none" if loss_type == "dr_grpo" else "group",
            use_bias_correction_kl=False,  # TRL's default multiplies the KL term by the ratio (arXiv 2512.02556)
        )
    )
    prompts = [{"prompt": text(group.prompt)} for group in groups]
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=config,
        train_dataset=datasets.Dataset.from_list(prompts),
        processing_class=tokenizer(),
        rollout_func=samples,
    )
    trainer.current_gradient_accumulation_steps = 1  # set by the loop that is not run here
    inputs = trainer._generate_and_score_completions([prompt for prompt in prompts for _ in range(SAMPLES)])
    return Side(lambda _: trainer.compute_loss(trainer.model, inputs), partial(logged, trainer))
