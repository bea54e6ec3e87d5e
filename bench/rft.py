"""GRPO steps of this core against TRL's GRPOTrainer: the same base, prompts, group size, budget, adapter and reward.

The sides run as processes that take their steps in turns (`turns.py`). In cells of fixed lengths nobody may stop early and every
answer has exactly the budget's tokens, so that both sides sample and learn the same lengths; otherwise each side's answers
end where the model ends them, which is what a run does, and lengths differ by chance alone.

    python bench/rft.py                 every cell that has no result yet
    python bench/rft.py --task facts --lengths free --beta 0        those of one kind
    python bench/rft.py --table         what `bench/results/rft.json` says
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}

import rft_sides  # light: torch is loaded in the sides' processes alone
from report import RESULTS, print_table, provenance
from turns import Side, take_turns

from training import commit, store

WARM_UP = 1
PATH = RESULTS / "rft.json"
VARIANTS = ("dlm", "trl_torch")
OTHERS = ("trl_onednn", "trl_default")  # TRL's other settings, to see that none is faster
TASKS = {"facts": 96, "sheets": 224}  # task → token budget of an answer


@dataclass(frozen=True)
class Cell:
    """One comparison."""

    task: str
    fixed: bool
    beta: float
    group_size: int = 8
    prompts: int = 8


CELLS = [Cell(task, fixed, beta) for task in TASKS for fixed in (True, False) for beta in (0.0, 0.04)]


def questions(task: str, count: int) -> list[str]:
    """Prompts of a task that the embedded base was taught."""
    from dlm.tasks import spreadsheet, style

    if task == "facts":
        return [case.question for case in style.generate(5, count, ("fact",), split="train")]
    return [case.prompt for case in spreadsheet.generate(5, count, (10, 14))]


def measure(cell: Cell, variants: Sequence[str], steps: int, threads: int) -> dict[str, Any]:
    """Run one cell; what every side measured, step by step."""
    total = WARM_UP + steps
    texts = questions(cell.task, total * cell.prompts)
    rounds = [texts[at : at + cell.prompts] for at in range(0, len(texts), cell.prompts)]
    os.environ["OMP_NUM_THREADS"] = str(threads)
    sides = [
        Side(
            variant,
            rft_sides.ours if variant == "dlm" else rft_sides.theirs,
            {
                "variant": variant,
                "device": "cpu",
                "threads": threads,
                "steps": rounds,
                "fixed": cell.fixed,
                "beta": cell.beta,
                "group_size": cell.group_size,
                "budget": TASKS[cell.task],
                "learning_rate": 1e-6,  # the policy stays, and with it the lengths of its answers
            },
        )
        for variant in variants
    ]
    taken = take_turns(sides, total, count_last=False)
    ids = {json.dumps(side.facts.pop("prompt_ids")) for side in sides}
    if len(ids) > 1:
        raise SystemExit("the sides read other prompt ids")
    measured = {}
    for side in sides:
        timed = taken[side.name][WARM_UP:]
        parts = {name: side.facts.pop(name)[WARM_UP:] for name in ("sampling_cpu_s", "sampling_wall_s")}
        measured[side.name] = {
            "cpu_s": [round(step["cpu_s"], 4) for step in timed],
            "wall_s": [round(step["wall_s"], 4) for step in timed],
            **{name: [round(value, 4) for value in values] for name, values in parts.items()},
            **side.facts,
        }
    return {
        **asdict(cell),
        "budget": TASKS[cell.task],
        **provenance(),
        "commit": commit(),
        "threads": threads,
        "load_average": round(os.getloadavg()[1], 1),
        "sides": measured,
    }


def rows_of(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a side: medians of CPU seconds, the ratio to this core's, tokens of an answer."""
    rows = []
    for cell in cells:
        best = min((_median(side, "cpu_s") for name, side in cell["sides"].items() if name != "dlm"))
        for name, side in cell["sides"].items():
            whole, sampling = _median(side, "cpu_s"), _median(side, "sampling_cpu_s")
            rows.append(
                {
                    "task": cell["task"],
                    "lengths": "fixed" if cell["fixed"] else "as they end",
                    "beta": cell["beta"],
                    "side": name,
                    "cpu_s": whole,
                    "wall_s": _median(side, "wall_s"),
                    "sampling": sampling,
                    "update": whole - sampling,
                    "tokens": statistics.fmean(side["tokens"][WARM_UP:]),
                    "peak_mb": side["peak_rss_mb"],
                    "TRL's best / ours": f"{best / whole:.2f}" if name == "dlm" else "",
                }
            )
    return rows


def _median(side: Mapping[str, Any], name: str) -> float:
    return statistics.median(side[name])


def stored() -> list[dict[str, Any]]:
    """The cells measured so far."""
    found: list[dict[str, Any]] = (
        json.loads(PATH.read_text(encoding="utf-8"))["cells"] if PATH.exists() else []
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--lengths", choices=("fixed", "free"))
    parser.add_argument("--beta", type=float)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--all-settings", action="store_true", help="TRL's other settings, too")
    parser.add_argument("--again", action="store_true", help="measure cells that have a result, too")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    key = tuple(Cell.__dataclass_fields__)
    if not options.table:
        known = [tuple(cell[name] for name in key) for cell in stored()]
        for cell in CELLS:
            is_known = tuple(asdict(cell).values()) in known
            is_meant = (
                options.task in (None, cell.task)
                and options.lengths in (None, "fixed" if cell.fixed else "free")
                and options.beta in (None, cell.beta)
            )
            if is_meant and (options.again or not is_known):
                variants = (*VARIANTS, *OTHERS) if options.all_settings else VARIANTS
                record = measure(cell, variants, options.steps, options.threads)
                store(PATH, record, key)
                print_table(rows_of([record]))
    print_table(rows_of(stored()))


if __name__ == "__main__":
    main()
