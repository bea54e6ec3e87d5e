"""Evaluation suites: the cases that versions are proven on, the grader that reads the answers, the token budget.

A document's `evals` names them; its probes (`### Q !probe`) are one more, `probes`, without being named. Cases of a suite
are never trained on, but for a suite that names a training split: that one is watched, and proves nothing.
"""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dlm.document import Document
from dlm.errors import UsageError
from dlm.evaluation.conditions import VALIDATION
from dlm.grading import (
    Case,
    GraderSpec,
    cases_hash,
    grader_of_task,
    is_training_split,
    parse_grader,
    read_cases,
    task_cases,
)
from dlm.recipe import nearest

__all__ = ["PROBES", "Suite", "read_suite", "suite_names", "taught"]

PROBES: Final = "probes"
_OF_PROBES: Final = "text_similarity"  # a reference in a person's words is one of many right answers


@dataclass(frozen=True)
class Suite:
    """One suite, read. `stress`: its tables are long; `practice`: its cases are there to be trained on; `max_new_tokens` None:
    as the references need."""

    name: str
    cases: tuple[Case, ...]
    grader: GraderSpec
    pass_threshold: float | None = None
    max_new_tokens: int | None = None
    task: str | None = None
    stress: bool = False
    practice: bool = False

    @property
    def identity(self) -> dict[str, str | float | int | None]:
        """What decides what a grade in this suite means, beside the bytes of a Python grader: JSON values by name."""
        return {
            "suite": self.name,
            "cases": cases_hash(self.cases),
            "grader": self.grader.text,
            "pass_threshold": self.pass_threshold,
        }

    def grader_code(self, folder: Path) -> str:
        """64 hex digits over the grader's Python files, "" where it has none; a file that is not there counts as empty."""
        if not self.grader.files:
            return ""
        found = hashlib.sha256()
        for name in self.grader.files:
            place = folder / name
            found.update(place.read_bytes() if place.is_file() else b"")
            found.update(b"\0")
        return found.hexdigest()


def suite_names(document: Document) -> tuple[str, ...]:
    """The suites of a document in the header's order, the probes last where there are any."""
    named = tuple(document.header.evals)
    has_probes = any(question.probe for section in document.sections for question in section.questions)
    return (*named, PROBES) if has_probes and PROBES not in named else named


def read_suite(document: Document, folder: Path, name: str) -> Suite:
    """Read one suite. Files stand in or below `folder`, the document's.

    Raises:
        UsageError: no such suite, task, split or grader; a file that cannot be read or has no case.
        DocumentError: lines of a file that are no case.
    """
    known = suite_names(document)
    if name not in known:
        meant = nearest(name, known)
        raise UsageError(
            f"the document has no suite {name!r}" + (f": did you mean {meant}?" if meant else ""),
            expected=" or ".join(known) if known else "evals in its header, or questions marked ### Q !probe",
        )
    if name not in document.header.evals:
        return Suite(name, _probes(document), parse_grader(_OF_PROBES))
    try:
        return _stated(document, folder, name)
    except UsageError as error:  # what is to be mended stands in the header, not on the command line
        if document.path is not None:
            at = shlex.join(["dlm", "check", str(document.path)])
            error.next_step = f"{error.next_step or f'mend evals.{name} in the header'}; {at} names the line"
        raise


def _stated(document: Document, folder: Path, name: str) -> Suite:
    """A suite that the header names."""
    if name == VALIDATION:
        raise UsageError(
            f"a suite cannot be named {name}: to the gate that is the training's own held-out rows",
            expected="another name under evals",
        )
    stated = document.header.evals[name]
    if stated.task is not None:
        cases = task_cases(stated.task, stated.split, seed=stated.seed, count=stated.n, rows=stated.rows)
        grader = stated.grader or grader_of_task(stated.task)
    else:
        for knob in ("seed", "rows"):
            if getattr(stated, knob) is not None:
                raise UsageError(
                    f"evals.{name}.{knob}: cases of a file are as they stand", next_step="leave it out"
                )
        cases = read_cases(folder / str(stated.cases), stated.split, count=stated.n, to_prove=True)
        grader = stated.grader or _OF_PROBES
    keys = [case.key for case in cases]
    twice = (
        next((case for case in cases if keys.count(case.key) > 1), None)
        if len(set(keys)) < len(keys)
        else None
    )
    if twice is not None:
        raise UsageError(f"a case of the suite {name} stands in it twice", where=twice.place)
    return Suite(
        name,
        tuple(cases),
        parse_grader(grader),
        stated.pass_threshold,
        stated.max_new_tokens,
        stated.task,
        stress=bool(stated.task and stated.split and stated.split.startswith("stress")),
        practice=is_training_split(stated.split or ""),
    )


def taught(document: Document, suite: Suite) -> list[int]:
    """Lines of the document's questions and pairs that train on a prompt of a suite that versions are proven on; none for the
    probes, of which the document itself warns."""
    if suite.practice or suite.name not in document.header.evals:
        return []
    prompts = {case.prompt.strip() for case in suite.cases}
    found = []
    for section in document.sections:
        found += [(one.prompt, one.line) for one in section.questions if not one.probe]
        found += [(one.prompt, one.line) for one in section.triples]
    return [line for prompt, line in found if prompt.strip() in prompts]


def _probes(document: Document) -> tuple[Case, ...]:
    found: dict[str, Case] = {}
    for section in document.sections:
        for question in section.questions:
            if question.probe:
                place = f"{document.path or 'document'}:{question.line}"
                found.setdefault(question.prompt, Case(question.prompt, question.answer, {}, place))
    return tuple(found.values())
