"""`dlm train --dry-run`: what each phase would do, and its first rows exactly as the model would see them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlm.cli.briefing import briefing_items, phase_line
from dlm.cli.output import Output, clean, is_terminal

if TYPE_CHECKING:
    from dlm.workflow.views import Part, Preview

__all__ = ["preview_data", "print_preview"]

BETWEEN = "¦"  # stands between two tokens
LINE_END = "⏎"


def print_preview(output: Output, previews: Sequence[Preview]) -> None:
    """Each phase's pre-flight and first rows, on stdout: they are the result of a dry run."""
    coloured = is_terminal(sys.stdout) and not os.environ.get("NO_COLOR")
    for number, preview in enumerate(previews):
        if number:
            output.line()
        output.heading(f"{phase_line(preview.briefing)}: nothing was written")
        output.pairs(briefing_items(preview.briefing))
        for finding in preview.briefing.findings:
            mark = "warning: " if finding.level == "warning" else ""
            output.line(f"{mark}{finding}")
        output.line()
        legend = "coloured: scored" if coloured else "«…»: scored"
        output.line(
            f"the first rows, token by token ({legend}; {BETWEEN} between tokens, {LINE_END} a line end):"
        )
        for row in preview.rows:
            output.line()
            output.line(row.place)
            for part in row.parts:
                output.text(f"  {part.role:<9} {_shown(part, coloured)}")


def _shown(part: Part, coloured: bool) -> str:
    """The tokens of a part; stretches that are scored are marked."""
    stretches: list[tuple[bool, list[str]]] = []
    for token, scored in zip(part.tokens, part.scored, strict=True):
        text = clean(token).replace("\n", LINE_END).replace("\t", "\\t")
        if stretches and stretches[-1][0] == scored:
            stretches[-1][1].append(text)
        else:
            stretches.append((scored, [text]))
    shown = []
    for scored, texts in stretches:
        joined = BETWEEN.join(texts)
        if scored:
            joined = click.style(joined, fg="green", underline=True) if coloured else f"«{joined}»"
        shown.append(joined)
    return BETWEEN.join(shown)


def preview_data(document: Path, previews: Sequence[Preview]) -> dict[str, Any]:
    """The previews as `dlm/train/2` holds them."""
    return {
        "document": str(document),
        "dry_run": True,
        "runs": [],
        "preview": [_phase_data(preview) for preview in previews],
    }


def _phase_data(preview: Preview) -> dict[str, Any]:
    about, preflight = preview.briefing, preview.briefing.preflight
    values = about.resolved.values()
    return {
        "phase": about.phase,
        "method": about.method,
        "start": about.start.value,
        "counts": dict(preflight.rows),
        "left_out": dict(preflight.left_out),
        "findings": [
            {"kind": one.kind, "level": one.level, "message": one.message, "places": list(one.places)}
            for one in about.findings
        ],
        "steps": preflight.plan.total_steps,
        "layout": {"value": about.layout.value, "reason": about.layout.reason},
        "products": {"value": about.products.value, "reason": about.products.reason},
        "knobs": {
            name: {"value": values[name], "origin": origin} for name, origin in about.resolved.origins.items()
        },
        "rows": [
            {
                "place": row.place,
                "parts": [
                    {
                        "role": part.role,
                        "ids": list(part.ids),
                        "tokens": list(part.tokens),
                        "scored": list(part.scored),
                    }
                    for part in row.parts
                ],
            }
            for row in preview.rows
        ],
    }
