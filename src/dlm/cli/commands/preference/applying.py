"""`dlm preference apply` and `revert`: mined pairs into the document, and out of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlm.cli.commands.preference.plan import batch_option, ids_argument, named, open_plan
from dlm.cli.options import document_argument
from dlm.cli.output import Output, json_option, plural, typed

if TYPE_CHECKING:
    from dlm.review import LeftOut, Written

__all__ = ["apply", "revert"]


@click.command("apply")
@document_argument
@ids_argument
@batch_option
@json_option
def apply(output: Output, document: Path, ids: tuple[int, ...], batch: int | None) -> None:
    """Write pairs into the document: every accepted one, or every staged one where none is accepted.

    Staged pairs that are left behind wait until they are accepted. With numbers (3, 5-8), those: reverted ones too,
    rejected ones never. Nothing else in the file changes, and doing it twice changes nothing. Where somebody saves the
    file meanwhile, nothing is written.
    """
    from dlm import review

    with open_plan(output, document) as store:
        report = review.apply(store, document, ids, batch=batch)
    if report.written:
        output.line(
            f"wrote {named([w.pair_id for w in report.written])} into {document}, from line {report.written[0].line} on"
        )
    if report.already:
        output.line(f"{named(report.already)}: applied already")
    _print_left_out(output, report.left_out)
    if report.waiting:
        output.line(
            f"{plural(len(report.waiting), 'staged pair')} left: accept what you want of them, or give numbers"
        )
    if report.written:
        output.line(
            f"{typed('dlm', 'train', str(document), '--phase', 'preference')} trains on what is there now"
        )
    output.finish(
        {
            "document": str(document),
            "written": _sections_data(report.written),
            "already": list(report.already),
            "left_out": _left_out_data(report.left_out),
            "waiting": list(report.waiting),
            "document_sha256": report.document_sha256,
        }
    )


@click.command("revert")
@document_argument
@ids_argument
@batch_option
@click.option(
    "--force", is_flag=True, help="Remove sections too that were edited by hand since they were written."
)
@json_option
def revert(output: Output, document: Path, ids: tuple[int, ...], batch: int | None, force: bool) -> None:
    """Take applied pairs out of the document, wherever they stand now: all, those with numbers (3, 5-8), or --batch.

    They are remembered, not offered again, and not trained on again unless you apply them again by their numbers.
    """
    from dlm import review

    with open_plan(output, document) as store:
        report = review.revert(store, document, ids, batch=batch, force=force)
    if report.removed:
        ids_removed = [written.pair_id for written in report.removed]
        output.line(f"removed {named(ids_removed)} from {document}")
    if report.gone:
        output.line(f"{named(report.gone)}: not in the document any more, now recorded as reverted")
    if report.edited:
        output.warn(f"left, as edited by hand: {_places(report.edited)}; --force removes what was edited")
    _print_left_out(output, report.left_out)
    output.finish(
        {
            "document": str(document),
            "removed": _sections_data(report.removed),
            "gone": list(report.gone),
            "edited": _sections_data(report.edited),
            "left_out": _left_out_data(report.left_out),
            "document_sha256": report.document_sha256,
        }
    )


def _places(sections: Sequence[Written]) -> str:
    return ", ".join(f"pair {written.pair_id} at line {written.line}" for written in sections)


def _print_left_out(output: Output, left_out: Sequence[LeftOut]) -> None:
    for item in left_out:
        output.line(f"pair {item.pair_id} left out: {item.reason}")


def _sections_data(sections: Sequence[Written]) -> list[dict[str, Any]]:
    return [{"id": w.pair_id, "section_id": w.section_id, "line": w.line} for w in sections]


def _left_out_data(left_out: Sequence[LeftOut]) -> list[dict[str, Any]]:
    return [{"id": item.pair_id, "reason": item.reason} for item in left_out]
