"""Reading and judging a result file of a million rows: seconds, CPU seconds and peak memory, each in a process of its own.

python bench/diagnose_scale.py [--rows 1000000] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from report import write_report

GOAL_S, GOAL_MB = 5.0, 500.0
HEADER = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,full_valid_loss,full_valid_mean_token_accuracy"


def write_file(path: Path, rows: int, *, dense: bool) -> None:
    """A result file: validation every tenth row (sparse, as services write it) or in every row with all digits."""
    rng = np.random.default_rng(0)
    t = np.arange(rows) / rows
    loss = (0.6 + 2 * np.exp(-t / 0.1)) * rng.lognormal(0, 0.1, rows)
    valid = (0.65 + 2 * np.exp(-t / 0.1)) * rng.lognormal(0, 0.02, rows)
    with path.open("w", encoding="utf-8") as file:
        file.write(HEADER + "\n")
        for i in range(rows):
            a, b, c = float(loss[i]), float(valid[i]), float(1 - t[i] / 2)
            if dense:
                file.write(f"{i + 1},{a!r},{c!r},{b!r},{c!r},{b!r},{c!r}\n")
                continue
            checked = f"{b:.5f},{c:.5f}" if i % 10 == 9 else ","
            fully = f"{b:.5f},{c:.5f}" if i % 1000 == 999 else ","
            file.write(f"{i + 1},{a:.5f},{c:.5f},{checked},{fully}\n")


def child(path: str) -> None:
    """Read, judge and choose in this process, and print what it took."""
    started, used = time.perf_counter(), time.process_time()
    from dlm.curves import diagnose, read_curves, select  # the import is part of what a user waits for

    run = read_curves(path)
    read = time.perf_counter() - started
    diagnosis, chosen = diagnose(run), select(run)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    print(
        json.dumps(
            {
                "read_s": read,
                "all_s": time.perf_counter() - started,
                "cpu_s": time.process_time() - used,
                "peak_mb": peak,
                "points": sum(len(one) for one in run.series.values()),
                "verdict": diagnosis.verdict.text,
                "checkpoint": chosen.best.step if chosen.best else None,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in ("sparse", "dense"):
            path = Path(folder) / f"{shape}.csv"
            write_file(path, arguments.rows, dense=shape == "dense")
            taken = []
            for _ in range(arguments.repeats):
                command = [sys.executable, __file__, "--child", str(path)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                taken.append(json.loads(done.stdout))
            median = {
                name: statistics.median(one[name] for one in taken)
                for name in ("read_s", "all_s", "cpu_s", "peak_mb")
            }
            rows.append(
                {
                    "file": shape,
                    "rows": arguments.rows,
                    "file_mb": path.stat().st_size / 1e6,
                    **median,
                    "met": median["all_s"] <= GOAL_S and median["peak_mb"] <= GOAL_MB,
                    "verdict": taken[0]["verdict"],
                }
            )
    write_report(
        "diagnose_scale", rows, goals={"seconds": GOAL_S, "peak_mb": GOAL_MB}, repeats=arguments.repeats
    )


if __name__ == "__main__":
    main()
