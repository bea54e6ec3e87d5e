"""The knobs: every field of a recipe, described once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, Literal, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

__all__ = [
    "PHASE_KNOBS",
    "Choice",
    "PhaseKnobs",
    "PreferenceChoices",
    "PreferenceNumbers",
    "PreferenceRecipe",
    "Recipe",
    "RewardRecipe",
    "RftRecipe",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Choice(Generic[T]):
    """An automatic choice: the value, and the reason shown beside it."""

    value: T
    reason: str


class Recipe(BaseModel):
    """Every knob of a run. Units stand in the names or in the descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    adapter: Literal["lora", "dora"] = Field(
        "lora", description="adapter method; dora also learns each column's length (arXiv 2402.09353)"
    )
    lora_r: int = Field(8, ge=1, le=256, description="rank of the adapter matrices")
    lora_alpha: int = Field(
        16, ge=1, description="adapter scale: updates are multiplied by lora_alpha / lora_r"
    )
    lora_dropout: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="share of adapter inputs dropped in supervised training; the other phases drop none",
    )
    target_modules: Literal["auto"] | list[str] = Field(
        "auto", description="layers that get an adapter; auto = every linear layer but the head"
    )
    sequence_len: int = Field(
        2048,
        ge=64,
        le=32768,
        description="longest row in tokens; longer rows are listed, never cut in silence",
    )
    micro_batch_size: Literal["auto"] | PositiveInt = Field("auto", description="rows held in memory at once")
    grad_accum: Literal["auto"] | PositiveInt = Field(
        "auto", description="micro-batches per optimiser step; the loss is exact over all their tokens"
    )
    learning_rate: float = Field(2e-4, gt=0, le=10, description="peak learning rate")
    num_epochs: int = Field(3, ge=1, description="passes over the rows")
    min_steps: int = Field(
        0,
        ge=0,
        description="optimiser steps below which more passes are added, so that a short document is learnt",
    )
    max_steps: int | None = Field(
        None, ge=1, description="stop after this many optimiser steps, whatever the epochs say"
    )
    optimizer: Literal["adamw_torch"] = Field(
        "adamw_torch", description="optimiser (AdamW, arXiv 1711.05101)"
    )
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="AdamW: decay of the mean gradient")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="AdamW: decay of the mean squared gradient")
    adam_epsilon: float = Field(1e-8, gt=0, description="AdamW: added to the denominator")
    weight_decay: float = Field(0.0, ge=0, description="AdamW: decoupled weight decay")
    max_grad_norm: float = Field(
        1.0, ge=0, description="gradients are clipped to this global norm; 0 = no clipping"
    )
    lr_scheduler: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="shape of the learning rate after warm-up"
    )
    warmup_ratio: float = Field(
        0.1, ge=0, le=0.5, description="share of the steps over which the rate rises from 0"
    )
    neftune_alpha: float = Field(
        0.0,
        ge=0,
        description="noise on the input embeddings while training (NEFTune, arXiv 2310.05914); 0 = none",
    )
    precision: Literal["bf16", "fp16", "fp32"] | None = Field(
        None, description="type of the frozen weights; unset = fp32 on CPU, bf16 on CUDA"
    )
    val_fraction: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="share of rows held out for validation, by a hash of their content; none below 20 rows",
    )
    eval_every_steps: int | None = Field(
        None, ge=1, description="steps between validations; unset = about ten in a run"
    )
    save_every_steps: int | None = Field(
        None, ge=1, description="steps between checkpoints; unset = at every validation"
    )
    keep_last: int = Field(3, ge=1, description="checkpoints kept per run, the newest ones")
    keep_best: bool = Field(
        False,
        description="also keep the checkpoint that scored best on held-out rows, and make the version of it",
    )
    early_stopping: int | None = Field(
        None, ge=1, description="stop after this many validations without a better one; unset = never"
    )
    stop_on: Literal["never", "severe", "warn"] = Field(
        "never",
        description="stop as soon as a rule about the curves finds something severe (warn: or warns), and keep the best "
        "checkpoint as keep_best does; never = only warn",
    )
    layout: Literal["auto", "plain", "packed", "shared", "packed_shared"] = Field(
        "auto",
        description="how rows become a batch: padded rows, rows packed end to end, prompts encoded once for all their "
        "answers, or both; auto = the fastest one that this base computes right",
    )
    seed: int = Field(42, ge=0, lt=2**63, description="seed of row order, dropout and adapter initialisation")

    @property
    def keeps_best(self) -> bool:
        """Whether the best checkpoint is kept and made the version: a run that may be stopped early wants it too."""
        return self.keep_best or self.stop_on != "never"


class PreferenceChoices(BaseModel):
    """Which preference phase it is: method, reference, and the pairs it reads. A document names these directly."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: Literal["dpo", "orpo", "simpo"] = Field(
        "dpo", description="dpo (arXiv 2305.18290), orpo (arXiv 2403.07691) or simpo (arXiv 2405.14734)"
    )
    loss_type: Literal["sigmoid", "hinge", "ipo", "ipo_sum", "robust"] = Field(
        "sigmoid",
        description="DPO's loss; ipo divides log-ratios by the answer's length, ipo_sum is the paper's form with sums",
    )
    reference: Literal["pre_adapter", "base"] = Field(
        "pre_adapter", description="DPO's reference: the version this phase starts from, or the base alone"
    )
    min_margin: float = Field(
        0.0, ge=0, description="pairs whose two scores differ by less are left out; pairs without scores stay"
    )
    include_mined: bool = Field(True, description="train on pairs that were mined, too")


class PreferenceNumbers(BaseModel):
    """The numbers of the preference phase. A document keeps them under `hyperparams`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    beta: float = Field(
        0.1,
        gt=0,
        description="DPO: how strongly the reference holds the policy back; SimPO: scale of its rewards (there 2 by default)",
    )
    alpha: float = Field(0.1, ge=0, description="ORPO: weight of the odds-ratio term")
    gamma: float = Field(
        0.5,
        ge=0,
        description="SimPO: margin that the chosen answer's reward must keep (1 by default with simpo)",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="DPO sigmoid and robust: share of pairs taken to be labelled the wrong way",
    )
    sft_weight: float = Field(
        0.0, ge=0, description="weight of the chosen answers' mean token loss, added to guard facts"
    )
    learning_rate: float = Field(5e-6, gt=0, le=10, description="peak learning rate of the preference phase")
    num_epochs: int = Field(1, ge=1, description="passes over the pairs")


class PreferenceRecipe(PreferenceNumbers, PreferenceChoices):
    """Knobs of the preference phase beside those of `Recipe`, whose learning rate and epochs these replace."""

    @model_validator(mode="after")
    def _smoothing_is_read(self) -> Self:
        smoothed = self.method == "dpo" and self.loss_type in ("sigmoid", "robust")
        if self.label_smoothing and not smoothed:
            raise ValueError("label_smoothing is read by the dpo losses sigmoid and robust alone")
        return self


class RewardRecipe(BaseModel):
    """Knobs of the reward phase beside those of `Recipe`, whose learning rate and epochs these replace."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    center: float = Field(
        0.01,
        ge=0,
        description="weight of the mean squared sum of a pair's scores, which centres them (arXiv 2312.09244)",
    )
    margin_scale: float = Field(
        0.0,
        ge=0,
        description="the scores of a pair are asked to differ by this times the difference of its two known scores",
    )
    learning_rate: float = Field(1e-4, gt=0, le=10, description="peak learning rate of the reward phase")
    num_epochs: int = Field(1, ge=1, description="passes over the pairs")
    min_margin: float = Field(
        0.0,
        ge=0,
        description="two scored answers to one prompt make a pair when their scores differ by more; scored pairs "
        "that differ by less are left out",
    )
    include_mined: bool = Field(True, description="train on pairs that were mined, too")


class RftRecipe(BaseModel):
    """Knobs of reinforcement fine-tuning beside those of `Recipe`, whose learning rate this replaces."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    loss_type: Literal["grpo", "dapo", "dr_grpo"] = Field(
        "grpo",
        description="how token losses are averaged: grpo per answer (arXiv 2402.03300), dapo over all tokens "
        "(arXiv 2503.14476), dr_grpo over all answers at their longest, rewards not divided by their spread "
        "(arXiv 2503.20783)",
    )
    steps: int = Field(50, ge=1, description="sampling rounds, each followed by its updates")
    prompts_per_step: int = Field(8, ge=1, description="prompts of a sampling round")
    group_size: int = Field(
        8, ge=2, le=256, description="answers sampled to each prompt, compared with each other"
    )
    updates: int = Field(
        1,
        ge=1,
        le=16,
        description="optimiser steps on the answers of a round; from the second on, clipping matters",
    )
    max_new_tokens: int | None = Field(
        None,
        ge=1,
        description="longest answer in tokens; unset = the suite's token budget, else what the "
        "longest reference needs and a quarter more, else 512",
    )
    temperature: float = Field(
        1.0,
        gt=0,
        le=10,
        description="of sampling; log-probs are those of logits / temperature over all tokens",
    )
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="sample from the likeliest tokens that together reach this probability; log-probs stay those over "
        "all tokens, so below 1 the samples are not quite the policy's own",
    )
    clip_low: float = Field(
        0.2, gt=0, lt=1, description="how far below 1 a token's probability ratio may push the policy"
    )
    clip_high: float = Field(0.28, gt=0, description="how far above 1 it may (arXiv 2503.14476)")
    kl_beta: float = Field(
        0.01, ge=0, description="weight of the divergence from the version the run starts from; 0 = none"
    )
    mask_truncated: bool = Field(
        False, description="answers that the token budget cut off are graded, but not learnt from"
    )
    learning_rate: float = Field(2e-5, gt=0, le=10, description="peak learning rate of the rft phase")
    validation_prompts: int = Field(
        32, ge=1, description="most prompts held out to be answered and graded at every evaluation"
    )
    max_grader_error_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="the run stops when the grader failed on more than this share of the answers",
    )


PhaseKnobs: TypeAlias = PreferenceRecipe | RewardRecipe | RftRecipe
PHASE_KNOBS: Final[Mapping[str, type[PreferenceRecipe] | type[RewardRecipe] | type[RftRecipe]]] = {
    "preference": PreferenceRecipe,
    "reward": RewardRecipe,
    "rft": RftRecipe,
}
"""The knobs that one phase alone has, by the phase's name: `beta` is written `preference.beta` beside those of `Recipe`."""
