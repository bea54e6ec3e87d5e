"""`dlm diagnose`: read the curves of runs or files, say what they show and which checkpoint to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlm.cli.options import DOCUMENT
from dlm.cli.output import Output, json_option, remember_document, typed
from dlm.cli.project import is_document, open_store, pick_training_run
from dlm.errors import DlmError, MissingRecordError, UsageError

if TYPE_CHECKING:
    from dlm.cli.diagnosis_report import Diagnosed
    from dlm.cli.recommending import StoredRun
    from dlm.curves import Candidate, CurveRun, Thresholds

__all__ = ["diagnose"]


@click.command()
@click.argument("sources", metavar="DOCUMENT|FILE…", nargs=-1, required=True, type=DOCUMENT)
@click.option(
    "--run-id",
    "run_ids",
    multiple=True,
    type=click.IntRange(1),
    metavar="N",
    help="Which run of the document; several are compared.  [default: the newest training]",
)
@click.option(
    "--threshold",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="A limit of the rules, such as ratio_severe=2.5 (docs/curves.md has them all). Repeatable.",
)
@click.option(
    "--epochs",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="How many epochs the run was planned for, where the source does not say (an OpenAI result file never does): "
    "then rules about the first epoch can speak.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write the report as one HTML file with charts.",
)
@click.option(
    "--evals",
    is_flag=True,
    help="Also say where what fails in the document's suites is decided (tokens, whole answers, generation, or nowhere), "
    "and which phase to try: from what `dlm eval` recorded of these versions.",
)
@json_option
def diagnose(
    output: Output,
    sources: Sequence[Path],
    run_ids: Sequence[int],
    assignments: Sequence[str],
    epochs: float | None,
    html: Path | None,
    evals: bool,
) -> None:
    """What the curves of a run say: a verdict, findings with their evidence and what to do, the checkpoint to keep.

    A source is a document, whose newest training is read, or a file of curves: OpenAI's and Azure's result files (CSV)
    and lists of checkpoints (JSON), `trainer_state.json` of transformers and TRL, JSON lines, or what `dlm metrics`
    prints. Several sources or runs are compared.
    """
    from dlm.cli.diagnosis_report import print_comparison, print_diagnosis

    thresholds = _thresholds(assignments)
    try:
        found = _diagnosed(output, sources, list(dict.fromkeys(run_ids)), thresholds, epochs)
    except MissingRecordError as error:
        if evals and not run_ids:  # the instrument can be named before anything is trained
            ask = typed("dlm", "eval", "DOCUMENT", "--version", "base", "--repeats", "8", "--why")
            error.next_step = f"{ask} says it of the base; or {error.next_step}"
        raise
    if html is not None:
        _write_html(html, sources, found)
    for one in found:
        if one.diagnosis.running:
            output.note(f"{one.label} is still running: rules about its end have not spoken")
    if len(found) == 1:
        print_diagnosis(output, found[0])
    else:
        print_comparison(output, found)
    if html is not None:
        output.line()
        output.line(f"report: {html}")
    advice = _advice(output, found) if evals else None
    output.finish(
        {
            "runs": [diagnosed_data(one) for one in found],
            "thresholds": thresholds.model_dump(),
            "html": None if html is None else str(html),
            "advice": advice,
        }
    )


def _advice(output: Output, found: Sequence[Diagnosed]) -> list[dict[str, Any]]:
    """Which instrument to try, by document, for the versions of the runs that were read.

    Raises:
        UsageError: no run that was read made a version that answers, or one was not evaluated.
    """
    from dlm.cli.instrument_report import print_advice

    versions: dict[Path, list[str]] = {}
    for one in found:
        if one.stored is not None and one.stored.version is not None and one.run.kind != "reward":
            versions.setdefault(one.source, []).append(one.stored.version)
    if not versions:
        stored = next((one.source for one in found if one.stored is not None), None)
        document, current = "DOCUMENT" if stored is None else str(stored), None
        if stored is not None:
            with open_store(output, stored) as store:
                current = store.versions.current_name()
        raise UsageError(
            "--evals is about versions that answer, and no run that was read made one",
            expected="a document whose newest run made such a version; any other, and the base, is asked with dlm eval",
            next_step=typed(
                "dlm", "eval", document, "--version", current or "base", "--repeats", "8", "--why"
            ),
        )
    output.line()
    return [
        item
        for document, names in versions.items()
        for item in print_advice(output, document, list(dict.fromkeys(names)))
    ]


def _diagnosed(
    output: Output,
    sources: Sequence[Path],
    run_ids: Sequence[int],
    thresholds: Thresholds,
    epochs: float | None,
) -> list[Diagnosed]:
    documents = [path for path in sources if is_document(path)]
    if run_ids and len(documents) != 1:
        raise UsageError(
            "--run-id names runs of one document",
            found=f"{len(documents)} documents",
            next_step="dlm diagnose DOCUMENT --run-id N",
        )
    if epochs is not None and len(documents) == len(sources):
        raise UsageError("--epochs is about files: a document's run knows its epochs")
    if documents:
        remember_document(click.get_current_context(), documents[0])
    found = []
    for path in sources:
        if path in documents:
            found += _of_document(output, path, run_ids, thresholds)
        else:
            from dlm.curves import read_curves, with_epochs

            run = read_curves(path)
            planned = with_epochs(run, epochs)
            if epochs is not None and planned is run:
                output.warn(
                    f"--epochs {epochs:g} is not used for {path}: it "
                    + ("tells its epochs itself" if run.last_step else "holds not one step")
                )
            found.append(_looked_at(path, _label(path, sources), planned, thresholds))
    return found


def _label(path: Path, sources: Sequence[Path]) -> str:
    """A file's name where no other source is called so, else its path."""
    return path.name if [other.name for other in sources].count(path.name) == 1 and path.name else str(path)


def _of_document(
    output: Output, path: Path, run_ids: Sequence[int], thresholds: Thresholds
) -> list[Diagnosed]:
    from dlm.cli.recommending import StoredRun, versions_of
    from dlm.workflow.run_curves import curve_run

    found = []
    wanted: Sequence[int | None] = run_ids or [None]
    with open_store(output, path) as store:
        for run_id in wanted:
            run = pick_training_run(store, path, run_id)
            stored = StoredRun(path, run.id, run.version, versions_of(store, run.id))
            running = run.status == "running"
            label = f"run {run.id} of {path.name}"
            found.append(_looked_at(path, label, curve_run(store, run), thresholds, stored, running=running))
    return found


def _looked_at(
    source: Path,
    label: str,
    run: CurveRun,
    thresholds: Thresholds,
    stored: StoredRun | None = None,
    *,
    running: bool = False,
) -> Diagnosed:
    from dlm.cli.diagnosis_report import Diagnosed
    from dlm.curves import diagnose as apply_rules
    from dlm.curves import select

    diagnosis = apply_rules(run, thresholds, running=running)
    return Diagnosed(source, label, run, diagnosis, select(run, thresholds), stored)


def _thresholds(assignments: Sequence[str]) -> Thresholds:
    """The limits of the rules, the named ones set.

    Raises:
        UsageError: an unknown name (the nearest one is named), no number, or a number out of range.
    """
    from pydantic import ValidationError

    from dlm.curves import Thresholds
    from dlm.recipe import nearest

    values: dict[str, Any] = {}
    known = list(Thresholds.model_fields)
    for assignment in assignments:
        name, sign, value = (part.strip() for part in assignment.partition("="))
        if not sign or not value:
            raise UsageError(
                f"--threshold takes NAME=VALUE, found {assignment!r}",
                next_step="for example: --threshold ratio_severe=2.5",
            )
        if name not in known:
            hint = nearest(name, known)
            raise UsageError(
                f"unknown threshold {name!r}",
                expected=f"one of {', '.join(known)}",
                next_step=f"--threshold {hint}={value}" if hint else "",
            )
        if name in values and values[name] != value:
            raise UsageError(f"the threshold {name} is given two values: {values[name]} and {value}")
        values[name] = value
    try:
        return Thresholds(**values)
    except ValidationError as error:
        faults = [
            (".".join(map(str, one["loc"])), str(one["msg"]).removeprefix("Value error, "))
            for one in error.errors()
        ]
        described = [
            f"{name}: {Thresholds.model_fields[name].description}"
            for name, _ in faults
            if name in Thresholds.model_fields
        ]
        raise UsageError(
            "; ".join(f"the threshold {name}: {message}" if name else message for name, message in faults),
            expected="; ".join(described),
        ) from None


def _write_html(html: Path, sources: Sequence[Path], found: Sequence[Diagnosed]) -> None:
    from dlm.cli.html_report import html_report

    if any(html.resolve() == source.resolve() for source in sources):
        raise UsageError(f"--html {html} would overwrite what is to be read", next_step="name another file")
    try:
        html.write_text(html_report(found), encoding="utf-8")
    except OSError as error:
        raise DlmError(
            f"the report cannot be written: {error.strerror}",
            where=str(html),
            next_step="--html another/file.html",
        ) from error


def diagnosed_data(one: Diagnosed) -> dict[str, Any]:
    """One run as `dlm/diagnose/1` holds it."""
    run, stored = one.run, one.stored
    diagnosis = asdict(one.diagnosis)
    return {
        "source": str(one.source),
        "run_id": None if stored is None else stored.run_id,
        "version": None if stored is None else stored.version,
        "name": run.name,
        "format": run.format,
        "kind": run.kind,
        "kind_reason": run.kind_reason,
        "method": run.method,
        "running": one.diagnosis.running,
        "last_step": run.last_step,
        "planned_steps": run.planned_steps,
        "logged_rows": run.logged_rows,
        "repeats": None if run.repeats is None else asdict(run.repeats),
        "saved_steps": list(run.saved_steps),
        "series": {name: {"unit": series.unit, "points": len(series)} for name, series in run.series.items()},
        "stated": dict(run.stated),
        "unknown_columns": list(run.unknown_columns),
        "problems": list(run.problems),
        **{name: diagnosis[name] for name in ("verdict", "findings", "undecided", "ratios", "finals")},
        "selection": {
            "reason": one.selection.reason,
            "candidates": [_candidate_data(candidate) for candidate in one.selection.candidates],
        },
    }


def _candidate_data(candidate: Candidate) -> Mapping[str, Any]:
    checkpoint = candidate.checkpoint
    return {
        "step": candidate.step,
        "saved_step": candidate.saved_step,
        "role": candidate.role,
        "reason": candidate.reason,
        "values": dict(candidate.values),
        "checkpoint": None if checkpoint is None else checkpoint.id,
        "model": None if checkpoint is None else checkpoint.model,
    }
