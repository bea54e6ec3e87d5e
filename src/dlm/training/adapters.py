"""Adapters: what a run trains. A fresh one on the base, or the one that the version before brought.

A model's own layers never move; an adapter's matrices are added to the linear layers between embedding and head.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer

from dlm.errors import UsageError
from dlm.model import Policy
from dlm.recipe import Recipe

__all__ = [
    "adapter_hash",
    "adapter_to_train",
    "add_adapter",
    "lora_config",
    "quiet_injection",
    "refuse_bad_targets",
    "start_adapter",
    "without_dropout",
]


def add_adapter(policy: Policy, recipe: Recipe) -> Any:
    """Inject a fresh adapter into the policy's model; its initialisation follows from the seed alone.

    Raises:
        UsageError: `target_modules` names layers this base does not have.
    """
    torch.manual_seed(recipe.seed)
    with refuse_bad_targets(policy.model), quiet_injection():
        model = get_peft_model(policy.model, lora_config(policy.model, recipe, task_type="CAUSAL_LM"))
    _refuse_head_and_embeddings(policy, model)
    return model


def adapter_to_train(policy: Policy, recipe: Recipe) -> Any:
    """The model with the adapter that a run moves: the one the policy was loaded with, or a fresh one where it has none.

    An adapter keeps its rank, scale, layers and dropout.

    Raises:
        UsageError: see `add_adapter`.
        ValueError: the policy was loaded without `trainable`.
    """
    if policy.adapter is None:
        return add_adapter(policy, recipe)
    if not any(parameter.requires_grad for parameter in policy.model.parameters()):
        raise ValueError("the policy's adapter was loaded for use: load it with trainable=True")
    return policy.model


def start_adapter(policy: Policy, recipe: Recipe) -> Any:
    """The adapter that a preference or rft run moves, without dropout; see `adapter_to_train` and `without_dropout`."""
    return without_dropout(adapter_to_train(policy, recipe))


def without_dropout(model: Any) -> Any:
    """Switch dropout off for good, the adapter's and the base's own, training mode or not; returns the model.

    Pairs are told apart by differences of log-probs, to the reference and to each other, which dropout would drown in
    noise: it acts on one side and not, or differently, on the other. The authors of DPO train so, and TRL does.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer):
            for name in module.lora_dropout:
                module.lora_dropout[name] = torch.nn.Identity()
        elif isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        # OPT, BLOOM and StarCoder2 call the function with a rate of their own, Falcon with its configuration's
        _zero_rates(module)
        _zero_rates(getattr(module, "config", None))
    for config in model.peft_config.values():
        config.lora_dropout = 0.0
    return model


def _zero_rates(holder: Any) -> None:
    """Set every rate of dropout that an object holds to 0: `dropout`, `attn_pdrop`, `layerdrop` …"""
    for name, value in list(getattr(holder, "__dict__", {}).items()):
        if "drop" in name and isinstance(value, float):
            setattr(holder, name, 0.0)


def adapter_hash(model: Any) -> str:
    """64 hex digits over an adapter's weights and scales: what decides how it changes the base, and nothing else."""
    digest = hashlib.sha256()
    for name, tensor in sorted(get_peft_model_state_dict(model, save_embedding_layers=False).items()):
        kept = tensor.detach().cpu().contiguous()
        digest.update(f"{name}:{kept.dtype}:{tuple(kept.shape)}\n".encode())
        digest.update(kept.view(torch.uint8).numpy().tobytes())
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            digest.update(f"{name}:{sorted(module.scaling.items())}:{sorted(module.lora_variant)}\n".encode())
    return digest.hexdigest()


def lora_config(model: Any, recipe: Recipe, **options: Any) -> LoraConfig:
    """The recipe's adapter, as PEFT wants it told."""
    conv1d = any(type(module).__name__ == "Conv1D" for module in model.modules())  # GPT-2 stores (in, out)
    return LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules="all-linear" if recipe.target_modules == "auto" else list(recipe.target_modules),
        use_dora=recipe.adapter == "dora",
        fan_in_fan_out=conv1d,
        **options,
    )


@contextmanager
def quiet_injection() -> Iterator[None]:
    """Silence what PEFT says while it injects an adapter, where a user could do nothing about it."""
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 by a deprecated name
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        # an adapter on a tied head or embedding is refused, with the names to choose from
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings", category=UserWarning)
        yield


@contextmanager
def refuse_bad_targets(base: Any) -> Iterator[None]:
    """Turn PEFT's refusal of `target_modules` into a `UsageError` that names the layers there are."""
    try:
        yield
    except ValueError as error:
        raise _bad_targets(base, str(error).partition("\n")[0]) from None


def _refuse_head_and_embeddings(policy: Policy, model: Any) -> None:
    """Where head and embedding are one tensor, an adapter on either cannot be saved apart from the base."""
    ends = (policy.model.get_input_embeddings(), policy.model.get_output_embeddings())
    for name, module in model.named_modules():
        base_layer = getattr(module, "base_layer", None)
        if base_layer is not None and any(base_layer is end or module is end for end in ends):
            raise _bad_targets(policy.model, f"{name.rpartition('.')[2]} is the base's head or embedding")


def _bad_targets(base: Any, why: str) -> UsageError:
    head = base.get_output_embeddings()
    linear = {
        name.rpartition(".")[2]
        for name, module in base.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and module is not head
    }
    refused = set(
        re.findall(r"'(\w+)'", why.partition("Incompatible modules:")[2])
    )  # by PEFT, of Mamba's layers
    names = ", ".join(sorted(linear - refused - {"base_layer", "default", "score"}))
    if refused & linear:  # then auto, which takes every layer, does not fit either
        expected, value = f"some of {names}", f"[{names.replace(' ', '')}]"
    else:
        expected, value = f"auto, or some of {names}", "auto"
    return UsageError(
        f"target_modules do not fit this base: {why}",
        expected=expected,
        next_step=f"--set target_modules={value}",
    )
