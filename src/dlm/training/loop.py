"""The training loop: windows of rows in, optimiser steps out.

One optimiser step reads one window of rows, in micro-batches, and divides every summed part of the loss by the whole
window's count: gradient accumulation is exact whatever the micro-batch and however many processes share the window.
Everything random is a function of (seed, step) or (seed, epoch), so a run that continues from a checkpoint takes the same
steps as one that never stopped.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from dlm.recipe import Recipe
from dlm.training import checkpoints
from dlm.training.checkpoints import Progress
from dlm.training.finite import blame, require_finite
from dlm.training.groups import LOGP_DIFFERENCE
from dlm.training.objectives import Objective
from dlm.training.optimizer import Gradients, learning_rate, make_optimizer, trainable
from dlm.training.planning import Plan, Sampler, derived_seed
from dlm.training.rollouts import Rollouts
from dlm.training.scoring import HeldOut, Selection, add, evaluate, means, same_names
from dlm.training.sharding import in_step
from dlm.training.world import current

__all__ = [
    "HeldOut",
    "LoopResult",
    "Observer",
    "Plan",
    "Selection",
    "evaluate",
    "learning_rate",
    "make_optimizer",
    "peak_memory_mb",
    "require_finite",
    "run_loop",
]


_PREFIXED = (
    "mean_token_accuracy",
    "nll_loss",
)  # metrics that carry `train_` while training, as the field has them


class Observer(Protocol):
    """Who watches a run: takes metrics as they come, and may ask for a stop at the next step boundary.

    Of several processes only the main one's observer is told anything; each one's is asked for a stop.
    """

    def metrics(self, step: int, values: Mapping[str, float]) -> None: ...
    def before_checkpoint(self) -> None: ...
    def checkpoint_saved(self, step: int) -> None: ...
    def stop_requested(self) -> str: ...


@dataclass(frozen=True)
class LoopResult:
    """How the loop ended.

    `stopped` says why it ended before its planned steps ("" = it did not). An `interrupted` run was stopped from outside
    and can go on; one that stopped early because nothing got better is complete.
    """

    progress: Progress
    last: dict[str, float]  # the last value of each metric
    stopped: str
    interrupted: bool = False

    @property
    def best_step(self) -> int | None:
        """The step of the best evaluation; its checkpoint is there when the recipe keeps the best."""
        return self.progress.best_step

    @property
    def best(self) -> dict[str, float]:
        """The metrics that made it the best."""
        return dict(self.progress.best)


def peak_memory_mb(device: str) -> float:
    """Most memory this process has held so far, in MB: on CUDA the allocator's peak, elsewhere the resident set's."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device)) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def run_loop(
    model: Any,
    objective: Objective,
    train: Sequence[Any],
    held_out: Sequence[HeldOut],
    recipe: Recipe,
    plan: Plan,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    observer: Observer,
    checkpoint_folder: Path,
    *,
    selection: Selection | None = None,
    enough: Callable[[], str] = lambda: "",
    rollouts: Rollouts | None = None,
) -> LoopResult:
    """Train what the optimiser holds, from `progress` on, until the plan is done, nothing gets better or a stop is asked.

    `held_out` is scored every `plan.eval_every` steps and at the end; `selection` says which of those metrics decide the
    best step. Without it no step is the best one, and nothing stops early for want of a better one. `enough` is asked after
    each step where the recipe has `stop_on`: a reason to end the run there, "" for none. With `rollouts`, `train` are
    prompts: a step learns from the answers that the policy gives to them, and held-out prompts are answered with the other
    held-out rows.

    Raises:
        NonFiniteError: a loss, gradient or weight is not finite; the rows are named, the last checkpoint stays.
        StoreError: the disk refuses a checkpoint; those before stay.
        GradingError: a grader failed on too many answers; the last checkpoint stays.
    """
    run = _Run(
        model,
        objective,
        train,
        held_out,
        recipe,
        plan,
        optimizer,
        observer,
        checkpoint_folder,
        selection,
        enough,
        rollouts,
    )
    return run.until_it_ends(progress)


class _Run:
    """A run under way: what its steps share."""

    def __init__(
        self,
        model: Any,
        objective: Objective,
        train: Sequence[Any],
        held_out: Sequence[HeldOut],
        recipe: Recipe,
        plan: Plan,
        optimizer: torch.optim.Optimizer,
        observer: Observer,
        folder: Path,
        selection: Selection | None,
        enough: Callable[[], str],
        rollouts: Rollouts | None,
    ) -> None:
        self.model, self.objective, self.train, self.held_out = model, objective, train, held_out
        self.rollouts = rollouts
        self.recipe, self.optimizer = recipe, optimizer
        self.observer, self.folder, self.selection, self.enough = observer, folder, selection, enough
        self.device = objective.layout.device
        self.world = current()
        self.gradients = Gradients(trainable(model))
        self.noise = _Noise(recipe.neftune_alpha)
        # a plan may rest on what a process measured: all follow the main one's, or they would read different windows
        self.plan = self.world.from_main(plan)
        lengths = [objective.layout.positions([row]) for row in train] if self.plan.by_length else None
        self.sampler = Sampler(self.plan, recipe.seed, self.world.from_main(lengths))

    def until_it_ends(self, progress: Progress) -> LoopResult:
        """Take steps until there is a reason to end."""
        self.world.start_alike(trainable(self.model))
        self._take_up_tally(progress)
        last: dict[str, float] = {}
        asked = self._stop_asked()  # while the base was loading
        early = self._early_stop(progress)  # a run that goes on may have been through already
        with self.noise.added_to(self.model):
            while progress.step < self.plan.total_steps and not (asked or early):
                progress, values = self._step(progress)
                at_end = progress.step == self.plan.total_steps
                if self._is_watched(progress.step):
                    for one in self.held_out:
                        values |= evaluate(self.model, one, self.plan)
                    if self.rollouts is not None:
                        values |= self.rollouts.validate(self.model).values
                    progress = _judged(progress, values, self.selection)
                if self.world.is_main:
                    self.observer.metrics(progress.step, values)
                last |= values
                if not at_end:
                    asked, early = self._stop_asked(), self._early_stop(progress)
                progress = self._with_tally(progress, ends=at_end or bool(early))
                is_best = self.recipe.keeps_best and progress.best_step == progress.step
                if at_end or asked or early or is_best or progress.step % self.plan.save_every == 0:
                    self._save(progress)
        self.world.wait()  # until the last checkpoint is there for every process
        return LoopResult(progress, last, stopped=asked or early, interrupted=bool(asked))

    def _take_up_tally(self, progress: Progress) -> None:
        """Count the grader's errors on from where the run stands, so that a stop forgets none and adds none."""
        if self.rollouts is not None:
            tally = self.rollouts.tally
            tally.seen, tally.errors = progress.graded, progress.grader_errors
            tally.last_message = progress.grader_said

    def _with_tally(self, progress: Progress, *, ends: bool) -> Progress:
        """The progress with the counts of the grader's errors. A run that ends is judged by them however few its answers
        were, and before its last checkpoint is saved: nothing could go on from that one.

        Raises:
            GradingError: the grader failed on too many answers of a run that ends.
        """
        if self.rollouts is None:
            return progress
        tally = self.rollouts.tally
        if ends:
            tally.check()
        return replace(
            progress, graded=tally.seen, grader_errors=tally.errors, grader_said=tally.last_message
        )

    def _stop_asked(self) -> str:
        return self.world.agree(self.observer.stop_requested(), self.device)

    def _early_stop(self, progress: Progress) -> str:
        early = _early_stop(progress, self.recipe)
        if early or self.recipe.stop_on == "never":
            return early
        return self.world.agree(self.enough(), self.device)  # only the main process reads the curves

    def _is_watched(self, step: int) -> bool:
        return step == self.plan.total_steps or step % self.plan.eval_every == 0

    def _step(self, progress: Progress) -> tuple[Progress, dict[str, float]]:
        """One step, timed and counted: an optimiser step over a window of rows, or a round of answers and its updates."""
        step = progress.step + 1
        began = time.perf_counter()
        window = [self.train[index] for index in self.sampler.window(step)]
        rate = learning_rate(step, self.plan.total_steps, self.recipe)
        if self.rollouts is None:
            values = self._optimizer_step(window, step, rate)
            tokens = sum(map(_tokens, window))
        else:
            values, tokens = self._round(self.rollouts, window, step, rate)
        took = time.perf_counter() - began
        done = replace(
            progress, step=step, num_tokens=progress.num_tokens + tokens, elapsed_s=progress.elapsed_s + took
        )
        return done, values | {
            "learning_rate": rate,
            "tokens_per_second": tokens / took,
            "num_tokens": float(done.num_tokens),
            "peak_memory_mb": peak_memory_mb(self.device),
            "epoch": self.plan.epoch_at(step),
        }

    def _round(
        self, rollouts: Rollouts, prompts: Sequence[Any], step: int, rate: float
    ) -> tuple[dict[str, float], int]:
        """Answers to prompts, and the updates from them; no update where no group has spread. Metrics are means over the
        updates, but for how far log-probs are from those of sampling: only the first update has the policy that sampled."""
        found = rollouts.round(self.model, prompts, step, watched=self._is_watched(step))
        began = time.perf_counter()
        updates = [
            self._optimizer_step(found.rows, step, rate) for _ in range(rollouts.knobs.updates) if found.rows
        ]
        values = {name: sum(one[name] for one in updates) / len(updates) for name in (updates or [{}])[0]}
        if updates:
            values[LOGP_DIFFERENCE] = updates[0][LOGP_DIFFERENCE]
        return {**found.values, **values, "update_s": time.perf_counter() - began}, found.tokens

    def _optimizer_step(self, window: Sequence[Any], step: int, rate: float) -> dict[str, float]:
        """Gradients of a window's mean loss, clipped, and the update; the window's metrics."""
        world, counts = self.world, self.objective.counts(window)
        # dropout of this step depends on nothing before it, and no two processes draw the same
        purpose = f"step, rank {world.rank}" if world.rank else "step"
        torch.manual_seed(derived_seed(self.recipe.seed, purpose, step))
        self.noise.length = sum(map(_tokens, window)) / sum(len(row.branches) for row in window)
        self.model.train()
        totals: dict[str, torch.Tensor] = {}
        self.gradients.clear()
        parts = self.plan.cut(world.share(window), self.objective.layout)
        for number, rows in enumerate(in_step(world, self.model, parts, window[:1])):
            shares = means(self.objective.forward(self.model, rows), counts)
            if number < len(parts):
                shares["loss"].backward()
                add(totals, shares)
            else:  # another process has more to do, and cannot run a spread model alone
                (0.0 * shares["loss"]).backward()
        self.gradients.sum_over(world)
        norm = self.gradients.clip(self.recipe.max_grad_norm or math.inf)
        names = same_names(world, totals, len(window))
        sums = world.sum([totals.get(name) for name in names], self.device)
        grad_norm, *numbers = torch.cat([norm[None], sums]).tolist()  # the step's only wait for the device
        metrics = dict(zip(names, numbers, strict=True))
        if not (math.isfinite(metrics["loss"]) and math.isfinite(grad_norm)):
            self.gradients.clear()
            raise blame(self.model, self.objective, window, step, metrics["loss"], grad_norm, world)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        values = {"train_loss": metrics.pop("loss"), "grad_norm": grad_norm}
        return values | {f"train_{name}" if name in _PREFIXED else name: x for name, x in metrics.items()}

    def _save(self, progress: Progress) -> None:
        require_finite(self.model, progress.step)
        if not self.world.is_main:
            return
        self.observer.before_checkpoint()  # what was logged must be safe first: a resume does not log it again
        checkpoints.save(
            self.folder,
            self.model,
            self.optimizer,
            progress,
            keep_last=self.recipe.keep_last,
            best=progress.best_step if self.recipe.keeps_best else None,
        )
        self.observer.checkpoint_saved(progress.step)


def _tokens(row: Any) -> int:
    """Tokens a row holds, its prompt counted once."""
    return len(row.prompt) + sum(len(branch) for branch in row.branches)


def _judged(progress: Progress, values: Mapping[str, float], selection: Selection | None) -> Progress:
    """The progress after an evaluation: the new best, or one more evaluation without a better one."""
    found = None if selection is None else selection.read(values)
    if selection is None or found is None:
        return progress
    if selection.is_better(found, progress.best):
        return replace(progress, best_step=progress.step, best=found, without_better=0)
    return replace(progress, without_better=progress.without_better + 1)


def _early_stop(progress: Progress, recipe: Recipe) -> str:
    """Why to stop although nobody asked; "" where there is no reason."""
    limit = recipe.early_stopping
    if limit is None or progress.without_better < limit:
        return ""
    best = ", ".join(f"{name} {value:.4g}" for name, value in progress.best.items())
    since = f"since step {progress.best_step} ({best})" if progress.best_step else "from the start"
    return f"nothing got better in {limit} evaluations {since}"


class _Noise:
    """Uniform noise of scale alpha / sqrt(T · d) on the input embeddings while training (arXiv 2310.05914, eq. 1).

    T is the mean length of the window's sequences, not the batch's width: padding, packing and the micro-batch do not
    change the scale.
    """

    def __init__(self, alpha: float) -> None:
        self._alpha, self.length = alpha, 1.0

    @contextmanager
    def added_to(self, model: Any) -> Iterator[None]:
        """Add the noise while the context lasts."""
        if self._alpha == 0:
            yield
            return
        handle = model.get_input_embeddings().register_forward_hook(self._add)
        try:
            yield
        finally:
            handle.remove()

    def _add(self, module: torch.nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return output
        scale = self._alpha / math.sqrt(self.length * output.shape[-1])
        return output + torch.empty_like(output).uniform_(-scale, scale)
