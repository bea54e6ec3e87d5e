"""How often the rules that read curves are right, on simulated noisy runs whose truth is known.

For each pattern of `curves_simulation.py` so many runs are drawn, diagnosed, and a checkpoint is chosen:

    recall        of a rule: the share of the runs of its patterns in which it fires, with the severity the pattern is about
    undecided     the share of them in which it says that it cannot tell (counted as missed)
    false alarm   of a rule: the share of all runs of its kind, of patterns where it is neither due nor allowed, in which
                  it fires; and the pattern in which that is worst
    ROC           of a rule: both figures while its main threshold is moved, all others at their defaults; the area is that
                  under the points, which need not reach the corners
    checkpoint    the share of runs in which the chosen saved step's true validation loss is within 2 % of the best one

The rules were tuned on seeds from 100,000 on; the figures here are of seeds from 200,000 on, looked at once.

    python bench/diagnosis.py [--runs 2000] [--roc-runs 200] [--first-seed 200000]
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from curves_simulation import PATTERNS, simulate
from report import write_report

from dlm.curves import RULES, Rule, Thresholds, diagnose, select
from dlm.curves.view import Fires, View

TUNED_FROM, REPORTED_FROM = 100_000, 200_000
WITHIN = 1.02
GOAL_RECALL, GOAL_FALSE = 0.95, 0.02

# Of each rule, the threshold that its ROC moves, and where to.
MOVED: Mapping[str, tuple[str, Sequence[float]]] = {
    "train_loss_diverges": ("divergence", (1.05, 1.1, 1.2, 1.3, 1.4, 1.5, 1.75, 2, 2.5, 3, 4)),
    "overfit_alarm": ("overfit_alarm", (1.01, 1.03, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.4, 1.6, 2)),
    "overfit_ratio": ("ratio_mild", (1.02, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.4, 1.5)),
    "valid_loss_rises": ("valid_rise", (0.001, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.4)),
    "gap_from_start": ("start_gap", (1.05, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 2, 2.5)),
    "train_loss_barely_falls": ("least_fall", (0.001, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)),
    "train_loss_crashes": ("near_zero", (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)),
    "valid_loss_plateaus": ("first_epoch_share", (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)),
    "valid_loss_oscillates": ("oscillation", (0.01, 0.03, 0.05, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3, 0.4)),
    "both_losses_high": ("high_fall", (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.6, 0.8)),
    "gradient_explodes": ("grad_spike", (2, 3, 4, 6, 8, 10, 15, 20, 40)),
    "learning_rate_mis_scheduled": ("rate_at_end", (0.05, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)),
    "first_loss_not_ln2": ("ln2_tolerance", (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 1)),
    "accuracy_saturates": ("saturated_accuracy", (0.55, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99, 1)),
    "held_out_accuracy_stays": ("held_out_gain", (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2)),
    "margin_lowers_both": ("chosen_fall", (0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.4)),
    "length_drifts": ("length_drift", (1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 1.7, 2, 3)),
    "reward_flat_at_zero": ("reward_zero", (0.001, 0.003, 0.005, 0.01, 0.02, 0.04, 0.1, 0.3, 0.6)),
    "reward_high_and_flat": ("reward_high", (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.94, 0.97, 0.99)),
    "reward_does_not_climb": ("reward_gain", (0.001, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)),
    "reward_gap": ("gap_warn", (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1)),
    "answers_grow": ("tokens_moderate", (1.05, 1.2, 1.4, 1.6, 1.8, 2, 2.2, 2.4, 3, 4)),
    "parse_errors": ("parse_errors", (0.1, 0.5, 1, 2, 3, 5, 8, 12, 20)),
    "unresponsive": ("unresponsive", (0.001, 0.005, 0.01, 0.03, 0.05, 0.1, 0.2, 0.4)),
}


@dataclass
class Cell:
    """What came out of one pattern's runs."""

    runs: int = 0
    fired: Counter[str] = field(default_factory=Counter)
    rightly: Counter[str] = field(
        default_factory=Counter
    )  # fired, and with the severity the pattern is about
    undecided: Counter[str] = field(default_factory=Counter)
    within: int = 0
    worst: float = 1.0


def measure(pattern: str, seeds: range) -> Cell:
    """Diagnose the runs of one pattern, and choose a checkpoint in those that have a true validation loss."""
    cell, truth = Cell(len(seeds)), PATTERNS[pattern]
    for seed in seeds:
        made = simulate(pattern, seed)
        diagnosis = diagnose(made.run)
        for finding in diagnosis.findings:
            cell.fired[finding.rule] += 1
            cell.rightly[finding.rule] += (
                truth.severity.get(finding.rule, finding.severity) == finding.severity
            )
        cell.undecided.update(one.rule for one in diagnosis.undecided)
        best = select(made.run).best
        if made.true_valid and made.run.kind == "sft" and best and best.saved_step is not None:
            ratio = made.true_valid[best.saved_step] / min(made.true_valid.values())
            cell.within += ratio <= WITHIN
            cell.worst = max(cell.worst, ratio)
    return cell


def kinds() -> dict[str, str]:
    """The kind of run of each pattern."""
    return {pattern: simulate(pattern, 0).run.kind for pattern in PATTERNS}


def figures(rule: Rule, cells: Mapping[str, Cell], kind: Mapping[str, str]) -> dict[str, Any] | None:
    """Recall and false alarms of a rule; None where no pattern is about it."""
    due = [name for name, one in PATTERNS.items() if rule.name in one.must]
    free = [
        name
        for name, one in PATTERNS.items()
        if kind[name] in rule.kinds and rule.name not in (*one.must, *one.may)
    ]
    if not due:
        return None
    of_due, of_free = sum(cells[name].runs for name in due), sum(cells[name].runs for name in free)
    worst = max(free, key=lambda name: cells[name].fired[rule.name] / cells[name].runs)
    recall = sum(cells[name].rightly[rule.name] for name in due) / of_due
    alarm = sum(cells[name].fired[rule.name] for name in free) / of_free
    return {
        "rule": rule.name,
        "recall": recall,
        "undecided": sum(cells[name].undecided[rule.name] for name in due) / of_due,
        "false_alarm": alarm,
        "worst": f"{worst} {cells[worst].fired[rule.name] / cells[worst].runs:.3f}",
        "met": ("yes" if recall >= GOAL_RECALL else "recall") if alarm <= GOAL_FALSE else "false alarm",
    }


def roc(rule: Rule, kind: Mapping[str, str], seeds: range) -> dict[str, Any]:
    """Recall and false alarms while the rule's main threshold moves."""
    name, values = MOVED[rule.name]
    due, free = [], []
    for pattern, one in PATTERNS.items():
        if kind[pattern] not in rule.kinds or rule.name in one.may:
            continue
        views = [View(simulate(pattern, seed).run) for seed in seeds]
        (due if rule.name in one.must else free).extend(views)
    points = []
    for value in values:
        limits = Thresholds(**{name: value})
        hits = [isinstance(rule.check(view, limits), Fires) for view in due]
        alarms = [isinstance(rule.check(view, limits), Fires) for view in free]
        points.append({"value": value, "recall": float(np.mean(hits)), "false_alarm": float(np.mean(alarms))})
    path = sorted({(0.0, 0.0), *((one["false_alarm"], one["recall"]) for one in points), (1.0, 1.0)})
    x, y = zip(*path, strict=True)
    area = float(np.trapezoid(np.maximum.accumulate(y), x))
    return {"threshold": name, "points": points, "area": area}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--roc-runs", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=REPORTED_FROM)
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.runs)
    kind, cells = kinds(), {}
    for pattern in PATTERNS:
        cells[pattern] = measure(pattern, seeds)
        shares = {
            rule: round(count / cells[pattern].runs, 4)
            for rule, count in cells[pattern].fired.most_common()
            if count
        }
        print(f"{pattern:18} {shares}", flush=True)
    rows = [row for rule in RULES if (row := figures(rule, cells, kind))]
    curves = {}
    few = range(arguments.first_seed, arguments.first_seed + arguments.roc_runs)
    for rule in RULES:
        if rule.name in MOVED:
            curves[rule.name] = roc(rule, kind, few)
            print(f"{rule.name:28} area {curves[rule.name]['area']:.3f}", flush=True)
    for row in rows:
        row["roc_area"] = round(curves[row["rule"]]["area"], 4) if row["rule"] in curves else "–"
    chosen = {
        name: {"within_2_percent": cell.within / cell.runs, "worst": round(cell.worst, 4)}
        for name, cell in cells.items()
        if kind[name] == "sft"
    }
    for name, one in chosen.items():
        print(f"checkpoint {name:18} {one['within_2_percent']:.4f} within 2 %, worst {one['worst']}")
    pooled = float(np.mean([one["within_2_percent"] for one in chosen.values()]))
    print(f"checkpoint, all patterns  {pooled:.4f}")
    matrix: dict[str, dict[str, float]] = defaultdict(dict)
    for name, cell in cells.items():
        for rule_name, count in cell.fired.items():
            matrix[name][rule_name] = count / cell.runs
    write_report(
        "diagnosis",
        rows,
        runs_per_pattern=arguments.runs,
        first_seed=arguments.first_seed,
        goals={"recall": GOAL_RECALL, "false_alarm": GOAL_FALSE},
        confusion=matrix,
        undecided={
            name: {r: c / cell.runs for r, c in cell.undecided.items()} for name, cell in cells.items()
        },
        roc=curves,
        checkpoint=chosen,
        checkpoint_within_2_percent=pooled,
    )


if __name__ == "__main__":
    main()
