"""One phase of an invocation: prepare, look, train, publish. Each makes its own run and its own version."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from dlm.errors import InterruptedRunError, TrainingError
from dlm.recipe import Choice, ResolvedRecipe
from dlm.store import MetricWriter, Run, RunSpec, Store, Version, VersionSpec
from dlm.training import (
    Estimate,
    LoopResult,
    checkpoints,
    estimate,
    make_optimizer,
    require_finite,
    save_reward_model,
    train_phase,
)
from dlm.workflow import resuming
from dlm.workflow.consumption import log_consumption
from dlm.workflow.followers import Followers, Ticket
from dlm.workflow.interrupt import StopRequest
from dlm.workflow.loading import Loaded, brief, hash_of_data, load_phase, method_of
from dlm.workflow.material import Material
from dlm.workflow.measuring import Measuring
from dlm.workflow.observing import RunObserver
from dlm.workflow.phases import recipe_of
from dlm.workflow.resuming import RunFacts
from dlm.workflow.run_curves import curve_run, loss_method
from dlm.workflow.views import Phase, RunReport, TrainView
from dlm.workflow.watching import WARNING, CurveWatch, lowest_training_loss

__all__ = ["Invocation", "PhaseRun"]

_LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True)
class Invocation:
    """What all phases of one invocation share. `knobs` are those of the command line."""

    material: Material
    device: str
    knobs: Mapping[str, Any]
    store: Store
    view: TrainView
    stop: StopRequest
    followers: Followers


@dataclass(frozen=True)
class PhaseRun:
    """A phase to run: with which knobs, from which version (None: a fresh adapter), and what follows it."""

    invocation: Invocation
    phase: Phase
    resolved: ResolvedRecipe
    start_from: Choice[Version | None]
    then: Sequence[Phase]

    def start(self, discarding: Run | None = None) -> RunReport:
        """A new run. What `--fresh` gives up is discarded only once the new run is known to start."""
        store, material = self.invocation.store, self.invocation.material
        loaded = self._load(self.resolved, self.resolved.recipe.precision)
        measured = estimate(loaded.prepared, loaded.model)
        if discarding is not None:
            resuming.discard(store, discarding, self.invocation.view)
        facts = RunFacts.of(
            loaded.prepared,
            self.resolved,
            material.files,
            device=loaded.policy.device.value,
            dtype=loaded.policy.dtype.value,
            system_prompt=material.document.header.system_prompt,
            flags=self.invocation.knobs,
            then=self.then,
            signals=material.stored.as_of,
        )
        run = store.runs.start(self._spec(loaded, facts))
        with self._recorded(run):
            log_consumption(store, run, material, loaded.prepared)
            return self._train(run, self.resolved, loaded, measured)

    def go_on(self, run: Run) -> RunReport:
        """An interrupted run, from its newest whole checkpoint."""
        path, view = self.invocation.material.path, self.invocation.view
        facts = RunFacts.read(run)
        resuming.require_same_data(run, hash_of_data(self.phase, self.invocation.material), path)
        resolved = resuming.same_recipe(run, self.resolved, path)
        resuming.warn_of_other_libraries(run, _library_versions(), view)
        loaded = self._load(resolved, facts.dtype, run)
        policy = loaded.policy
        if policy.device.value != facts.device:
            view.warn(
                f"run {run.id} began on {facts.device} and goes on on {policy.device.value}: not bit for bit"
            )
        if loaded.prepared.fingerprint != facts.examples:
            raise resuming.changed(
                "what the base reads (the system prompt or the base's template)", run, path
            )
        measured = estimate(loaded.prepared, loaded.model)
        run = self.invocation.store.runs.resume(run.id)
        with self._recorded(run):
            return self._train(run, resolved, loaded, measured)

    def _load(self, resolved: ResolvedRecipe, precision: str | None, run: Run | None = None) -> Loaded:
        invocation, start = self.invocation, self.start_from.value
        material, references = invocation.material, invocation.store.references
        then = [recipe_of(phase, material, invocation.knobs) for phase in self.then]
        files, reverted, stored = material.files, material.reverted, material.stored
        invocation.followers.load(
            Ticket(self.phase, resolved, start, files, reverted, stored, precision, references, run, then)
        )
        return load_phase(
            self.phase,
            resolved,
            start,
            material,
            device=invocation.device,
            precision=precision,
            references=references,
            view=invocation.view,
            resumed=run,
            then=then,
        )

    def _spec(self, loaded: Loaded, facts: RunFacts) -> RunSpec:
        material, start = self.invocation.material, self.start_from.value
        return RunSpec(
            kind=self.phase,
            method=method_of(self.resolved),
            recipe=self.resolved.to_json(),
            parent_version=None if start is None else start.name,
            data_hash=hash_of_data(self.phase, material),
            base=material.spec.name,
            base_fingerprint=loaded.policy.fingerprint,
            libraries=_library_versions(),
            threads=torch.get_num_threads(),
            layout=facts.to_json(),
            seed=self.resolved.recipe.seed,
            document_sha256=material.document.sha256,
            planned_steps=loaded.prepared.plan.total_steps,
        )

    @contextmanager
    def _recorded(self, run: Run) -> Iterator[None]:
        """Whatever ends the block, the run's record says so; completion is written by the publication itself.

        Only what would happen again makes a run `failed`. A full disk or a closed terminal leaves it `interrupted`: its
        checkpoints are good, and it can be resumed.
        """
        runs = self.invocation.store.runs
        try:
            yield
        except BaseException as fault:
            if runs.get(run.id).status == "running":
                status = "failed" if isinstance(fault, TrainingError) else "interrupted"
                runs.finish(run.id, status, (str(fault) or type(fault).__name__).partition("\n")[0])
                if status == "failed":
                    self._say_what_is_left(run)
            raise

    def _say_what_is_left(self, run: Run) -> None:
        """A run that failed cannot be resumed, but a checkpoint from before may be worth a version."""
        left = [one.step for one in self.invocation.store.saved_checkpoints(run.id) if one.is_there]
        if left and self.phase != "reward":
            path = str(self.invocation.material.path)
            shown = shlex.join(["dlm", "checkpoints", path, "--run-id", str(run.id)])
            self.invocation.view.note(f"checkpoints of step {', '.join(map(str, left))} are kept: {shown}")

    def _train(self, run: Run, resolved: ResolvedRecipe, loaded: Loaded, measured: Estimate) -> RunReport:
        store, material, view = self.invocation.store, self.invocation.material, self.invocation.view
        model = loaded.model
        folder = store.checkpoints(run.id)
        self.invocation.followers.begin(folder)
        optimizer = make_optimizer(model, resolved.recipe)
        progress = checkpoints.load_newest(folder, model, optimizer, view.warn)
        store.metrics.drop_after(run.id, progress.step)
        store.remember_checkpoints(
            run.id, checkpoints.saved_steps(folder)
        )  # one may lack its record: killed just then
        threads = Choice(run.threads, "as the run began") if progress.step else loaded.policy.threads
        view.briefing(
            brief(
                self.phase,
                resolved,
                self.start_from,
                material,
                loaded,
                run_id=run.id,
                resumed_at=progress.step,
                threads=threads,
                estimate=measured,
            )
        )
        measuring = Measuring(store, run, loaded, self.invocation.followers)
        measuring.at_start(progress.step)
        with store.metrics.writer(run.id) as writer:
            result = self._loop(run, resolved, loaded, optimizer, progress, writer)
            step = self._step_to_keep(run, resolved, result)
            self.invocation.followers.keep(step)
            if step != result.progress.step:
                checkpoints.load_adapter_of(folder, step, model)
            require_finite(model, step)
            writer.log(step, measuring.at_end())  # of that step, which need not be the last one
        # not the loop's own values: a run that was killed after its last step takes none when it goes on
        self.invocation.followers.phase_is_over()
        curves = curve_run(store, run)
        measuring.judge(curves)  # before the run is complete: nothing goes on with it then
        published = self._publish(run, resolved, loaded, step)
        return measuring.report(
            published,
            promoted=self._is_promoted,
            method=method_of(resolved),
            result=result,
            curves=curves,
            view=view,
        )

    def _loop(
        self,
        run: Run,
        resolved: ResolvedRecipe,
        loaded: Loaded,
        optimizer: torch.optim.Optimizer,
        progress: checkpoints.Progress,
        writer: MetricWriter,
    ) -> LoopResult:
        """Train to the end of the plan, until nothing gets better, or until the curves are a reason to stop.

        Raises:
            InterruptedRunError: a stop was asked for; a checkpoint is saved.
        """
        total, view = loaded.prepared.plan.total_steps, self.invocation.view
        store, recipe = self.invocation.store, resolved.recipe
        watch = CurveWatch(
            run.kind,
            loss_method(run.method, run.recipe, started_anew=run.parent_version is None),
            total,
            loaded.prepared.plan.eval_every,
            stop_on=recipe.stop_on,
            earlier=store.metrics.read(run.id) if progress.step else {},
            told=store.runs.events(run.id, WARNING),
        )
        observer = RunObserver(store, run.id, writer, view, total, self.invocation.stop, watch)
        result = train_phase(
            loaded.prepared,
            loaded.model,
            recipe,
            optimizer,
            progress,
            observer,
            store.checkpoints(run.id),
            enough=observer.enough,
        )
        if result.interrupted:
            raise InterruptedRunError(
                f"run {run.id} stopped by {result.stopped} at step {result.progress.step} of {total}; "
                "its checkpoint is saved",
                next_step=resuming.command(self.invocation.material.path, "--resume"),
            )
        if result.stopped:
            view.note(f"stopped at step {result.progress.step} of {total}: {result.stopped}")
            event = {"step": result.progress.step, "reason": result.stopped}
            if event not in [one.data for one in store.runs.events(run.id, "stopped_early")]:
                store.runs.event(run.id, "stopped_early", event)
        return result

    def _step_to_keep(self, run: Run, resolved: ResolvedRecipe, result: LoopResult) -> int:
        """The step that the version is made of: the last one, unless the recipe keeps the best.

        A run that the curves stopped with nothing held out has no best step; then it is that of the lowest training loss
        among the checkpoints that are left.
        """
        store, view, last = self.invocation.store, self.invocation.view, result.progress.step
        if not resolved.recipe.keeps_best:
            return last
        if result.best_step is not None:
            if result.best_step != last:
                view.note(f"step {result.best_step} scored best on held-out rows: the version is made of it")
            return result.best_step
        losses = store.metrics.read(run.id, ["train_loss"]).get("train_loss")
        if resolved.recipe.stop_on == "never" or not result.stopped or losses is None:
            return last
        step = lowest_training_loss(losses, checkpoints.saved_steps(store.checkpoints(run.id))) or last
        if step != last:
            view.note(
                f"step {step} had the lowest training loss of the saved ones: the version is made of it"
            )
        return step

    @property
    def _is_promoted(self) -> bool:
        """A reward model is no policy; where a gate is declared, it decides."""
        return self.phase != "reward" and self.invocation.material.document.header.gate is None

    def _publish(self, run: Run, resolved: ResolvedRecipe, loaded: Loaded, step: int) -> Version:
        store, start = self.invocation.store, self.start_from.value
        staging = store.versions.staging()
        if self.phase == "reward":
            save_reward_model(loaded.model, loaded.policy, staging)
        else:
            checkpoints.save_adapter(loaded.model, staging)
        spec = VersionSpec(
            run_id=run.id,
            parent=None if start is None else start.name,
            phase=self.phase,
            step=step,
            base=self.invocation.material.spec.name,
            base_fingerprint=loaded.policy.fingerprint,
            recipe=resolved.to_json(),
            data_hash=run.data_hash,
        )
        reason = "training completed, no gate declared"
        made = store.versions.publish(staging, spec, promote=self._is_promoted, reason=reason)
        if self.phase != "reward" and not self._is_promoted:
            path = str(self.invocation.material.path)
            self.invocation.view.warn(
                f"the document declares a gate, and this version of dlm cannot evaluate one: {made.name} is kept, not "
                f"promoted; {shlex.join(['dlm', 'promote', path, made.name])} --force --reason … makes it current"
            )
        return made


def _library_versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
