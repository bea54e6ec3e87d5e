"""A document's plan as the commands about pairs take hold of it: pairs by number and range, batches, the store in line with
the document."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dlm.cli.output import Output
from dlm.cli.project import find_project, warn_of_copy
from dlm.errors import DocumentError, UsageError

if TYPE_CHECKING:
    from dlm.document import Document
    from dlm.review import Places
    from dlm.store import StagedPair, Store

__all__ = [
    "batch_option",
    "find_store",
    "ids_argument",
    "named",
    "open_plan",
    "pair_argument",
    "pair_data",
    "read_along",
]

F = TypeVar("F", bound=Callable[..., Any])

_RANGE = re.compile(r"(\d{1,15})(?:-(\d{1,15}))?")
_LONGEST_RANGE = 100_000


class _Number(click.ParamType[int]):
    """`3`."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if not re.fullmatch(r"[1-9]\d{0,14}", str(value)):
            self.fail(f"{value!r} is no number of a pair", param, ctx)
        return int(value)


class _Numbers(click.ParamType[tuple[int, ...]]):
    """`3` or `3-7`."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        found = _RANGE.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no number of a pair, and no range like 3-7", param, ctx)
        first, last = int(found[1]), int(found[2] or found[1])
        if not 0 <= last - first < _LONGEST_RANGE:
            self.fail(f"{value!r} is no range from a lower to a higher number", param, ctx)
        return tuple(range(first, last + 1))


def ids_argument(function: F) -> F:
    """`[ID]...`, numbers and ranges, as `ids: tuple[int, ...]`."""

    def flatten(_ctx: click.Context, _param: click.Parameter, value: Iterable[tuple[int, ...]]) -> Any:
        return tuple(number for numbers in value for number in numbers)

    return click.argument("ids", nargs=-1, type=_Numbers(), metavar="[ID]...", callback=flatten)(function)


def pair_argument(function: F) -> F:
    """The `ID` argument, as `pair_id: int`."""
    return click.argument("pair_id", type=_Number(), metavar="ID")(function)


def batch_option(function: F) -> F:
    """`--batch B`, as `batch: int | None`."""
    return click.option(
        "--batch", type=click.IntRange(1), metavar="B", help="Only the pairs of this mine run."
    )(function)


def find_store(output: Output, path: Path) -> Store | None:
    """The store of a document; None when nothing was ever trained or mined.

    Raises:
        DlmError: the document or its store cannot be read.
    """
    from dlm.store import Home

    store = Home.open().find(find_project(path).dlm_id)
    if store is not None:
        warn_of_copy(output, store, path)
    return store


def open_plan(output: Output, path: Path) -> Store:
    """The store of a document, in line with the document.

    Raises:
        UsageError: nothing was ever trained or mined.
        DlmError: the document or its store cannot be read.
    """
    store = find_store(output, path)
    if store is None:
        raise UsageError(
            f"no pairs have been mined from {path} yet", next_step="dlm preference mine DOCUMENT"
        )
    read_along(store, path)
    return store


def read_along(store: Store, path: Path) -> tuple[Document, Places] | None:
    """`review.reconcile`; None for a document with problems, which somebody may be in the middle of editing."""
    from dlm.review import reconcile

    try:
        return reconcile(store, path)
    except DocumentError:
        return None


def named(ids: Iterable[int]) -> str:
    """`pair 3`, `pairs 1, 2 and 5`."""
    words = [str(number) for number in ids]
    if len(words) == 1:
        return f"pair {words[0]}"
    return f"pairs {', '.join(words[:-1])} and {words[-1]}"


def pair_data(pair: StagedPair, places: Places | None) -> dict[str, Any]:
    """A pair for `--json`. `section` is null where the document has none, or could not be read (then `places` is)."""
    section = places.of(pair.id) if places else None
    return {
        "id": pair.id,
        "batch": pair.run_id,
        "status": pair.status,
        "status_at": pair.status_at,
        "question_key": pair.question_key,
        "prompt": pair.prompt,
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "chosen_score": pair.chosen_score,
        "rejected_score": pair.rejected_score,
        "margin": pair.margin,
        "judge_name": pair.judge_name,
        "mined_at": pair.mined_at,
        "edited": pair.edited,
        "key": pair.content_key,
        "chosen_candidate": pair.chosen_candidate,
        "rejected_candidate": pair.rejected_candidate,
        "applied_at": pair.applied_at,
        "section": section
        and {
            "id": section.id,
            "line": section.line,
            "edited": places is not None and pair.id in places.edited,
        },
    }
