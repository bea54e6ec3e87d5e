"""What `test_world` starts under torchrun: runs of the loop in two processes, their results written to a folder."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from dlm.errors import NonFiniteError
from dlm.recipe import Recipe
from dlm.training import checkpoints, sharding, world
from dlm.training.checkpoints import Progress
from dlm.training.loop import HeldOut, LoopResult, make_optimizer, run_loop
from dlm.training.planning import Plan
from dlm.training.scoring import Selection
from tiny_runs import BY_LOSS, PLAN, RECIPE, objective_of, run, weights
from tiny_training import Recorder, example, pair_example, tiny_model

ROWS = [example("q" * (1 + i), "answer " * (1 + i * i % 7), i + 1) for i in range(9)]
PAIRS = [
    pair_example("q" * (1 + i), "good " * (1 + i * i % 7), "bad " * (1 + i * 3 % 5), i + 1) for i in range(9)
]
# At the default epsilon AdamW moves an entry whose gradient is rounding noise by a full step, which hides what is compared:
# there, sums in another order part the weights of 14 steps by up to 2e-6.
CALM = Recipe(learning_rate=1e-2, keep_last=2, adam_epsilon=1e-3)
# the loss that training lowers is to rise: the first evaluation stays the best one
EARLY, UPWARDS = (
    Recipe(learning_rate=1e-2, adam_epsilon=1e-3, early_stopping=4, keep_best=True),
    Selection((("valid_loss", "max"),)),
)
EVERY_STEP = Plan(9, 4, 2, total_steps=40, eval_every=1, save_every=4)
Result = tuple[torch.nn.Module, LoopResult]


def sft(folder: Path, watch: Recorder) -> Result:
    """The last of three windows has one row: the second process has none."""
    return run(ROWS, folder, watch, recipe=CALM, dropout=0.0)


def by_positions(folder: Path, watch: Recorder) -> Result:
    plan = replace(PLAN, rows_per_step=8, micro_positions=120, by_length=True)
    return run(ROWS, folder, watch, plan=plan, recipe=CALM, dropout=0.0)


def dpo(folder: Path, watch: Recorder) -> Result:
    objective = objective_of(PAIRS, "packed_shared", beta=0.5, sft_weight=0.2)
    return run(PAIRS, folder, watch, recipe=CALM, objective=objective, dropout=0.0)


def early(folder: Path, watch: Recorder) -> Result:
    return run(ROWS, folder, watch, plan=EVERY_STEP, recipe=EARLY, selection=UPWARDS, dropout=0.0)


def dropout(folder: Path, watch: Recorder) -> Result:
    return run(ROWS, folder, watch)


def resumed(folder: Path, watch: Recorder) -> Result:
    run(ROWS, folder, _StopsHere(5))
    return run(ROWS, folder, watch, resume=True)


def spread(folder: Path, watch: Recorder) -> Result:
    model = tiny_model()
    sharding.shard(model, "cpu")
    objective, optimizer = (
        objective_of(PAIRS, "packed_shared", beta=0.5, sft_weight=0.2),
        make_optimizer(model, CALM),
    )
    held_out = [HeldOut("valid", objective, PAIRS[:2])]
    return model, run_loop(
        model,
        objective,
        PAIRS,
        held_out,
        CALM,
        PLAN,
        optimizer,
        Progress(),
        watch,
        folder,
        selection=BY_LOSS,
    )


class _StopsHere(Recorder):
    """Asks for a stop in the second process alone, which is told no metrics."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.asked, self.after = 0, after

    def stop_requested(self) -> str:
        self.asked += 1
        return "the second process" if self.asked > self.after and not world.current().is_main else ""


def stopped(folder: Path, watch: Recorder) -> Result:
    return run(ROWS, folder, _StopsHere(4), dropout=0.0)


SCENARIOS: Sequence[Callable[[Path, Recorder], Result]] = (
    sft,
    by_positions,
    dpo,
    early,
    dropout,
    resumed,
    spread,
    stopped,
)


def not_finite(folder: Path) -> dict[str, Any]:
    """A row whose loss is not a number; both processes must tell the same."""
    model = tiny_model()
    model.get_input_embeddings().weight.data[ord("z")] = torch.inf
    rows = [*ROWS, example("q", "fizz", 10)]
    optimizer = make_optimizer(model, RECIPE)
    try:
        run_loop(
            model,
            objective_of(rows),
            rows,
            [],
            RECIPE,
            Plan(10, 10, 2, 9, 9, 9),
            optimizer,
            Progress(),
            Recorder(),
            folder,
        )
    except NonFiniteError as error:
        return {"message": error.message, "found": error.found}
    return {}


def main(folder: Path) -> None:
    """Run every scenario; each process writes its weights and what it was told."""
    with world.setup() as here:
        for scenario in SCENARIOS:
            watch = Recorder()
            model, result = scenario(folder / scenario.__name__, watch)
            name = f"{scenario.__name__}-{here.rank}"
            save_file(weights(model), folder / f"{name}.safetensors")
            told = {
                "history": watch.history,
                "saved": checkpoints.saved_steps(folder / scenario.__name__),
                "step": result.progress.step,
                "best_step": result.best_step,
                "stopped": result.stopped,
                "interrupted": result.interrupted,
            }
            (folder / f"{name}.json").write_text(json.dumps(told))
        told = not_finite(folder / "not_finite")
        (folder / f"not_finite-{here.rank}.json").write_text(json.dumps(told))
        # what a spread base leaves behind keeps gloo's threads alive after their group is gone; an interpreter that ends
        # while one of them still holds a tensor is aborted (pytorch/pytorch#179291)
        time.sleep(1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
