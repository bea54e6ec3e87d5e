"""`dlm grader`: what reads answers, and whether it can be believed."""

from __future__ import annotations

import click

from dlm.cli.groups import Family, Member

__all__ = ["MEMBERS", "grader"]

MEMBERS = {
    "list": Member(
        "listing:list_graders", "The graders there are, with their dimensions, weights and thresholds."
    ),
    "test": Member(
        "testing:test_grader", "Check a grader before it is believed: bad outputs, gold, thresholds."
    ),
    "run": Member("running:run_grader", "Grade a file of outputs."),
}


@click.command(cls=Family, package=__name__, members=MEMBERS)
def grader() -> None:
    """Graders read one answer each and say, by named dimensions from 0 to 1, how good it is.

    A document's suites name theirs under evals; a Python file beside the document is one, too. None needs a model.
    """
