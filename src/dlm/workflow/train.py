"""One invocation of training: document → phases → runs → versions.

This is where rooms meet: the document gives rows, pairs and settings, the store takes the lock, the runs, their metrics
and the versions, training moves the adapter, evaluation answers the probes. The caller watches through a `TrainView`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from dlm.document import Document, load
from dlm.errors import DlmError, MissingRecordError, UsageError
from dlm.recipe import Choice, ResolvedRecipe
from dlm.review import reverted_keys
from dlm.store import Home, Run, Store, Version
from dlm.training import processes
from dlm.workflow import resuming
from dlm.workflow.followers import Followers, follow
from dlm.workflow.interrupt import stop_on_signals
from dlm.workflow.leaks import warn_of_leaks
from dlm.workflow.loading import preview
from dlm.workflow.material import Files, Material, base_of, read_material, say_what_is_not_used
from dlm.workflow.phase_run import Invocation, PhaseRun
from dlm.workflow.phases import plan_phases, recipe_of, refuse_unread, warn_of_unread, with_adapter_of
from dlm.workflow.resuming import RunFacts
from dlm.workflow.signals import NOTHING_STORED, stored_signals
from dlm.workflow.views import (
    Briefing,
    Phase,
    Preview,
    ProbePair,
    RunReport,
    TrainOptions,
    TrainReport,
    TrainView,
)

__all__ = [
    "Briefing",
    "Preview",
    "ProbePair",
    "RunReport",
    "TrainOptions",
    "TrainReport",
    "TrainView",
    "dry_run",
    "train",
]


def train(document_path: Path, options: TrainOptions, view: TrainView) -> TrainReport:
    """Train the phases of one invocation, each into a version.

    Raises:
        DocumentError, UsageError, BaseModelError, LockedError, TrainingError: nothing was trained, or a run failed;
            versions of the phases before it stay.
        InterruptedRunError: stopped by a signal; a checkpoint was saved and `--resume` goes on from it.

    Under torchrun every process calls this. Only the main one touches the store and reports; in the others the report is
    empty, and nothing but errors is to be shown.
    """
    if options.resume and options.fresh:
        raise UsageError("--resume and --fresh exclude each other", next_step="name one of them")
    refuse_unread(options)
    with processes() as world:
        if not world.is_main:
            follow(document_path, options.device, world, view)
            return TrainReport([])
        followers = Followers(world)
        try:
            return _lead(document_path, options, view, followers)
        finally:
            followers.dismiss()


def _lead(document_path: Path, options: TrainOptions, view: TrainView, followers: Followers) -> TrainReport:
    """The invocation, in the process that reads and writes the store."""
    document = _open(document_path, view)
    spec = base_of(document, document_path)
    with Home.open().store(document.header.dlm_id) as store:
        note = store.attach(document_path)
        if note:
            view.note(note)
        with store.lock(f"dlm train {document_path.name}"), stop_on_signals(view.stopping) as stop:
            unfinished = resuming.find_unfinished(store, options, document_path, view)
            files, knobs = Files.of(options), options.knobs
            stored = stored_signals(store) if options.stored else NOTHING_STORED
            if unfinished is not None and options.resume:
                facts = RunFacts.read(unfinished)
                files, knobs = files.or_else(facts.files), {**facts.flags, **knobs}
                stored = stored_signals(store, facts.as_of) if facts.as_of else NOTHING_STORED
            material = read_material(
                document, document_path, spec, files, view, reverted=reverted_keys(store), stored=stored
            )
            invocation = Invocation(material, options.device, knobs, store, view, stop, followers)
            if unfinished is not None and options.resume:
                return _go_on(invocation, unfinished, options)
            phases = plan_phases(options, material, view)
            warn_of_unread(options, phases, view)
            warn_of_leaks(material, phases, view)
            _ask_for_consent(options, phases, material)
            asked = _asked_start(store, options.start)
            return TrainReport(_run(invocation, phases, None, discarding=unfinished, asked=asked))


def dry_run(document_path: Path, options: TrainOptions, view: TrainView) -> list[Preview]:
    """What each phase would do, and the first rows as the model would see them. Nothing is written.

    A preference phase that would start from this invocation's SFT version is shown on the version that is current now,
    or on the base.

    Raises:
        DocumentError, UsageError, BaseModelError, TrainingError: the phase would not start.
    """
    refuse_unread(options)
    document = _open(document_path, view)
    spec = base_of(document, document_path)
    store = Home.open().find(document.header.dlm_id)
    asked = _asked_start(None, options.start) if store is None else None
    current: Version | None = None
    reverted: frozenset[str] = frozenset()
    stored = NOTHING_STORED
    if store is not None:
        with store:
            asked = _asked_start(store, options.start)
            current, reverted = store.versions.current(), reverted_keys(store)
            stored = stored_signals(store) if options.stored else stored
    material = read_material(
        document, document_path, spec, Files.of(options), view, reverted=reverted, stored=stored
    )
    phases = plan_phases(options, material, view)
    warn_of_unread(options, phases, view)
    warn_of_leaks(material, phases, view)
    previews = []
    for phase in phases:
        start = _start_of(phase, None, current, asked)
        resolved = _recipe(phase, start.value, material, options.knobs, view)
        if phase == "preference" and "sft" in phases:
            start = Choice(start.value, "in place of the version that the sft phase would make")
        previews.append(preview(phase, resolved, start, material, options.device, view))
    return previews


def _ask_for_consent(options: TrainOptions, phases: Sequence[Phase], material: Material) -> None:
    """Code that the document names runs only when it is allowed; what stands on the command line is allowed by that."""
    if "rft" in phases and material.rewards.named_by_document and material.rewards.grader.consent_argv:
        options.allow(material.rewards.grader.consent_argv)


def _open(path: Path, view: TrainView) -> Document:
    document = load(path)
    for problem in document.warnings:
        view.warn(problem.at(str(path)))
    say_what_is_not_used(document, view)
    return document


def _run(
    invocation: Invocation,
    phases: Sequence[Phase],
    before: Version | None,
    *,
    discarding: Run | None = None,
    asked: Choice[Version | None] | None = None,
) -> list[RunReport]:
    """New runs, one per phase. What `--fresh` gives up is discarded only once the first of them is known to start.

    Args:
        before: the version that the phase before these made.
        asked: where the first of them is to start; None: where it starts by itself.
    """
    store, material, view = invocation.store, invocation.material, invocation.view
    for phase in phases:
        recipe_of(phase, material, invocation.knobs)  # what is refused is refused before any phase trains
    runs: list[RunReport] = []
    for place, phase in enumerate(phases):
        start = _start_of(phase, before, store.versions.current(), asked)
        resolved = _recipe(phase, start.value, material, invocation.knobs, view)
        job = PhaseRun(invocation, phase, resolved, start, phases[place + 1 :])
        with _what_is_kept(before, invocation):
            runs.append(job.start(discarding=None if runs else discarding))
        before = store.versions.get(runs[-1].version)
    return runs


@contextmanager
def _what_is_kept(before: Version | None, invocation: Invocation) -> Iterator[None]:
    """Whatever ends a later phase says that the version of the phase before it is there."""
    try:
        yield
    except Exception as fault:
        if before is not None:
            state = "current" if invocation.store.versions.current_name() == before.name else "not current"
            kept = f"the {before.phase} phase before it is done: {before.name} is kept and {state}"
            if isinstance(fault, DlmError):
                fault.message += f"\n{kept}"
            else:
                invocation.view.note(kept)
        raise


def _go_on(invocation: Invocation, unfinished: Run, options: TrainOptions) -> TrainReport:
    """An invocation that was interrupted: its run, then the phases that were to follow."""
    store, view = invocation.store, invocation.view
    then = [phase for phase in RunFacts.read(unfinished).then if options.phase in ("all", phase)]
    runs: list[RunReport] = []
    if unfinished.resumable:
        _ask_for_consent(options, [cast(Phase, unfinished.kind)], invocation.material)
        phase, name = cast(Phase, unfinished.kind), unfinished.parent_version
        begun = None if name is None else store.versions.verify(store.versions.get(name))
        resolved = _recipe(phase, begun, invocation.material, invocation.knobs, view)
        job = PhaseRun(invocation, phase, resolved, Choice(begun, "as the run began"), then)
        with _what_is_kept(begun, invocation):
            runs.append(job.go_on(unfinished))
    else:
        view.note(f"run {unfinished.id} is complete; the phase that was to follow it begins now")
    made = runs[-1].version if runs else unfinished.version
    before = None if made is None else store.versions.get(made)
    return TrainReport([*runs, *_run(invocation, then, before)])


def _recipe(
    phase: Phase, start: Version | None, material: Material, knobs: Mapping[str, Any], view: TrainView
) -> ResolvedRecipe:
    resolved = recipe_of(phase, material, knobs)
    return resolved if start is None else with_adapter_of(start, resolved, view)


def _asked_start(store: Store | None, name: str | None) -> Choice[Version | None] | None:
    """What `--start` names; None where it names nothing, and each phase takes its own.

    Raises:
        MissingRecordError: there is no such version.
        UsageError: the version scores answers and gives none.
    """
    if name is None:
        return None
    if name == "base":
        return Choice(None, "--start base: a fresh adapter")
    if store is None:
        raise MissingRecordError(f"there is no version {name} yet", next_step="--start base, or leave it out")
    version = store.versions.get(name)
    if version.phase == "reward":
        raise UsageError(
            f"{name} is a reward model: it scores answers and gives none", next_step="name another version"
        )
    return Choice(store.versions.verify(version), f"--start {name}")


def _start_of(
    phase: Phase,
    before: Version | None,
    current: Version | None,
    asked: Choice[Version | None] | None = None,
) -> Choice[Version | None]:
    """The version a phase starts from, and why; None is a fresh adapter on the base.

    Args:
        before: the version that the phase before it made.
        asked: what the caller named, for the first phase of an invocation.
    """
    if asked is not None and before is None:
        return asked
    if phase not in ("preference", "rft"):
        return Choice(None, "a fresh adapter")
    if before is not None:
        return Choice(before, "the version that the sft phase made")
    if current is not None:
        return Choice(current, "the current version")
    return Choice(None, "there is no version yet: a fresh adapter")
