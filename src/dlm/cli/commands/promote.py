"""`dlm promote`: make a version, or a checkpoint of a run, the current one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlm.cli.options import document_argument
from dlm.cli.output import Output, json_option, typed
from dlm.cli.project import find_project, open_store
from dlm.errors import GateError, UsageError

if TYPE_CHECKING:
    from dlm.store import Store
    from dlm.workflow.project import Project

__all__ = ["promote"]


@click.command()
@document_argument
@click.argument("version", metavar="[VERSION]", required=False)
@click.option("--run-id", type=click.IntRange(1), metavar="N", help="Promote a checkpoint of this run.")
@click.option(
    "--step",
    type=click.IntRange(1),
    metavar="K",
    help="Which checkpoint of the run, by its step; a version is made of it.",
)
@click.option(
    "--reason",
    metavar="TEXT",
    help="Why; kept with the version's history.",
)
@click.option("--force", is_flag=True, help="Promote although the document's gate has not passed.")
@json_option
def promote(
    output: Output,
    document: Path,
    version: str | None,
    run_id: int | None,
    step: int | None,
    reason: str | None,
    force: bool,
) -> None:
    """Make a version the current one: what `dlm prompt` asks and `dlm export` writes.

    --run-id N --step K names a checkpoint of a run instead (`dlm checkpoints` lists them): a version is made of it, with
    the run's parent, recipe and data, unless there is one already.

    Where the document declares a gate, the version must have passed it (`dlm gate`), or --force and a --reason are needed.
    The version of a checkpoint is made all the same, and kept.
    """
    of_checkpoint = _checkpoint_asked(document, version, run_id, step)
    project = find_project(document)
    reason = (reason or "").strip() or None
    gated = project.declares_gate and not (force and reason)
    with open_store(output, document) as store:
        before = store.versions.current_name()
        name, made = _version_of(store, *of_checkpoint) if of_checkpoint else (str(version), False)
        if made:
            output.line(f"{name} is made of step {step} of run {run_id}")
        store.versions.get(name)  # one that is not there is no matter of the gate
        if gated:
            reason = f"{reason or 'by hand'}: {_passed(store, project, name)}"
        reason = reason or "by hand"
        after = store.versions.promote(name, reason)
    if before == after.name:
        output.line(f"{after.name} is current already")
    else:
        output.line(f"{after.name} is current" + (f"; before it was {before}" if before else ""))
    output.finish(
        {
            "document": str(document),
            "current": after.name,
            "previous": before,
            "reason": reason,
            "run_id": after.run_id,
            "step": after.step,
            "made": made,
        }
    )


def _checkpoint_asked(
    document: Path, version: str | None, run_id: int | None, step: int | None
) -> tuple[int, int] | None:
    """The run and the step that were named; None where a version was.

    Raises:
        UsageError: neither a version nor both of them, or all at once.
    """
    if version is not None and run_id is None and step is None:
        return None
    if version is None and run_id is not None and step is not None:
        return run_id, step
    if version is not None:
        found = "a version, and a checkpoint of a run"
    elif run_id is not None:
        found = "a run without the step of its checkpoint"
    elif step is not None:
        found = "a step without its run"
    else:
        found = "neither"
    which = ("--run-id", str(run_id)) if run_id is not None else ()
    raise UsageError(
        "dlm promote takes a version, or --run-id and --step together",
        found=found,
        next_step=f"{typed('dlm', 'checkpoints', str(document), *which)} lists the checkpoints",
    )


def _passed(store: Store, project: Project, version: str) -> str:
    """What the gate said in favour of a version.

    Raises:
        GateError: it has not passed, or the document has problems and its gate cannot be read.
    """
    from dlm.workflow.gating import require_pass

    if project.document is None:
        raise GateError(
            f"the document has problems, so the gate that {version} has to pass cannot be read",
            next_step=typed("dlm", "check", str(project.path)),
        )
    return f"the gate passed against {require_pass(store, project.document, project.path, version).baseline}"


def _version_of(store: Store, run_id: int, step: int) -> tuple[str, bool]:
    """The name of the version of a checkpoint, and whether it was made just now."""
    before = {version.name for version in store.versions.list()}
    name = store.publish_checkpoint(run_id, step).name
    return name, name not in before
