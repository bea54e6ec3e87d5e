"""`dlm eval`: prove versions on the document's suites."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlm.cli.consent import require_consent
from dlm.cli.evaluation_view import EvaluationProgress
from dlm.cli.extras import require_training
from dlm.cli.instrument_report import print_advice
from dlm.cli.options import FiniteNumber, device_option, document_argument
from dlm.cli.output import Output, json_option, plural, typed, waiting
from dlm.cli.project import find_project, open_store
from dlm.errors import UsageError

if TYPE_CHECKING:
    from dlm.evaluation import Ceiling, Summary, TeacherForced
    from dlm.stats import Estimate
    from dlm.workflow.evaluating import EvalReport

__all__ = ["eval"]


@click.command("eval")
@document_argument
@click.option(
    "--suite",
    "suites",
    multiple=True,
    metavar="NAME",
    help="A suite of the document's; repeatable.  [default: all]",
)
@click.option(
    "--version", "versions", multiple=True, metavar="NAME",
    help="Version to evaluate, such as v0001, or base for the untrained base; repeatable.  [default: the current one]",
)  # fmt: skip
@click.option(
    "--candidates", is_flag=True,
    help="Also the two or three checkpoints that the newest run's curves propose, side by side; each becomes a version.",
)  # fmt: skip
@click.option("--run-id", type=click.IntRange(1), metavar="N", help="With --candidates: of this run.")
@click.option(
    "--repeats", type=click.IntRange(1), metavar="N", default=1, show_default=True,
    help="Answers to each case; several are sampled at temperature 1 unless --temp says otherwise.",
)  # fmt: skip
@click.option(
    "--temp", type=FiniteNumber("a finite number, 0 or more", lambda value: value >= 0), metavar="T",
    help="Sampling temperature; 0 takes the likeliest token.  [default: 0 for one answer, 1 for several]",
)  # fmt: skip
@click.option(
    "--top-p", type=FiniteNumber("a number above 0, at most 1", lambda value: 0 < value <= 1), metavar="P", default=1.0,
    show_default=True, help="Sample among the likeliest tokens that hold this share of the probability.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0), metavar="N", default=0, show_default=True, help="Seed of the sampling."
)
@click.option(
    "--max-new-tokens", type=click.IntRange(1), metavar="N",
    help="Longest answer in tokens.  [default: the suite's, else what the longest reference needs and a quarter more]",
)  # fmt: skip
@click.option(
    "--allowed-errors", type=FiniteNumber("a number from 0 to 1", lambda value: 0 <= value <= 1), metavar="SHARE",
    default=0.1, show_default=True, help="Stop when the grader itself fails on more than this share of the answers, or more prompts are too long to ask.",
)  # fmt: skip
@click.option(
    "--gold",
    is_flag=True,
    help="Only grade the references under the token budget: what can be reached at all.",
)
@click.option(
    "--answers", "answers_file", type=click.Path(path_type=Path), metavar="FILE",
    help="Write every answer with its grade as JSON lines.",
)  # fmt: skip
@click.option(
    "--why", is_flag=True,
    help="Say of each failing dimension where it is decided, from which evidence, and what to try next.",
)  # fmt: skip
@click.option("--again", is_flag=True, help="Ask anew although the same was evaluated before.")
@click.option("--trust", is_flag=True, help="Run the Python grader that the document names, this time.")
@device_option
@json_option
def eval(
    output: Output,
    document: Path,
    suites: tuple[str, ...],
    versions: tuple[str, ...],
    candidates: bool,
    run_id: int | None,
    repeats: int,
    temp: float | None,
    top_p: float,
    seed: int,
    max_new_tokens: int | None,
    allowed_errors: float,
    gold: bool,
    answers_file: Path | None,
    why: bool,
    again: bool,
    trust: bool,
    device: str,
) -> None:
    """Let versions answer a document's suites, grade every answer, and report means with 95 % intervals over cases.

    Suites stand under evals in the header; the document's probes are one more, named probes. Ctrl-C keeps what is done
    (exit code 130): the same command goes on.
    """
    if run_id is not None and not candidates:
        raise UsageError(
            "--run-id says whose checkpoints --candidates evaluates", next_step="add --candidates"
        )
    if gold:
        given = {
            "--version": versions,
            "--candidates": candidates,
            "--repeats": repeats > 1,
            "--temp": temp is not None,
            "--top-p": top_p != 1,
            "--seed": seed != 0,
            "--answers": answers_file is not None,
            "--why": why,
            "--again": again,
        }
        if unused := [name for name, value in given.items() if value]:
            raise UsageError(
                f"--gold grades the references and asks no version: {unused[0]} means nothing there"
            )
    if answers_file is not None:
        _require_writable(document, answers_file)
    require_training("dlm eval")
    find_project(document)
    with waiting("loading the libraries …"):
        from dlm.store import Home
        from dlm.workflow import evaluating

    options = evaluating.EvalOptions(
        suites=suites,
        versions=versions,
        candidates=candidates,
        run_id=run_id,
        repeats=repeats,
        temperature=temp,
        top_p=top_p,
        seed=seed,
        max_new_tokens=max_new_tokens,
        allowed_errors=allowed_errors,
        again=again,
        device=device,
        allow=lambda argv: require_consent(argv, document=document, home=Home.open(), trust=trust),
    )
    with EvaluationProgress(output) as view:
        if gold:
            found = evaluating.ceilings(document, options, view)
            reports: list[EvalReport] = []
        else:
            reports = evaluating.evaluate(document, options, view)
    data: dict[str, Any] = {"ceilings": {}, "unreachable": [], "advice": []}
    if gold:
        _print_ceilings(output, found)
        data["ceilings"] = {
            name: None if one is None else evaluating.ceiling_data(one) for name, one in found.items()
        }
        figures = {name: evaluating.flat(one) for name, one in found.items() if one is not None}
        data["unreachable"] = _out_of_reach(output, document, figures)
    else:
        for report in reports:
            _print_report(output, report)
        if len({report.version for report in reports}) > 1:
            _print_side_by_side(output, reports)
        if answers_file is not None:
            _write_answers(output, document, answers_file, reports)
        if why:
            asked = tuple(dict.fromkeys(report.version for report in reports))
            data["advice"] = print_advice(output, document, asked, tuple(report.suite for report in reports))
    output.finish(
        {"document": str(document), **data, "evaluations": [_report_data(report) for report in reports]}
    )


def _print_report(output: Output, report: EvalReport) -> None:
    summary = report.summary
    had = "had been evaluated: " if report.repeated else ""
    output.heading(f"{report.suite}: {report.version}, run {report.run_id}")
    heat = float(report.settings["temperature"])
    sampling = "greedy" if heat == 0 else f"temperature {heat:g}, {plural(summary.repeats, 'answer')} a case"
    output.pairs(
        {
            "cases": f"{had}{summary.cases}, {sampling}, at most {report.settings['max_new_tokens']} tokens",
            "grader": report.grader,
            **({} if report.references is None else {"references": _of_references(report.references)}),
        }
    )
    ceiling = report.ceiling["means"] if report.ceiling else {}
    rows = [
        (name, _figure(name, estimate.value), _interval(name, estimate), _figure(name, ceiling.get(name)))
        for name, estimate in summary.means.items()
    ]
    output.table(("metric", "mean", "95 % interval", "gold"), rows, right=("mean", "95 % interval", "gold"))
    _print_counts(output, summary)
    output.line()


def _of_references(found: TeacherForced) -> str:
    """What a version makes of the references when they are given to it, in one line."""
    return (
        f"given to it, {found.token_accuracy:.2%} of their {found.tokens:,} tokens are its own choice, "
        f"{found.loss:.4f} nats a token; {round(found.whole * found.cases)} of {found.cases} wholly"
        + (f"; {found.left_out} could not be read" if found.left_out else "")
    )


def _write_answers(output: Output, document: Path, file: Path, reports: Sequence[EvalReport]) -> None:
    lines = []
    with open_store(output, document) as store:
        for report in reports:
            about = {"suite": report.suite, "version": report.version, "run_id": report.run_id}
            for result in store.evaluations.results(report.run_id):
                lines.append(json.dumps({**about, **asdict(result)}, ensure_ascii=False))
    try:
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise _not_writable(file, error.strerror or str(error)) from None
    output.line(f"{plural(len(lines), 'answer')} written to {file}")


def _require_writable(document: Path, file: Path) -> None:
    """Say before minutes of answering, and not after them, that the answers cannot be written."""
    if file.resolve() == document.resolve():
        raise UsageError(f"--answers {file} would overwrite the document", next_step="name another file")
    if file.is_dir():
        raise _not_writable(file, "it is a folder")
    if not file.parent.is_dir():
        raise _not_writable(file, f"there is no folder {file.parent}")


def _not_writable(file: Path, why: str) -> UsageError:
    return UsageError(
        f"the answers cannot be written: {why}", where=str(file), next_step="--answers another/file.jsonl"
    )


def _print_counts(output: Output, summary: Summary) -> None:
    seen = {name: count for name, count in summary.counts.items() if count}
    if seen:
        counted = ", ".join(f"{name} {count:g}" for name, count in seen.items())
        output.line(f"  of {summary.cases} answers: {counted}")


def _print_side_by_side(output: Output, reports: Sequence[EvalReport]) -> None:
    versions = tuple(dict.fromkeys(report.version for report in reports))
    for suite in dict.fromkeys(report.suite for report in reports):
        found = {report.version: report.summary for report in reports if report.suite == suite}
        names = next(iter(found.values())).means
        rows = [
            (
                name,
                *(
                    _figure(name, found[version].means[name].value if name in found[version].means else None)
                    for version in versions
                ),
            )
            for name in names
        ]
        forced = {report.version: report.references for report in reports if report.suite == suite}
        if all(one is not None for one in forced.values()):
            for name, field in (("references: tokens", "token_accuracy"), ("references: loss", "loss")):
                rows.append((name, *(_figure(name, getattr(forced[version], field)) for version in versions)))
        output.heading(f"{suite}, side by side")
        output.table(("metric", *versions), rows, right=versions)
        output.line()


def _print_ceilings(output: Output, found: Mapping[str, Ceiling | None]) -> None:
    for name, ceiling in found.items():
        if ceiling is None:
            output.line(f"{name}: no case that can be asked has a reference, so there is no ceiling")
            continue
        output.heading(f"{name}: what the references score within {ceiling.budget} tokens")
        output.pairs(
            {
                "references that fit": f"{ceiling.reachable} of {ceiling.cases}; the longest needs {ceiling.longest}",
                **({"cut": ceiling.cut} if ceiling.beyond_context else {}),
            }
        )
        rows = [
            (metric, _figure(metric, estimate.value)) for metric, estimate in ceiling.summary.means.items()
        ]
        output.table(("metric", "gold"), rows, right=("gold",))
        output.line()


def _out_of_reach(
    output: Output, document: Path, figures: Mapping[str, Mapping[str, float]]
) -> list[dict[str, str]]:
    """Which of the gate's conditions no model can meet, as far as the references and the baseline's answers tell."""
    if not find_project(document).declares_gate:
        return []
    from dlm.workflow.gate_round import foresee

    known = foresee(document, figures)
    found = [{"condition": condition.text, "reason": why} for condition, why in known.unreachable]
    for one in found:
        output.line(f"UNREACHABLE  {one['condition']}: {one['reason']}")
    if not found:
        output.line("no condition of the gate is out of reach, as far as is known")
    for condition, why in known.missing:
        output.warn(f"the gate cannot ask {condition.text!r}: {why}")
    for suite in known.unevaluated:
        ask = typed("dlm", "eval", str(document), "--suite", suite, "--version", known.baseline)
        output.line(f"what is asked against {known.baseline} in {suite} is known after {ask}")
    return found


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if name == "tokens" else f"{value:.4f}"


def _interval(name: str, estimate: Estimate) -> str:
    """None for one case: what another one would score, it does not say."""
    if estimate.n < 2:
        return "–"
    return f"{_figure(name, estimate.low)}–{_figure(name, estimate.high)}"


def _report_data(report: EvalReport) -> dict[str, Any]:
    summary = report.summary
    return {
        "suite": report.suite,
        "version": report.version,
        "run_id": report.run_id,
        "repeated": report.repeated,
        "grader": report.grader,
        "settings": dict(report.settings),
        "cases": summary.cases,
        "answers": summary.answers,
        "means": {
            name: {"value": one.value, "low": one.low, "high": one.high, "n": one.n}
            for name, one in summary.means.items()
        },
        "counts": dict(summary.counts),
        "gold": None if report.ceiling is None else dict(report.ceiling),
        "references": None if report.references is None else asdict(report.references),
    }
