"""The supervised phase from rows to a trained adapter: prepare, look before the first step, train.

Nothing here knows the store: the caller gives a folder for checkpoints and an observer for metrics, and records what
comes back.
"""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from dlm.errors import TrainingError, UsageError
from dlm.model import Policy
from dlm.recipe import Choice, Recipe
from dlm.training.checkpoints import Progress
from dlm.training.examples import Example, Row, SkippedRow, encode, split_rows
from dlm.training.layout import Layout
from dlm.training.loop import LoopResult, Observer, Plan, evaluate, peak_memory_mb, run_loop
from dlm.training.objectives import SftObjective
from dlm.training.planning import choose_micro_batch

__all__ = [
    "Estimate",
    "Preflight",
    "Prepared",
    "add_adapter",
    "estimate",
    "prepare_sft",
    "score_held_out",
    "train_sft",
]

ROWS_PER_STEP = 8
MAX_SKIPPED_SHARE = 0.1
VALIDATION_SAMPLE = 64  # rows scored at every evaluation; the end of the run scores them all


@dataclass(frozen=True)
class Preflight:
    """What a run is about to do, counted before it does anything. Token figures are per example."""

    rows: Mapping[str, int]
    tokens_min: int
    tokens_median: int
    tokens_max: int
    tokens_total: int
    max_len: Choice[int]
    skipped: Sequence[SkippedRow]
    split_prose: int
    special_tokens: Sequence[tuple[str, str]]  # (place, token): control tokens written out in a row's text
    split_reason: str
    plan: Plan
    epochs: Choice[float]
    micro: Choice[int]
    trainable_parameters: int
    total_parameters: int


@dataclass(frozen=True)
class Prepared:
    """Examples and plan of a run, and the pre-flight that describes them."""

    train: Sequence[Example]
    validation: Sequence[Example]
    probes: Sequence[Example]
    plan: Plan
    objective: SftObjective
    preflight: Preflight

    @property
    def fingerprint(self) -> str:
        """64 hex digits over every token the run reads: rows, system prompt and template all show in it."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.probes):
            digest.update(f"{len(part)}\n".encode())
            for example in part:
                digest.update(f"{example.first_target}:{example.ids}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Estimate:
    """Time and memory of the whole run, measured on one micro-batch of its longest rows."""

    seconds: float
    peak_memory_mb: float


def add_adapter(policy: Policy, recipe: Recipe) -> Any:
    """Inject a fresh adapter into the policy's model; its initialisation follows from the seed alone.

    Raises:
        UsageError: `target_modules` names layers this base does not have.
    """
    torch.manual_seed(recipe.seed)
    conv1d = any(
        type(module).__name__ == "Conv1D" for module in policy.model.modules()
    )  # GPT-2 stores (in, out)
    config = LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules="all-linear" if recipe.target_modules == "auto" else list(recipe.target_modules),
        use_dora=recipe.adapter == "dora",
        fan_in_fan_out=conv1d,
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            # peft 0.21 asks transformers 5.23 by a deprecated name; nothing a user could act on
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
            # an adapter on a tied head or embedding is refused below, with the names to choose from
            warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings", category=UserWarning)
            model = get_peft_model(policy.model, config)
    except ValueError as error:
        raise _bad_targets(policy, str(error).partition("\n")[0]) from None
    _refuse_head_and_embeddings(policy, model)
    return model


def _refuse_head_and_embeddings(policy: Policy, model: Any) -> None:
    """Where head and embedding are one tensor, an adapter on either cannot be saved apart from the base."""
    ends = (policy.model.get_input_embeddings(), policy.model.get_output_embeddings())
    for name, module in model.named_modules():
        base_layer = getattr(module, "base_layer", None)
        if base_layer is not None and any(base_layer is end or module is end for end in ends):
            raise _bad_targets(policy, f"{name.rpartition('.')[2]} is the base's head or embedding")


def _bad_targets(policy: Policy, why: str) -> UsageError:
    head = policy.model.get_output_embeddings()
    linear = {
        name.rpartition(".")[2]
        for name, module in policy.model.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and module is not head
    }
    return UsageError(
        f"target_modules do not fit this base: {why}",
        expected=f"auto, or some of {', '.join(sorted(linear - {'base_layer', 'default'}))}",
        next_step="--set target_modules=auto",
    )


def prepare_sft(
    rows: Sequence[Row],
    policy: Policy,
    model: Any,
    recipe: Recipe,
    stored_plan: Mapping[str, Any] | None = None,
) -> Prepared:
    """Encode, split and plan. `stored_plan` is the plan of the run being resumed, used as it is.

    Raises:
        TrainingError: nothing to train on, or more than a tenth of the rows do not fit.
    """
    limit = min(recipe.sequence_len, policy.context_length)
    why = "sequence_len" if recipe.sequence_len <= policy.context_length else "the base's context"
    train_rows, validation_rows, split_reason = split_rows(rows, recipe.val_fraction)
    probe_rows = [row for row in rows if row.probe]
    train = encode(train_rows, policy.chat, limit)
    validation = encode(validation_rows, policy.chat, limit)
    probes = encode(probe_rows, policy.chat, limit)
    skipped = (*train.skipped, *validation.skipped, *probes.skipped)
    if not train.examples:
        raise _nothing_to_train(rows, skipped)
    if len(skipped) > MAX_SKIPPED_SHARE * len(rows):
        raise TrainingError(
            f"{len(skipped)} of {len(rows)} rows do not fit:\n"
            + "\n".join(f"  {s.row.place}: {s.reason}" for s in skipped),
            next_step="shorten or split those rows"
            + (", or raise sequence_len" if why == "sequence_len" else ""),
        )
    plan, micro, epochs = _plan(train.examples, recipe, _vocab_size(model))
    if stored_plan is not None:
        plan = Plan(**stored_plan)
        micro = Choice(plan.micro_rows, "as the run began")
    lengths = sorted(len(example.ids) for example in train.examples)
    counts = {"train": len(train_rows), "validation": len(validation_rows), "probes": len(probe_rows)}
    preflight = Preflight(
        rows=counts,
        tokens_min=lengths[0],
        tokens_median=lengths[len(lengths) // 2],
        tokens_max=lengths[-1],
        tokens_total=sum(lengths),
        max_len=Choice(limit, why),
        skipped=skipped,
        split_prose=train.split_prose + validation.split_prose,
        special_tokens=[
            (row.place, token)
            for row in rows
            for token in policy.chat.special_tokens_in(f"{row.prompt or ''}\n{row.text}")
        ],
        split_reason=split_reason,
        plan=plan,
        epochs=epochs,
        micro=micro,
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        total_parameters=sum(p.numel() for p in model.parameters()),
    )
    layout = Layout.of("plain", model, policy.tokenizer.pad_token_id, policy.device.value)
    objective = SftObjective(layout)
    return Prepared(train.examples, validation.examples, probes.examples, plan, objective, preflight)


def _nothing_to_train(rows: Sequence[Row], skipped: Sequence[SkippedRow]) -> TrainingError | UsageError:
    if skipped:
        return TrainingError(
            "no row fits:\n" + "\n".join(f"  {s.row.place}: {s.reason}" for s in skipped),
            next_step="shorten the rows, or choose a base with a longer context",
        )
    return UsageError(
        "nothing to train on",
        expected="prose or ::instruction:: sections with questions that are not probes",
        found=f"{len(rows)} rows, {sum(row.probe for row in rows)} of them probes",
        next_step="add a question with its answer, or some prose; dlm init shows how in a new document",
    )


def _vocab_size(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[0])


def _plan(
    examples: Sequence[Example], recipe: Recipe, vocab_size: int
) -> tuple[Plan, Choice[int], Choice[float]]:
    n = len(examples)
    micro_set = None if recipe.micro_batch_size == "auto" else recipe.micro_batch_size
    accum_set = None if recipe.grad_accum == "auto" else recipe.grad_accum
    if micro_set and accum_set:
        rows_per_step = micro_set * accum_set
    else:  # one of them alone changes memory, not what a step reads
        rows_per_step = max(ROWS_PER_STEP, micro_set or 0, accum_set or 0)
    rows_per_step = min(n, rows_per_step)
    if micro_set:
        micro = Choice(min(micro_set, rows_per_step), "as set")
    elif accum_set:
        micro = Choice(math.ceil(rows_per_step / accum_set), f"grad_accum = {accum_set}")
    else:
        micro = choose_micro_batch([len(example.ids) for example in examples], rows_per_step, vocab_size)
    per_epoch = math.ceil(n / rows_per_step)
    epochs: Choice[float] = Choice(float(recipe.num_epochs), "num_epochs")
    if per_epoch * recipe.num_epochs < recipe.min_steps:
        more = math.ceil(recipe.min_steps / per_epoch)
        epochs = Choice(
            float(more),
            f"raised from {recipe.num_epochs} so that the run has at least min_steps = {recipe.min_steps} steps",
        )
    total = int(per_epoch * epochs.value)
    if recipe.max_steps is not None and recipe.max_steps < total:
        total = recipe.max_steps
        epochs = Choice(total / per_epoch, f"cut short by max_steps = {recipe.max_steps}")
    eval_every = recipe.eval_every_steps or max(1, math.ceil(total / 10))
    save_every = recipe.save_every_steps or eval_every
    return Plan(n, rows_per_step, micro.value, total, eval_every, save_every), micro, epochs


def estimate(prepared: Prepared, model: Any) -> Estimate:
    """Run one micro-batch of the longest rows forward and backward, throw its gradients away, and extrapolate.

    Raises:
        TrainingError: the micro-batch does not fit the device's memory.
    """
    plan, device = prepared.plan, prepared.objective.layout.device
    longest = sorted(prepared.train, key=lambda example: -len(example.ids))[: plan.micro_rows]
    mean_len = sum(len(example.ids) for example in prepared.train) / len(prepared.train)
    model.train()
    try:
        for _ in range(2):  # the first pass pays for allocation and kernel choice
            began = time.perf_counter()
            sum(prepared.objective.forward(model, longest).loss.values()).backward()
            if device.startswith("cuda"):
                torch.cuda.synchronize(device)
            took = time.perf_counter() - began
    except torch.OutOfMemoryError:
        raise TrainingError(
            f"a micro-batch of {len(longest)} rows of up to {len(longest[0].ids):,} tokens does not fit {device}'s memory",
            next_step=f"--set micro_batch_size={max(1, plan.micro_rows // 2)}, a shorter sequence_len, or --device cpu",
        ) from None
    model.zero_grad(set_to_none=True)
    share = mean_len / len(longest[0].ids)
    micro_batches = plan.total_steps * math.ceil(plan.rows_per_step / plan.micro_rows)
    return Estimate(took * share * micro_batches, peak_memory_mb(device))


def train_sft(
    prepared: Prepared,
    model: Any,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    observer: Observer,
    checkpoint_folder: Path,
) -> LoopResult:
    """Run the loop; validation during the run scores a fixed sample of the held-out rows, probes are always scored."""
    sample = sorted(prepared.validation, key=lambda example: example.row.key)[:VALIDATION_SAMPLE]
    held_out = {"valid": sample, "probe": prepared.probes}
    return run_loop(
        model,
        prepared.objective,
        prepared.train,
        held_out,
        recipe,
        prepared.plan,
        optimizer,
        progress,
        observer,
        checkpoint_folder,
    )


def score_held_out(prepared: Prepared, model: Any) -> dict[str, float]:
    """`full_valid_loss` and `full_valid_mean_token_accuracy` over every held-out row; empty when none is held out."""
    return evaluate(model, prepared.objective, prepared.validation, prepared.plan.micro_rows, "full_valid")
