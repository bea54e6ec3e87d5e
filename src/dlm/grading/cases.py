"""Cases: prompts with what is known of their right answer, from a task's generator or from a file.

A task is named `spreadsheet` (the `pocket` profile, what the embedded base was taught), `spreadsheet:pocket` or
`spreadsheet:published`; its splits stand in `dlm.tasks.spreadsheet.SPLITS`. A file holds JSON lines:

    {"prompt": …, "reference": …, "facts": {…}, "split": …, "id": …}      all but the prompt at will

In both, a split called `train` or `…_train` holds what is trained on; every other one proves versions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dlm.errors import DocumentError, Problem, UsageError, reason_of
from dlm.grading.grader import GradeItem
from dlm.grading.tables import facts_of
from dlm.tasks import spreadsheet

__all__ = ["TASKS", "Case", "cases_hash", "grader_of_task", "is_training_split", "read_cases", "task_cases"]

TASKS: Final = ("spreadsheet", *(f"spreadsheet:{profile}" for profile in spreadsheet.PROFILES))
_DEFAULT_SPLIT = "heldout"
_KEYS: Final = ("prompt", "reference", "facts", "split", "id")
_SHAPE: Final = "a JSON object with a prompt, and at will reference, facts (an object), split and id"


@dataclass(frozen=True)
class Case:
    """One prompt with what a grader may know of its right answer. `place` says where it comes from."""

    prompt: str
    reference: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""

    @property
    def key(self) -> str:
        """64 hex digits over everything that a grade of it depends on."""
        content = ["case", self.prompt, self.reference, self.facts]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def item(self, output: str, *, truncated: bool) -> GradeItem:
        """An answer to it, to be graded."""
        return GradeItem(self.prompt, output, self.reference, self.facts, truncated)


def cases_hash(cases: Sequence[Case]) -> str:
    """64 hex digits over cases in their order."""
    return hashlib.sha256("\n".join(case.key for case in cases).encode()).hexdigest()


def is_training_split(split: str) -> bool:
    """Whether a split is there to be trained on, by its name; versions are proven on the others."""
    return split == "train" or split.endswith("_train")


def grader_of_task(task: str) -> str:
    """The grader that a task's answers are read with unless another one is named."""
    return f"{task.partition(':')[0]}:strict"


def task_cases(
    task: str,
    split: str | None = None,
    *,
    seed: int | None = None,
    count: int | None = None,
    rows: int | None = None,
) -> list[Case]:
    """The cases of a task's split, the same bytes each time. None: the held-out split, its own seed, number and length of tables.

    Raises:
        UsageError: no such task or split.
    """
    if task not in TASKS:
        raise UsageError(f"there is no task {task!r}", expected=" or ".join(TASKS))
    split = split or _DEFAULT_SPLIT
    if split not in spreadsheet.SPLITS:
        raise UsageError(f"the task {task} has no split {split!r}", expected=" or ".join(spreadsheet.SPLITS))
    profile = task.partition(":")[2] or "pocket"
    return [
        Case(case.prompt, case.gold, facts_of(case), f"{task}/{split}/{case.seed}:{case.index}")
        for case in spreadsheet.of_split(split, profile, seed=seed, count=count, rows=rows)
    ]


def read_cases(
    path: Path, split: str | None = None, *, count: int | None = None, to_prove: bool = False
) -> list[Case]:
    """The cases of a file in their order: those of one split where it is given, at most `count` of them. `to_prove`: without
    a split, those that are not there to be trained on.

    Raises:
        UsageError: the file cannot be read, or has no such case.
        DocumentError: lines that are no case, all of them, with their numbers.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the file of cases: {reason_of(error)}",
            where=str(path),
            expected=f"JSON lines, each {_SHAPE}",
        ) from None
    problems: list[Problem] = []
    found: list[tuple[str | None, Case]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        fault, case, own_split = _case_of(line, f"{path}:{number}")
        if case is None:
            problems.append(Problem(number, 1, "cases-line", fault))
        else:
            found.append((own_split, case))
    if problems:
        raise DocumentError(problems, str(path), next_step="mend the lines above, then run the command again")
    wanted = (
        [case for own, case in found if own == split]
        if split is not None
        else [case for own, case in found if not (to_prove and is_training_split(own or ""))]
    )
    if not wanted and found and split is None:
        raise UsageError(
            "every case of the file is there to be trained on",
            where=str(path),
            expected="cases of another split, or of none, to prove versions on",
            next_step="to measure on what is trained on, name the split under evals",
        )
    if not wanted and found:
        splits = ", ".join(sorted({own for own, _ in found if own}))
        raise UsageError(
            f"the file of cases has no split {split!r}",
            where=str(path),
            expected=f'cases marked "split": "{split}"',
            found=f"cases marked {splits}" if splits else "none that is marked",
        )
    if not wanted:
        raise UsageError(
            "the file of cases has none to use", where=str(path), expected=f"JSON lines, each {_SHAPE}"
        )
    return wanted[:count]


def _case_of(line: str, place: str) -> tuple[str, Case | None, str | None]:
    """A line's case and split, or what is wrong with it."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return f"not JSON: expected {_SHAPE}", None, None
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str) or not value["prompt"].strip():
        return f"expected {_SHAPE}", None, None
    unknown = [name for name in value if name not in _KEYS]
    if unknown:
        return f"unknown key {unknown[0]!r}: expected {_SHAPE}", None, None
    reference, facts, split = (value.get(name) for name in ("reference", "facts", "split"))
    if not (reference is None or isinstance(reference, str)) or not (split is None or isinstance(split, str)):
        return "reference and split are texts", None, None
    if not (facts is None or isinstance(facts, dict)):
        return "facts is an object with names", None, None
    try:
        json.dumps([value["prompt"], reference], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "a lone surrogate cannot stand in a text", None, None
    return "", Case(value["prompt"], reference, facts or {}, place), split
