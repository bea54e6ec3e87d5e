"""What the rft phase reads: prompts to answer, the grader that rewards the answers, and how long those may be."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlm.errors import UsageError
from dlm.grading import GraderSpec, parse_grader
from dlm.recipe import Choice
from dlm.training import Prompt, Row, read_prompts_file, refuse_proving_prompts

__all__ = ["Rewards", "read_rewards"]


@dataclass(frozen=True)
class Rewards:
    """Prompts and their grader.

    `named_by_document`: the grader stands in the document, so that code which it names has to be allowed first.
    """

    prompts: Sequence[Prompt]
    grader: GraderSpec
    budget: Choice[int] | None = None
    named_by_document: bool = False


def read_rewards(rows: Sequence[Row], prompts_files: Sequence[Path], grader: str | None) -> Rewards:
    """Read the prompts and the grader's name, and see that no prompt is one of the document's probes.

    Raises:
        DocumentError: bad lines of a file, with their numbers.
        UsageError: there are no prompts or no grader, or versions are proven on some of the prompts.
    """
    if not prompts_files:
        raise UsageError(
            "the rft phase has no prompts to sample answers to",
            expected="--prompts FILE and --grader NAME",
            next_step='a line of such a file: {"prompt": "…", "reference": "…"}',
        )
    if grader is None:
        raise UsageError(
            "the rft phase has no grader to reward answers with",
            expected="--grader with one of spreadsheet, string_check:…, text_similarity, length:LOW-HIGH, python:FILE, or "
            "several as 0.7*A + 0.3*B",
            next_step="for example: --grader 'length:1-40 words'",
        )
    spec = parse_grader(grader)
    prompts = [prompt for file in prompts_files for prompt in read_prompts_file(file)]
    proving: dict[str, Collection[str]] = {
        "the document's probes": [row.prompt or "" for row in rows if row.probe]
    }
    refuse_proving_prompts(prompts, proving)
    return Rewards(prompts, spec)
