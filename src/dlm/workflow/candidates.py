"""The checkpoints that a run's curves propose, as versions that can be evaluated side by side.

A curve names two or three checkpoints and cannot say which is best at the task; the task can.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Protocol

from dlm.curves import select
from dlm.errors import UsageError
from dlm.store import Run, Store
from dlm.workflow.run_curves import curve_run

__all__ = ["candidate_versions"]

_POLICIES = ("sft", "preference", "rft")  # kinds of runs that leave one behind


class _View(Protocol):
    def note(self, text: str) -> None: ...


def candidate_versions(store: Store, path: Path, run_id: int | None, view: _View) -> tuple[str, ...]:
    """Versions of the checkpoints that the selection proposes for a run, the recommended one first; made where there are
    none yet, and promoted none. `run_id` None: the newest run that trained a policy. The store's lock must be held.

    Raises:
        UsageError: no such run, or nothing to choose from, with the reason.
        MissingRecordError: no run of that number.
    """
    run = store.runs.get(run_id) if run_id is not None else _newest(store, path)
    selection = select(curve_run(store, run))
    there = {saved.step for saved in store.saved_checkpoints(run.id) if saved.is_there}
    names: dict[str, None] = {}
    for candidate in selection.candidates:
        step = candidate.saved_step
        if step is None or step not in there:
            where = f"step {candidate.step}" if step is None else f"the checkpoint of step {step}"
            view.note(f"run {run.id}: {candidate.role} is {where}, which is not there any more")
            continue
        name = store.publish_checkpoint(run.id, step).name
        view.note(f"{name} is step {step} of run {run.id}: {candidate.role} ({candidate.reason})")
        names[name] = None
    if not names:
        raise UsageError(
            f"run {run.id} proposes no checkpoint that is there: {selection.reason}",
            next_step=shlex.join(["dlm", "checkpoints", str(path), "--run-id", str(run.id)]),
        )
    return tuple(names)


def _newest(store: Store, path: Path) -> Run:
    found = [run for run in store.runs.list() if run.kind in _POLICIES]
    if not found:
        raise UsageError(
            "no run has trained anything yet, so there are no checkpoints",
            next_step=shlex.join(["dlm", "train", str(path)]),
        )
    return found[-1]
