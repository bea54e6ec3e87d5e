"""Rounds of answers on a base of a few thousand random weights, and graders that any text can please."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bases_on_the_spot import spec_of
from dlm.grading import Dimension, Grade, GradeItem
from dlm.grading.grader import graded, not_graded
from dlm.model import Policy, load_policy
from dlm.recipe import Recipe, RftRecipe
from dlm.training import Prepared, Prompt, Row, make_optimizer, prepare_rft, start_adapter, train_phase
from dlm.training.checkpoints import Progress
from tiny_training import Recorder

RECIPE = Recipe(
    lora_r=4, lora_alpha=11, learning_rate=2e-2, lora_dropout=0.0, layout="plain", save_every_steps=2
)
KNOBS = {"steps": 4, "prompts_per_step": 3, "group_size": 4, "max_new_tokens": 12, "learning_rate": 2e-2}
PROMPTS = [Prompt(f"What is number {i}?", "prompts.jsonl", i, f"It is {i * 7}.") for i in range(1, 25)]


class TestGrader:
    """Scores by a function of the answer's text; one that returns None is a grader that failed."""

    __test__ = False
    name = "test:letters"
    dimensions = (Dimension("letters", 1.0),)
    pass_threshold = 0.5

    def __init__(self, score: Callable[[GradeItem], float | None]) -> None:
        self._score = score
        self.items: list[GradeItem] = []
        self.closed = 0

    def grade(self, items: Sequence[GradeItem]) -> list[Grade]:
        self.items += items
        grades = []
        for item in items:
            score = self._score(item)
            if score is None:
                grades.append(not_graded(item, "it failed"))
            else:
                grades.append(graded(item, score, {"letters": score}, threshold=0.5))
        return grades

    def close(self) -> None:
        self.closed += 1


def letters(item: GradeItem) -> float:
    """The share of ASCII letters: varied enough among random texts that groups have spread."""
    return sum(one.isascii() and one.isalpha() for one in item.output) / max(1, len(item.output))


def prepared_rft(
    base: Path,
    *,
    grader: TestGrader | None = None,
    version: Path | None = None,
    prompts: Sequence[Prompt] = PROMPTS,
    rows: Sequence[Row] = (),
    recipe: Recipe = RECIPE,
    **knobs: Any,
) -> tuple[Prepared, Policy, Any]:
    """A run that is ready to train, with its policy and its trainable model."""
    policy = load_policy(spec_of(base), version, device="cpu", trainable=version is not None)
    model = start_adapter(policy, recipe)
    own = RftRecipe(**{**KNOBS, **knobs})
    return (
        prepare_rft(prompts, rows, policy, model, recipe, own, grader or TestGrader(letters)),
        policy,
        model,
    )


def run_rft(prepared: Prepared, model: Any, recipe: Recipe, folder: Path) -> Recorder:
    """Train to the end, checkpoints in `folder`."""
    recorder = Recorder()
    train_phase(prepared, model, recipe, make_optimizer(model, recipe), Progress(), recorder, folder)
    return recorder
