"""A diagnosis on one screen: the verdict, what to do, a small plot, the findings; several runs side by side."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from dlm.cli.output import Output, clean, is_terminal, pair_lines, terminal_width
from dlm.cli.panels import main_panel
from dlm.cli.plot import PlotCurve, plot
from dlm.cli.recommending import StoredRun, candidate_line
from dlm.curves import CurveRun, Diagnosis, Evidence, Finding, Selection, Series

__all__ = [
    "Diagnosed",
    "compared_curve",
    "evidence_text",
    "print_comparison",
    "print_diagnosis",
    "recommended_lines",
    "summary_row",
]

PLAIN_WIDTH = 80
WIDEST = 110  # columns beyond which a plot gains nothing
PLOT_ROWS = 8
MOST_UNDECIDED = 5
MOST_VALUES = 4  # of one piece of evidence, on the screen
NONE = "–"
COLOURS = {"severe": "red", "warn": "yellow", "info": "cyan", "healthy": "green", "unknown": "cyan"}


@dataclass(frozen=True)
class Diagnosed:
    """One run that was looked at: the file or document it comes from, its curves, and what they say."""

    source: Path
    label: str
    run: CurveRun
    diagnosis: Diagnosis
    selection: Selection
    stored: StoredRun | None = None


def print_diagnosis(output: Output, one: Diagnosed) -> None:
    """The whole report of one run."""
    if output.as_json:
        return
    verdict = one.diagnosis.verdict
    width = terminal_width(sys.stdout)
    output.heading(_head(one))
    lines = pair_lines({_name("verdict"): clean(verdict.text)}, width)
    output.text("\n".join(_coloured(line, COLOURS[verdict.level], bold=True) for line in lines))
    for line in recommended_lines(one, width):
        output.text(line)
    drawn = _plot(one)
    if drawn:
        output.line()
        output.text("\n".join(drawn))
    if one.diagnosis.findings:
        output.line()
    for finding in one.diagnosis.findings:
        output.text("\n".join(_finding_lines(finding, width)))
    for line in _asides(one, width):
        output.text(line)


def _head(one: Diagnosed) -> str:
    run = one.run
    kind = run.kind if run.method in ("", run.kind) else f"{run.kind}, {run.method}"
    planned = f" of {run.planned_steps}" if run.planned_steps else ""
    still = ", still running" if one.diagnosis.running else ""
    steps = "step" if (run.planned_steps or run.last_step) == 1 else "steps"
    return f"{one.label} ({kind}), {run.last_step}{planned} {steps}{still}"


def recommended_lines(one: Diagnosed, width: int | None) -> list[str]:
    """The recommended checkpoint, or the candidates to try; why there is none."""
    candidates = one.selection.candidates
    if not candidates:
        return pair_lines({_name("keep"): clean(f"nothing recommended: {one.selection.reason}")}, width)
    lines = [clean(candidate_line(one.run, candidate, one.stored)) for candidate in candidates]
    if one.run.kind == "rft":  # none is named the best: the curves alone cannot tell
        return pair_lines({_name("try"): "\n".join([clean(one.selection.reason), *lines])}, width)
    return pair_lines({_name("keep"): "\nor ".join(lines)}, width)


def _name(text: str) -> str:
    """A name in the column that all parts of the report share."""
    return text.ljust(len("cannot say"))


def _finding_lines(finding: Finding, width: int | None) -> list[str]:
    """Severity and title, what says so, what to do. What is only told for information takes one line."""
    evidence = "; ".join(evidence_text(one, MOST_VALUES) for one in finding.evidence)
    text = f"{finding.title}  [{finding.rule}]"
    if finding.severity == "info":
        text = f"{text}\n{evidence}" if evidence else text
    else:
        text = f"{text}\n{evidence}\n→ {finding.action}" if evidence else f"{text}\n→ {finding.action}"
    lines = pair_lines({_name(finding.severity): clean(text)}, width)
    head, _, rest = lines[0].partition(finding.severity)
    return [head + _coloured(finding.severity, COLOURS[finding.severity], bold=True) + rest, *lines[1:]]


def evidence_text(evidence: Evidence, most: int = 12) -> str:
    """What says so, with the values of at most `most` steps: the first ones' and the last one's."""
    pairs = list(zip(evidence.steps, evidence.values, strict=False))
    if not pairs:
        return evidence.text
    kept = pairs if len(pairs) <= most else [*pairs[: most - 1], None, pairs[-1]]
    shown = ", ".join("…" if pair is None else f"{pair[1]:.4g} at step {pair[0]:,}" for pair in kept)
    return (
        f"{evidence.text} ({evidence.series}: {shown})" if evidence.series else f"{evidence.text} ({shown})"
    )


def _asides(one: Diagnosed, width: int | None) -> Iterator[str]:
    """What could not be said, and what the reader had to mend."""
    undecided = one.diagnosis.undecided
    if undecided:
        named = [
            f"{rule.rule} ({rule.have} of {rule.needed} points)"
            if rule.needed
            else f"{rule.rule} ({rule.reason})"
            for rule in undecided[:MOST_UNDECIDED]
        ]
        more = len(undecided) - len(named)
        text = ", ".join(named) + (f" and {more} more: --json" if more > 0 else "")
        yield from ("", *pair_lines({"cannot say": clean(text)}, width))
    if one.run.unknown_columns:
        yield from pair_lines({_name("not known"): clean(", ".join(one.run.unknown_columns))}, width)
    for problem in one.run.problems:
        yield from pair_lines({_name("mended"): clean(problem)}, width)


def _plot(one: Diagnosed) -> list[str]:
    panel = main_panel(one.run)
    if panel is None:
        return []
    best = one.selection.best
    curves = [PlotCurve(c.name, c.steps, c.values, panel.is_few(c)) for c in panel.curves]
    return _drawn(curves, None if best is None else best.step)


def _drawn(curves: Sequence[PlotCurve], mark: int | None) -> list[str]:
    """A plot as wide as the terminal; plain characters elsewhere."""
    fancy = is_terminal(sys.stdout)
    width = min(shutil.get_terminal_size().columns, WIDEST) if fancy else PLAIN_WIDTH
    return plot(curves, width, PLOT_ROWS, fancy=fancy, mark=mark, colour=lambda text, fg: _coloured(text, fg))


def print_comparison(output: Output, found: Sequence[Diagnosed]) -> None:
    """Several runs: a line each, their main curves in one plot, and what was found of each."""
    if output.as_json:
        return
    columns = ("", "run", "kind", "steps", "train", "valid", "best", "at step", "ratio", "verdict")
    rows = [(_letter(place), *summary_row(one)) for place, one in enumerate(found)]
    output.table(
        columns,
        rows,
        right=("steps", "train", "valid", "best", "at step", "ratio"),
        spare=("kind", "steps", "train"),
    )
    curves = [
        PlotCurve(f"{_letter(place)} {curve.name}", curve.steps, curve.values)
        for place, one in enumerate(found)
        if (curve := compared_curve(one.run)) is not None
    ]
    drawn = _drawn(curves, None)
    if drawn:
        output.line()
        output.text("\n".join(drawn))
    width = terminal_width(sys.stdout)
    for place, one in enumerate(found):
        output.line()
        output.heading(f"{_letter(place)}  {_head(one)}")
        for line in recommended_lines(one, width):
            output.text(line)
        for finding in one.diagnosis.findings:
            output.text("\n".join(_finding_lines(finding, width)))
        for line in _asides(one, width):
            output.text(line)


def _letter(place: int) -> str:
    """a to z, then aa, ab, …: no two runs share one."""
    rest, last = divmod(place, 26)
    return (_letter(rest - 1) if rest else "") + chr(ord("a") + last)


def summary_row(one: Diagnosed) -> tuple[str, ...]:
    """A run in one line: label, kind, steps, training and held-out figures, best step, overfitting ratio, verdict."""
    run = one.run
    train, valid = run.role("train_reward") or run.role("train_loss"), _held_out(run)
    ratios = one.diagnosis.ratios
    best = one.selection.best
    at_best = _value_at(valid, best.step) if best is not None and valid is not None else None
    return (
        one.label,
        run.kind,
        str(run.last_step),
        _number(None if train is None else train.tail_mean(0.1)),
        _number(None if valid is None or not len(valid) else float(valid.values[-1])),
        _number(at_best),
        NONE if best is None else str(best.step),
        f"{ratios[-1].ratio:.2f}" if ratios else NONE,
        one.diagnosis.verdict.text,
    )


def _held_out(run: CurveRun) -> Series | None:
    return run.role("valid_reward") or run.role("valid_loss")


def compared_curve(run: CurveRun) -> Series | None:
    """The curve by which runs are compared: held-out where it has points enough, else that of training."""
    held_out, panel = _held_out(run), main_panel(run)
    if held_out is not None and len(held_out) > 1:
        return held_out
    return panel.curves[0] if panel is not None else None


def _value_at(series: Series, step: int) -> float | None:
    place = int(series.steps.searchsorted(step))
    return float(series.values[place]) if place < len(series) and series.steps[place] == step else None


def _number(value: float | None) -> str:
    return NONE if value is None or math.isnan(value) else f"{value:.4g}"


def _coloured(text: str, fg: str, *, bold: bool = False) -> str:
    if not is_terminal(sys.stdout) or os.environ.get("NO_COLOR"):
        return text
    return click.style(text, fg=fg, bold=bold)
