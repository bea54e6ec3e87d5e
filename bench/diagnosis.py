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

A pattern's runs are one cell, a rule's ROC another; with --work FOLDER each is kept there as soon as it is done, and a
second call goes on from them (some ten seconds of CPU time a cell, six minutes in all).

    python bench/diagnosis.py [--runs 2000] [--roc-runs 200] [--first-seed 200000] [--work FOLDER [--most CELLS]]
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
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
        limits = Thresholds().model_copy(update={name: value})  # a band may pass the next one here
        hits = [isinstance(rule.check(view, limits), Fires) for view in due]
        alarms = [isinstance(rule.check(view, limits), Fires) for view in free]
        points.append({"value": value, "recall": float(np.mean(hits)), "false_alarm": float(np.mean(alarms))})
    path = sorted({(0.0, 0.0), *((one["false_alarm"], one["recall"]) for one in points), (1.0, 1.0)})
    x, y = zip(*path, strict=True)
    area = float(np.trapezoid(np.maximum.accumulate(y), x))
    return {"threshold": name, "points": points, "area": area}


class Kept:
    """Cells that were worked out already, as files of a folder; without one, everything is worked out."""

    def __init__(self, folder: Path | None, most: int | None) -> None:
        self._folder, self._left = folder, most
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The cell of a name; SystemExit once as many were made as this call may make."""
        path = None if self._folder is None else self._folder / f"{name}.json"
        if path is not None and path.exists():
            found: dict[str, Any] = json.loads(path.read_text())
            return found
        if self._left is not None:
            if self._left == 0:
                raise SystemExit(f"call again: {name} is next")
            self._left -= 1
        made = make()
        if path is not None:
            path.write_text(json.dumps(made))
        return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--roc-runs", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=REPORTED_FROM)
    parser.add_argument("--work", type=Path, help="keep finished cells here, and go on from them")
    parser.add_argument("--most", type=int, help="stop after so many new cells")
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.runs)
    few = range(arguments.first_seed, arguments.first_seed + arguments.roc_runs)
    kept = Kept(arguments.work, arguments.most)
    kind = kinds()
    cells = {name: as_cell(kept.get(name, lambda name=name: vars(measure(name, seeds)))) for name in PATTERNS}  # type: ignore[misc]
    curves = {
        rule.name: kept.get(f"roc-{rule.name}", lambda rule=rule: roc(rule, kind, few))  # type: ignore[misc]
        for rule in RULES
        if rule.name in MOVED
    }
    report(arguments, kind, cells, curves)


def as_cell(kept: Mapping[str, Any]) -> Cell:
    """A cell from its JSON."""
    counters = {name: Counter(kept[name]) for name in ("fired", "rightly", "undecided")}
    return Cell(**{**kept, **counters})


def report(
    arguments: argparse.Namespace,
    kind: Mapping[str, str],
    cells: Mapping[str, Cell],
    curves: Mapping[str, Any],
) -> None:
    """Print the confusion matrix, the checkpoints and the table of rules, and write them down."""
    matrix: dict[str, dict[str, float]] = defaultdict(dict)
    for name, cell in cells.items():
        for rule_name, count in cell.fired.most_common():
            matrix[name][rule_name] = count / cell.runs
        shown = ", ".join(f"{rule} {share:.3f}" for rule, share in matrix[name].items() if share >= 0.001)
        print(f"{name:18} {shown}")
    rows = [row for rule in RULES if (row := figures(rule, cells, kind))]
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
    write_report(
        "diagnosis",
        rows,
        runs_per_pattern=arguments.runs,
        roc_runs=arguments.roc_runs,
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
