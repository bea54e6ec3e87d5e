"""Whether a document without problems can be trained, as far as that is seen without torch: `dlm check` tells it.

What `dlm train` would stop at is a problem or a warning at its place; nothing here loads a model or asks the network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dlm.cli.output import plural
from dlm.errors import BaseModelError, DlmError, DocumentError, Problem, UsageError

if TYPE_CHECKING:
    from dlm.document import Document, GatheredSources

__all__ = ["readiness"]


def readiness(document: Document) -> tuple[list[Problem], list[Problem]]:
    """Problems (the base or a source is not there, a suite or the gate cannot be read) and warnings (files, sections or a
    whole document left out)."""
    from dlm.document import gather_sources  # pydantic and YAML: not for --help

    doubts: list[Problem] = []
    problems = [*_of_base(document), *_of_suites(document, doubts)]
    gathered: GatheredSources | None = None
    try:
        gathered = gather_sources(document)
    except DocumentError as error:
        problems += error.problems
    warnings = [*doubts, *_of_empty_gate(document), *_of_adapters(document), *_of_precision(document)]
    if gathered is not None:
        warnings += _of_skipped_files(document, gathered)
        warnings += _of_nothing_to_train(document, gathered)
    return sorted(problems), sorted(warnings)


def _of_base(document: Document) -> list[Problem]:
    from dlm.bases import resolve_base

    try:
        resolve_base(document.header.base_model, document.path.parent if document.path else None)
    except BaseModelError as error:
        fix = re.fullmatch(r"write (base_model: \S+)", error.next_step)
        seen = f" ({error.found})" if error.found else ""
        message = f"{error.message}{seen}" + ("" if fix or not error.next_step else f"; {error.next_step}")
        place = document.places.get("base_model", (1, 1))
        return [Problem(*place, "base", message, fix[1] if fix else "")]
    return []


def _of_suites(document: Document, doubts: list[Problem]) -> list[Problem]:
    """Suites and gate, read as `dlm eval` and `dlm gate` read them; no grader is run. `doubts` takes warnings: of what is
    trained on although versions are proven on it, and of conditions that nothing can answer."""
    header = document.header
    if document.path is None or not (header.evals or header.gate):
        return []
    from dlm.evaluation import (
        not_askable,
        parse_condition,
        read_suite,
        suite_names,
        taught,
        what_it_gives,
    )  # numpy: not for a document without
    from dlm.grading import make_grader
    from dlm.workflow.gating import read_gate

    path, names = document.path, suite_names(document)
    folder = path.parent
    found: list[Problem] = []

    def look(key: str, code: str, read: Callable[[], object]) -> None:
        try:
            read()
        except DocumentError as error:  # lines of a file of cases
            first = error.problems[0]
            others = len(error.problems) - 1
            more = f", and {plural(others, 'more line')}" if others else ""
            told = f"{error.path}:{first.line}: {first.message}{more}"
            found.append(Problem(*document.places.get(key, (1, 1)), code, told))
        except DlmError as error:
            parts = (
                error.message,
                error.found and f"found {error.found}",
                error.expected and f"expected {error.expected}",
            )
            told = "; ".join(part for part in parts if part)
            where = f"{error.where}: " if error.where else ""
            found.append(Problem(*document.places.get(key, (1, 1)), code, f"{where}{told}"))

    def suite(name: str) -> None:
        found = read_suite(document, folder, name)
        doubts.extend(
            Problem(
                line,
                1,
                "suite-leak",
                f"versions are proven on this prompt, a case of the suite {name}, and it is trained on",
            )
            for line in taught(document, found)
        )
        for file in found.grader.files:
            if not (folder / file).is_file():
                raise UsageError("the grader's file is not there", where=str(folder / file))

    def gate() -> None:
        conditions, _ = read_gate(document, path)
        suites = (read_suite(document, folder, name) for name in names)
        given = {one.name: what_it_gives(make_grader(one.grader, folder=folder)) for one in suites}
        for at, condition in enumerate(conditions):
            place = document.places.get(f"gate.conditions.{at}") or document.places.get("gate", (1, 1))
            parts = [condition]
            while parts[-1].otherwise is not None:
                parts.append(parts[-1].otherwise)
            for part, why in not_askable(parts, given):
                doubts.append(Problem(*place, "gate", f"the gate cannot ask {part.text!r}: {why}"))

    for name in header.evals:
        look(f"evals.{name}", "suite", partial(suite, name))
    for at, text in enumerate(header.gate.conditions if header.gate else ()):
        look(f"gate.conditions.{at}", "gate", partial(parse_condition, text, names))
    if header.gate and not found:
        look("gate", "gate", gate)
    return found


def _of_empty_gate(document: Document) -> list[Problem]:
    """`gate:` with nothing behind it: whoever wrote it means to have one."""
    place = document.places.get("gate")
    if place is None or document.header.gate is not None:
        return []
    message = "no gate is declared: there is nothing behind it; {} asks for the usual conditions"
    return [Problem(*place, "gate", message, "gate: {}")]


def _of_adapters(document: Document) -> list[Problem]:
    return [
        Problem(
            section.line,
            1,
            "adapter",
            f"this section is for the adapter {section.adapter!r}; training on named adapters is refused for now",
            f"::{section.kind}::",
        )
        for section in document.sections
        if section.adapter is not None
    ]


def _of_precision(document: Document) -> list[Problem]:
    if document.header.training.precision != "fp16":
        return []
    place = document.places.get("training.precision", (1, 1))
    return [Problem(*place, "precision", "training in fp16 is refused", "precision: bf16")]


def _of_skipped_files(document: Document, gathered: GatheredSources) -> list[Problem]:
    sources = document.header.training.sources or []
    roots = [Path(os.path.normpath(source.path)) for source in sources]

    def place(path: Path) -> tuple[int, int]:
        index = next((i for i, root in enumerate(roots) if path.is_relative_to(root)), 0)
        return document.places.get(f"training.sources.{index}.path", (1, 1))

    return [
        Problem(*place(path), "source", f"the source file {path} is left out: {reason}")
        for path, reason in gathered.skipped
    ]


def _of_nothing_to_train(document: Document, gathered: GatheredSources) -> list[Problem]:
    sections = document.sections
    questions = [question for section in sections for question in section.questions]
    if (
        gathered.files
        or any(not question.probe for question in questions)
        or any(section.prose.strip() for section in sections)
    ):
        return []
    line = sections[0].line if sections else 1 + document.text.count("\n", 0, document.body_start)
    if any(section.triples for section in sections):
        if document.header.training.preference.enabled is not False:
            return []  # the preference phase runs alone
        what = "only preferences, and training.preference.enabled is false"
    elif questions:
        what = "only probes, which are never trained on"
    else:
        what = "it is empty"
    message = f"nothing here can be trained on: {what}; add a question with its answer, or some prose"
    return [Problem(line, 1, "nothing-to-train", message)]
