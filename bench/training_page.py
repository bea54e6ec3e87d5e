"""Write `docs/benchmarks.md` from the results of `training.py` and `training_quality.py`, so that it cannot drift.

python bench/training_page.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from report import RESULTS
from training_quality import LEARNING_RATE, PAIRS_PER_STEP, ROW_TOKENS, WINDOW
from training_quality import compare as compare_curves
from training_tables import compare, sides

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"

INTRODUCTION = """# Benchmarks

This page is written by `python bench/training_page.py` from `bench/results/`; `make bench-training` fills in what is
missing there.

## Training, against TRL

Both sides take the same rows in the same steps from the same weights, with the same adapter (LoRA r 8 on all linear
layers, no dropout), AdamW and clipping, on one thread. Each side is a process of its own; they take their steps in turns,
so that what disturbs the machine disturbs all alike. Two steps of warm-up are left out on all sides, in which the allocator
gets its pages from the system; figures are medians of the others. *Times as fast* compares CPU seconds of the same step.

| side | is |
|---|---|
| dlm fp32, dlm bf16 | this core with its own choices of layout, micro-batch and kernels, and the type of the frozen weights |
| TRL best | base in bf16, autocast to bf16, reference log-probs computed beforehand, no gradient checkpointing |
| TRL fp32 | the same in fp32, with the matrix kernels that dlm uses |
| TRL packed | TRL best with `padding_free` |
| TRL default | as TRL comes: base in fp32, autocast to bf16, gradient checkpointing, reference scored in every step |

Lengths are *equal*; *spread* (lognormal, σ = .5) with rows in any order; or *grouped*: spread, and rows of like length
meet in a step, as with transformers' `group_by_length`. `tiny` is the embedded base with
144 tokens a row, `135m` the shape of SmolLM2-135M with random weights and 256. A pair's prompt is counted once in tokens/s.
*Work* is the share of TRL best's matrix operations that are executed; *utilisation* is executed operations a second over
those of the best matrix product of the model's shapes, measured in the same process with the same kernels. *Memory* is the
largest resident set over that of TRL best. *Three epochs* and *one epoch* count the reference: once for dlm, in every step
for TRL default.
"""


def main() -> None:
    records = _cells("training.json")
    records.sort(key=lambda r: (r["size"], r["method"], r["ratio"] != 2.0, r["ratio"], r["regime"]))
    parts = [INTRODUCTION, "### How the sides compare\n", _table([_compared(r) for r in records])]
    parts += ["\n### What each side did\n", _table([_done(record) for record in records])]
    curves = [[_curve(row) for row in compare_curves(record)] for record in _cells("training_quality.json")]
    if curves:
        parts += [
            "\n### Loss curves\n",
            f"Every seed draws rows (answers of a made-up language that can be learnt; lengths spread, {ROW_TOKENS} tokens a row on"
            f" average, {PAIRS_PER_STEP} pairs or twice as many supervised rows a step, shorter than above so that 200 steps fit in"
            f" minutes) and the first adapter; both sides of a seed share them, and read the rows twice, at a rate of {LEARNING_RATE:g}. Losses are means of"
            f" {WINDOW} steps. *Gap* is how far the two sides of one seed are apart, *spread* how far the seeds of one side are"
            " apart in the same window; *within* counts windows where the gap is no wider than the spread. Sides in bf16"
            " also stand against TRL in fp32, as a measure of what rounding alone does.\n",
            _table(curves),
        ]
    parts += ["\n### Where the figures come from\n", _table([_origins(records)])]
    PAGE.write_text("\n".join(parts) + "\n", encoding="utf-8")
    print(f"written to {PAGE.relative_to(PAGE.parent.parent)}")


def _cells(name: str) -> list[dict[str, Any]]:
    path = RESULTS / name
    if not path.exists():
        return []
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return found


def _cell(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "size": row["size"],
        "method": row["method"],
        "prompt : answer": f"{row['ratio']:g}",
        "lengths": row["regime"],
        "side": row["side"].replace("_", " ").replace("trl", "TRL"),
    }


def _compared(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        _cell(row)
        | {
            "× TRL best": row["x_best"],
            "× fp32": row["x_fp32"],
            "× packed": row["x_packed"],
            "× default": row["x_default"],
            "× default, three epochs": row["x_default_3_epochs"],
            "× default, one epoch": row["x_default_1_epoch"],
            "memory": row["memory"],
            "work": row["work"],
        }
        for row in compare(record)
    ]


def _done(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        _cell(row)
        | {
            "CPU s a step": row["cpu_s/step"],
            "wall s a step": row["wall_s/step"],
            "pairs/s": row["pairs/s"],
            "tokens/s": f"{row['tokens/s']:.0f}",
            "GFLOP a step": f"{row['GFLOP/step']:.0f}",
            "utilisation": row["utilisation"],
            "peak MB": row["peak_MB"],
            "layout": row["layout"],
        }
        for row in sides(record)
    ]


def _curve(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {
        "first": "first",
        "last": "last",
        "their last": "their_last",
        "mean gap": "mean_gap",
        "largest gap": "largest_gap",
        "mean spread": "mean_spread_of_seeds",
    }
    cell = _cell(row)
    return (
        {name: cell[name] for name in ("size", "method", "side")}
        | {"against": row["against"].replace("trl_", "TRL "), "steps": row["steps"], "seeds": row["seeds"]}
        | {name: f"{row[key]:.5f}" if "gap" in name else f"{row[key]:.3f}" for name, key in shown.items()}
        | {"within": row["windows_within"]}
    )


def _origins(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "size": record["size"],
            "method": record["method"],
            "prompt : answer": f"{record['ratio']:g}",
            "lengths": record["regime"],
            "commit": f"`{record['commit']}`",
            "when": record["when"].partition("T")[0],
            "load": record.get("load_average", ""),
            "processor": record["machine"]["processor"],
            "torch": record["versions"]["torch"],
            "TRL": record["versions"]["trl"],
            "command": f"`{record['command']}`",
        }
        for record in records
    ]


def _table(groups: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Rows as a Markdown table; a column that nothing fills is left out."""
    rows = [row for group in groups for row in group]
    columns = [name for name in rows[0] if any(row[name] != "" for row in rows)] if rows else []
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    for row in rows:
        lines.append(
            " | ".join(f"{row[c]:.3g}" if isinstance(row[c], float) else str(row[c]) for c in columns)
        )
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    main()
