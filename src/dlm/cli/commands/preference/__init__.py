"""`dlm preference`: pairs mined from a version's own answers, from the first look to the document and back."""

from __future__ import annotations

import click

from dlm.cli.groups import Family, Member

__all__ = ["MEMBERS", "preference"]

MEMBERS = {
    "mine": Member("mining:mine", "Sample answers, judge them, and stage pairs of a better and a worse one."),
    "list": Member("listing:list_pairs", "The mined pairs of a document, batch by batch."),
    "show": Member("listing:show_pair", "One pair: both answers, scores, reasons, and where it comes from."),
    "accept": Member("deciding:accept", "Mark pairs as good; apply then writes these alone."),
    "reject": Member("deciding:reject", "Turn pairs down; they are never offered again."),
    "edit": Member("deciding:edit", "Change the answers of a pair before it is applied."),
    "apply": Member("applying:apply", "Write pairs into the document."),
    "revert": Member("applying:revert", "Take applied pairs out of the document."),
}


@click.command(cls=Family, package=__name__, members=MEMBERS)
def preference() -> None:
    """Mined preference pairs: look at them, decide, write them into the document, take them out again.

    A batch is what one mine run made; its number is the run's.
    """
