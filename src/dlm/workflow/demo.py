"""The demo: an example document, trained, and asked before and after; then one round of the loop on a second document."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlm.document import create, load, new_document
from dlm.errors import UsageError
from dlm.evaluation import ProbeAnswer, Question, answer_all
from dlm.mining import MineSettings
from dlm.workflow.mining import MineOptions, MineReport, mine_pairs
from dlm.workflow.prompt import BASE, open_policy
from dlm.workflow.train import RunReport, TrainOptions, TrainView, train

__all__ = ["DemoReport", "LoopReport", "demo"]

DOCUMENT_NAME, LOOP_NAME = "release-notes.dlm", "notes.dlm"
FEW_PASSES = "training:\n  num_epochs: 20   # not by heart: answers must differ to be compared\n"
LOOP_SAMPLES, LOOP_PAIRS = 4, 6


@dataclass(frozen=True)
class LoopReport:
    """One round of the loop: train, mine and apply, train on the pairs, ask."""

    document: Path
    trained: Sequence[RunReport]
    mined: MineReport
    preference: RunReport
    answer: ProbeAnswer  # of the last version, to the document's first question


@dataclass(frozen=True)
class DemoReport:
    """What the demo did: greedy answers to the document's own questions before and after, the run between, and the loop."""

    document: Path
    created: bool
    before: Sequence[ProbeAnswer]
    after: Sequence[ProbeAnswer]
    training: RunReport
    loop: LoopReport
    elapsed_s: float


def demo(folder: Path, view: TrainView) -> DemoReport:
    """Write the example documents into `folder` (kept when they are there already), train on the first and compare
    answers, and go one round of the loop on the second.
    """
    began = time.monotonic()
    path = folder / DOCUMENT_NAME
    created = _provide(path, new_document(base="pocket", template="release-notes"), view)
    questions = _questions(path)
    view.note(f"asking the base {len(questions)} questions of the document, before any training")
    before = answer_all(open_policy(path, BASE)[0], questions)
    (training,) = train(path, TrainOptions(phase="sft"), view).runs
    view.note("asking the trained version the same questions")
    after = answer_all(open_policy(path, training.version)[0], questions)
    loop = _loop(folder / LOOP_NAME, view)
    return DemoReport(path, created, before, after, training, loop, time.monotonic() - began)


def _loop(path: Path, view: TrainView) -> LoopReport:
    """One round, as the four commands would do it."""
    text = new_document(base="pocket", template="release-notes")
    header, _, body = text.partition("\n---\n")
    _provide(path, f"{header}\n{FEW_PASSES}---\n{body}", view)
    trained = train(path, TrainOptions(), view).runs
    settings = MineSettings(samples=LOOP_SAMPLES, max_pairs=LOOP_PAIRS)
    mined = mine_pairs(path, MineOptions(settings, apply=True), _Quietly(view))
    view.note(f"mined {len(mined.result.pairs)} pairs from {mined.version.value}, written into {path}")
    (preference,) = train(path, TrainOptions(phase="preference"), view).runs
    (answer,) = answer_all(open_policy(path, preference.version)[0], _questions(path)[:1])
    return LoopReport(path, trained, mined, preference, answer)


def _provide(path: Path, text: str, view: TrainView) -> bool:
    """Write a document unless it is there; whether it was written."""
    if path.exists():
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the demo's folder cannot be made: {error.strerror or error}",
            where=str(path.parent),
            next_step="dlm demo --dir DIR",
        ) from None
    create(path, text)
    view.note(f"wrote {path}")
    return True


def _questions(path: Path) -> list[Question]:
    """The document's questions, probes aside."""
    return [
        Question(question.prompt, question.answer)
        for section in load(path).sections
        for question in section.questions
        if not question.probe
    ]


class _Quietly:
    """A mine run's view that shows no progress: the demo's takes seconds."""

    def __init__(self, view: TrainView) -> None:
        self.note, self.warn, self.stopping = view.note, view.warn, view.stopping

    def sampled(self, questions: int, of: int) -> None: ...
    def judged(self, answers: int, of: int) -> None: ...
