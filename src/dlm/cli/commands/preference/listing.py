"""`dlm preference list` and `dlm preference show`: look at mined pairs. Both read only, but for what a kill left behind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlm.cli.commands.preference.plan import (
    batch_option,
    find_store,
    open_plan,
    pair_argument,
    pair_data,
    read_along,
)
from dlm.cli.compare import compared
from dlm.cli.options import document_argument
from dlm.cli.output import Output, json_option, local_minute, plural, typed

if TYPE_CHECKING:
    from dlm.review import Batch, Places, Trace
    from dlm.store import Candidate, StagedPair

__all__ = ["list_pairs", "show_pair"]

SHOWN = ("staged", "accepted", "applied")
PREVIEW = 32  # characters of a text in the table; `show` has all of it


@click.command("list")
@document_argument
@batch_option
@click.option("--all", "everything", is_flag=True, help="Rejected and reverted pairs too.")
@json_option
def list_pairs(output: Output, document: Path, batch: int | None, everything: bool) -> None:
    """The mined pairs of a document, batch by batch: staged, accepted and applied ones. --json has them all."""
    from dlm.review import batches

    store = find_store(output, document)
    found: tuple[Batch, ...] = ()
    places = None
    if store is not None:
        with store:
            read = read_along(store, document)
            places = read[1] if read else None
            found = batches(store, batch)
            if read is None:
                output.warn(
                    f"{document} has problems, so where pairs stand in it is not known: "
                    + typed("dlm", "check", str(document))
                )
    if places is not None and places.foreign:
        lines = ", ".join(str(section.line) for section in places.foreign)
        output.note(f"mined sections that are not from this store stand at line {lines}")
    _print_batches(output, document, found, places, everything)
    output.finish(
        {
            "document": str(document),
            "batches": [_batch_data(each, places) for each in found],
            "foreign": [{"id": section.id, "line": section.line} for section in places.foreign]
            if places
            else [],
        }
    )


@click.command("show")
@document_argument
@pair_argument
@json_option
def show_pair(output: Output, document: Path, pair_id: int) -> None:
    """One pair: both answers side by side with their differing words, scores, reasons, and where it comes from."""
    from dlm.review import trace, word_diff

    with open_plan(output, document) as store:
        found = trace(store, pair_id)
        read = read_along(store, document)
    pair, places = found.pair, read[1] if read else None
    parts = word_diff(pair.chosen, pair.rejected)
    output.heading(f"pair {pair.id} · {_state(pair, places)} · batch {pair.run_id}")
    output.line()
    output.line(pair.prompt)
    output.line()
    titles = [
        f"{side} · {score:.4g}"
        for side, score in (("chosen", pair.chosen_score), ("rejected", pair.rejected_score))
    ]
    output.text(compared((titles[0], pair.chosen), (titles[1], pair.rejected), parts))
    output.line()
    changed = None if read is None else read[0].sha256 != found.run.document_sha256
    output.pairs(_origin(found, places, changed))
    output.finish(
        {
            "document": str(document),
            "pair": pair_data(pair, places),
            "diff": None if parts is None else [{"side": part.side, "text": part.text} for part in parts],
            "candidates": {
                "chosen": _candidate_data(found.chosen),
                "rejected": _candidate_data(found.rejected),
            },
            "run": {
                "id": found.run.id,
                "judge": found.run.method,
                "status": found.run.status,
                "started_at": found.run.started_at,
                "finished_at": found.run.finished_at,
                "version": found.run.parent_version,
                "document_sha256": found.run.document_sha256,
                "seed": found.run.seed,
                "recipe": dict(found.run.recipe),
            },
            "document_changed": changed,
        }
    )


def _print_batches(
    output: Output, document: Path, found: tuple[Batch, ...], places: Places | None, everything: bool
) -> None:
    if not any(batch.pairs for batch in found):
        runs = f" ({plural(len(found), 'mine run')} made no pair)" if found else ""
        output.line(f"no pairs have been mined from {document} yet{runs}")
        return
    hidden = 0
    for batch in found:
        shown = [pair for pair in batch.pairs if everything or pair.status in SHOWN]
        hidden += len(batch.pairs) - len(shown)
        output.heading(_batch_line(batch))
        if shown:
            _print_table(output, shown, places)
        output.line()
    if hidden:
        output.line(f"{plural(hidden, 'pair')} rejected or reverted: --all shows them")
    waiting = [pair for batch in found for pair in batch.pairs if pair.status in ("staged", "accepted")]
    if waiting:
        command = ("dlm", "preference")
        output.pairs(
            {
                "compare": typed(*command, "show", str(document), str(waiting[0].id)),
                "decide": typed(*command, "accept", str(document), str(waiting[0].id)),
                "write": typed(*command, "apply", str(document)),
            }
        )


def _print_table(output: Output, pairs: list[StagedPair], places: Places | None) -> None:
    rows = [
        (
            str(pair.id),
            _state(pair, places),
            _preview(pair.prompt),
            _preview(pair.chosen),
            _preview(pair.rejected),
            f"{pair.chosen_score:.4g} > {pair.rejected_score:.4g}",
        )
        for pair in pairs
    ]
    columns = ("pair", "status", "question", "chosen", "rejected", "scores")
    output.table(columns, rows, right=("pair",), spare=("rejected", "scores", "chosen"))


def _batch_line(batch: Batch) -> str:
    counts: dict[str, int] = {}
    for pair in batch.pairs:
        counts[pair.status] = counts.get(pair.status, 0) + 1
    told = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no pairs"
    asked = f" · version {batch.run.parent_version}" if batch.run.parent_version else ""
    ended = "" if batch.run.status == "complete" else f" · {batch.run.status}"
    return f"batch {batch.run.id} · {batch.run.method} · {local_minute(batch.run.started_at)}{asked}{ended} · {told}"


def _state(pair: StagedPair, places: Places | None) -> str:
    """A pair's status, with what happened to its texts or its section since."""
    notes = ["edited"] if pair.edited else []
    if places is not None and pair.status == "applied":
        if places.of(pair.id) is None:
            notes = ["no longer in the document"]
        elif pair.id in places.edited:
            notes = ["section edited by hand"]
    return f"{pair.status} ({', '.join(notes)})" if notes else pair.status


def _preview(text: str) -> str:
    line = " ".join(text[: 4 * PREVIEW].split())
    return line if len(line) <= PREVIEW and len(text) <= 4 * PREVIEW else line[: PREVIEW - 1] + "…"


def _origin(found: Trace, places: Places | None, changed: bool | None) -> dict[str, str]:
    """The chain from the pair back to the document it was mined from."""
    pair, run = found.pair, found.run
    section = places.of(pair.id) if places else None
    items = {}
    if found.chosen.reasoning:
        items["why chosen"] = found.chosen.reasoning
    if found.rejected.reasoning:
        items["why rejected"] = found.rejected.reasoning
    if pair.edited:
        items["edited"] = "by hand; scores and reasons are those of the mined texts"
    if section is not None:
        items["section"] = f"{section.id}, at line {section.line}"
    items["candidates"] = "\n".join(
        f"{side} {one.id}: sample {one.sample}, seed {one.seed}, {plural(one.n_tokens, 'token')}, "
        f"{'cut off' if one.finish_reason == 'length' else 'ended by itself'}"
        for side, one in (("chosen", found.chosen), ("rejected", found.rejected))
    )
    items["judge"] = pair.judge_name
    items["run"] = f"{run.id}, {run.status}, {local_minute(run.started_at)}"
    items["version"] = run.parent_version or "the base"
    since = {True: ", changed since", False: ", as it is now", None: ""}[changed]
    items["document"] = f"{run.document_sha256[:16]}…{since}" if run.document_sha256 else "not recorded"
    return items


def _candidate_data(candidate: Candidate) -> dict[str, Any]:
    names = (
        "id",
        "sample",
        "seed",
        "text",
        "n_tokens",
        "finish_reason",
        "score",
        "reasoning",
        "attempts",
        "judge_seconds",
    )
    return {name: getattr(candidate, name) for name in names}


def _batch_data(batch: Batch, places: Places | None) -> dict[str, Any]:
    return {
        "run_id": batch.run.id,
        "judge": batch.run.method,
        "status": batch.run.status,
        "started_at": batch.run.started_at,
        "version": batch.run.parent_version,
        "document_sha256": batch.run.document_sha256,
        "pairs": [pair_data(pair, places) for pair in batch.pairs],
    }
