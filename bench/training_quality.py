"""Loss curves of this core and of TRL over the same rows from the same weights: is what is faster as good?

Every seed draws its own rows and first adapter, which all sides share. Two curves are compared in means of twenty steps:
the gap between sides of one seed, against the spread of the seeds of one side.

    python bench/training_quality.py --size tiny --method dpo
    python bench/training_quality.py --table
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from report import RESULTS, print_table, provenance
from shapes import METHODS, SIZES, draw_rows
from turns import take_turns

from training import OURS, Cell, commit, default_work, start, store, stored

SEEDS = (0, 1, 2)
WINDOW = 20
SIDES = (*OURS, "trl_fp32", "trl_best")
KEY = ("size", "method", "ratio", "regime", "steps", "epochs")


def curves(cell: Cell, steps: int, epochs: int, threads: int, work: Path) -> dict[str, Any]:
    """The loss of every step, by side and seed."""
    losses: dict[str, list[list[float]]] = {name: [] for name in SIDES}
    for seed in SEEDS:
        drawn = draw_rows(SIZES[cell.size], cell.method, cell.ratio, cell.regime, steps // epochs, seed=seed)
        rows = drawn * epochs
        sides = [start(cell, name, rows, threads, work, seed=seed) for name in SIDES]
        take_turns(sides, len(rows))
        for side in sides:
            losses[side.name].append([round(loss, 5) for loss in side.facts["losses"]])
    return {
        **asdict(cell),
        **provenance(),
        "command": f"python bench/training_quality.py --size {cell.size} --method {cell.method}"
        f" --steps {steps} --epochs {epochs} --threads {threads}",
        "commit": commit(),
        "threads": threads,
        "steps": steps,
        "epochs": epochs,
        "losses": losses,
    }


def compare(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per pair of sides: the gap of their curves and the spread of TRL's seeds."""
    rows = []
    smooth = {name: [_smooth(curve) for curve in seeds] for name, seeds in record["losses"].items()}
    for ours in OURS:
        for theirs in ("trl_fp32", "trl_best"):
            gaps = [
                abs(a - b)
                for mine, other in zip(smooth[ours], smooth[theirs], strict=True)
                for a, b in zip(mine, other, strict=True)
            ]
            spread = [max(window) - min(window) for window in zip(*smooth[theirs], strict=True)]
            rows.append(
                {
                    **{name: record[name] for name in KEY},
                    "side": ours,
                    "against": theirs,
                    "first": mean(curve[0] for curve in smooth[ours]),
                    "last": mean(curve[-1] for curve in smooth[ours]),
                    "their_last": mean(curve[-1] for curve in smooth[theirs]),
                    "largest_gap": max(gaps),
                    "mean_gap": mean(gaps),
                    "mean_spread_of_seeds": mean(spread),
                    "within": mean(gaps) <= mean(spread),
                    "commit": record["commit"],
                }
            )
    return rows


def _smooth(curve: list[float]) -> list[float]:
    """Means of `WINDOW` steps."""
    return [mean(curve[at : at + WINDOW]) for at in range(0, len(curve) - WINDOW + 1, WINDOW)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=list(SIZES), default="tiny")
    parser.add_argument("--method", choices=METHODS, default="dpo")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=2, help="passes over the rows within the steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the results so far")
    parser.add_argument("--work", type=Path, default=default_work(), help="folder for the bases' weights")
    options = parser.parse_args()
    path = RESULTS / "training_quality.json"
    if not options.table:
        cell = Cell(options.size, options.method, 2.0, "spread")
        record = curves(cell, options.steps, options.epochs, options.threads, options.work)
        store(path, record, KEY)
    print_table([row for record in stored(path) for row in compare(record)])


if __name__ == "__main__":
    main()
