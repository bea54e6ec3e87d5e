"""The demo: an example document, trained, and asked before and after."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlm.document import create, load, new_document
from dlm.errors import UsageError
from dlm.evaluation import ProbeAnswer, Question, answer_all
from dlm.workflow.prompt import BASE, open_policy
from dlm.workflow.train import RunReport, TrainOptions, TrainView, train

__all__ = ["DemoReport", "demo"]

DOCUMENT_NAME = "release-notes.dlm"


@dataclass(frozen=True)
class DemoReport:
    """What the demo did: greedy answers to the document's own questions before and after, and the run between."""

    document: Path
    created: bool
    before: Sequence[ProbeAnswer]
    after: Sequence[ProbeAnswer]
    training: RunReport
    elapsed_s: float


def demo(folder: Path, view: TrainView) -> DemoReport:
    """Write the example document into `folder` (kept when it is there already), train on it, and compare answers."""
    began = time.monotonic()
    path = folder / DOCUMENT_NAME
    created = not path.exists()
    if created:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"the demo's folder cannot be made: {error.strerror or error}",
                where=str(folder),
                next_step="dlm demo --dir DIR",
            ) from None
        create(path, new_document(base="pocket", template="release-notes"))
        view.note(f"wrote {path}")
    questions = [
        Question(question.prompt, question.answer)
        for section in load(path).sections
        for question in section.questions
        if not question.probe
    ]
    view.note(f"asking the base {len(questions)} questions of the document, before any training")
    before = answer_all(open_policy(path, BASE)[0], questions)
    (training,) = train(path, TrainOptions(phase="sft"), view).runs
    view.note("asking the trained version the same questions")
    after = answer_all(open_policy(path, training.version)[0], questions)
    return DemoReport(path, created, before, after, training, time.monotonic() - began)
