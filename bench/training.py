"""This training core against TRL's trainers: the same weights, rows of every step, adapter and optimiser.

A cell is a size, a method, a ratio of prompt to answer tokens, and a regime of lengths. Its sides run as processes that
take their steps in turns (`turns.py`), so each has its own memory, and what disturbs the machine disturbs all alike.
The first steps of all sides are left out: there the allocator gets its pages. The last one counts operations instead.

    python bench/training.py --size tiny --method dpo --ratio 2 --regime equal
    python bench/training.py --size 135m --all          every cell that has no result yet
    python bench/training.py --table                    what `bench/results/training.json` says
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}  # of the sides' processes

import dlm_side  # light, as all of these: torch is loaded in the sides' processes alone
import trl_side
from report import RESULTS, provenance
from shapes import METHODS, REGIMES, SIZES, RawRow, draw_rows, save_base
from training_tables import show
from turns import Side, take_turns

RATIOS = (0.5, 1.0, 2.0, 8.0)
MAIN_RATIO = 2.0
WARM_UP = 2
OURS = {"dlm_fp32": "fp32", "dlm_bf16": "bf16"}  # type of the frozen weights


@dataclass(frozen=True)
class Cell:
    """One comparison."""

    size: str
    method: str
    ratio: float
    regime: str
    device: str = "cpu"

    @property
    def command(self) -> str:
        """What measures this cell again."""
        named = {name: f"{value:g}" if name == "ratio" else value for name, value in asdict(self).items()}
        return " ".join(["python bench/training.py", *(f"--{name} {value}" for name, value in named.items())])

    @property
    def variants(self) -> tuple[str, ...]:
        """The sides: all of them at the main ratio, elsewhere those that the targets speak of."""
        if self.device != "cpu":
            return ("dlm_bf16", "trl_best", "trl_default")
        if self.ratio != MAIN_RATIO:
            return (*OURS, "trl_best")
        packed = ("trl_packed",) if self.method == "sft" and self.regime != "equal" else ()
        default = ("trl_default",) if self.method == "dpo" else ()
        fp32 = ("trl_fp32",) if self.regime == "equal" else ()  # also what the losses are compared with
        return (*OURS, "trl_best", *packed, *fp32, *default)


def cells(sizes: Sequence[str], device: str) -> list[Cell]:
    """All cells, those that the targets speak of first."""
    main = [
        Cell(size, method, MAIN_RATIO, regime, device)
        for size in sizes
        for method in ("dpo", "sft", "orpo", "reward")
        for regime in REGIMES
    ]
    others = [
        Cell(size, method, ratio, "grouped", device)
        for size in sizes
        for method in ("dpo", "sft", "orpo", "reward")
        for ratio in RATIOS
        if ratio != MAIN_RATIO
    ]
    return main + others


def measure(cell: Cell, steps: int, threads: int, work: Path) -> dict[str, Any]:
    """Run one cell; what every side measured, step by step."""
    total = WARM_UP + steps + 1
    size = SIZES[cell.size]
    rows = draw_rows(size, cell.method, cell.ratio, cell.regime, total, seed=0)
    sides = [start(cell, variant, rows, threads, work, seed=0) for variant in cell.variants]
    taken = take_turns(sides, total)
    measured: dict[str, Any] = {}
    for side in sides:
        timed, counted = taken[side.name][WARM_UP:-1], taken[side.name][-1]
        measured[side.name] = {
            "cpu_s": [round(step["cpu_s"], 4) for step in timed],
            "wall_s": [round(step["wall_s"], 4) for step in timed],
            "warm_up_cpu_s": [round(step["cpu_s"], 4) for step in taken[side.name][:WARM_UP]],
            "counted_gflop": counted["flops"] / 1e9,
            **side.facts,
        }
    return {
        **asdict(cell),
        **provenance(),
        "command": f"{cell.command} --steps {steps} --threads {threads}",
        "commit": commit(),
        "threads": threads,
        "load_average": round(
            os.getloadavg()[1], 1
        ),  # of the last five minutes; beside other jobs times mean less
        "pairs_per_step": size.rows_per_step(cell.method),
        "tokens": [
            sum(row.n_tokens for row in step) for step in rows[WARM_UP:]
        ],  # the last: of the counted step
        "sides": measured,
    }


def start(
    cell: Cell,
    variant: str,
    rows: Sequence[Sequence[RawRow]],
    threads: int,
    work: Path,
    *,
    seed: int,
    learning_rate: float = 1e-4,
    timed: bool = True,
) -> Side:
    """Start one side; it is ready for its first step when this returns. Untimed, it measures no ceiling."""
    ours = variant in OURS
    dtype = OURS[variant] if ours else trl_side.SETTINGS[variant]["dtype"]
    os.environ["OMP_NUM_THREADS"] = str(threads)
    spec = {
        "variant": variant,
        "method": cell.method,
        "device": cell.device,
        "dtype": dtype,
        "folder": str(base_folder(cell, dtype, work)),
        "threads": threads,
        "seed": seed,
        "timed": timed,
        "learning_rate": learning_rate,
        "steps": [[(row.prompt, row.branches) for row in step] for step in rows],
    }
    return Side(variant, dlm_side.run if ours else trl_side.run, spec)


def base_folder(cell: Cell, dtype: str, work: Path) -> Path:
    """The weights in this type, saved by a process of its own, so that this one stays small."""
    kind = "scorer" if cell.method == "reward" else "writer"
    folder = work / f"{cell.size}-{kind}-{dtype}"
    if not (folder / "config.json").exists():
        saving = multiprocessing.get_context("spawn").Process(
            target=save_base, args=(SIZES[cell.size], cell.method, dtype, folder)
        )
        saving.start()
        saving.join()
        if saving.exitcode:
            raise SystemExit(f"{folder} could not be made")
    return folder


def default_work() -> Path:
    """Where the bases' weights lie between runs."""
    return Path(tempfile.gettempdir()) / "dlm-bench"


def commit() -> str:
    """The commit measured; "+" where the package had changes of its own."""
    root = Path(__file__).parent.parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=root, check=True, capture_output=True, text=True
        ).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "src") else "")


def stored(path: Path) -> list[dict[str, Any]]:
    """The cells measured so far."""
    if not path.exists():
        return []
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return found


def store(path: Path, record: dict[str, Any], key: Sequence[str]) -> None:
    """Add a cell to the results, in place of an older one of the same key; the file is whole at any moment."""
    path.parent.mkdir(exist_ok=True)
    kept = [old for old in stored(path) if any(old[name] != record[name] for name in key)]
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"cells": [*kept, record]}, indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)


CELL_KEY = tuple(Cell.__dataclass_fields__)


def main() -> None:
    options = _options()
    path = RESULTS / "training.json"
    if options.table:
        show(stored(path))
        return
    chosen = [
        cell
        for cell in cells(options.size or ("tiny", "135m"), options.device)
        if (not options.method or cell.method in options.method)
        and (not options.ratio or cell.ratio in options.ratio)
        and (not options.regime or cell.regime in options.regime)
    ]
    done = [tuple(old[name] for name in CELL_KEY) for old in stored(path)]
    if options.list:
        for cell in chosen:
            print("done   " if tuple(asdict(cell).values()) in done else "to do  ", *asdict(cell).values())
        return
    if not (options.all or options.size or options.method):
        raise SystemExit("name a --size, a --method, or --all")
    for cell in chosen:
        if options.all and tuple(asdict(cell).values()) in done:
            continue
        print(*asdict(cell).values(), flush=True)
        record = measure(cell, options.steps, options.threads, options.work)
        store(path, record, CELL_KEY)
        show([record])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", action="append", choices=list(SIZES))
    parser.add_argument("--method", action="append", choices=METHODS)
    parser.add_argument("--ratio", action="append", type=float, choices=RATIOS)
    parser.add_argument("--regime", action="append", choices=REGIMES)
    parser.add_argument("--all", action="store_true", help="every chosen cell that has no result yet")
    parser.add_argument("--list", action="store_true", help="list the chosen cells")
    parser.add_argument("--table", action="store_true", help="print the results so far")
    parser.add_argument("--steps", type=int, default=5, help="steps that are measured")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--work", type=Path, default=default_work(), help="folder for the bases' weights")
    return parser.parse_args()


if __name__ == "__main__":
    main()
