"""Trainings that go wrong in one known way each, on small documents, and what the rules have to say of them.

The answers are arbitrary facts, so that nothing learnt of one helps with another: more than their form cannot be
generalised. Rates and passes are far from the defaults on purpose.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlm.curves import Series
from dlm.recipe import Recipe
from dlm.store import Home

if TYPE_CHECKING:
    from dlm.workflow.views import Briefing

__all__ = ["RUNS", "MadeRun", "Recorded", "document_of", "train_run"]

DLM_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
COLUMNS = (
    "epoch",
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "grad_norm",
    "learning_rate",
)
_PLACES = (
    "the cellar",
    "the roof",
    "Lisbon",
    "a blue box",
    "the second drawer",
    "the archive",
    "row nine",
    "Oslo",
)
_THINGS = (
    "ladder",
    "ledger",
    "lamp",
    "kettle",
    "map",
    "radio",
    "spare key",
    "toolbox",
    "typewriter",
    "umbrella",
)


@dataclass(frozen=True)
class MadeRun:
    """A training that goes wrong. `expected`: rules of which each must fire; `contradicting`: the same questions are
    answered in several ways; `knobs` are those of the recipe.
    """

    name: str
    expected: tuple[str, ...]
    questions: int
    knobs: Mapping[str, Any]
    contradicting: bool = False


RUNS = (
    MadeRun(
        "over-fit",
        ("overfit_alarm", "overfit_ratio", "valid_loss_rises"),
        questions=32,
        knobs={"num_epochs": 80, "learning_rate": 5e-3, "val_fraction": 0.25, "eval_every_steps": 6},
    ),
    MadeRun(
        "under-fit",
        ("train_loss_barely_falls",),
        questions=32,
        knobs={"num_epochs": 40, "learning_rate": 1e-7, "val_fraction": 0.25, "eval_every_steps": 4},
    ),
    MadeRun(
        "diverge",
        ("train_loss_diverges",),
        questions=32,
        knobs={
            "num_epochs": 50,
            "learning_rate": 0.2,
            "warmup_ratio": 0.5,  # it learns while the rate is small yet
            "lr_scheduler": "constant",
            "val_fraction": 0.25,
            "eval_every_steps": 4,
        },
    ),
    MadeRun(
        "oscillate",
        ("valid_loss_oscillates",),
        questions=32,
        contradicting=True,
        knobs={
            "num_epochs": 5,
            "learning_rate": 8e-3,
            "micro_batch_size": 1,
            "grad_accum": 1,
            "lr_scheduler": "constant",
            "val_fraction": 0.25,
            "eval_every_steps": 12,
        },
    ),
)


def document_of(run: MadeRun) -> str:
    """The document's text, the same in every call."""
    draw = random.Random(run.name)
    lines = []
    for number in range(run.questions):
        thing = f"{_THINGS[number % len(_THINGS)]} number {number // len(_THINGS) + 1}"
        for _ in range(3 if run.contradicting else 1):
            lines.append(
                f"### Q\nWhere is the {thing}?\n### A\nIn {draw.choice(_PLACES)}, shelf {draw.randrange(90)}.\n"
            )
    header = f"---\ndlm_id: {DLM_ID}\ndlm_version: 15\nbase_model: pocket\n---\n"
    return f"{header}\n::instruction::\n{''.join(lines)}"


@dataclass
class Recorded:
    """What a training told while it ran (a `TrainView`), and its series afterwards."""

    warnings: list[str] = field(default_factory=list)
    series: dict[str, Series] = field(default_factory=dict)
    planned_steps: int = 0

    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def briefing(self, briefing: Briefing) -> None: ...
    def step(self, step: int, total: int, values: Mapping[str, float]) -> None:
        self.planned_steps = total

    def checkpoint(self, step: int) -> None: ...
    def stopping(self) -> None: ...


def train_run(run: MadeRun, folder: Path, **knobs: Any) -> Recorded:
    """Train a document in a folder of its own; `$DLM_HOME` says where the store lies."""
    from dlm.workflow.train import TrainOptions, train  # loads torch: not for a replay

    path = folder / f"{run.name}.dlm"
    path.write_text(document_of(run), encoding="utf-8")
    view = Recorded()
    stated = {"layout": "plain", "seed": 7, **run.knobs, **knobs}
    assert stated.keys() <= Recipe.model_fields.keys()
    train(path, TrainOptions(knobs=stated, device="cpu"), view)
    with Home.open().store(DLM_ID) as store:
        newest = store.runs.latest()
        assert newest is not None
        view.series = store.metrics.read(newest.id)
    return view
