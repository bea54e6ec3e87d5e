"""One training: document → rows → run → version.

This is where rooms meet: the document gives rows and settings, the store takes the lock, the run, its metrics and the
version, training moves the adapter, evaluation answers the probes. The caller watches through a `TrainView`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from dlm.bases import BaseSpec, resolve_base
from dlm.document import Document, load
from dlm.errors import InterruptedRunError, UsageError
from dlm.evaluation import ProbeAnswer, Question, answer_all
from dlm.model import Policy, load_policy
from dlm.recipe import Choice, Recipe, ResolvedRecipe, resolve
from dlm.store import Home, MetricWriter, Run, RunSpec, Store, VersionSpec
from dlm.training import (
    Estimate,
    Preflight,
    Prepared,
    Row,
    add_adapter,
    checkpoints,
    data_hash,
    estimate,
    prepare_sft,
    read_rows_file,
    rows_of_document,
    score_held_out,
    train_sft,
)
from dlm.workflow.interrupt import StopRequest, stop_on_signals

__all__ = ["Briefing", "ProbePair", "TrainOptions", "TrainReport", "TrainView", "train"]

_LIBRARIES = ("dlm", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True)
class TrainOptions:
    """What the caller asks for beyond the document. `knobs` are recipe fields that override header and base."""

    phase: Literal["all", "sft"] = "all"
    knobs: Mapping[str, Any] | None = None
    rows_files: Sequence[Path] = ()
    resume: bool = False
    fresh: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class Briefing:
    """Everything known before the first step."""

    run_id: int
    resumed_at: int
    document: Path
    base: str
    device: Choice[str]
    dtype: Choice[str]
    sections: Mapping[str, int]
    resolved: ResolvedRecipe
    preflight: Preflight
    estimate: Estimate


@dataclass(frozen=True)
class ProbePair:
    """One probe, answered by the base and by the new version."""

    before: ProbeAnswer
    after: ProbeAnswer


@dataclass(frozen=True)
class TrainReport:
    """What a finished run left behind. Losses in nats per target token; `smoothed_loss` is the mean of the last tenth."""

    run_id: int
    version: str
    promoted: bool
    steps: int
    elapsed_s: float
    last: Mapping[str, float]
    smoothed_loss: float
    probes: Sequence[ProbePair]
    skipped_rows: int
    warnings: Sequence[str]


class TrainView(Protocol):
    """Who shows a training to a person."""

    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def briefing(self, briefing: Briefing) -> None: ...
    def step(self, step: int, total: int, values: Mapping[str, float]) -> None: ...
    def checkpoint(self, step: int) -> None: ...
    def stopping(self) -> None:
        """A stop was asked for and comes after this step. Called from a signal handler."""


def train(document_path: Path, options: TrainOptions, view: TrainView) -> TrainReport:
    """Train one version from a document.

    Raises:
        DocumentError, UsageError, BaseModelError, LockedError, TrainingError: nothing was trained, or the run failed.
        InterruptedRunError: stopped by a signal; a checkpoint was saved and `--resume` goes on from it.
    """
    if options.resume and options.fresh:
        raise UsageError("--resume and --fresh exclude each other")
    document = load(document_path)
    warnings = [problem.at(str(document_path)) for problem in document.warnings]
    for warning in warnings:
        view.warn(warning)
    spec = resolve_base(document.header.base_model, document_path.parent)
    rows, left_out = rows_of_document(document)
    for warning in left_out:
        warnings.append(warning)
        view.warn(warning)
    for path in options.rows_files:
        rows.extend(read_rows_file(path))
    _say_what_is_left_out(document, options, view)
    resolved = resolve(document.header.training, spec.defaults, options.knobs or {})
    with Home.open().store(document.header.dlm_id) as store:
        note = store.attach(document_path)
        if note:
            view.note(note)
        with store.lock(f"dlm train {document_path.name}"), stop_on_signals(view.stopping) as stop:
            resumable = _settle_interrupted(store, options, view)
            job = _Job(document, document_path, spec, rows, resolved, options, store, view, stop, warnings)
            return job.run(resumable)


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


def _settle_interrupted(store: Store, options: TrainOptions, view: TrainView) -> Run | None:
    """The run that `--resume` continues, after `--fresh` has discarded or a note has mentioned it."""
    newest = store.runs.latest("sft")
    unfinished = newest if newest is not None and newest.resumable else None
    if options.resume:
        if unfinished is None:
            raise UsageError("no interrupted run to resume", next_step="dlm train DOC starts a new one")
        return unfinished
    if unfinished is not None and options.fresh:
        checkpoints.discard(store.checkpoints(unfinished.id))
        store.runs.finish(unfinished.id, "failed", "discarded by --fresh")
        view.note(f"run {unfinished.id} was interrupted; it is discarded")
    elif unfinished is not None:
        view.note(
            f"run {unfinished.id} was interrupted: --resume would go on with it, --fresh discard it; starting a new run"
        )
    return None


@dataclass(frozen=True)
class _Job:
    """One invocation, with everything it was given."""

    document: Document
    path: Path
    spec: BaseSpec
    rows: Sequence[Row]
    resolved: ResolvedRecipe
    options: TrainOptions
    store: Store
    view: TrainView
    stop: StopRequest
    warnings: list[str]

    def run(self, resumed: Run | None) -> TrainReport:
        resolved = self.resolved if resumed is None else self._same_run(resumed)
        recipe = resolved.recipe
        if resumed is not None and resumed.threads:
            torch.set_num_threads(
                resumed.threads
            )  # sums are taken in another order with another number of threads
        policy = load_policy(
            self.spec,
            device=self.options.device,
            precision=recipe.precision,
            system_prompt=self.document.header.system_prompt,
        )
        if resumed is not None and resumed.base_fingerprint != policy.fingerprint:
            raise self._changed("the base's files", resumed)
        for remark in policy.notes:
            self.view.note(f"{self.spec.name}: {remark}")
        model = add_adapter(policy, recipe)
        prepared = prepare_sft(
            self.rows, policy, model, recipe, json.loads(resumed.layout) if resumed else None
        )
        measured = estimate(prepared, model)
        run = self._start(policy, recipe, prepared) if resumed is None else self.store.runs.resume(resumed.id)
        with self._recorded(run):
            return self._train(run, policy, model, resolved, prepared, measured)

    def _same_run(self, resumed: Run) -> ResolvedRecipe:
        if resumed.data_hash != data_hash(self.rows):
            raise self._changed("the document's rows", resumed)
        stored = Recipe(**resumed.recipe)
        for name in self.options.knobs or {}:
            if getattr(self.resolved.recipe, name) != getattr(stored, name):
                raise self._changed(f"the knob {name}", resumed)
        return ResolvedRecipe(stored, dict.fromkeys(Recipe.model_fields, "as the run began"))

    def _changed(self, what: str, run: Run) -> UsageError:
        return UsageError(
            f"run {run.id} cannot be resumed: {what} changed since it began",
            next_step=f"dlm train {self.path} --fresh",
        )

    def _start(self, policy: Policy, recipe: Recipe, prepared: Prepared) -> Run:
        return self.store.runs.start(
            RunSpec(
                kind="sft",
                method="sft",
                recipe=recipe.model_dump(mode="json"),
                parent_version=None,  # SFT starts a fresh adapter on the base
                data_hash=data_hash(self.rows),
                base=self.spec.name,
                base_fingerprint=policy.fingerprint,
                libraries=_library_versions(),
                threads=torch.get_num_threads(),
                layout=json.dumps(prepared.layout),
                seed=recipe.seed,
                document_sha256=self.document.sha256,
                planned_steps=prepared.plan.total_steps,
            )
        )

    @contextmanager
    def _recorded(self, run: Run) -> Iterator[None]:
        """Whatever ends the block, the run's record says so: complete is written by the publication itself."""
        try:
            yield
        finally:
            fault = sys.exc_info()[1]
            if isinstance(fault, InterruptedRunError | KeyboardInterrupt):
                self.store.runs.finish(run.id, "interrupted", str(fault).partition("\n")[0])
            elif fault is not None:
                self.store.runs.finish(run.id, "failed", str(fault).partition("\n")[0])

    def _train(
        self,
        run: Run,
        policy: Policy,
        model: Any,
        resolved: ResolvedRecipe,
        prepared: Prepared,
        measured: Estimate,
    ) -> TrainReport:
        recipe = resolved.recipe
        folder = self.store.checkpoints(run.id)
        checkpoint = checkpoints.latest(folder)
        resumed_at = checkpoints.step_of(checkpoint) if checkpoint else 0
        self.store.metrics.drop_after(run.id, resumed_at)
        self.view.briefing(
            Briefing(
                run.id,
                resumed_at,
                self.path,
                self.spec.name,
                policy.device,
                policy.dtype,
                _count_sections(self.document),
                resolved,
                prepared.preflight,
                measured,
            )
        )
        if prepared.preflight.skipped:
            listed = [
                {"place": skipped.row.place, "reason": skipped.reason}
                for skipped in prepared.preflight.skipped
            ]
            self.store.runs.event(run.id, "skipped_rows", {"rows": listed})
        questions = [Question(row.prompt or "", row.text) for row in self.rows if row.probe]
        trained = replace(policy, model=model)
        with model.disable_adapter():
            before = answer_all(trained, questions)
        with self.store.metrics.writer(run.id) as writer:
            observer = _Observer(writer, self.view, prepared.plan.total_steps, self.stop)
            result = train_sft(prepared, model, recipe, observer, folder, checkpoint)
            if result.stopped:
                raise InterruptedRunError(
                    f"run {run.id} stopped by {result.stopped} at step {result.progress.step} of {prepared.plan.total_steps}; "
                    "its checkpoint is saved",
                    next_step=f"dlm train {self.path} --resume",
                )
            after = answer_all(trained, questions)
            final = score_held_out(prepared, model)
            if after:
                final["probe_exact_match"] = sum(answer.exact for answer in after) / len(after)
            writer.log(result.progress.step, final)
        self._record_probes(run, "base", before)
        self._record_probes(run, "version", after)
        smoothed = self.store.metrics.read(run.id, ["train_loss"])["train_loss"].tail_mean(0.1)
        gated = bool(self.document.header.gate)
        published = self._publish(run, policy, model, recipe, result.progress.step, promote=not gated)
        if gated:
            self.warnings.append(
                f"the document declares a gate: {published} is kept but not promoted; dlm promote {self.path} {published}"
            )
            self.view.warn(self.warnings[-1])
        return TrainReport(
            run_id=run.id,
            version=published,
            promoted=not gated,
            steps=result.progress.step,
            elapsed_s=result.progress.elapsed_s,
            last=result.last | final,
            smoothed_loss=smoothed,
            probes=[ProbePair(b, a) for b, a in zip(before, after, strict=True)],
            skipped_rows=len(prepared.preflight.skipped),
            warnings=tuple(self.warnings),
        )

    def _record_probes(self, run: Run, stage: str, answers: Sequence[ProbeAnswer]) -> None:
        for answer in answers:
            self.store.runs.event(run.id, "probe_answer", {"stage": stage, **asdict(answer)})

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
        return self.store.versions.publish(
            staging, spec, promote=promote, reason="training completed, no gate declared"
        ).name


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
