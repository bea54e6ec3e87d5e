"""`dlm grader list`."""

from __future__ import annotations

from pathlib import Path

import click

from dlm.cli.output import Output, json_option

__all__ = ["list_graders"]

_KINDS = (
    ("spreadsheet:strict", "a cleaned table: rows by identity and order, units by cell, surplus rows"),
    ("spreadsheet:published", "a cleaned table as the published study graded it, its holes included"),
    ("string_check:eq", "1 or 0 against the reference: eq, ne, like (contains) or ilike (whatever the case)"),
    (
        "text_similarity:fuzzy_match",
        "likeness to the reference: fuzzy_match, levenshtein, jaro_winkler, token_sort, token_set",
    ),
    ("length:1-80 words", "within a range of words, characters or lines"),
    ("python:FILE", "your own grade(sample, item) -> float, in a process with limits of time and memory"),
)


@click.command("list")
@json_option
def list_graders(output: Output) -> None:
    """The graders there are. Several with weights make one: 0.7*spreadsheet + 0.3*length:1-400."""
    from dlm.grading import make_grader

    rows, data = [], []
    for spec, what in _KINDS:
        made = None if spec == "python:FILE" else make_grader(spec, folder=Path())
        dimensions = {} if made is None else {one.name: one.weight for one in made.dimensions}
        threshold = 0.8 if made is None else made.pass_threshold
        rows.append((spec, f"{threshold:g}", what))
        data.append(
            {
                "grader": spec,
                "what": what,
                "pass_threshold": threshold,
                "dimensions": dimensions or {"python": 1.0},
            }
        )
    output.table(("grader", "passes from", "what it reads"), rows, right=("passes from",))
    for entry in data:
        if len(entry["dimensions"]) > 1:  # type: ignore[arg-type]
            output.line()
            output.heading(str(entry["grader"]))
            output.pairs({name: f"weight {weight:g}" for name, weight in entry["dimensions"].items()})  # type: ignore[attr-defined]
    output.finish({"graders": data})
