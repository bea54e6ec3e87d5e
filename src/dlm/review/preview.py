"""Applying with a look first: the exact change of the file, and an apply that does that change or none.

For whoever shows the change to a person before it is made. Between the look and the word "apply" anything may happen to
the document and the pairs; the plan is made anew then, and carried out only if it would write the very same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from dlm.document import load
from dlm.errors import ConflictError
from dlm.review.applying import ApplyPlan, ApplyReport, carry_out, plan_apply
from dlm.review.plan import reconcile
from dlm.store import Store

__all__ = ["ApplyPreview", "FileLine", "apply_previewed", "file_diff", "preview_apply", "unified_diff"]

CONTEXT: Final = 3  # unchanged lines shown before and after


@dataclass(frozen=True)
class FileLine:
    """A line of a file's change: its sign, its numbers before and after (1-based), its text without the line end.

    `open_end`: the file ends here without a line end.
    """

    sign: Literal[" ", "+", "-"]
    before: int | None
    after: int | None
    text: str
    open_end: bool = False


@dataclass(frozen=True)
class ApplyPreview:
    """What an apply would do. `digest` names it: hand it to `apply_previewed`."""

    plan: ApplyPlan
    diff: tuple[FileLine, ...]
    digest: str


def preview_apply(store: Store, path: Path, ids: Sequence[int]) -> ApplyPreview:
    """The change that applying these pairs makes. Writes nothing.

    Raises:
        UsageError: there is nothing to apply.
        ConflictError: the document was saved just now.
        DlmError: the document cannot be read.
    """
    plan = plan_apply(store, path, ids)
    document = load(path)
    if document.sha256 != plan.document_sha256:
        raise ConflictError(f"{path.name} was saved just now", next_step="look again")
    return ApplyPreview(plan, file_diff(document.text, plan.text), _digest(plan))


def apply_previewed(store: Store, path: Path, ids: Sequence[int], digest: str) -> ApplyReport:
    """Apply pairs as `preview_apply` showed it.

    Raises:
        ConflictError: the document or a pair has changed since: nothing was written.
        UsageError: there is nothing to apply any more.
        CopiedDocumentError: the store belongs to another file with the same id.
        DlmError: the document cannot be read or written.
    """
    store.attach(path)
    reconcile(store, path)
    with store.mining.exclusively():
        plan = plan_apply(store, path, ids)
        if _digest(plan) != digest:
            raise ConflictError(
                "the document or a pair has changed since this preview; nothing was written",
                next_step="look at the change again",
            )
        return carry_out(store, plan)


def _digest(plan: ApplyPlan) -> str:
    """64 hex digits over the file before and after."""
    return hashlib.sha256(f"{plan.document_sha256}\n{plan.text}".encode()).hexdigest()


def file_diff(before: str, after: str) -> tuple[FileLine, ...]:
    """The lines in which two texts differ, as one block, with a few equal ones around it; () where they are equal.

    Lines end at line feeds alone, as the document's do.
    """
    old, new = _lines(before), _lines(after)
    if old == new:
        return ()
    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    first = max(0, head - CONTEXT)
    last = min(tail, CONTEXT)
    gap = len(new) - len(old)
    found = [_line(" ", i + 1, i + 1, old[i]) for i in range(first, head)]
    found += [_line("-", i + 1, None, old[i]) for i in range(head, len(old) - tail)]
    found += [_line("+", None, i + 1, new[i]) for i in range(head, len(new) - tail)]
    found += [_line(" ", i + 1, i + 1 + gap, old[i]) for i in range(len(old) - tail, len(old) - tail + last)]
    return tuple(found)


def unified_diff(name: str, change: Sequence[FileLine]) -> str:
    """A change of `file_diff` as a unified diff of the file `name`, as `git apply` and `patch` read it; "" for none."""
    if not change:
        return ""
    spans = []
    for numbers in ([line.before for line in change], [line.after for line in change]):
        there = [number for number in numbers if number is not None]
        spans.append(f"{there[0] if there else 0},{len(there)}")
    head = f"--- a/{name}\n+++ b/{name}\n@@ -{spans[0]} +{spans[1]} @@\n"
    end = "\\ No newline at end of file\n"
    return head + "".join(f"{line.sign}{line.text}\n{end if line.open_end else ''}" for line in change)


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    return [*(f"{line}\n" for line in lines[:-1]), *([lines[-1]] if lines[-1] else [])]


def _line(sign: Literal[" ", "+", "-"], before: int | None, after: int | None, line: str) -> FileLine:
    return FileLine(sign, before, after, line.removesuffix("\n"), not line.endswith("\n"))
