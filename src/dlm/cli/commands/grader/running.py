"""`dlm grader run`: grade a file of outputs."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from dlm.cli.commands.grader.inputs import cases_options, read_outputs, settle
from dlm.cli.output import Output, json_option, plural

__all__ = ["run_grader"]

_SHOWN = 20


@click.command("run")
@cases_options
@click.option(
    "--outputs", type=click.Path(path_type=Path), metavar="FILE", required=True,
    help="JSON lines with output, prompt, and reference and facts where no case has that prompt; as dlm eval --answers writes.",
)  # fmt: skip
@json_option
def run_grader(output: Output, outputs: Path, **about: Any) -> None:
    """Grade every output of a file: scores, dimensions, flags, and errors apart from scores."""
    from dlm.stats import mean

    settled = settle(output, needs_cases=False, **about)
    found = read_outputs(outputs, settled.cases)
    with closing(settled.grader) as grader:
        grades = grader.grade(
            [
                case.item(text, truncated=cut)
                for case, text, cut in zip(found.cases, found.texts, found.truncated, strict=True)
            ]
        )
    scored = [grade for grade in grades if grade.scored]
    output.heading(f"{settled.name}: {plural(len(grades), 'output')}")
    rows = [
        (
            case.place,
            f"{grade.score:.4f}" if grade.scored else "–",
            "pass" if grade.passed else "",
            _remark(grade),
        )
        for case, grade in list(zip(found.cases, grades, strict=True))[:_SHOWN]
    ]
    output.table(("place", "score", "", "flags and reasons"), rows, right=("score",))
    if len(grades) > _SHOWN:
        output.line(f"and {len(grades) - _SHOWN} more")
    output.line()
    summary: dict[str, Any] = {"score": None, "passed": sum(grade.passed for grade in scored)}
    if scored:
        estimate = mean([grade.score for grade in scored])
        summary["score"] = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
        interval = f" (95 %: {estimate.low:.4f}–{estimate.high:.4f})" if estimate.n > 1 else ""
        output.line(f"mean {estimate.value:.4f}{interval}, {summary['passed']} of {len(scored)} pass")
    errors = {kind: sum(grade.error == kind for grade in grades) for kind in ("sample_parse", "grader")}
    if any(errors.values()):
        output.line(", ".join(f"{kind} errors {count}" for kind, count in errors.items() if count))
    output.finish(
        {
            "grader": settled.name,
            "outputs": len(grades),
            **summary,
            "errors": errors,
            "grades": [
                {
                    "place": case.place,
                    "score": grade.score if grade.scored else None,
                    "dimensions": dict(grade.dimensions),
                    "flags": list(grade.flags),
                    "passed": grade.passed,
                    "error": grade.error,
                    "message": grade.message,
                }
                for case, grade in zip(found.cases, grades, strict=True)
            ],
        }
    )


def _remark(grade: Any) -> str:
    words = [f"{grade.error} error" if grade.error else "", ", ".join(grade.flags), grade.message]
    return "; ".join(word for word in words if word)
