"""What a command on graders is given: which grader, which cases, which outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from dlm.cli.consent import require_consent
from dlm.cli.output import Output
from dlm.errors import DocumentError, Problem, UsageError, reason_of
from dlm.grading import Case, Grader, Limits, make_grader, parse_grader

__all__ = ["Outputs", "Settled", "cases_options", "read_outputs", "settle"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Settled:
    """The grader, made, with the cases it is asked about. `document` is None where none was named."""

    grader: Grader
    cases: tuple[Case, ...]
    name: str
    suite: str | None


@dataclass(frozen=True)
class Outputs:
    """Answers of a file, each with its case."""

    cases: tuple[Case, ...]
    texts: tuple[str, ...]
    truncated: tuple[bool, ...]


def cases_options(function: F) -> F:
    """`GRADER`, `--document`, `--suite`, `--task`, `--split`, `--cases`, `--n`, limits and `--trust`."""
    options = [
        click.argument("grader", metavar="[GRADER]", required=False),
        click.option("--document", type=click.Path(path_type=Path), metavar="FILE", help="A document whose suite names grader and cases."),
        click.option("--suite", metavar="NAME", help="Which suite of the document.  [default: its only one]"),
        click.option("--task", metavar="TASK", help="Cases of a generator: spreadsheet, spreadsheet:pocket, spreadsheet:published."),
        click.option("--split", metavar="NAME", help="Split of the cases.  [default: heldout]"),
        click.option("--cases", "cases_file", type=click.Path(path_type=Path), metavar="FILE", help="Cases as JSON lines: prompt, reference, facts."),
        click.option("-n", "--n", "count", type=click.IntRange(1), metavar="N", help="Only the first N cases."),
        click.option("--threshold", type=click.FloatRange(0, 1), metavar="X", help="Least score that passes.  [default: the grader's own]"),
        click.option("--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, metavar="S", help="Seconds that a Python file may take for one answer."),
        click.option("--memory", "memory_mb", type=click.IntRange(64), default=1024, show_default=True, metavar="MB", help="Memory that each process of a Python file may take."),
        click.option("--trust", is_flag=True, help="Run the Python grader that the document names, this time."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def settle(
    output: Output,
    *,
    grader: str | None,
    document: Path | None,
    suite: str | None,
    task: str | None,
    split: str | None,
    cases_file: Path | None,
    count: int | None,
    threshold: float | None,
    timeout_s: float,
    memory_mb: int,
    trust: bool,
    needs_cases: bool = True,
) -> Settled:
    """Find grader and cases. A grader typed on the command line is consent; one of a document is asked about.

    Raises:
        UsageError: no grader, no cases, or two sources of them.
        ConsentError: a Python file of a document that was not allowed.
    """
    from dlm.grading import grader_of_task, read_cases, task_cases

    named = [
        name for name, value in (("--document", document), ("--task", task), ("--cases", cases_file)) if value
    ]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} name cases, each its own", expected="one of them")
    if suite is not None and document is None:
        raise UsageError("--suite names a suite of a document", next_step="add --document FILE")
    if split is not None and document is not None:
        raise UsageError("--split is the suite's own, as the document names it", next_step="leave it out")
    folder, chosen_suite, own_threshold = Path.cwd(), None, threshold
    spec = None if grader is None else parse_grader(grader)
    if document is not None:
        found = _suite_of(document, suite)
        folder_of_document = document.parent
        cases: list[Case] = list(found.cases)
        chosen_suite = found.name
        if spec is None:
            spec, folder = found.grader, folder_of_document
            own_threshold = found.pass_threshold if threshold is None else threshold
            if spec.files:
                from dlm.store import Home

                require_consent(spec.consent_argv, document=document, home=Home.open(), trust=trust)
    elif task is not None:
        cases = task_cases(task, split, count=count)
        spec = spec or parse_grader(grader_of_task(task))
    elif cases_file is not None:
        cases = read_cases(cases_file, split)
    else:
        cases = []
    if spec is None:
        raise UsageError(
            "no grader is named", expected="a GRADER, or --document FILE", next_step="dlm grader list"
        )
    if not cases and needs_cases:
        if grader is not None and spec.parts[0].kind == "spreadsheet" and len(spec.parts) == 1:
            cases = task_cases("spreadsheet", split, count=count)
        else:
            raise UsageError("no cases are named", expected="--cases FILE, --task TASK or --document FILE")
    limits = Limits(timeout_s=timeout_s, memory_mb=memory_mb)
    made = make_grader(spec, folder=folder, pass_threshold=own_threshold, limits=limits)
    return Settled(made, tuple(cases[:count]), spec.text, chosen_suite)


def _suite_of(document: Path, name: str | None) -> Any:
    from dlm.document import load
    from dlm.evaluation import read_suite, suite_names

    loaded = load(document)
    names = suite_names(loaded)
    if name is None and len(names) != 1:
        raise UsageError(
            "the document has no suite" if not names else "the document has several suites",
            expected=" or ".join(f"--suite {one}" for one in names) or "evals in its header",
        )
    return read_suite(loaded, document.parent, name or names[0])


def read_outputs(file: Path, cases: tuple[Case, ...]) -> Outputs:
    """Outputs to grade, one JSON object a line: output, prompt, and reference and facts where no case has that prompt.

    What `dlm eval --answers FILE` writes is such a file. Other keys are not looked at.

    Raises:
        UsageError: the file cannot be read, or holds nothing.
        DocumentError: lines that are no output, with their numbers.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the file of outputs: {reason_of(error)}",
            where=str(file),
            expected="JSON lines with an output and a prompt",
            next_step="dlm eval DOCUMENT --answers FILE writes such a file",
        ) from None
    known = {case.prompt: case for case in cases}
    found: list[tuple[Case, str, bool]] = []
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict) or not isinstance(value.get("output"), str):
            problems.append(
                Problem(number, 1, "outputs-line", "expected a JSON object with an output that is a text")
            )
            continue
        prompt = str(value.get("prompt") or "")
        reference, facts = value.get("reference"), value.get("facts")
        own = Case(
            prompt,
            reference if isinstance(reference, str) else None,
            facts if isinstance(facts, dict) else {},
            f"{file}:{number}",
        )
        case = own if reference is not None or facts else known.get(prompt, own)
        cut = bool(value.get("truncated")) or value.get("finish_reason") == "length"
        found.append((case, value["output"], cut))
    if problems:
        raise DocumentError(problems, str(file), next_step="mend the lines above, then run the command again")
    if not found:
        raise UsageError("the file holds no outputs", where=str(file))
    return Outputs(*(tuple(column) for column in zip(*found, strict=True)))
