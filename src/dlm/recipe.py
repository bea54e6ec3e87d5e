"""The recipe: every knob of a training run, described once.

The document's header (`training:`), `--set key=value`, the environment, the reference page and `dlm show` all read
these fields. A knob's value comes from the first of: a flag, the header, the base's own default, the default here;
`resolve` says which one it was, and why.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from dlm.errors import UsageError

__all__ = [
    "Choice",
    "PreferenceRecipe",
    "Recipe",
    "ResolvedRecipe",
    "RewardRecipe",
    "nearest",
    "parse_assignment",
    "resolve",
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
        0.05, ge=0, le=0.5, description="share of adapter inputs dropped while training"
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
    layout: Literal["auto", "plain", "packed", "shared", "packed_shared"] = Field(
        "auto",
        description="how rows become a batch: padded rows, rows packed end to end, prompts encoded once for all their "
        "answers, or both; auto = the fastest one that this base computes right",
    )
    matmul: Literal["auto", "fp32", "fast", "bf16"] = Field(
        "auto",
        description="kernels of the frozen layers' products on CPU: torch's own, the fastest in full fp32, or bf16 "
        "inputs with fp32 sums; auto = the fastest in full fp32",
    )
    seed: int = Field(42, ge=0, lt=2**63, description="seed of row order, dropout and adapter initialisation")


class PreferenceRecipe(BaseModel):
    """Knobs of the preference phase beside those of `Recipe`, whose learning rate and epochs these replace."""

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
    beta: float = Field(
        0.1, gt=0, description="DPO: how strongly the reference holds the policy back; SimPO: scale"
    )
    alpha: float = Field(0.1, ge=0, description="ORPO: weight of the odds-ratio term")
    gamma: float = Field(0.5, ge=0, description="SimPO: margin that the chosen answer's reward must keep")
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
    min_margin: float = Field(
        0.0, ge=0, description="pairs whose two scores differ by less are left out; pairs without scores stay"
    )
    include_mined: bool = Field(True, description="train on pairs that were mined, too")


class RewardRecipe(BaseModel):
    """Knobs of the reward phase beside those of `Recipe`, whose learning rate and epochs these replace."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    center: float = Field(
        0.01,
        ge=0,
        description="weight of the mean squared sum of a pair's scores, which centres them (arXiv 2312.09244)",
    )
    learning_rate: float = Field(1e-4, gt=0, le=10, description="peak learning rate of the reward phase")
    num_epochs: int = Field(1, ge=1, description="passes over the pairs")
    min_margin: float = Field(
        0.0, ge=0, description="two scored answers to one prompt make a pair when their scores differ by more"
    )
    include_mined: bool = Field(True, description="train on pairs that were mined, too")


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe with, for every knob, where its value came from (knob name → text)."""

    recipe: Recipe
    origins: Mapping[str, str]


def nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    """The known name most like `name`, or "" when none is near."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.6)), "")


def parse_assignment(text: str) -> tuple[str, Any]:
    """Read `key=value` as a knob and its raw value.

    A value is taken as it is written, a list in brackets (`[q_proj, v_proj]`) apart, and `null` for unset; the recipe
    itself says whether it fits.

    Raises:
        UsageError: no `=`, or an unknown knob (the nearest one is named).
    """
    key, sign, raw = (part.strip() for part in text.partition("="))
    if not sign or not key or not raw:
        raise UsageError(f"--set takes key=value, found {text!r}", next_step="for example: --set lora_r=16")
    if key not in Recipe.model_fields:
        hint = nearest(key, tuple(Recipe.model_fields))
        raise UsageError(
            f"unknown knob {key!r}",
            expected=f"one of {', '.join(Recipe.model_fields)}",
            next_step=f"--set {hint}={raw}" if hint else "",
        )
    if raw.startswith("[") and raw.endswith("]"):
        return key, [name for part in raw[1:-1].split(",") if (name := part.strip().strip("'\""))]
    return key, None if raw in ("null", "~") else raw


def resolve(
    header: Recipe,
    base_defaults: Mapping[str, Choice[Any]],
    flags: Mapping[str, Any],
) -> ResolvedRecipe:
    """Settle every knob: flags first, then what the header names, then the base's defaults, then ours.

    Raises:
        UsageError: a flag's value is out of range (all such values are named).
    """
    stated = {name: getattr(header, name) for name in header.model_fields_set if name in Recipe.model_fields}
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name in Recipe.model_fields:
        if name in flags:
            values[name], origins[name] = flags[name], "flag"
        elif name in stated:
            values[name], origins[name] = stated[name], "header"
        elif name in base_defaults:
            values[name], origins[name] = base_defaults[name].value, f"base: {base_defaults[name].reason}"
        else:
            origins[name] = "default"
    by_base = origins["min_steps"].startswith("base")
    if by_base and ("num_epochs" in flags or "num_epochs" in stated):
        values["min_steps"], origins["min_steps"] = 0, "num_epochs was stated"
    try:
        return ResolvedRecipe(Recipe(**values), origins)
    except ValidationError as error:
        faults = {
            str(fault["loc"][0]): fault for fault in error.errors()
        }  # a union reports each of its members
    raise UsageError(
        "the recipe cannot be used: "
        + "; ".join(f"{name}: {fault['msg']}" for name, fault in faults.items()),
        expected="; ".join(f"{name}: {Recipe.model_fields[name].description}" for name in faults),
        found="; ".join(f"{name}={fault['input']}" for name, fault in faults.items()),
        next_step="dlm train --help names the page with every knob and its range",
    )
