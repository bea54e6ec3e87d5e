"""Train the runs of `tools.curves.runs` and record their series as JSON lines under tests/curves/recorded.

python -m tools.curves            all of them (minutes)
python -m tools.curves over-fit   one
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from dlm.curves import diagnose
from dlm.workflow.run_curves import curve_run_of
from tools.curves.runs import COLUMNS, RUNS, Recorded, train_run

FOLDER = Path(__file__).parents[2] / "tests" / "curves" / "recorded"


def record(name: str, found: Recorded) -> None:
    """Write a line a step, of the columns that the rules read; six digits are more than any rule looks at."""
    rows: dict[int, dict[str, float]] = {}
    for column in COLUMNS:
        if column in found.series:
            one = found.series[column]
            for step, value in zip(one.steps.tolist(), one.values.tolist(), strict=True):
                rows.setdefault(step, {"step": step})[column] = float(f"{value:.6g}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(rows[step]) + "\n" for step in sorted(rows))
    (FOLDER / f"{name}.jsonl").write_text(text, encoding="utf-8")


def main(names: list[str]) -> None:
    for run in RUNS:
        if names and run.name not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.environ["DLM_HOME"] = f"{folder}/home"
            found = train_run(run, Path(folder))
        record(run.name, found)
        curves = curve_run_of(found.series, kind="sft", method="sft", planned_steps=found.planned_steps)
        fired = [f"{finding.rule} ({finding.severity})" for finding in diagnose(curves).findings]
        print(
            f"{run.name}: {curves.last_step} steps; wanted {', '.join(run.expected)}; found {', '.join(fired) or 'nothing'}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
