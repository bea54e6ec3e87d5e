"""Loss curves of this core and of TRL over the same rows from the same weights: is what is faster as good?

Every seed draws its own rows and first adapter, which all sides share. Curves are compared in means of twenty steps:
how far two sides of one seed are apart, against how far the seeds of one side are. Each curve is taken by a process of
its own, one at a time (nothing is timed here), and stored at once: a run needs the memory of one side, and what was
stopped goes on where it was. Rows are shorter and steps smaller than in `training.py`, so that two hundred of them fit
in minutes.

    python bench/training_quality.py --size tiny --method dpo
    python bench/training_quality.py --size 135m --method dpo --precision bf16
    python bench/training_quality.py --table
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from report import RESULTS, print_table, provenance
from shapes import METHODS, SIZES, draw_rows
from turns import take_turns

from training import Cell, commit, default_work, start, store, stored

SEEDS = (0, 1, 2)
WINDOW = 20
RATIO, REGIME = 2.0, "spread"
LEARNING_RATE = 1e-3  # so that two hundred small steps teach something
# By type of the frozen weights: our side, and TRL's that does the same arithmetic.
SIDES = {"fp32": ("dlm_fp32", "trl_fp32"), "bf16": ("dlm_bf16", "trl_best")}
ROW_TOKENS, PAIRS_PER_STEP = 64, 2  # means of tokens in a row; of `training.py` 144 to 256, and 4 to 8
KEY = (
    "size",
    "method",
    "ratio",
    "regime",
    "steps",
    "epochs",
    "row_tokens",
    "pairs_per_step",
    "learning_rate",
)
RESULT = RESULTS / "training_quality.json"


def take_curve(record: dict[str, Any], side: str, seed: int, work: Path) -> dict[str, Any]:
    """The loss of every step of one side and seed."""
    size = replace(
        SIZES[record["size"]], row_tokens=record["row_tokens"], pairs_per_step=record["pairs_per_step"]
    )
    cell = Cell(record["size"], record["method"], RATIO, REGIME)
    epochs = record["epochs"]
    drawn = draw_rows(size, cell.method, RATIO, REGIME, record["steps"] // epochs, seed=seed)
    began = time.perf_counter()
    running = start(
        cell,
        side,
        drawn * epochs,
        record["threads"],
        work,
        seed=seed,
        learning_rate=record["learning_rate"],
        timed=False,
    )
    take_turns([running], len(drawn) * epochs)
    return {
        "losses": [round(loss, 5) for loss in running.facts["losses"]],
        "commit": commit(),
        "wall_s": round(time.perf_counter() - began),
        "peak_rss_mb": round(running.facts["peak_rss_mb"]),
    }


def compare(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per pair of sides that a seed is known of; both bf16 sides also stand against TRL in fp32, for what rounding does."""
    smooth = {
        side: {seed: _smooth(curve["losses"]) for seed, curve in seeds.items()}
        for side, seeds in record["curves"].items()
    }
    rows = []
    for one, other in (*SIDES.values(), ("dlm_bf16", "trl_fp32"), ("trl_best", "trl_fp32")):
        mine, theirs = smooth.get(one, {}), smooth.get(other, {})
        both = sorted(set(mine) & set(theirs))
        # Where TRL was too slow for several seeds, ours say how far seeds are apart.
        many = theirs if len(theirs) >= len(mine) else mine
        if not both or len(many) < 2:
            continue
        spread = [max(window) - min(window) for window in zip(*many.values(), strict=True)]
        gaps = [[abs(a - b) for a, b in zip(mine[seed], theirs[seed], strict=True)] for seed in both]
        inside = sum(gap <= width for seed in gaps for gap, width in zip(seed, spread, strict=True))
        rows.append(
            {
                **{name: record[name] for name in KEY},
                "side": one,
                "against": other,
                "seeds": len(both),
                "first": mean(mine[seed][0] for seed in both),
                "last": mean(mine[seed][-1] for seed in both),
                "their_last": mean(theirs[seed][-1] for seed in both),
                "mean_gap": mean(gap for seed in gaps for gap in seed),
                "largest_gap": max(gap for seed in gaps for gap in seed),
                "mean_spread_of_seeds": mean(spread),
                "windows_within": f"{inside} of {len(gaps) * len(spread)}",
            }
        )
    return rows


def _smooth(curve: list[float]) -> list[float]:
    """Means of `WINDOW` steps."""
    return [mean(curve[at : at + WINDOW]) for at in range(0, len(curve) - WINDOW + 1, WINDOW)]


def main() -> None:
    options = _options()
    if not options.table:
        key = {
            "size": options.size,
            "method": options.method,
            "ratio": RATIO,
            "regime": REGIME,
            "steps": options.steps,
            "epochs": options.epochs,
            "row_tokens": ROW_TOKENS,
            "pairs_per_step": PAIRS_PER_STEP,
            "learning_rate": LEARNING_RATE,
        }
        known = [old for old in stored(RESULT) if all(old[name] == key[name] for name in KEY)]
        record = known[0] if known else {**key, "curves": {}}
        record |= provenance() | {"threads": options.threads}
        for seed in options.seed or SEEDS:
            for side in SIDES[options.precision] if options.precision else sum(SIDES.values(), ()):
                curves = record["curves"].setdefault(side, {})
                if str(seed) in curves and not options.fresh:
                    continue
                curves[str(seed)] = found = take_curve(record, side, seed, options.work)
                store(RESULT, record, KEY)
                print(f"{side}, seed {seed}: {found['wall_s']} s, {found['peak_rss_mb']} MB", flush=True)
    rows = [row for record in stored(RESULT) for row in compare(record)]
    if rows:
        print_table(rows)
    else:
        print("nothing to compare yet: that takes two sides and two seeds")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("tiny", "135m"), default="tiny")
    parser.add_argument("--method", choices=METHODS, default="dpo")
    parser.add_argument("--precision", choices=list(SIDES), help="one type of the frozen weights alone")
    parser.add_argument("--seed", type=int, action="append", help="these seeds alone")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=2, help="passes over the rows within the steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="take curves anew that are stored")
    parser.add_argument("--table", action="store_true", help="print the results so far")
    parser.add_argument("--work", type=Path, default=default_work(), help="folder for the bases' weights")
    return parser.parse_args()


if __name__ == "__main__":
    main()
