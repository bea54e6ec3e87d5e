"""The buttons of the TRAINING tab: stop, go on, promote, roll back. Each is a command that a person could type."""

from __future__ import annotations

import os
import signal
import socket
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from dlm.errors import LockedError, UsageError
from dlm.store import Store
from dlm.web.commands import run_command
from dlm.web.desk import AtDesk
from dlm.web.memory import Memory
from dlm.web.run_rows import RunRow
from dlm.web.training_tab import RunId

__all__ = ["router"]

router = APIRouter()

_WHY = "--reason=in the browser"


class Promotion(BaseModel):
    """What is to be current: a version, or the checkpoint of a run's step. A gate is overruled in a terminal alone."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[str, StringConstraints(pattern=r"^v\d{4,9}$")] | None = None
    run_id: Annotated[int, Field(ge=1, le=2**53)] | None = None
    step: Annotated[int, Field(ge=0, le=2**53)] | None = None


@router.post("/api/runs/{run_id}/stop")
def stop(request: Request, desk: AtDesk, run_id: RunId) -> dict[str, Any]:
    """Ask the process that trains this run to save a checkpoint and end; the run can be resumed."""
    with desk.store() as store:
        row = _row(request, store, run_id)
        if row.status != "running":
            raise UsageError(f"run {run_id} is {row.word}: there is nothing to stop")
        holder = store.holder()
        if holder is None or holder.pid <= 1:
            raise UsageError(f"run {run_id} has just ended")
        if holder.host != socket.gethostname():
            raise UsageError(
                f"run {run_id} runs on {holder.host}", next_step=f"there: kill -TERM {holder.pid}"
            )
        # SIGTERM asks like Ctrl-C, and arrives where a shell told its background jobs to ignore Ctrl-C.
        try:
            os.kill(holder.pid, signal.SIGTERM)
        except ProcessLookupError:
            raise UsageError(f"run {run_id} has just ended") from None
        except PermissionError:
            raise UsageError(f"run {run_id} is another user's: {holder}") from None
    return {"asked": holder.pid}


@router.post("/api/runs/{run_id}/resume")
def resume(request: Request, desk: AtDesk, run_id: RunId) -> dict[str, Any]:
    """Go on with an interrupted run, in a process that outlives this server."""
    with desk.store() as store:
        rows = _memory(request).rows.all(store)
        row = _row(request, store, run_id)
        if not row.resumable:
            raise UsageError(
                f"run {run_id} cannot be resumed: it is {row.word}"
                + (", and a later one of its kind was interrupted too" if row.word == "INTERRUPTED" else "")
            )
        if store.holder() is not None or _memory(request).trainers.starting():
            raise LockedError("a process is at work in this store already", found=str(store.holder() or ""))
        newest = next(one for one in rows if one.resumable)
        # Without a phase, the phases that were to follow the run are run too.
        phase = () if newest.run.id == run_id else ("--phase", row.run.kind)
    _memory(request).trainers.start("train", str(desk.path), "--resume", *phase)
    return {"resuming": run_id}


@router.post("/api/promote")
def promote(desk: AtDesk, asked: Promotion) -> dict[str, Any]:
    """`dlm promote`: make a version, or a run's checkpoint, the current one. A declared gate decides, as it does there."""
    if (asked.version is None) == (asked.run_id is None and asked.step is None):
        raise UsageError("name a version, or a run and a step")
    which = (asked.version,) if asked.version is not None else _checkpoint(asked)
    return run_command("promote", str(desk.path), *which, _WHY)


@router.post("/api/rollback")
def rollback(desk: AtDesk) -> dict[str, Any]:
    """`dlm rollback`: make the version current that was so before."""
    return run_command("rollback", str(desk.path), _WHY)


def _checkpoint(asked: Promotion) -> tuple[str, ...]:
    if asked.run_id is None or asked.step is None:
        raise UsageError("name a run and a step together")
    return ("--run-id", str(asked.run_id), "--step", str(asked.step))


def _memory(request: Request) -> Memory:
    memory: Memory = request.app.state.memory
    return memory


def _row(request: Request, store: Store, run_id: int) -> RunRow:
    store.runs.get(run_id)  # names the runs there are
    found = next((row for row in _memory(request).rows.all(store) if row.run.id == run_id), None)
    if found is None:
        raise UsageError(f"run {run_id} trained nothing")
    return found
