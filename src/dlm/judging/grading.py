"""`grader:<grader>`: a grader as a judge. Scores run from 0 to 1 and mean the same everywhere.

What the right answer is comes from the document: its own answers, and the cases of its suites. A grader that needs a
reference fails on a prompt that has none; an answer that cannot be parsed scores 0, with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from dlm.grading import Case, Grade, make_grader
from dlm.judging.judge import Item, JudgeContext, JudgeSpec, Verdict

__all__ = ["GraderJudge"]


class GraderJudge:
    """See the module.

    Raises:
        GradingError: a Python file that is not there.
    """

    default_threshold = 0.1
    scale = "0 to 1, the grader's score"

    def __init__(self, spec: JudgeSpec, context: JudgeContext) -> None:
        self.name = spec.text
        self._grader = make_grader(spec.target, folder=context.folder)
        answers = {anchor.prompt: Case(anchor.prompt, anchor.answer) for anchor in reversed(context.anchors)}
        self._cases = {**answers, **context.cases}

    def score(self, items: Sequence[Item]) -> Iterator[Verdict]:
        """See `Judge.score`.

        Raises:
            GradingError: a Python grader that cannot be loaded.
        """
        for item in items:
            case = self._cases.get(item.prompt) or Case(item.prompt)
            began = time.monotonic()
            [grade] = self._grader.grade([case.item(item.candidate, truncated=False)])
            yield _verdict(grade, time.monotonic() - began)

    def close(self) -> None:
        """End what the grader has started."""
        self._grader.close()


def _verdict(grade: Grade, seconds: float) -> Verdict:
    if not grade.scored:
        return Verdict(None, error=grade.message or "the grader failed", seconds=seconds)
    words = [grade.message, ", ".join(grade.flags)]
    return Verdict(grade.score, "; ".join(word for word in words if word) or None, seconds=seconds)
