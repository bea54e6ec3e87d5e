"""The training loop: windows of rows in, optimiser steps out.

One optimiser step reads one window of rows, in micro-batches, and divides the summed loss by the whole window's
denominator: gradient accumulation is exact whatever the micro-batch. Everything random is a function of (seed, step)
or (seed, epoch), so a run that continues from a checkpoint takes the same steps as one that never stopped.
"""

from __future__ import annotations

import hashlib
import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from dlm.errors import NonFiniteError
from dlm.recipe import Recipe
from dlm.training import checkpoints
from dlm.training.checkpoints import Progress
from dlm.training.examples import Example
from dlm.training.objectives import Objective, Outcome

__all__ = [
    "LoopResult",
    "Observer",
    "Plan",
    "evaluate",
    "learning_rate",
    "make_optimizer",
    "peak_memory_mb",
    "require_finite",
    "run_loop",
]


_PREFIXED = ("mean_token_accuracy", "nll_loss")  # metrics that carry `train_` while training, as the field has them


@dataclass(frozen=True)
class Plan:
    """The length of a run, settled before it starts and stored with it. Steps count optimiser steps from 1."""

    n_examples: int
    rows_per_step: int
    micro_rows: int
    total_steps: int
    eval_every: int
    save_every: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.n_examples / self.rows_per_step)

    def window(self, step: int, seed: int) -> list[int]:
        """Indices of the examples that step `step` (from 1) reads; each epoch is a fresh permutation."""
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        generator = torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
        order: list[int] = torch.randperm(self.n_examples, generator=generator).tolist()
        return order[place * self.rows_per_step : (place + 1) * self.rows_per_step]

    def epoch_at(self, step: int) -> float:
        return step / self.steps_per_epoch


def derived_seed(seed: int, purpose: str, number: int) -> int:
    """A 63-bit seed for one use of randomness, unrelated to every other use of the same seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{purpose}:{number}".encode()).digest()[:8]) >> 1


class Observer(Protocol):
    """Who watches a run: takes metrics as they come, and may ask for a stop at the next step boundary."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None: ...
    def before_checkpoint(self) -> None: ...
    def checkpoint_saved(self, step: int) -> None: ...
    def stop_requested(self) -> str: ...


@dataclass(frozen=True)
class LoopResult:
    """How the loop ended: progress, the last value of each metric, and why it stopped early ("" = it did not)."""

    progress: Progress
    last: dict[str, float]
    stopped: str


def learning_rate(step: int, total_steps: int, recipe: Recipe) -> float:
    """The rate for step `step` (from 1): linear warm-up, then cosine, linear or constant down to step `total_steps`."""
    warmup = math.ceil(recipe.warmup_ratio * total_steps)
    if step <= warmup:
        return recipe.learning_rate * step / warmup
    done = (step - warmup - 1) / max(
        total_steps - warmup, 1
    )  # 0 at the first step after warm-up, never quite 1
    shape = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
    return recipe.learning_rate * shape[recipe.lr_scheduler]


def make_optimizer(model: Any, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW over what is trainable."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        trainable,
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        eps=recipe.adam_epsilon,
        weight_decay=recipe.weight_decay,
    )


def peak_memory_mb(device: str) -> float:
    """Most memory this process has held so far, in MB: on CUDA the allocator's peak, elsewhere the resident set's."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device)) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def require_finite(model: Any, step: int) -> None:
    """Raises `NonFiniteError` when a trainable tensor holds anything but finite numbers."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise NonFiniteError(
                f"step {step} left numbers that are not finite in {name}; they were not saved",
                next_step="lower the learning rate: --set learning_rate=…",
            )


def run_loop(
    model: Any,
    objective: Objective,
    train: Sequence[Example],
    held_out: Mapping[str, Sequence[Example]],
    recipe: Recipe,
    plan: Plan,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    observer: Observer,
    checkpoint_folder: Path,
) -> LoopResult:
    """Train what the optimiser holds, from `progress` on, until the plan is done or the observer asks for a stop.

    `held_out` maps a metric prefix (`valid`, `probe`) to examples scored every `plan.eval_every` steps and at the end.

    Raises:
        NonFiniteError: a loss, gradient or weight is not finite; the rows of that step are named, the last checkpoint
            stays.
    """
    device = str(next(model.parameters()).device)
    last: dict[str, float] = {}
    stopped = observer.stop_requested()  # asked for while the base was loading: nothing new to save
    with _neftune(model, recipe):
        while progress.step < plan.total_steps and not stopped:
            step = progress.step + 1
            began = time.perf_counter()
            window = [train[index] for index in plan.window(step, recipe.seed)]
            rate = learning_rate(step, plan.total_steps, recipe)
            values = _optimizer_step(model, objective, window, optimizer, recipe, plan.micro_rows, rate, step)
            took = time.perf_counter() - began
            tokens = sum(len(example.ids) for example in window)
            progress = Progress(step, progress.num_tokens + tokens, progress.elapsed_s + took)
            values |= {
                "learning_rate": rate,
                "tokens_per_second": tokens / took,
                "num_tokens": float(progress.num_tokens),
                "peak_memory_mb": peak_memory_mb(device),
                "epoch": plan.epoch_at(step),
            }
            at_end = step == plan.total_steps
            if at_end or step % plan.eval_every == 0:
                for prefix, examples in held_out.items():
                    values |= evaluate(model, objective, examples, plan.micro_rows, prefix)
            observer.metrics(step, values)
            last |= values
            stopped = "" if at_end else observer.stop_requested()
            if at_end or stopped or step % plan.save_every == 0:
                require_finite(model, step)
                observer.before_checkpoint()  # what was logged must be safe first: a resume does not log it again
                checkpoints.save(checkpoint_folder, model, optimizer, progress, keep_last=recipe.keep_last)
                observer.checkpoint_saved(step)
    return LoopResult(progress, last, stopped)


def _optimizer_step(
    model: Any,
    objective: Objective,
    window: Sequence[Example],
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    micro_rows: int,
    rate: float,
    step: int,
) -> dict[str, float]:
    torch.manual_seed(
        derived_seed(recipe.seed, "step", step)
    )  # dropout of this step depends on nothing before it
    model.train()
    counts = objective.counts(window)
    means: dict[str, torch.Tensor] = {}
    for start in range(0, len(window), micro_rows):
        outcome = objective.forward(model, window[start : start + micro_rows])
        loss = torch.stack([part / counts[unit] for unit, part in outcome.loss.items()]).sum()
        loss.backward()
        _add(means, {"loss": loss.detach()} | _means(outcome, counts))
    trainable = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    limit = recipe.max_grad_norm or math.inf
    grad_norm = float(torch.nn.utils.clip_grad_norm_(trainable, limit))
    loss_value = float(means.pop("loss"))
    if not (math.isfinite(loss_value) and math.isfinite(grad_norm)):
        optimizer.zero_grad()
        places = sorted({example.row.place for example in window})
        raise NonFiniteError(
            f"step {step}: the loss is {loss_value} and the gradient norm {grad_norm}; nothing of this step was kept",
            found=f"rows {', '.join(places[:8])}{' …' if len(places) > 8 else ''}",
            next_step="lower the learning rate (--set learning_rate=…) or look at those rows",
        )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    values = {"train_loss": loss_value, "grad_norm": grad_norm}
    for name, value in means.items():
        values[f"train_{name}" if name in _PREFIXED else name] = float(value)
    return values


def _means(outcome: Outcome, counts: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """A micro-batch's share of each metric's mean over the whole window."""
    return {
        name: value.detach() / counts[unit]
        for unit, sums in outcome.sums.items()
        for name, value in sums.items()
    }


def _add(totals: dict[str, torch.Tensor], more: Mapping[str, torch.Tensor]) -> None:
    for name, value in more.items():
        totals[name] = totals[name] + value if name in totals else value


def evaluate(
    model: Any, objective: Objective, examples: Sequence[Example], micro_rows: int, prefix: str
) -> dict[str, float]:
    """Mean loss and metrics over examples with dropout off, named `{prefix}_loss`, `{prefix}_mean_token_accuracy`."""
    if not examples:
        return {}
    model.eval()
    counts = objective.counts(examples)
    totals: dict[str, torch.Tensor] = {}
    by_length = sorted(
        examples, key=lambda example: len(example.ids)
    )  # less padding; the sums do not mind the order
    with torch.no_grad():
        for start in range(0, len(by_length), micro_rows):
            outcome = objective.forward(model, by_length[start : start + micro_rows])
            loss = torch.stack([part / counts[unit] for unit, part in outcome.loss.items()]).sum()
            _add(totals, {"loss": loss} | _means(outcome, counts))
    return {f"{prefix}_{name}": float(total) for name, total in totals.items()}


@contextmanager
def _neftune(model: Any, recipe: Recipe) -> Iterator[None]:
    """Uniform noise of scale alpha / sqrt(T · d) on the input embeddings while training (arXiv 2310.05914, eq. 1)."""
    if recipe.neftune_alpha == 0:
        yield
        return

    def add_noise(module: torch.nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return output
        scale = recipe.neftune_alpha / math.sqrt(output.shape[1] * output.shape[2])
        return output + torch.empty_like(output).uniform_(-scale, scale)

    handle = model.get_input_embeddings().register_forward_hook(add_noise)
    try:
        yield
    finally:
        handle.remove()
