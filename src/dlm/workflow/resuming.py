"""Going on with an interrupted run: only as the run it was.

A run keeps the facts it began with. To go on, the rows and pairs, the tokens they become, the knobs that were stated and
the base must be the same, or the message says what changed; device, threads and libraries are restored or spoken of,
because the bytes of the result depend on them. A run also keeps which phases were to follow it, so that an invocation
that was interrupted in its first phase ends as it would have.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dlm.errors import UsageError
from dlm.recipe import ResolvedRecipe
from dlm.store import Run, Store
from dlm.training import Plan, Prepared, Stored, checkpoints
from dlm.workflow.material import Files
from dlm.workflow.views import Phase, TrainOptions, TrainView

__all__ = [
    "RunFacts",
    "changed",
    "command",
    "discard",
    "find_unfinished",
    "require_same_data",
    "same_recipe",
    "warn_of_other_libraries",
]

_PHASES = ("sft", "preference", "reward", "rft")
_WHAT = {
    "sft": "the rows",
    "preference": "the pairs",
    "reward": "the pairs",
    "rft": "the prompts, what is known of their answers, the grader or its budget",
}


@dataclass(frozen=True)
class RunFacts:
    """What a run began with beyond its recipe; kept as JSON in the run's `layout`."""

    layout: str
    products: str
    plan: Mapping[str, Any]
    examples: str
    device: str
    dtype: str
    system_prompt: str | None
    rows_files: Sequence[str]
    pairs_files: Sequence[str] = ()
    scalars_files: Sequence[str] = ()
    prompts_files: Sequence[str] = ()
    suite: str | None = None
    grader: str | None = None
    origins: Mapping[str, str] = field(default_factory=dict)  # of the knobs that were stated: flag or header
    flags: Mapping[str, Any] = field(
        default_factory=dict
    )  # knobs on the command line, those of later phases too
    then: Sequence[Phase] = ()  # the phases that were to follow
    signals: Sequence[Any] | None = (
        None  # the state of the store's signals that it reads; None: none are read
    )

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        resolved: ResolvedRecipe,
        files: Files,
        *,
        device: str,
        dtype: str,
        system_prompt: str | None,
        flags: Mapping[str, Any],
        then: Sequence[Phase],
        signals: tuple[int, str] | None,
    ) -> RunFacts:
        """The facts of a run about to start."""
        return cls(
            layout=prepared.layout.value,
            products=prepared.products.value,
            plan=asdict(prepared.plan),
            examples=prepared.fingerprint,
            device=device,
            dtype=dtype,
            system_prompt=system_prompt,
            rows_files=_absolute(files.rows),
            pairs_files=_absolute(files.pairs),
            scalars_files=_absolute(files.scalars),
            prompts_files=_absolute(files.prompts),
            suite=files.suite,
            grader=files.grader,
            origins=resolved.stated(),
            flags=dict(flags),
            then=list(then),
            signals=signals,
        )

    @classmethod
    def read(cls, run: Run) -> RunFacts:
        """The facts of a stored run."""
        return cls(**json.loads(run.layout))

    def to_json(self) -> str:
        """As `Run.layout` holds them."""
        return json.dumps(asdict(self))

    @property
    def stored(self) -> Stored:
        """What was chosen when the run began."""
        return Stored(Plan(**self.plan), self.layout, self.products)

    @property
    def as_of(self) -> tuple[int, str] | None:
        """The state of the store's signals that the run reads, for `stored_signals`."""
        return None if self.signals is None else (int(self.signals[0]), str(self.signals[1]))

    @property
    def files(self) -> Files:
        """The files beside the document."""
        parts = (self.rows_files, self.pairs_files, self.scalars_files, self.prompts_files)
        rows, pairs, scalars, prompts = (tuple(map(Path, part)) for part in parts)
        return Files(rows, pairs, scalars, prompts, self.suite, self.grader)


def _absolute(files: Sequence[Path]) -> list[str]:
    return [str(path.resolve()) for path in files]


def find_unfinished(store: Store, options: TrainOptions, path: Path, view: TrainView) -> Run | None:
    """The run that `--resume` or `--fresh` is about; without them it is only mentioned, and None is returned.

    It is the newest interrupted run, however many runs came after it: of any phase, or of the one that the options name.
    Where none was interrupted, it is the newest run if a phase was to follow it and did not begin.

    Raises:
        UsageError: --resume, and there is nothing to go on with.
    """
    wanted = _PHASES if options.phase == "all" else (options.phase,)
    runs = [run for run in store.runs.list() if run.kind in _PHASES and run.imported is None]
    resumable = [run for run in runs if run.resumable and run.kind in wanted]
    pending = [
        run
        for run in runs[-1:]
        if run.status == "complete" and any(p in wanted for p in RunFacts.read(run).then)
    ]
    run = next(iter([*reversed(resumable), *pending]), None)
    if run is None and options.resume:
        raise UsageError("no interrupted run to resume", next_step=f"{command(path)} starts a new one")
    if run is None or options.resume:
        return run
    if not run.resumable:
        return None
    if options.fresh:
        return run
    view.note(
        f"run {run.id} was interrupted: --resume goes on with it, now or after the new run that starts here; "
        "--fresh discards it"
    )
    return None


def discard(store: Store, run: Run, view: TrainView) -> None:
    """Give an interrupted run up, with its checkpoints."""
    checkpoints.discard(store.checkpoints(run.id))
    store.runs.finish(run.id, "failed", "discarded by --fresh")
    view.note(f"run {run.id} was interrupted; it is discarded")


def require_same_data(run: Run, data_hash: str, path: Path) -> None:
    """Raises `UsageError` when the rows or pairs are not those the run began with."""
    if run.data_hash != data_hash:
        facts = RunFacts.read(run)
        files = {"sft": facts.rows_files, "rft": facts.prompts_files}.get(
            run.kind, [*facts.pairs_files, *facts.scalars_files]
        )
        what = _WHAT[run.kind] + (f" (of the document or of {', '.join(files)})" if files else "")
        raise changed(what, run, path)


def same_recipe(run: Run, resolved: ResolvedRecipe, path: Path) -> ResolvedRecipe:
    """The run's own recipe, after every knob stated now has been found equal to it.

    Raises:
        UsageError: a flag or the header states another value than the run began with.
    """
    stored, then = ResolvedRecipe.from_json(run.recipe, "as the run began"), RunFacts.read(run).origins
    before, now = stored.values(), resolved.values()
    for name, origin in resolved.stated().items():
        overruled = (
            origin == "header" and then.get(name) == "flag"
        )  # the header was overruled when the run began
        if not overruled and now[name] != before[name]:
            raise changed(f"the knob {name} ({before[name]}, now {now[name]})", run, path)
    return stored


def warn_of_other_libraries(run: Run, installed: Mapping[str, str], view: TrainView) -> None:
    """Say which library versions changed: the run goes on, but not bit for bit."""
    other = [
        f"{name} {run.libraries.get(name)} → {now}"
        for name, now in installed.items()
        if run.libraries.get(name) != now
    ]
    if other:
        view.warn(
            f"run {run.id} began with other libraries ({', '.join(other)}): it goes on, but not bit for bit"
        )


def changed(what: str, run: Run, path: Path) -> UsageError:
    """The refusal to go on with a run."""
    return UsageError(
        f"run {run.id} cannot be resumed: {what} changed since it began",
        next_step=f"undo that change, or give the run up: {command(path, '--fresh')}",
    )


def command(path: Path, *flags: str) -> str:
    """`dlm train PATH FLAGS`, as it can be typed into a shell."""
    return shlex.join(["dlm", "train", str(path), *flags])
