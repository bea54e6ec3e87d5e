"""One training: document → rows → run → version.

This is where rooms meet: the document gives rows and settings, the store takes the lock, the run, its metrics and the
version, training moves the adapter, evaluation answers the probes. The caller watches through a `TrainView`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dlm.bases import BaseSpec, resolve_base
from dlm.document import Document, load
from dlm.errors import BaseModelError, InterruptedRunError, TrainingError, UsageError
from dlm.evaluation import Question, answer_all
from dlm.model import Policy, load_policy
from dlm.recipe import Choice, Recipe, ResolvedRecipe, resolve
from dlm.store import Home, MetricWriter, Run, RunSpec, Store, VersionSpec
from dlm.training import (
    Estimate,
    Prepared,
    Row,
    add_adapter,
    checkpoints,
    data_hash,
    estimate,
    make_optimizer,
    prepare_sft,
    read_rows_file,
    require_finite,
    rows_of_document,
    score_held_out,
    train_sft,
)
from dlm.workflow import resuming
from dlm.workflow.interrupt import StopRequest, stop_on_signals
from dlm.workflow.resuming import RunFacts
from dlm.workflow.views import Briefing, ProbePair, TrainOptions, TrainReport, TrainView

__all__ = ["Briefing", "ProbePair", "TrainOptions", "TrainReport", "TrainView", "train"]

_LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")


def train(document_path: Path, options: TrainOptions, view: TrainView) -> TrainReport:
    """Train one version from a document.

    Raises:
        DocumentError, UsageError, BaseModelError, LockedError, TrainingError: nothing was trained, or the run failed.
        InterruptedRunError: stopped by a signal; a checkpoint was saved and `--resume` goes on from it.
    """
    if options.resume and options.fresh:
        raise UsageError("--resume and --fresh exclude each other", next_step="name one of them")
    document = load(document_path)
    for problem in document.warnings:
        view.warn(problem.at(str(document_path)))
    spec = _base_of(document, document_path)
    resolved = resolve(document.header.training, spec.defaults, options.knobs)
    if resolved.recipe.precision == "fp16":
        raise UsageError(
            "training in fp16 is not offered: its gradients underflow without loss scaling",
            next_step="--set precision=bf16, or leave precision unset",
        )
    _say_what_is_left_out(document, options, view)
    with Home.open().store(document.header.dlm_id) as store:
        note = store.attach(document_path)
        if note:
            view.note(note)
        with store.lock(f"dlm train {document_path.name}"), stop_on_signals(view.stopping) as stop:
            unfinished = resuming.find_interrupted(store, options, document_path, view)
            resumed = unfinished if options.resume else None
            rows_files = options.rows_files
            if resumed is not None and not rows_files:
                rows_files = [Path(name) for name in RunFacts.read(resumed).rows_files]
            rows = _rows(document, rows_files, view)
            job = _Job(document, document_path, spec, rows, rows_files, resolved, options, store, view, stop)
            return job.go_on(resumed) if resumed is not None else job.start(discarding=unfinished)


def _base_of(document: Document, path: Path) -> BaseSpec:
    try:
        return resolve_base(document.header.base_model, path.parent)
    except BaseModelError as error:
        line, column = document.places["base_model"]
        error.where = f"{path}:{line}:{column}"
        raise


def _rows(document: Document, rows_files: Sequence[Path], view: TrainView) -> list[Row]:
    rows, left_out = rows_of_document(document)
    for warning in left_out:
        view.warn(warning)
    for path in rows_files:
        rows.extend(read_rows_file(path))
    return rows


def _say_what_is_left_out(document: Document, options: TrainOptions, view: TrainView) -> None:
    """Name what the document holds and this version of dlm does not train on or read."""
    pairs = sum(len(section.triples) for section in document.sections)
    if pairs and options.phase == "all":
        what = "1 preference pair is" if pairs == 1 else f"{pairs} preference pairs are"
        view.note(f"{what} kept in the document; this version of dlm trains the SFT phase only")
    header, training = document.header, document.header.training
    stated = {
        "training.preference": "preference" in training.model_fields_set,
        "training.adapters": bool(training.adapters),
        "export": "export" in header.model_fields_set,
        "judge": header.judge is not None,
        "evals": bool(header.evals),
    }
    unused = [key for key, is_stated in stated.items() if is_stated]
    if unused:
        view.note(f"read and checked, but not used by this version of dlm: {', '.join(unused)}")


@dataclass(frozen=True)
class _Job:
    """One invocation, with everything it was given."""

    document: Document
    path: Path
    spec: BaseSpec
    rows: Sequence[Row]
    rows_files: Sequence[Path]
    resolved: ResolvedRecipe
    options: TrainOptions
    store: Store
    view: TrainView
    stop: StopRequest

    def start(self, discarding: Run | None) -> TrainReport:
        """A new run. What `--fresh` gives up is discarded only once the new run is known to start."""
        policy = self._load(self.resolved.recipe.precision, self.options.device)
        model = add_adapter(policy, self.resolved.recipe)
        prepared = prepare_sft(self.rows, policy, model, self.resolved.recipe)
        measured = estimate(prepared, model)
        if discarding is not None:
            resuming.discard(self.store, discarding, self.view)
        facts = RunFacts.of(
            prepared,
            self.resolved,
            device=policy.device.value,
            dtype=policy.dtype.value,
            system_prompt=self.document.header.system_prompt,
            rows_files=self.rows_files,
        )
        run = self.store.runs.start(self._spec(policy, facts))
        with self._recorded(run):
            return self._train(run, policy, model, self.resolved, prepared, measured)

    def go_on(self, run: Run) -> TrainReport:
        """An interrupted run, from its newest whole checkpoint."""
        facts = RunFacts.read(run)
        resuming.require_same_rows(run, self.rows, self.path)
        resolved = resuming.same_recipe(run, self.resolved, self.path)
        resuming.warn_of_other_libraries(run, _library_versions(), self.view)
        policy = self._load(facts.dtype, self.options.device)
        torch.set_num_threads(run.threads)  # another number of threads takes sums in another order
        if policy.device.value != facts.device:
            self.view.warn(
                f"run {run.id} began on {facts.device} and goes on on {policy.device.value}: not bit for bit"
            )
        if run.base_fingerprint != policy.fingerprint:
            raise resuming.changed("the base's files", run, self.path)
        model = add_adapter(policy, resolved.recipe)
        prepared = prepare_sft(self.rows, policy, model, resolved.recipe, facts.plan)
        if prepared.fingerprint != facts.examples:
            raise resuming.changed(
                "what the base reads (the system prompt or the base's template)", run, self.path
            )
        measured = estimate(prepared, model)
        run = self.store.runs.resume(run.id)
        with self._recorded(run):
            return self._train(run, policy, model, resolved, prepared, measured)

    def _load(self, precision: str | None, device: str) -> Policy:
        policy = load_policy(
            self.spec, device=device, precision=precision, system_prompt=self.document.header.system_prompt
        )
        for remark in policy.notes:
            self.view.note(f"{self.spec.name}: {remark}")
        return policy

    def _spec(self, policy: Policy, facts: RunFacts) -> RunSpec:
        return RunSpec(
            kind="sft",
            method="sft",
            recipe=self.resolved.recipe.model_dump(mode="json"),
            parent_version=None,  # SFT starts a fresh adapter on the base
            data_hash=data_hash(self.rows),
            base=self.spec.name,
            base_fingerprint=policy.fingerprint,
            libraries=_library_versions(),
            threads=torch.get_num_threads(),
            layout=facts.to_json(),
            seed=self.resolved.recipe.seed,
            document_sha256=self.document.sha256,
            planned_steps=int(facts.plan["total_steps"]),
        )

    @contextmanager
    def _recorded(self, run: Run) -> Iterator[None]:
        """Whatever ends the block, the run's record says so; completion is written by the publication itself.

        Only what would happen again makes a run `failed`. A full disk or a closed terminal leaves it `interrupted`: its
        checkpoints are good, and it can be resumed.
        """
        try:
            yield
        except BaseException as fault:
            if self.store.runs.get(run.id).status == "running":
                status = "failed" if isinstance(fault, TrainingError) else "interrupted"
                self.store.runs.finish(
                    run.id, status, (str(fault) or type(fault).__name__).partition("\n")[0]
                )
            raise

    def _train(
        self,
        run: Run,
        policy: Policy,
        model: Any,
        resolved: ResolvedRecipe,
        prepared: Prepared,
        measured: Estimate,
    ) -> TrainReport:
        folder = self.store.checkpoints(run.id)
        optimizer = make_optimizer(model, resolved.recipe)
        progress = checkpoints.load_newest(folder, model, optimizer, self.view.warn)
        self.store.metrics.drop_after(run.id, progress.step)
        briefing = Briefing(
            run.id,
            progress.step,
            self.path,
            self.spec.name,
            policy.device,
            policy.dtype,
            Choice(run.threads, "as the run began") if progress.step else policy.threads,
            _count_sections(self.document),
            resolved,
            prepared.preflight,
            measured,
        )
        self.view.briefing(briefing)
        skipped = [{"place": one.row.place, "reason": one.reason} for one in prepared.preflight.skipped]
        if skipped:
            self._record_once(run, "skipped_rows", {"rows": skipped})
        questions = [Question(example.row.prompt or "", example.row.text) for example in prepared.probes]
        trained = replace(policy, model=model)
        with model.disable_adapter():
            before = answer_all(trained, questions)
        with self.store.metrics.writer(run.id) as writer:
            observer = _Observer(writer, self.view, prepared.plan.total_steps, self.stop)
            result = train_sft(prepared, model, resolved.recipe, optimizer, progress, observer, folder)
            if result.stopped:
                raise InterruptedRunError(
                    f"run {run.id} stopped by {result.stopped} at step {result.progress.step} of "
                    f"{prepared.plan.total_steps}; its checkpoint is saved",
                    next_step=resuming.command(self.path, "--resume"),
                )
            require_finite(model, result.progress.step)
            after = answer_all(trained, questions)
            final = score_held_out(prepared, model)
            if after:
                final["probe_exact_match"] = sum(answer.exact for answer in after) / len(after)
            writer.log(result.progress.step, final)
        for stage, answers in (("base", before), ("version", after)):
            if answers:  # one event a stage, so that the newest of a stage is whole
                listed = [asdict(answer) for answer in answers]
                self._record_once(run, "probe_answers", {"stage": stage, "answers": listed})
        # not the loop's own values: a run that was killed after its last step takes none when it goes on
        series = self.store.metrics.read(run.id)
        gated = self.document.header.gate is not None
        published = self._publish(
            run, policy, model, resolved.recipe, result.progress.step, promote=not gated
        )
        if gated:
            self.view.warn(
                f"the document declares a gate, and this version of dlm cannot evaluate one: {published} is kept, not promoted; "
                f"{shlex.join(['dlm', 'promote', str(self.path), published])} --force --reason … makes it current"
            )
        return TrainReport(
            run_id=run.id,
            version=published,
            promoted=not gated,
            steps=result.progress.step,
            elapsed_s=result.progress.elapsed_s,
            last={name: float(one.values[-1]) for name, one in series.items()},
            smoothed_loss=series["train_loss"].tail_mean(0.1),
            probes=[ProbePair(b, a) for b, a in zip(before, after, strict=True)],
            skipped_rows=len(skipped),
        )

    def _record_once(self, run: Run, kind: str, data: Mapping[str, Any]) -> None:
        """Record an event unless the run has it: a run that goes on says again what it said before it stopped."""
        if data not in [event.data for event in self.store.runs.events(run.id, kind)]:
            self.store.runs.event(run.id, kind, data)

    def _publish(
        self, run: Run, policy: Policy, model: Any, recipe: Recipe, step: int, *, promote: bool
    ) -> str:
        staging = self.store.versions.staging()
        checkpoints.save_adapter(model, staging)
        spec = VersionSpec(
            run_id=run.id,
            parent=None,
            phase="sft",
            step=step,
            base=self.spec.name,
            base_fingerprint=policy.fingerprint,
            recipe=recipe.model_dump(mode="json"),
            data_hash=run.data_hash,
        )
        reason = "training completed, no gate declared"
        return self.store.versions.publish(staging, spec, promote=promote, reason=reason).name


class _Observer:
    """Passes the loop's metrics on to the store and the view."""

    def __init__(self, writer: MetricWriter, view: TrainView, total: int, stop: StopRequest) -> None:
        self._writer, self._view, self._total, self._stop = writer, view, total, stop

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._writer.log(step, dict(values))
        self._view.step(step, self._total, values)

    def before_checkpoint(self) -> None:
        self._writer.flush()

    def checkpoint_saved(self, step: int) -> None:
        self._view.checkpoint(step)

    def stop_requested(self) -> str:
        return self._stop.reason


def _library_versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _count_sections(document: Document) -> dict[str, int]:
    counts = {"prose": 0, "instruction": 0, "preference": 0}
    for section in document.sections:
        counts[section.kind] += 1
    return counts
