"""A diagnosis as one HTML file: no script, no request, light and dark, every chart also in words and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from importlib import resources

import numpy as np

from dlm import __version__
from dlm.cli.diagnosis_report import Diagnosed, compared_curve, evidence_text, recommended_lines, summary_row
from dlm.cli.output import clean
from dlm.cli.panels import Panel, panels_of
from dlm.cli.svg_chart import ChartCurve, Mark, svg_chart
from dlm.curves import Finding, RatioPoint, Series

__all__ = ["html_report"]

MOST_ROWS = 40  # of a table beside a chart
SUMMARY = ("run", "kind", "steps", "train", "valid", "best", "at step", "ratio", "verdict")


def html_report(found: Sequence[Diagnosed]) -> str:
    """The whole page for one run, or for several that are compared."""
    title = f"Curves of {found[0].label}" if len(found) == 1 else f"Curves of {len(found)} runs"
    style = (resources.files("dlm.cli") / "report.css").read_text(encoding="utf-8")
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
        # the browser itself sees to it that nothing is requested and no script runs
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n",
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
        '<meta name="color-scheme" content="light dark">\n',
        f"<title>{_text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n<h1>{_text(title)}</h1>\n",
    ]
    if len(found) > 1:
        parts += _comparison(found)
    for number, one in enumerate(found):
        parts += _section(number, one, alone=len(found) == 1)
    parts.append(
        f"</main>\n<footer>dlm {_text(__version__)} · <code>dlm diagnose</code></footer>\n</body>\n</html>\n"
    )
    return "".join(parts)


def _text(text: str) -> str:
    return escape(clean(text))


def _comparison(found: Sequence[Diagnosed]) -> Iterator[str]:
    yield "<section>\n<h2>Side by side</h2>\n"
    yield _table(
        "The runs side by side",
        SUMMARY,
        [summary_row(one) for one in found],
        words=("run", "kind", "verdict"),
    )
    curves = [
        ChartCurve(f"{one.label}: {curve.name}", curve.steps, curve.values)
        for one in found
        if (curve := compared_curve(one.run)) is not None
    ]
    summary = "; ".join(
        f"{curve.label} ends at {curve.values[-1]:.4g}" for curve in curves if len(curve.values)
    )
    drawn = svg_chart("The runs compared", summary, curves)
    if drawn:
        yield f"<figure>\n{_legend(curves)}{_scrolled('The runs compared', drawn)}\n<figcaption>{_text(summary)}.</figcaption>\n</figure>\n"
    yield "</section>\n"


def _section(number: int, one: Diagnosed, *, alone: bool) -> Iterator[str]:
    run, diagnosis = one.run, one.diagnosis
    yield f'<section aria-labelledby="run-{number}">\n'
    heading = "Verdict" if alone else one.label
    yield f'<h2 id="run-{number}">{_text(heading)}</h2>\n'
    verdict = diagnosis.verdict
    said = verdict.text.removeprefix(f"{verdict.level}: ")  # a healthy one says so itself
    yield f'<p class="verdict {verdict.level}"><strong>{verdict.level}</strong> {_text(said)}</p>\n'
    kept = " ".join(line.strip() for line in recommended_lines(one, None))
    yield f'<p class="keep">{_text(kept)}</p>\n'
    for finding in diagnosis.findings:
        yield from _finding(finding)
    if diagnosis.undecided:
        yield "<details>\n<summary>What could not be said</summary>\n<ul>\n"
        for rule in diagnosis.undecided:
            needed = f" ({rule.have} of {rule.needed} points)" if rule.needed else ""
            yield f"<li><code>{_text(rule.rule)}</code>: {_text(rule.reason)}{needed}</li>\n"
        yield "</ul>\n</details>\n"
    marks = [Mark(candidate.step, candidate.role) for candidate in one.selection.candidates]
    for panel in panels_of(run):
        yield from _figure(panel, marks, diagnosis.ratios if panel.title == "Loss" else ())
    yield from _facts(one)
    yield "</section>\n"


def _finding(finding: Finding) -> Iterator[str]:
    yield f'<article class="finding {finding.severity}">\n'
    yield f'<h3><span class="badge">{finding.severity}</span> {_text(finding.title)}</h3>\n'
    if finding.evidence:
        yield (
            "<ul>\n"
            + "".join(f"<li>{_text(evidence_text(one))}</li>\n" for one in finding.evidence)
            + "</ul>\n"
        )
    yield f"<p>{_text(finding.action)} <code>{_text(finding.rule)}</code></p>\n</article>\n"


def _figure(panel: Panel, marks: Sequence[Mark], ratios: Sequence[RatioPoint]) -> Iterator[str]:
    curves = [ChartCurve(c.name, c.steps, c.values, panel.is_few(c), panel.exact) for c in panel.curves]
    summary = " ".join(map(_in_words, panel.curves))
    drawn = svg_chart(
        panel.title, summary, curves, marks=marks, level=panel.level, level_label=panel.level_label
    )
    units = sorted({curve.unit for curve in panel.curves if curve.unit})
    yield f"<figure>\n<h3>{_text(panel.title)}{_text(f' ({units[0]})') if len(units) == 1 else ''}</h3>\n"
    yield _legend(curves)
    yield f"{_scrolled(panel.title, drawn) or '<p>No value is finite.</p>'}\n<figcaption>{_text(summary)}</figcaption>\n"
    columns, rows = _numbers(panel, ratios)
    yield f"<details>\n<summary>{_text(panel.title)} in numbers</summary>\n"
    yield _table(f"{panel.title} by step", columns, rows, words=("overfitting",))
    yield "</details>\n</figure>\n"


def _scrolled(title: str, drawn: str) -> str:
    """A chart in a box that scrolls where the window is narrower than its numbers can be read in."""
    box = f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(title)}">'
    return f"{box}{drawn}</div>" if drawn else ""


def _legend(curves: Sequence[ChartCurve]) -> str:
    items = "".join(
        f'<li><span class="key c{number % 6}" aria-hidden="true"></span>{_text(curve.label)}</li>'
        for number, curve in enumerate(curves)
    )
    return f'<ul class="legend">{items}</ul>\n'


def _in_words(curve: Series) -> str:
    """What a curve does, as a sentence: where it begins and ends, its least and most."""
    fine = np.isfinite(curve.values)
    steps, values = curve.steps[fine], curve.values[fine]
    if not len(values):
        return f"{curve.name} has no finite value."
    low, high = int(values.argmin()), int(values.argmax())
    text = (
        f"{curve.name}: {values[0]:.4g} at step {steps[0]}, {values[-1]:.4g} at step {steps[-1]}; "
        f"lowest {values[low]:.4g} at step {steps[low]}, highest {values[high]:.4g} at step {steps[high]}"
    )
    lost = len(curve) - len(values)
    return f"{text}; {lost} not finite." if lost else f"{text}."


def _numbers(panel: Panel, ratios: Sequence[RatioPoint]) -> tuple[Sequence[str], list[tuple[str, ...]]]:
    """Rows of a table: the steps of the rarest curve, thinned to `MOST_ROWS`, and the last step."""
    rarest = min(panel.curves, key=len) if len(panel.curves) > 1 else panel.curves[0]
    every = max(1, math.ceil(len(rarest) / MOST_ROWS))
    chosen = sorted({*rarest.steps[::every].tolist(), *(int(curve.steps[-1]) for curve in panel.curves)})
    values = [_at_steps(curve, chosen) for curve in panel.curves]
    bands = {point.step: f"{point.ratio:.2f} {point.band}" for point in ratios}
    columns = ["step", *(curve.name for curve in panel.curves), *(["overfitting"] if bands else [])]
    rows = []
    for step in chosen:
        cells = [f"{one[step]:.5g}" if step in one else "" for one in values]
        rows.append((f"{step:,}", *cells, *([bands.get(step, "")] if bands else [])))
    return columns, rows


def _at_steps(curve: Series, steps: Sequence[int]) -> dict[int, float]:
    """The values of a curve at those of the steps where it has a point."""
    places = np.searchsorted(curve.steps, steps)
    return {
        step: float(curve.values[place])
        for step, place in zip(steps, places.tolist(), strict=True)
        if place < len(curve) and curve.steps[place] == step
    }


def _facts(one: Diagnosed) -> Iterator[str]:
    """Where the curves come from, how they end, and what the reader has to say."""
    run = one.run
    facts = {
        "source": one.label,
        "format": run.format,
        "kind": run.kind + (f" ({run.method})" if run.method not in ("", run.kind) else ""),
        "steps": f"{run.last_step:,}" + (f" of {run.planned_steps:,} planned" if run.planned_steps else ""),
    }
    if run.saved_steps:
        facts["saved steps"] = ", ".join(f"{step:,}" for step in run.saved_steps)
    for name, final in one.diagnosis.finals.items():
        facts[f"{name} at the end"] = (
            f"{final.smoothed:.4g} ± {final.standard_error:.2g} smoothed, {final.last:.4g} last"
        )
    facts |= {f"{name} as stated": f"{value:,.6g}" for name, value in run.stated.items()}
    if run.unknown_columns:
        facts["columns not known"] = ", ".join(run.unknown_columns)
    if run.problems:
        facts["mended"] = "; ".join(run.problems)
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>\n" for name, value in facts.items())
    yield f"<h3>The run</h3>\n<dl>\n{rows}</dl>\n"


def _table(
    caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str] = ()
) -> str:
    """A table; columns of `words` are aligned to the left."""
    sides = ["word" if column in words else "number" for column in columns]
    head = "".join(
        f'<th scope="col" class="{side}">{_text(column)}</th>'
        for column, side in zip(columns, sides, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{side}">{_text(cell)}</td>' for cell, side in zip(row, sides, strict=True))
        + "</tr>\n"
        for row in rows
    )
    # it may be wider than a phone: then it scrolls, also by keyboard
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(caption)}"><table>\n'
        f"<caption>{_text(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n"
    )
