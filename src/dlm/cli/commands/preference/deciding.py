"""`dlm preference accept`, `reject` and `edit`: decide about mined pairs. The document stays as it is."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlm.cli.commands.preference.plan import (
    batch_option,
    ids_argument,
    named,
    open_plan,
    pair_argument,
    pair_data,
)
from dlm.cli.options import DOCUMENT, document_argument
from dlm.cli.output import Output, is_terminal, json_option
from dlm.errors import DlmError, UsageError

if TYPE_CHECKING:
    from dlm.review import Decision
    from dlm.store import StagedPair, Store

__all__ = ["accept", "edit", "reject"]

all_option = click.option("--all", "everything", is_flag=True, help="Every staged pair.")


@click.command("accept")
@document_argument
@ids_argument
@all_option
@batch_option
@json_option
def accept(output: Output, document: Path, ids: tuple[int, ...], everything: bool, batch: int | None) -> None:
    """Mark pairs as good, by number (3, 5-8), --all, or --batch: apply then writes the accepted ones alone.

    Rejected and reverted pairs are taken up again by their numbers.
    """
    from dlm import review

    _decide(output, document, ids, everything, batch, review.accept, "accepted")


@click.command("reject")
@document_argument
@ids_argument
@all_option
@batch_option
@json_option
def reject(output: Output, document: Path, ids: tuple[int, ...], everything: bool, batch: int | None) -> None:
    """Turn pairs down, by number (3, 5-8), --all, or --batch: they are remembered and never offered again."""
    from dlm import review

    _decide(output, document, ids, everything, batch, review.reject, "rejected")


@click.command("edit")
@document_argument
@pair_argument
@click.option("--chosen", metavar="TEXT", help="The new chosen answer.")
@click.option("--rejected", metavar="TEXT", help="The new rejected answer.")
@click.option(
    "--chosen-file",
    type=DOCUMENT,
    metavar="FILE",
    help="The same from a file; one last line end is left out.",
)
@click.option(
    "--rejected-file",
    type=DOCUMENT,
    metavar="FILE",
    help="The same from a file; one last line end is left out.",
)
@json_option
def edit(
    output: Output,
    document: Path,
    pair_id: int,
    chosen: str | None,
    rejected: str | None,
    chosen_file: Path | None,
    rejected_file: Path | None,
) -> None:
    """Change the answers of a staged or accepted pair: with the options, else in your editor ($VISUAL, $EDITOR)."""
    from dlm import review

    better = _given("--chosen", chosen, chosen_file)
    worse = _given("--rejected", rejected, rejected_file)
    with open_plan(output, document) as store:
        before = store.mining.pair(pair_id)
        if better is None and worse is None:
            after = _edit_in_editor(store, before)
        else:
            after = review.edit(store, pair_id, chosen=better, rejected=worse)
    if (after.chosen, after.rejected) == (before.chosen, before.rejected):
        raise UsageError(f"pair {pair_id} was not changed: its answers are what they were")
    output.line(f"pair {pair_id} changed; it stays {after.status}")
    output.finish({"document": str(document), "pair": pair_data(after, None)})


def _decide(
    output: Output,
    document: Path,
    ids: tuple[int, ...],
    everything: bool,
    batch: int | None,
    decide: Callable[..., Decision],
    word: str,
) -> None:
    if bool(ids) == (everything or batch is not None):
        raise UsageError(
            "numbers of pairs do not go with --all or --batch" if ids else "which pairs is not said",
            expected="numbers (3, 5-8), or --all, or --batch B",
            next_step="dlm preference list DOCUMENT shows them",
        )
    with open_plan(output, document) as store:
        decision = decide(store, ids, batch=batch)
        pairs = {pair.id: pair.status for pair in store.mining.pairs()}
    if decision.changed:
        output.line(f"{word} {named(decision.changed)}")
    for status in sorted({pairs[pair_id] for pair_id in decision.unchanged}):
        same = [pair_id for pair_id in decision.unchanged if pairs[pair_id] == status]
        output.line(f"{named(same)}: {status} already")
    output.finish(
        {
            "document": str(document),
            "changed": list(decision.changed),
            "unchanged": list(decision.unchanged),
            "statuses": [{"id": i, "status": pairs[i]} for i in (*decision.changed, *decision.unchanged)],
        }
    )


def _given(flag: str, text: str | None, file: Path | None) -> str | None:
    """The text of a flag or of its file."""
    if file is None:
        return text
    if text is not None:
        raise UsageError(f"{flag} and {flag}-file both say what the answer is")
    try:
        read = file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no file {file}") from None
    except UnicodeDecodeError as error:
        raise DlmError(f"{file} is not UTF-8 text", found=f"byte {error.start + 1}") from None
    return read.removesuffix("\n").removesuffix("\r")


def _edit_in_editor(store: Store, pair: StagedPair) -> StagedPair:
    """Let the editor change the pair as a section of text. What cannot be used stays in its file, which is named."""
    from dlm import review
    from dlm.document import render_preference
    from dlm.document.parser import parse_body

    review.edit(store, pair.id)  # refuses what cannot be edited, before anybody types
    if not (os.environ.get("VISUAL") or os.environ.get("EDITOR") or is_terminal(sys.stdin)):
        raise UsageError(
            "there is no terminal to edit in",
            expected="--chosen, --rejected, --chosen-file or --rejected-file, or $EDITOR",
        )
    handle, name = tempfile.mkstemp(prefix=f"pair-{pair.id}-", suffix=".dlm")
    file = Path(name)
    with os.fdopen(handle, "wb") as opened:
        opened.write(render_preference([(pair.prompt, pair.chosen, pair.rejected)]).encode() + b"\n")
    try:
        click.edit(filename=name)
        sections = parse_body(file.read_bytes().decode("utf-8"))
        if len(sections) != 1 or len(sections[0].triples) != 1:
            raise UsageError("the text is no longer one pair")
        triple = sections[0].triples[0]
        if triple.prompt != pair.prompt:
            raise UsageError("the question was changed; a pair's answers belong to its question")
        after = review.edit(store, pair.id, chosen=triple.chosen, rejected=triple.rejected)
    except (DlmError, UnicodeDecodeError, click.ClickException) as error:
        detail = "; ".join(error.lines()) if isinstance(error, DlmError) else str(error)
        raise UsageError(
            f"pair {pair.id} was not changed: {detail}", next_step=f"what you wrote is kept in {name}"
        ) from error
    file.unlink()
    return after
