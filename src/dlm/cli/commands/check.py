"""`dlm check`: every problem of a document, at its line and column, and what would keep it from being trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlm.cli.options import DOCUMENT
from dlm.cli.output import Output, json_option, plural, remember_document, typed
from dlm.cli.readiness import readiness
from dlm.errors import DlmError, Problem

if TYPE_CHECKING:
    from dlm.document import Document

__all__ = ["check"]

NO_HEADER = "no-header"  # the document room's code for a file that `dlm init --adopt` can mend
UNREADABLE = "unreadable"  # our own code for what is no file, or cannot be read


@click.command()
@click.argument("documents", nargs=-1, required=True, type=DOCUMENT, metavar="DOCUMENT...")
@json_option
def check(output: Output, documents: Sequence[Path]) -> None:
    """Find every problem in one or more documents, and what would keep them from being trained.

    A base or a source that is not there is a problem, and so is a suite or a gate that cannot be read; what training leaves
    out or refuses is a warning, and so is a condition of the gate that nothing can answer. Exit code 1 when there are
    problems.
    """
    if len(documents) == 1:
        remember_document(click.get_current_context(), documents[0])
        reports = [_look_at(documents[0])]
    else:  # one that cannot be read does not keep the others from being looked at
        reports = [_look_at_or_say_why_not(path) for path in documents]
    for report in reports:
        _print(output, report)
    n_problems = sum(len(report["problems"]) for report in reports)
    if len(reports) > 1:
        bad = sum(not report["ok"] for report in reports)
        output.line(f"{plural(n_problems, 'problem')} in {bad} of {len(reports)} documents")
    output.finish({"ok": n_problems == 0, "documents": reports})
    if n_problems:
        click.get_current_context().exit(1)


def _look_at(path: Path) -> dict[str, Any]:
    """One document's entry in `dlm/check/1`.

    Raises:
        DlmError: there is no such file, or it cannot be read.
    """
    from dlm.document import check as check_document  # pydantic and YAML: not for --help

    document, problems, warnings = check_document(path)
    if document is not None:
        unready, doubtful = readiness(document)
        problems, warnings = (*problems, *unready), tuple(sorted((*warnings, *doubtful)))
    return _entry(path, document, problems, warnings)


def _look_at_or_say_why_not(path: Path) -> dict[str, Any]:
    try:
        return _look_at(path)
    except DlmError as error:
        return _entry(path, None, [Problem(1, 1, UNREADABLE, str(error.message))], [])


def _entry(
    path: Path, document: Document | None, problems: Sequence[Problem], warnings: Sequence[Problem]
) -> dict[str, Any]:
    """Counts are null where problems keep the document from being read."""
    questions = (
        [question for section in document.sections for question in section.questions] if document else []
    )
    return {
        "path": str(path),
        "ok": not problems,
        "sections": len(document.sections) if document else None,
        "questions": sum(not question.probe for question in questions) if document else None,
        "probes": sum(question.probe for question in questions) if document else None,
        "pairs": sum(len(section.triples) for section in document.sections) if document else None,
        "problems": [asdict(problem) for problem in problems],
        "warnings": [asdict(warning) for warning in warnings],
    }


def _print(output: Output, report: dict[str, Any]) -> None:
    path = report["path"]
    for kind in ("problems", "warnings"):
        for found in report[kind]:
            mark = "warning: " if kind == "warnings" else ""
            place = "" if found["code"] == UNREADABLE else f"{path}:{found['line']}:{found['column']}: "
            output.line(f"{place}{mark}{found['message']} [{found['code']}]")
            if found["fix"]:
                output.line(f"    write: {found['fix']}")
    if report["ok"]:
        counts = ", ".join(
            plural(report[f"{noun}s"], noun) for noun in ("section", "question", "probe", "pair")
        )
        warned = f", {plural(len(report['warnings']), 'warning')}" if report["warnings"] else ""
        output.line(f"{path}: no problems: {counts}{warned}")
    else:
        output.line(f"{path}: {plural(len(report['problems']), 'problem')}")
        if any(problem["code"] == NO_HEADER for problem in report["problems"]):
            output.line(f"next: {typed('dlm', 'init', '--adopt', path)}")
