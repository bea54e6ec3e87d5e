"""Tables of the training benchmark: what each side did, and how the sides compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from report import print_table

Record = Mapping[str, Any]
EPOCHS = 3


def show(records: Sequence[Record]) -> None:
    """Print both tables."""
    if not records:
        print("no results yet")
        return
    print_table([row for record in records for row in sides(record)])
    print()
    print_table([row for record in records for row in compare(record)])


def sides(record: Record) -> list[dict[str, Any]]:
    """A row per side: throughput by the wall clock, cost in CPU seconds, memory, and the work really executed."""
    rows = []
    for name, side in record["sides"].items():
        cpu, wall = median(side["cpu_s"]), median(side["wall_s"])
        tokens = median(n / s for n, s in zip(record["tokens"], side["wall_s"], strict=False))
        rows.append(
            {
                **_cell(record),
                "side": name,
                "cpu_s/step": cpu,
                "wall_s/step": wall,
                "pairs/s": record["pairs_per_step"] / wall,
                "tokens/s": tokens,
                "GFLOP/step": side["counted_gflop"],
                "utilisation": utilisation(record, side),
                "peak_MB": round(side["peak_rss_mb"]),
                "before_MB": round(side["rss_before_mb"]),
                "layout": side.get("layout", ""),
                "products": side["products"],
                "commit": record["commit"],
            }
        )
    return rows


def utilisation(record: Record, side: Mapping[str, Any]) -> float:
    """Executed GFLOP per second, as a share of the ceiling that the same process measured.

    Operations were counted on one step; steps of other lengths do as many per token.
    """
    per_token = side["counted_gflop"] / record["tokens"][-1]
    clock = "cpu_s" if record["device"] == "cpu" else "wall_s"
    rates = [per_token * n / s for n, s in zip(record["tokens"], side[clock], strict=False)]
    return median(rates) / float(side["ceiling_gflops"])


def compare(record: Record) -> list[dict[str, Any]]:
    """A row per side of ours: how many times as fast as TRL in CPU seconds, step against the same step."""
    rows = []
    for name, ours in record["sides"].items():
        if not name.startswith("dlm"):
            continue
        row: dict[str, Any] = {**_cell(record), "side": name}
        for label, rival in (("best", "trl_best"), ("packed", "trl_packed"), ("fp32", "trl_fp32")):
            theirs = record["sides"].get(rival)
            row[f"x_{label}"] = _ratio(ours, theirs) if theirs else ""
        default = record["sides"].get("trl_default")
        row["x_default"] = _ratio(ours, default) if default else ""
        row["x_default_3_epochs"] = _with_reference(ours, default, EPOCHS)
        row["x_default_1_epoch"] = _with_reference(ours, default, 1)
        best = record["sides"]["trl_best"]
        row["memory"] = ours["peak_rss_mb"] / best["peak_rss_mb"]
        row["work"] = ours["counted_gflop"] / best["counted_gflop"]
        row["loss_gap"] = _loss_gap(ours, record["sides"].get("trl_fp32") or best)
        rows.append(row)
    return rows


def _cell(record: Record) -> dict[str, Any]:
    return {name: record[name] for name in ("size", "method", "ratio", "regime")}


def _ratio(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    return median(b / a for a, b in zip(ours["cpu_s"], theirs["cpu_s"], strict=True))


def _with_reference(ours: Mapping[str, Any], theirs: Mapping[str, Any] | None, epochs: int) -> float | str:
    """Our epochs with one pass for the reference, against theirs, which score the reference in every step."""
    if theirs is None or not ours.get("reference_cpu_s"):
        return ""
    reference = ours["reference_cpu_s"][-len(ours["cpu_s"]) - 1 : -1]  # of the measured steps' rows
    return median(
        epochs * b / (epochs * a + r)
        for a, b, r in zip(ours["cpu_s"], theirs["cpu_s"], reference, strict=True)
    )


def _loss_gap(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    """The largest difference of a step's loss; TRL in fp32 where it was measured, since bf16 moves losses itself."""
    return max(abs(a - b) for a, b in zip(ours["losses"], theirs["losses"], strict=True))
