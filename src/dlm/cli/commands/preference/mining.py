"""`dlm preference mine`: sample, judge, pair, stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlm.cli.commands.preference.plan import pair_data
from dlm.cli.commands.preference.progress import MiningProgress
from dlm.cli.consent import require_consent
from dlm.cli.extras import require_training
from dlm.cli.mining_summary import mining_counts
from dlm.cli.options import FiniteNumber, device_option, document_argument, version_option
from dlm.cli.output import Output, duration, json_option, plural, typed, waiting
from dlm.cli.project import find_project

if TYPE_CHECKING:
    from dlm.review import ApplyReport
    from dlm.workflow.mining import MineOptions, MinePreview, MineReport

__all__ = ["mine"]

SHOWN_PAIRS, SHOWN_QUESTIONS = 12, 5
_WHAT_HELPS = {  # where the most questions were skipped for this reason
    "below_threshold": "lower --threshold, or raise --samples or --temp",
    "too_similar": "raise --samples or --temp",
    "insufficient_variety": "the version says one thing only. Raise --temp or --samples, ask others with --questions "
    "FILE, or train for fewer passes",
    "truncated": "raise --max-new-tokens",
    "already_present": "--seed N samples anew",
    "judge_failed": "the judge gave too few scores. Mend it, then --seed N samples anew",
    "malformed": "the version gives no text that a document can hold. Train more first",
    "duplicate": "raise --temp or --samples",
}


@click.command("mine")
@document_argument
@click.option(
    "--samples",
    type=click.IntRange(2),
    metavar="N",
    default=4,
    show_default=True,
    help="Answers to each question.",
)
@click.option(
    "--max-pairs",
    type=click.IntRange(1),
    metavar="N",
    help="At most this many pairs, the clearest ones.  [default: all]",
)
@click.option(
    "--temp",
    type=FiniteNumber("a finite number above 0", lambda value: value > 0),
    metavar="T",
    default=1.0,
    show_default=True,
    help="Sampling temperature; higher makes answers more different.",
)
@click.option(
    "--top-p",
    type=FiniteNumber("a number above 0, at most 1", lambda value: 0 < value <= 1),
    metavar="P",
    default=1.0,
    show_default=True,
    help="Sample among the likeliest tokens that hold this share of the probability.",
)
@click.option(
    "--judge",
    metavar="SPEC",
    help="sway, hf:<model>, cli:<command>, cli-stream:<command> or grader:<grader>.  [default: the document's, else sway]",
)
@click.option(
    "--threshold",
    type=FiniteNumber("a finite number, 0 or more", lambda value: value >= 0),
    metavar="X",
    help="Least difference of two scores that makes a pair.  [default: the judge's own]",
)
@click.option("--apply", "apply_pairs", is_flag=True, help="Write the pairs into the document at once.")
@click.option(
    "--seed", type=click.IntRange(0), metavar="N", default=0, show_default=True, help="Seed of the sampling."
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1),
    metavar="N",
    default=256,
    show_default=True,
    help="Longest answer in tokens; one that is cut off is never the better one of a pair.",
)
@click.option(
    "--questions",
    "questions_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='Ask these instead of the document\'s: one on each line, or JSON lines with a "prompt".',
)
@click.option(
    "--pairs-per-question", type=click.IntRange(1), metavar="N", default=1, show_default=True,
    help="At most this many pairs of one question.",
)  # fmt: skip
@click.option(
    "--allow-truncated", is_flag=True, help="Let an answer that was cut off be the better one of a pair."
)
@click.option(
    "--judge-timeout",
    type=FiniteNumber("a number of seconds above 0", lambda value: value > 0),
    metavar="S",
    default=30.0,
    show_default=True,
    help="Seconds that a judge's command may take for one answer.",
)
@click.option(
    "--trust", is_flag=True, help="Run the command that the document names as its judge, this time."
)
@click.option("--dry-run", is_flag=True, help="Say what would be sampled and judged, and do nothing.")
@version_option(
    "Version to sample, such as v0001, or base for the untrained base.  [default: the current one]"
)
@device_option
@json_option
def mine(
    output: Output,
    document: Path,
    samples: int,
    max_pairs: int | None,
    temp: float,
    top_p: float,
    judge: str | None,
    threshold: float | None,
    apply_pairs: bool,
    seed: int,
    max_new_tokens: int,
    questions_file: Path | None,
    pairs_per_question: int,
    allow_truncated: bool,
    judge_timeout: float,
    trust: bool,
    dry_run: bool,
    version: str | None,
    device: str,
) -> None:
    """Sample answers to the document's questions, judge them, and stage pairs of a better and a worse one.

    Nothing in the document changes without --apply. Ctrl-C keeps what is done (exit code 130): the same command goes on.
    """
    require_training("dlm preference mine")
    find_project(document)
    with waiting("loading the libraries …"):
        from dlm.mining import MineSettings
        from dlm.store import Home
        from dlm.workflow import mining

    view = MiningProgress(output)

    def allow(argv: Sequence[str]) -> None:
        with view.paused():
            require_consent(argv, document=document, home=Home.open(), trust=trust)

    options = mining.MineOptions(
        settings=MineSettings(
            samples=samples,
            temperature=temp,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            seed=seed,
            threshold=threshold,
            max_pairs=max_pairs,
            pairs_per_question=pairs_per_question,
            allow_truncated=allow_truncated,
        ),
        judge=judge,
        judge_timeout_s=judge_timeout,
        questions_file=questions_file,
        version=version,
        apply=apply_pairs,
        device=device,
        allow=allow,
    )
    if dry_run:
        _print_preview(output, document, options, mining.dry_run(document, options))
        return
    with view:
        report = mining.mine_pairs(document, options, view)
    _print_report(output, document, report)
    output.finish(_report_data(document, report))


# --- what would be done ------------------------------------------------------------------------------------------


def _print_preview(output: Output, document: Path, options: MineOptions, preview: MinePreview) -> None:
    total = len(preview.questions) * preview.samples
    output.heading(f"{plural(total, 'answer')} of {preview.version.value} would be sampled and judged")
    settings = options.settings
    items = {
        "questions": f"{len(preview.questions)}, {preview.samples} answers each",
        "sampling": f"temperature {settings.temperature:g}, top-p {settings.top_p:g}, seed {settings.seed}, "
        f"at most {settings.max_new_tokens} tokens",
        "judge": preview.judge,
        "threshold": "the judge's own" if settings.threshold is None else f"{settings.threshold:g}",
    }
    if preview.complete:
        items["done"] = f"run {preview.run_id} mined exactly this: nothing would be done again"
    elif preview.run_id is not None:
        items["done"] = (
            f"run {preview.run_id} would go on: {preview.sampled} sampled, {preview.judged} judged already"
        )
    output.pairs(items)
    for question in preview.questions[:SHOWN_QUESTIONS]:
        output.line(f"  {_short(question.prompt, 90)}")
    if len(preview.questions) > SHOWN_QUESTIONS:
        output.line(f"  and {len(preview.questions) - SHOWN_QUESTIONS} more")
    output.finish(
        {
            "document": str(document),
            "dry_run": True,
            "version": preview.version.value,
            "judge": preview.judge,
            "run_id": preview.run_id,
            "plan": {
                "questions": [
                    {"prompt": question.prompt, "place": question.place} for question in preview.questions
                ],
                "samples": preview.samples,
                "to_sample": 0 if preview.complete else total - preview.sampled,
                "to_judge": 0 if preview.complete else total - preview.judged,
                "complete": preview.complete,
            },
            "mined": None,
        }
    )


# --- what was done -----------------------------------------------------------------------------------------------


def _print_report(output: Output, document: Path, report: MineReport) -> None:
    result, tally = report.result, report.result.tally
    done = "had mined" if report.repeated else "mined"
    output.heading(
        f"run {result.run_id} {done} {plural(len(result.pairs), 'pair')} from {report.version.value} with {result.judge}"
    )
    items = {
        "sampled": f"{plural(tally.candidates, 'answer')} to {plural(tally.questions, 'question')}, "
        f"{plural(tally.tokens, 'token')} in {duration(result.sampling_seconds)}",
        "judged": f"{plural(tally.judged, 'answer')} in {duration(tally.judge_seconds)}"
        + (f"; {tally.judge_failed} got no score" if tally.judge_failed else ""),
        "threshold": f"{result.threshold:g} ({result.scale})",
    }
    left_out = mining_counts(tally.skipped_candidates)
    if left_out:
        items["answers left out"] = left_out
    skipped = mining_counts(result.skipped_prompts)
    if skipped:
        items["questions skipped"] = skipped
    if result.over_limit:
        items["over --max-pairs"] = plural(result.over_limit, "pair")
    if result.length.longer_wins is not None:
        items["longer one wins"] = f"{result.length.longer_wins:.0%} of the pairs"
    output.pairs(items)
    if result.pairs:
        output.line()
        rows = [
            (str(pair.id), pair.status, f"{pair.margin:.3g}", _short(pair.prompt, 60))
            for pair in result.pairs[:SHOWN_PAIRS]
        ]
        output.table(("pair", "status", "margin", "question"), rows, right=("pair", "margin"))
        if len(result.pairs) > SHOWN_PAIRS:
            output.line(f"and {len(result.pairs) - SHOWN_PAIRS} more")
    for skip in result.skips[:SHOWN_QUESTIONS] if not result.pairs else ():
        output.line(f"  {_short(skip['prompt'], 50)}: {skip['detail']}")
    output.line()
    _print_next(output, document, report)


def _print_next(output: Output, document: Path, report: MineReport) -> None:
    words = ("dlm", "preference")
    if report.applied is not None:
        written, already = len(report.applied.written), len(report.applied.already)
        output.line(
            f"wrote {plural(written, 'section')} into {document}"
            + (f"; {already} stood there already" if already else "")
        )
        output.line(f"next: {typed('dlm', 'train', str(document), '--phase', 'preference')}")
    elif any(pair.status in ("staged", "accepted") for pair in report.result.pairs):
        output.line(f"next: {typed(*words, 'list', str(document))}")
        output.line(f"      {typed(*words, 'apply', str(document))}")
    elif not report.result.pairs:
        skipped = report.result.skipped_prompts
        output.line(f"nothing to stage: {_WHAT_HELPS[max(_WHAT_HELPS, key=lambda reason: skipped[reason])]}")


def _report_data(document: Path, report: MineReport) -> dict[str, Any]:
    result, tally = report.result, report.result.tally
    return {
        "document": str(document),
        "dry_run": False,
        "version": report.version.value,
        "judge": result.judge,
        "run_id": result.run_id,
        "plan": None,
        "mined": {
            "repeated": report.repeated,
            "threshold": result.threshold,
            "scale": result.scale,
            "prompts": tally.questions,
            "candidates": tally.candidates,
            "tokens": tally.tokens,
            "sampling_seconds": result.sampling_seconds,
            "judged": tally.judged,
            "judge_failed": tally.judge_failed,
            "judge_calls": tally.judge_calls,
            "judge_seconds": tally.judge_seconds,
            "skipped_candidates": dict(tally.skipped_candidates),
            "skipped_prompts": dict(result.skipped_prompts),
            "skipped": [dict(skip) for skip in result.skips],
            "over_limit": result.over_limit,
            "length": asdict(result.length),
            "pairs": [pair_data(pair, None) for pair in result.pairs],
            "applied": _applied_data(report.applied),
        },
    }


def _applied_data(applied: ApplyReport | None) -> dict[str, Any] | None:
    if applied is None:
        return None
    return {
        "written": [
            {"id": written.pair_id, "section_id": written.section_id, "line": written.line}
            for written in applied.written
        ],
        "already": list(applied.already),
        "left_out": [{"id": item.pair_id, "reason": item.reason} for item in applied.left_out],
    }


def _short(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
