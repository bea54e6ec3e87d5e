"""`dlm demo`: the whole loop once, on an example document."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlm.cli.extras import require_training
from dlm.cli.output import Output, duration, json_option, plural, typed
from dlm.cli.progress import TrainProgress
from dlm.cli.training_report import report_data

if TYPE_CHECKING:
    from dlm.workflow.demo import DemoReport, LoopReport

__all__ = ["demo"]

SHOWN = 3  # answers of the story; all of them are in --json
MOST_SHOWN = 160  # characters of an answer


@click.command()
@click.option(
    "--dir",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default="demo",
    show_default=True,
    help="Where the example project goes; a document that is there already is kept.",
)
@json_option
def demo(output: Output, folder: Path) -> None:
    """See the whole loop once, on example documents: write, ask, train, ask again; mine pairs, and train on them."""
    require_training("dlm demo")
    with TrainProgress(output) as view:
        from dlm.workflow.demo import demo as run_demo

        report = run_demo(folder, view)
    _tell(output, report)
    output.finish(
        {
            "document": str(report.document),
            "created": report.created,
            "before": [asdict(answer) for answer in report.before],
            "after": [asdict(answer) for answer in report.after],
            "training": report_data(report.document, [report.training]),
            "loop": _loop_data(report.loop),
            "elapsed_s": report.elapsed_s,
        }
    )


def _tell(output: Output, report: DemoReport) -> None:
    path, run = report.document, report.training
    before = sum(answer.exact for answer in report.before)
    after = sum(answer.exact for answer in report.after)
    total = len(report.after)
    output.heading("What happened")
    output.line(
        f"1. {path} {'was written' if report.created else 'was there already'}: {plural(total, 'question')} with answers."
    )
    output.line(f"2. The base alone answered {before} of {total} exactly.")
    output.line(
        f"3. Training took {plural(run.steps, 'step')} in {duration(run.elapsed_s)} and made {run.version}."
    )
    output.line(f"4. {run.version} answered {after} of {total} exactly.")
    pairs = list(zip(report.before, report.after, strict=True))
    changed = [pair for pair in pairs if not pair[0].exact and pair[1].exact] or pairs
    for earlier, later in changed[:SHOWN]:
        output.line()
        answers = {"base": _shown(earlier.answer), run.version: _shown(later.answer)}
        output.pairs({"question": later.prompt, **answers})
    output.line()
    _tell_loop(output, report.loop)
    output.line()
    output.heading("The same by hand")
    again = str(path.with_name("again.dlm"))
    commands = [
        ("init", again, "--template", "release-notes"),
        ("train", again),
        *(("prompt", again, answer.prompt) for answer in report.after[:1]),
        (
            "prompt",
            str(path),
            *(answer.prompt for answer in report.after[:1]),
            "--compare",
            "base",
            run.version,
        ),
        ("show", str(path)),
        ("preference", "mine", again, "--samples", "4", "--temp", "1.5", "--apply"),
        ("train", again, "--phase", "preference"),
    ]
    if shutil.which("dlm") is None:  # as after `make demo`, where only the Makefile knows the environment
        activate = Path(sys.prefix) / "bin" / "activate"
        output.line(f"  {typed('source', os.path.relpath(activate))}")
    for words in commands:
        output.line(f"  {typed('dlm', *words)}")
    output.line()
    output.line(f"All of it took {duration(report.elapsed_s)}.")


def _tell_loop(output: Output, loop: LoopReport) -> None:
    """The second part: one round of the loop."""
    result, made = loop.mined.result, [pair for pair in loop.mined.result.pairs if pair.status == "applied"]
    output.heading("One round of the loop")
    output.line(
        f"1. {loop.document} was trained for fewer passes, so that its answers still differ: {loop.trained[-1].version}."
    )
    output.line(
        f"2. {loop.mined.version.value} gave {plural(result.tally.candidates, 'answer')} to "
        f"{plural(result.tally.questions, 'question')}; {result.judge} scored them; "
        f"{plural(len(made), 'pair')} stand in the document now."
    )
    output.line(f"3. Training on the pairs made {loop.preference.version}.")
    output.line(f"4. {loop.preference.version} says: {_shown(loop.answer.answer)}")
    for pair in made[:1]:
        output.line()
        output.pairs(
            {
                "question": pair.prompt,
                f"preferred ({pair.chosen_score:.2f})": _shown(pair.chosen),
                f"rejected ({pair.rejected_score:.2f})": _shown(pair.rejected),
            }
        )


def _loop_data(loop: LoopReport) -> dict[str, Any]:
    result = loop.mined.result
    return {
        "document": str(loop.document),
        "training": report_data(loop.document, loop.trained),
        "mined": {
            "run_id": result.run_id,
            "version": loop.mined.version.value,
            "judge": result.judge,
            "questions": result.tally.questions,
            "candidates": result.tally.candidates,
            "pairs": [
                {
                    "prompt": pair.prompt,
                    "chosen": pair.chosen,
                    "rejected": pair.rejected,
                    "chosen_score": pair.chosen_score,
                    "rejected_score": pair.rejected_score,
                    "status": pair.status,
                }
                for pair in result.pairs
            ],
        },
        "preference": report_data(loop.document, [loop.preference]),
        "answer": asdict(loop.answer),
    }


def _shown(answer: str) -> str:
    """An answer as far as the story needs it: an untrained base may go on and on."""
    more = len(answer) - MOST_SHOWN
    return answer if more <= 0 else f"{answer[:MOST_SHOWN]} … ({more:,} more characters)"
