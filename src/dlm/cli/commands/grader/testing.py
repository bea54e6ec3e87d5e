"""`dlm grader test`: may this grader be believed?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlm.cli.commands.grader.inputs import Outputs, Settled, cases_options, read_outputs, settle
from dlm.cli.output import Output, json_option, plural
from dlm.errors import UsageError

if TYPE_CHECKING:
    from dlm.grading import BadOutput, Grade, Grader, Sanity, ThresholdRow

__all__ = ["test_grader"]


@click.command("test")
@cases_options
@click.option(
    "--outputs", type=click.Path(path_type=Path), metavar="FILE",
    help="Answers of the untrained base, for the threshold table: what dlm eval --version base --answers FILE writes.",
)  # fmt: skip
@click.option(
    "--against", metavar="GRADER", help="A second grader: how alike the two rank the outputs (Spearman)."
)
@json_option
def test_grader(output: Output, outputs: Path | None, against: str | None, **about: Any) -> None:
    """Check a grader before anything is trained or promoted by it. Exit code 1 when a check fails.

    Five deliberately bad outputs must score under half on every case; the references must pass and score more than any of
    them. With --outputs, the share of the base's answers that fails under each pass threshold: 25 to 50 % is good.
    """
    from dlm.grading import calibrate, check_sanity, parse_grader

    if against is not None:
        if outputs is None:
            raise UsageError("--against compares two graders on outputs", next_step="--outputs FILE")
        parse_grader(against)  # what cannot be read is said before anything is graded
    settled = settle(output, **about)
    given = None if outputs is None else read_outputs(outputs, settled.cases)
    with closing(settled.grader) as grader:
        found = check_sanity(grader, settled.cases)
        isolation = getattr(grader, "isolation", None)
        _print_sanity(output, settled, found)  # before the outputs: a grader that hangs takes long for them
        if isolation is not None:
            taken = " and ".join(isolation) if isolation else "nothing: this system takes neither from it"
            output.line(f"  its own process, memory limited; taken from it beside: {taken}")
        grades = None if given is None else _grades(grader, given)
    rows: list[ThresholdRow] = []
    left_out = 0
    if grades is not None:
        known = [grade for grade in grades if grade.scored]
        left_out = len(grades) - len(known)
        if left_out:
            output.warn(
                f"{plural(left_out, 'output')} could not be graded: no case has their prompt, or the grader failed"
            )
        if known:
            rows = calibrate(known)
            _print_thresholds(output, rows, settled.grader.pass_threshold)
            if barred := sum(grade.barred for grade in known):
                output.line(f"{barred} of {plural(len(known), 'output')} never pass, whatever the threshold")
    else:
        output.line("no threshold table: --outputs FILE names the answers of the untrained base")
    ranks = None
    if against is not None and given is not None and grades is not None:
        ranks = _print_ranks(output, settled, against, given, grades)
    output.line()
    output.line("every check holds" if found.ok else "not fit to be used yet: see the checks that failed")
    output.finish(_data(settled, found, isolation, rows, left_out, ranks))
    if not found.ok:
        raise click.exceptions.Exit(1)


def _grades(grader: Grader, given: Outputs) -> Sequence[Grade]:
    items = [
        case.item(text, truncated=cut)
        for case, text, cut in zip(given.cases, given.texts, given.truncated, strict=True)
    ]
    return grader.grade(items)


def _print_sanity(output: Output, settled: Settled, found: Sanity) -> None:
    output.heading(f"{settled.name} on {plural(found.cases, 'case')}")
    rows = [
        (
            "ok" if one.ok else "FAIL",
            one.name,
            *("–" if score is None else f"{score:.4f}" for score in (one.highest, one.mean)),
            _where(one),
        )
        for one in found.bad
    ]
    if found.gold_lowest is None and found.gold_errors:
        rows.append(("FAIL", "the reference", "–", "", _errors(found.gold_errors, found.gold_message)))
    if found.gold_lowest is not None:
        good = found.gold_passed == 1.0 and not found.gold_errors
        told = f"{found.gold_passed:.0%} pass" + (
            f", {_errors(found.gold_errors, found.gold_message)}" if found.gold_errors else ""
        )
        rows.append(
            ("ok" if good else "FAIL", "the reference (lowest)", f"{found.gold_lowest:.4f}", "", told)
        )
        top = (
            f"{len(found.beaten)} bad outputs score as much: {found.beaten[0]}"
            if found.beaten
            else "above every bad output"
        )
        rows.append(("FAIL" if found.beaten else "ok", "gold at the top", "", "", top))
    output.table(("", "output", "highest", "mean", ""), rows, right=("highest", "mean"))


def _where(one: BadOutput) -> str:
    if one.errors:
        return _errors(one.errors, one.message)
    return "" if one.ok else f"at {one.place}"


def _errors(n: int, message: str) -> str:
    from dlm.grading import ENOUGH_ERRORS

    return f"{plural(n, 'grader error')}{', then no more asked' if n >= ENOUGH_ERRORS else ''}: {message}"


def _print_thresholds(output: Output, rows: list[ThresholdRow], own: float) -> None:
    output.line()
    output.heading("fail rate of the outputs under each pass threshold (25 to 50 % is good, aim at 35 %)")
    table = [
        (
            f"{row.threshold:g}",
            f"{row.fail_rate:.0%}",
            row.verdict + (" ← the grader's own" if row.threshold == own else ""),
        )
        for row in rows
    ]
    output.table(("threshold", "fails", ""), table, right=("threshold", "fails"))
    good = min(rows, key=lambda row: (abs(row.fail_rate - 0.35), abs(row.threshold - own)))
    if good.verdict in ("easy", "good", "hard"):
        output.line(f"nearest to 35 %: a threshold of {good.threshold:g} ({good.fail_rate:.0%} fail)")
    else:
        output.line("no threshold leaves these outputs work to do and a chance: take harder or easier cases")


def _print_ranks(
    output: Output,
    settled: Settled,
    against: str,
    given: Outputs,
    grades: Sequence[Grade],
) -> dict[str, Any]:
    from dlm.grading import advise_on_ranks, make_grader
    from dlm.stats import spearman

    with closing(make_grader(against, folder=Path.cwd())) as second:
        others = _grades(second, given)
    both = [(a.score, b.score) for a, b in zip(grades, others, strict=True) if a.scored and b.scored]
    found = spearman([a for a, _ in both], [b for _, b in both]) if both else None
    advice = advise_on_ranks(found)
    output.line()
    shown = "–" if found is None else f"{found:.3f}"
    output.line(
        f"ranks of {settled.name} and {second.name} on {plural(len(both), 'output')}: Spearman {shown}; {advice}"
    )
    return {"against": second.name, "outputs": len(both), "spearman": found, "advice": advice}


def _data(
    settled: Settled,
    found: Sanity,
    isolation: tuple[str, ...] | None,
    rows: list[ThresholdRow],
    left_out: int,
    ranks: dict[str, Any] | None,
) -> dict[str, Any]:
    return {
        "grader": settled.name,
        "suite": settled.suite,
        "cases": found.cases,
        "ok": found.ok,
        "bad": [
            {
                "output": one.name,
                "highest": one.highest,
                "mean": one.mean,
                "errors": one.errors,
                "place": one.place,
                "message": one.message,
                "ok": one.ok,
            }
            for one in found.bad
        ],
        "gold": {
            "lowest": found.gold_lowest,
            "passed": found.gold_passed,
            "errors": found.gold_errors,
            "message": found.gold_message,
        },
        "beaten": list(found.beaten),
        "isolation": None if isolation is None else list(isolation),
        "thresholds": [
            {"threshold": row.threshold, "fail_rate": row.fail_rate, "verdict": row.verdict} for row in rows
        ],
        "outputs_left_out": left_out,
        "ranks": ranks,
    }
