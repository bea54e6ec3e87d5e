"""One thread or all of them for the embedded base: training passes alone, and beside another job that keeps a core busy.

Each cell is a process of its own; the cells of a round run one after the other, so that a ratio compares neighbours.

    python bench/threads.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median

from report import write_report

ROUNDS, PASSES = 3, 15
CHILD = f"""
import time
from dlm.bases import resolve_base
from dlm.model import load_policy
policy = load_policy(resolve_base("pocket"), device="cpu")
import torch
policy.model.requires_grad_(True)
ids = torch.arange(8 * 64).reshape(8, 64) + 10  # a micro-batch as a short document makes it
times = []
for _ in range({PASSES}):
    began = time.perf_counter()
    policy.model(input_ids=ids, labels=ids).loss.backward()
    times.append(time.perf_counter() - began)
print(sorted(times)[len(times) // 2])
"""


def pass_seconds(threads: int) -> float:
    """Median seconds of one forward and backward pass in a fresh process."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", CHILD], env=env, check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rows = []
    for name in ("alone", "beside a busy job"):
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if name != "alone" else None
        try:
            rounds = [(pass_seconds(1), pass_seconds(cores)) for _ in range(ROUNDS)]
        finally:
            if busy is not None:
                busy.kill()
                busy.wait()
        rows.append(
            {
                "where": name,
                "one_thread_s": median(one for one, _ in rounds),
                f"{cores}_threads_s": median(many for _, many in rounds),
                "many_over_one": median(many / one for one, many in rounds),
            }
        )
    write_report("threads", rows, rounds=ROUNDS, passes=PASSES)


if __name__ == "__main__":
    main()
