"""`dlm train`: a document in, new versions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
from click.exceptions import Exit

from dlm.cli.consent import require_consent
from dlm.cli.extras import require_training
from dlm.cli.gate_report import NOT_PASSED, gate_data, judge_version, look_ahead
from dlm.cli.options import FiniteNumber, device_option, document_argument
from dlm.cli.output import Output, json_option
from dlm.cli.preview import preview_data, print_preview
from dlm.cli.progress import NoProgress, TrainProgress, is_follower
from dlm.cli.project import find_project
from dlm.cli.training_report import print_report, report_data
from dlm.errors import UsageError

__all__ = ["train"]

METHODS = ("dpo", "orpo", "simpo")
LOSS_TYPES = ("sigmoid", "hinge", "ipo", "ipo_sum", "robust")
FILE = click.Path(path_type=Path)


@click.command()
@document_argument
@click.option(
    "--phase",
    type=click.Choice(["all", "sft", "preference", "reward", "rft"]),
    default="all",
    show_default=True,
    help="Which phase to run; all = supervised fine-tuning, then preference when there are pairs; rft = reinforcement "
    "fine-tuning with a grader.",
)
@click.option("--method", type=click.Choice(METHODS), help="How pairs are learnt.  [default: dpo]")
@click.option("--loss-type", type=click.Choice(LOSS_TYPES), help="DPO's loss.  [default: sigmoid]")
@click.option(
    "--start",
    metavar="VERSION",
    help="Version that the first phase moves on from, or base for a fresh adapter.  [default: base for sft and reward, "
    "the current version for preference and rft]",
)
@click.option(
    "--max-steps",
    type=click.IntRange(1),
    metavar="N",
    help="Stop each phase after this many optimiser steps.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="N",
    help="Seed of row order, dropout and adapter initialisation.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any knob of the recipe, such as lora_r=16 or preference.beta=0.2. Repeatable.",
)
@click.option(
    "--rows",
    "rows_files",
    multiple=True,
    metavar="FILE",
    type=FILE,
    help="Extra rows as JSON lines: prompt+completion, question+answer, messages, or text. Repeatable.",
)
@click.option(
    "--pairs",
    "pairs_files",
    multiple=True,
    metavar="FILE",
    type=FILE,
    help="Extra pairs as JSON lines: prompt+chosen+rejected, conversations, or OpenAI's input+preferred_output+"
    "non_preferred_output. Repeatable.",
)
@click.option(
    "--scalars",
    "scalars_files",
    multiple=True,
    metavar="FILE",
    type=FILE,
    help="Scored answers for the reward phase as JSON lines: prompt, response, score. Repeatable.",
)
@click.option(
    "--suite",
    metavar="NAME",
    help="Suite under evals whose training cases and grader the rft phase takes.  [default: the only one]",
)
@click.option(
    "--prompts",
    "prompts_files",
    multiple=True,
    metavar="FILE",
    type=FILE,
    help="Prompts of the rft phase as JSON lines: prompt, at will reference and facts for the grader. Repeatable.",
)
@click.option(
    "--grader",
    metavar="SPEC",
    help="What rewards answers in the rft phase, instead of the suite's own: spreadsheet, string_check:eq, "
    "text_similarity, length:1-40, python:FILE, or several as '0.7*A + 0.3*B'.",
)
@click.option(
    "--min-margin",
    type=FiniteNumber("a finite number, 0 or more", lambda number: number >= 0),
    metavar="X",
    help="Keep only pairs whose two scores differ by at least this much; pairs without scores stay.",
)
@click.option("--no-mined", is_flag=True, help="Leave out pairs that were mined.")
@click.option(
    "--no-stored",
    is_flag=True,
    help="Leave out what the store holds beside the document: imported pairs, scored answers and votes.",
)
@click.option(
    "--keep-last", type=click.IntRange(1), metavar="N", help="Checkpoints to keep of a run.  [default: 3]"
)
@click.option(
    "--keep-best",
    is_flag=True,
    help="Also keep the checkpoint that scored best on held-out rows, and make the version of it.",
)
@click.option(
    "--stop-on",
    type=click.Choice(["never", "severe", "warn"]),
    help="Stop as soon as the curves show something severe (or worth a warning), and keep the best checkpoint.  "
    "[default: never]",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only show what each phase would do, and its first rows as the model would see them; nothing is written.",
)
@click.option(
    "--gate/--no-gate",
    "ask_gate",
    default=True,
    help="Where the document declares a gate, ask it about the version that was made, and make it current when it passes.  [default: --gate]",
)
@click.option("--trust", is_flag=True, help="Run the Python grader that the document names, this time.")
@click.option("--resume", is_flag=True, help="Go on with the interrupted run, and with the phases after it.")
@click.option("--fresh", is_flag=True, help="Discard the interrupted run and start a new one.")
@device_option
@json_option
def train(
    output: Output,
    document: Path,
    phase: Any,
    method: str | None,
    loss_type: str | None,
    start: str | None,
    max_steps: int | None,
    seed: int | None,
    assignments: Sequence[str],
    rows_files: Sequence[Path],
    pairs_files: Sequence[Path],
    scalars_files: Sequence[Path],
    suite: str | None,
    prompts_files: Sequence[Path],
    grader: str | None,
    min_margin: float | None,
    no_mined: bool,
    no_stored: bool,
    keep_last: int | None,
    keep_best: bool,
    stop_on: str | None,
    dry_run: bool,
    ask_gate: bool,
    trust: bool,
    resume: bool,
    fresh: bool,
    device: str,
) -> None:
    """Train new versions of the model on a document, one per phase.

    Ctrl-C stops at the next step and keeps a checkpoint (exit code 130); --resume goes on from there.
    """
    if dry_run and (resume or fresh):
        raise UsageError(
            "--dry-run shows a new run, not one that is there", next_step="leave out --resume and --fresh"
        )
    of_pairs = "reward" if phase == "reward" else "preference"
    flags = {
        "max_steps": max_steps,
        "seed": seed,
        "keep_last": keep_last,
        "keep_best": True if keep_best else None,
        "stop_on": stop_on,
        "preference.method": method,
        "preference.loss_type": loss_type,
        f"{of_pairs}.min_margin": min_margin,
        f"{of_pairs}.include_mined": False if no_mined else None,
    }
    knobs = _knobs(assignments, flags)
    require_training("dlm train")
    if is_follower() and dry_run:
        return
    project = find_project(document)
    dlm_id = project.dlm_id
    gated = ask_gate and project.declares_gate and phase != "reward" and not is_follower() and not dry_run
    if gated:
        look_ahead(output, document, device=device, trust=trust)
    with TrainProgress(output) if not is_follower() else nullcontext(NoProgress()) as view:
        from dlm.store import Home
        from dlm.workflow.train import TrainOptions
        from dlm.workflow.train import dry_run as look_only
        from dlm.workflow.train import train as run_training

        options = TrainOptions(
            phase=phase,
            knobs=knobs,
            rows_files=rows_files,
            pairs_files=pairs_files,
            scalars_files=scalars_files,
            prompts_files=prompts_files,
            suite=suite,
            grader=grader,
            start=start,
            allow=lambda argv: require_consent(argv, document=document, home=Home.open(), trust=trust),
            stored=not no_stored,
            resume=resume,
            fresh=fresh,
            device=device,
        )
        if dry_run:
            previews = look_only(document, options, view)
        else:
            report = run_training(document, options, view)
    if is_follower():
        return
    if dry_run:
        print_preview(output, previews)
        output.finish(preview_data(document, previews))
    else:
        print_report(output, document, dlm_id, report.runs)
        last = report.runs[-1]
        judged = None
        if gated and not last.promoted:
            judged = judge_version(output, document, last.version, device=device, trust=trust)
        output.finish(
            {**report_data(document, report.runs), "gate": None if judged is None else gate_data(judged)}
        )
        if judged is not None and judged.asked.result.verdict != "pass":
            raise Exit(NOT_PASSED)


def _knobs(assignments: Sequence[str], flags: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's fields named on the command line; flags that were not given are None.

    Raises:
        UsageError: an assignment that cannot be read, or a knob given two values.
    """
    from dlm.recipe import parse_assignment  # pydantic: not for --help

    knobs: dict[str, Any] = {}
    stated = [(name, value) for name, value in flags.items() if value is not None]
    for name, value in [*map(parse_assignment, assignments), *stated]:
        if name in knobs and str(knobs[name]).lower() != str(value).lower():
            raise UsageError(
                f"{name} is given two values: {knobs[name]} and {value}",
                next_step=f"name it once, as in --set {name}={value}",
            )
        knobs[name] = value
    return knobs
