"""Going on with an interrupted run: only as the run it was.

A run keeps the facts it began with. To go on, the rows, the tokens they become, the knobs that were stated and the
base must be the same, or the message says what changed; device, threads and libraries are restored or spoken of,
because the bytes of the result depend on them.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dlm.errors import UsageError
from dlm.recipe import Recipe, ResolvedRecipe
from dlm.store import Run, Store
from dlm.training import Prepared, Row, checkpoints, data_hash
from dlm.workflow.views import TrainOptions, TrainView

__all__ = [
    "RunFacts",
    "discard",
    "find_interrupted",
    "require_same_rows",
    "same_recipe",
    "warn_of_other_libraries",
]

_STATED = ("flag", "header")


@dataclass(frozen=True)
class RunFacts:
    """What a run began with beyond its recipe; kept as JSON in the run's `layout`."""

    layout: str
    plan: Mapping[str, Any]
    examples: str
    device: str
    dtype: str
    system_prompt: str | None
    rows_files: Sequence[str]
    origins: Mapping[str, str]  # of the knobs that were stated: knob → flag or header

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        resolved: ResolvedRecipe,
        *,
        device: str,
        dtype: str,
        system_prompt: str | None,
        rows_files: Sequence[Path],
    ) -> RunFacts:
        """The facts of a run about to start."""
        stated = {name: origin for name, origin in resolved.origins.items() if origin in _STATED}
        files = [str(path.resolve()) for path in rows_files]
        layout = prepared.objective.layout.name
        return cls(
            layout, asdict(prepared.plan), prepared.fingerprint, device, dtype, system_prompt, files, stated
        )

    @classmethod
    def read(cls, run: Run) -> RunFacts:
        """The facts of a stored run."""
        return cls(**json.loads(run.layout))

    def to_json(self) -> str:
        """As `Run.layout` holds them."""
        return json.dumps(asdict(self))


def find_interrupted(store: Store, options: TrainOptions, path: Path, view: TrainView) -> Run | None:
    """The newest interrupted run, however many runs came after it. Without --resume and --fresh it is only mentioned.

    Raises:
        UsageError: --resume, and there is nothing to go on with.
    """
    resumable = [run for run in store.runs.list() if run.kind == "sft" and run.resumable]
    run = max(resumable, key=lambda run: run.id, default=None)
    if run is None and options.resume:
        raise UsageError("no interrupted run to resume", next_step=f"{command(path)} starts a new one")
    if run is not None and not (options.resume or options.fresh):
        view.note(
            f"run {run.id} was interrupted: --resume goes on with it, now or after the new run that starts here; "
            "--fresh discards it"
        )
        return None
    return run


def discard(store: Store, run: Run, view: TrainView) -> None:
    """Give an interrupted run up, with its checkpoints."""
    checkpoints.discard(store.checkpoints(run.id))
    store.runs.finish(run.id, "failed", "discarded by --fresh")
    view.note(f"run {run.id} was interrupted; it is discarded")


def require_same_rows(run: Run, rows: Sequence[Row], path: Path) -> None:
    """Raises `UsageError` when the document's rows are not those the run began with."""
    if run.data_hash != data_hash(rows):
        files = RunFacts.read(run).rows_files
        raise changed(
            "the rows" + (f" (of the document or of {', '.join(files)})" if files else ""), run, path
        )


def same_recipe(run: Run, resolved: ResolvedRecipe, path: Path) -> ResolvedRecipe:
    """The run's own recipe, after every knob stated now has been found equal to it.

    Raises:
        UsageError: a flag or the header states another value than the run began with.
    """
    stored, then = Recipe(**run.recipe), RunFacts.read(run).origins
    for name, origin in resolved.origins.items():
        overruled = (
            origin == "header" and then.get(name) == "flag"
        )  # the header was overruled when the run began
        if origin in _STATED and not overruled and getattr(resolved.recipe, name) != getattr(stored, name):
            raise changed(
                f"the knob {name} ({getattr(stored, name)}, now {getattr(resolved.recipe, name)})", run, path
            )
    return ResolvedRecipe(stored, dict.fromkeys(Recipe.model_fields, "as the run began"))


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
