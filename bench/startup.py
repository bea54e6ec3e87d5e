"""How long the commands take that a person types most: `dlm --help`, `dlm check` on a small document.

Whole processes, interleaved with `python -c pass` in one run, medians; the ratio to that empty process is what other
machines can compare.

    python bench/startup.py
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from report import write_report

RUNS = 15


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    example = Path(__file__).parent.parent / "examples" / "release-notes.dlm"
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "dlm --help": [sys.executable, "-m", "dlm", "--help"],
        "dlm check": [sys.executable, "-m", "dlm", "check", str(example)],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(RUNS):
        for name, command in commands.items():
            times[name].append(seconds(command))
    empty = median(times["python -c pass"])
    rows = [
        {"command": name, "median_s": median(t), "ratio_to_empty": median(t) / empty}
        for name, t in times.items()
    ]
    write_report("startup", rows)


if __name__ == "__main__":
    main()
