"""What the rft phase reads: prompts to answer, the grader that rewards the answers, and how long those may be.

They come from a suite of the document (its task's training split, or the cases of its file marked `train`), or from files
on the command line. What a suite proves versions on is never trained on, nor are probes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlm.document import Document
from dlm.errors import UsageError
from dlm.evaluation import PROBES, read_suite, suite_names
from dlm.grading import Case, GraderSpec, is_training_split, make_grader, parse_grader, read_cases, task_cases
from dlm.recipe import Choice
from dlm.training import Prompt, refuse_proving_prompts

__all__ = ["Rewards", "read_rewards"]

_GRADERS = (
    "spreadsheet, string_check:eq, text_similarity, length:LOW-HIGH, python:FILE, or several as 0.7*A + 0.3*B"
)


@dataclass(frozen=True)
class Rewards:
    """Prompts and their grader.

    `budget`: longest answer in tokens, where a suite states it; `named_by_document`: the grader stands in the document, so
    that code which it names has to be allowed first.
    """

    prompts: Sequence[Prompt]
    grader: GraderSpec
    pass_threshold: float | None = None
    budget: Choice[int] | None = None
    named_by_document: bool = False


def read_rewards(
    document: Document, folder: Path, prompts_files: Sequence[Path], suite: str | None, grader: str | None
) -> Rewards:
    """Read prompts and grader, and see that versions are proven on none of the prompts. Without files and without the name
    of a suite, it is the document's only suite that has cases to train on.

    Raises:
        DocumentError: bad lines of a file, with their numbers.
        UsageError: there are no prompts or no grader, versions are proven on some of the prompts, or some lack what the grader
            compares with.
    """
    if prompts_files:
        if suite is not None:
            raise UsageError("--prompts and --suite exclude each other", next_step="name one of them")
        if grader is None:
            raise UsageError(
                "the rft phase has no grader to reward answers with",
                expected=f"--grader with one of {_GRADERS}",
                next_step="for example: --grader 'length:1-40 words'",
            )
        cases = [case for file in prompts_files for case in read_cases(file)]
        found = Rewards([_prompt(case) for case in cases], parse_grader(grader))
    else:
        found = _of_suite(document, folder, suite or _only_suite(document), grader)
    refuse_proving_prompts(found.prompts, _proving(document, folder))
    _require_gradable(found, folder)
    return found


def _require_gradable(found: Rewards, folder: Path) -> None:
    """See that each prompt brings what its grader compares with: an empty answer tells. A Python file is not asked; it may
    need consent."""
    if found.grader.files:
        return
    grades = make_grader(found.grader, folder=folder).grade(
        [prompt.item("", truncated=False) for prompt in found.prompts]
    )
    failed = [
        (prompt, grade.message)
        for prompt, grade in zip(found.prompts, grades, strict=True)
        if not grade.scored
    ]
    if failed:
        prompt, why = failed[0]
        raise UsageError(
            f"answers to {len(failed):,} of {len(found.prompts):,} prompts cannot be graded by {found.grader.text}: {why}",
            where=prompt.place,
            expected="with every prompt what the grader compares with",
            next_step='a line of such a file: {"prompt": "…", "reference": "…"}; or name another --grader',
        )


def _of_suite(document: Document, folder: Path, name: str, grader: str | None) -> Rewards:
    suite = read_suite(document, folder, name)
    if name not in document.header.evals:
        raise UsageError(
            f"the suite {name} proves versions: its cases are not trained on",
            expected="a suite under evals in the header that has a training split, or --prompts FILE",
        )
    stated = document.header.evals[name]
    split = "stress_train" if suite.stress else "train"
    if stated.task is not None:
        cases = task_cases(stated.task, split, rows=stated.rows)
    else:
        cases = read_cases(folder / str(stated.cases), split)
    budget = None
    if suite.max_new_tokens is not None:
        budget = Choice(suite.max_new_tokens, f"evals.{name}.max_new_tokens")
    return Rewards(
        [_prompt(case) for case in cases],
        suite.grader if grader is None else parse_grader(grader),
        suite.pass_threshold if grader is None else None,
        budget,
        named_by_document=grader is None and stated.grader is not None,
    )


def _only_suite(document: Document) -> str:
    names = [name for name in suite_names(document) if name in document.header.evals]
    if len(names) == 1:
        return names[0]
    if names:
        raise UsageError(
            f"the document has {len(names)} suites to take prompts and a grader from",
            expected=f"--suite with one of {', '.join(names)}",
        )
    raise UsageError(
        "the rft phase has no prompts to sample answers to",
        expected="--prompts FILE with --grader, or a suite under evals in the header",
        next_step='a line of such a file: {"prompt": "…", "reference": "…"}',
    )


def _proving(document: Document, folder: Path) -> dict[str, Collection[str]]:
    """Texts of the cases that versions are proven on, by what they are."""
    proving: dict[str, Collection[str]] = {}
    for name in suite_names(document):
        stated = document.header.evals.get(name)
        if stated is not None and is_training_split(stated.split or ""):  # watched, not proven on
            continue
        cases = read_suite(document, folder, name).cases
        what = "the document's probes" if name == PROBES else f"the cases of the suite {name}"
        proving[what] = [case.prompt for case in cases]
    return proving


def _prompt(case: Case) -> Prompt:
    origin, _, number = case.place.rpartition(":")
    return Prompt(case.prompt, origin, int(number), case.reference, case.facts)
