"""What the rules cost while a run trains: CPU time of looking at the curves over that of the steps, on the embedded base.

Whole trainings through the program's own door: the first run of `dlm demo`'s kind (ten questions, every knob at its
default), and one with 240 steps and a validation every six. The first look also pays for what is imported then.

    python bench/watching.py
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from report import write_report

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.command_line import ten_questions
from tools.curves.runs import RUNS, Recorded, document_of

from dlm.workflow.train import TrainOptions, train
from dlm.workflow.watching import CurveWatch

EVERYTHING = {"layout": "plain", "seed": 7}


class Clocked(Recorded):
    """A view that notes the CPU time of the first and of the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.ended, self.steps = 0.0, 0.0, 0

    def step(self, step: int, total: int, values: Mapping[str, float]) -> None:
        self.ended = time.process_time()
        self.began = self.began or self.ended
        self.steps = step


def measure(name: str, text: str, knobs: Mapping[str, Any]) -> dict[str, Any]:
    """One training; the share that looking took of the steps after the first."""
    spent: list[float] = []
    plain = CurveWatch.add

    def timed(self: CurveWatch, step: int, values: Mapping[str, float]) -> Any:
        before = time.process_time()
        found = plain(self, step, values)
        spent.append(time.process_time() - before)
        return found

    view = Clocked()
    CurveWatch.add = timed  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["DLM_HOME"] = f"{folder}/home"
            path = Path(folder) / "doc.dlm"
            path.write_text(text, encoding="utf-8")
            train(path, TrainOptions(knobs={**EVERYTHING, **knobs}, device="cpu"), view)
    finally:
        CurveWatch.add = plain  # type: ignore[method-assign]
    looks = [one for one in spent if one > 1e-4]
    steps_s = view.ended - view.began
    return {
        "run": name,
        "steps": view.steps,
        "step_ms": 1e3 * steps_s / (view.steps - 1),
        "looks": len(looks),
        "look_ms": 1e3 * sum(looks) / max(1, len(looks)),
        "share": sum(spent) / steps_s,
    }


def main() -> None:
    over_fit = next(run for run in RUNS if run.name == "over-fit")
    rows = [
        measure("ten questions, defaults", ten_questions(), {}),
        measure("over-fit, a validation every 6 steps", document_of(over_fit), over_fit.knobs),
    ]
    write_report("watching", rows, goal="share ≤ .01")


if __name__ == "__main__":
    main()
