"""Names of columns: which are documented somewhere, which stand for the step or the time, what a name says of a run."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dlm.curves.run import ROLES, RunKind

__all__ = ["TIMES", "canonical", "clean_name", "infer_kind", "is_known", "is_step", "kind_of_method"]

_STEPS = ("step", "global_step", "_step", "steps", "step_number", "train/global_step", "iteration", "iter")
TIMES = ("timestamp", "_timestamp", "wall_time", "created_at")
"""Columns of seconds since 1970: they become the times of the points."""

_LONGEST_NAME = 200

# Documented columns that play no role in a rule: of our own runs, of OpenAI's and Azure's result files, of
# transformers' and TRL's logs. A column that is neither here nor in ROLES is reported as unknown.
_DOCUMENTED = frozenset(
    (
        "tokens_per_second",
        "peak_memory_mb",
        "num_tokens",
        "entropy",
        "probe_loss",
        "probe_mean_token_accuracy",
        "probe_exact_match",
        "full_valid_loss",
        "full_valid_mean_token_accuracy",
        "rewards/chosen",
        "rewards/rejected",
        "rewards/ties",
        "log_odds_ratio",
        "log_odds_chosen",
        "val_pref_ties",
        "full_valid_pref_ties",
        "full_valid_pairs",
        "sft_valid_loss",
        "sft_valid_mean_token_accuracy",
        "pairs_loss",
        "pairs_pref_acc",
        "pairs_pref_ties",
        "logits/chosen",
        "logits/rejected",
        "train_samples_per_second",
        "train_steps_per_second",
        "train_runtime",
        "total_flos",
        "num_input_tokens_seen",
        "eval_runtime",
        "eval_samples_per_second",
        "eval_steps_per_second",
        "eval_num_tokens",
        "eval_entropy",
        "elapsed_tokens",
        "elapsed_examples",
        "training_loss",
        "training_sequence_accuracy",
        "validation_loss",
        "validation_sequence_accuracy",
        "validation_token_accuracy",
        "kl",
        "reward_std",
        "frac_reward_zero_std",
        "sampling/sampling_logp_difference/mean",
        "aux_loss",
        "clip_ratio",
        "completions/min_length",
        "completions/max_length",
        "completions/clipped_ratio",
        "train_reasoning_tokens_mean",
        "train_completion_tokens_mean",
        "valid_completion_tokens_mean",
        "valid_reasoning_tokens_mean",
        "valid_sample_parse_error_count",
        "valid_other_error_count",
        "train_invalid_variable_error_count",
        "valid_invalid_variable_error_count",
        "accuracy",
        "margin",
        "min_reward",
        "mean_reward",
        "max_reward",
    )
)
_FAMILIES = re.compile(
    r"(?:scores|errors|timing|usage|completions|clip_ratio|rewards|logps|logits)/.+"
    r"|(?:valid|full_valid|pairs|eval|train)_(?:rewards|logps|logits|log_odds|nll)[_/].+"
)
_ROLE_NAMES = frozenset(name for names in ROLES.values() for name in names)
_LOWER = {name.casefold(): name for name in (*_ROLE_NAMES, *_DOCUMENTED, *_STEPS, *TIMES)}

_METHODS: dict[str, RunKind] = {
    **dict.fromkeys(("sft", "supervised"), "sft"),
    **dict.fromkeys(("dpo", "orpo", "simpo", "kto", "ipo", "cpo", "preference"), "preference"),
    **dict.fromkeys(("reward", "bradley-terry", "reward_model"), "reward"),
    **dict.fromkeys(("rft", "grpo", "dapo", "dr_grpo", "ppo", "rloo", "reinforcement", "reinforce"), "rft"),
}


def clean_name(text: object) -> str:
    """A column's name as it may be shown: one line, printable, at most 200 characters."""
    name = " ".join(str(text).split())
    return "".join(char if char.isprintable() else "?" for char in name)[:_LONGEST_NAME]


def canonical(name: str) -> str:
    """The documented spelling of a name that differs from it in case alone, or carries a logger's `train/` or `eval/`."""
    bare = name.strip()
    for prefix, instead in (("train/", ""), ("eval/", "eval_")):
        if bare.startswith(prefix):
            inner = instead + bare.removeprefix(prefix)
            if inner.casefold() in _LOWER:
                return _LOWER[inner.casefold()]
    return _LOWER.get(bare.casefold(), bare)


def is_step(name: str) -> bool:
    """Whether a column, by its canonical name, holds the step."""
    return name in _STEPS


def is_known(name: str) -> bool:
    """Whether a documented format or a role has this column."""
    return name in _ROLE_NAMES or name in _DOCUMENTED or _FAMILIES.fullmatch(name) is not None


def kind_of_method(method: str) -> RunKind:
    """The kind of run that a method makes: `dpo` and `dpo/ipo` a preference run; "unknown" for one not heard of."""
    return _METHODS.get(re.split(r"[/+:\s]", method.strip().casefold(), maxsplit=1)[0], "unknown")


def infer_kind(names: Iterable[str], method: str) -> tuple[RunKind, str]:
    """The kind of a run and why: what its method says, else what its columns are about."""
    stated = kind_of_method(method)
    if stated != "unknown":
        return stated, f"it calls itself {method}"
    found = set(names)
    rules: tuple[tuple[RunKind, tuple[str, ...]], ...] = (
        ("rft", ("train_mean_reward", "full_valid_mean_reward", "valid_mean_reward", "reward", "reward_std")),
        ("preference", ("logps/chosen", "logps/rejected", "val_pref_acc")),
        ("reward", ("rewards/chosen", "rewards/accuracies")),
        ("sft", (*ROLES["train_accuracy"], *ROLES["valid_accuracy"])),
    )
    for kind, marks in rules:
        for mark in marks:
            if mark in found:
                return kind, f"it has a column {mark}"
    return "unknown", "no column tells; rules for losses are applied"
