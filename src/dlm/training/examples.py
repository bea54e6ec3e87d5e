"""Rows and examples: what a run trains on, before and after the tokenizer.

A row is one text to learn, with the place it came from; an example is the same row as token ids with the part that
carries loss. Nothing is cut here: a question and answer that do not fit are listed and left out, long prose is split
into windows that together hold every token once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from dlm.document import Document, gather_sources
from dlm.errors import DocumentError, Problem, UsageError

__all__ = [
    "Encoded",
    "Example",
    "Row",
    "SkippedRow",
    "data_hash",
    "encode",
    "read_rows_file",
    "rows_of_document",
    "split_rows",
]

MIN_ROWS_FOR_VALIDATION = 20
_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True)
class Row:
    """One text to learn. `prompt` is None for prose. `origin` is the file, `line` the place in it (1-based)."""

    kind: Literal["chat", "prose"]
    prompt: str | None
    text: str
    origin: str
    line: int
    probe: bool = False

    @property
    def key(self) -> str:
        """64 hex digits that depend on the row's content alone, so they survive moves and additions around it."""
        content = json.dumps([self.kind, self.prompt, self.text], ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def place(self) -> str:
        return f"{self.origin}:{self.line}"


@dataclass(frozen=True)
class Example:
    """A row as token ids. Targets at index ≥ `first_target` carry loss (index 0 never does: nothing predicts it)."""

    row: Row
    ids: tuple[int, ...]
    first_target: int

    @property
    def n_targets(self) -> int:
        return len(self.ids) - self.first_target


@dataclass(frozen=True)
class SkippedRow:
    """A row left out of the run, and why."""

    row: Row
    reason: str


@dataclass(frozen=True)
class Encoded:
    """Rows after the tokenizer: examples to use, rows left out, and the number of prose rows split into windows."""

    examples: tuple[Example, ...]
    skipped: tuple[SkippedRow, ...]
    split_prose: int


class ChatLike(Protocol):
    """The part of `dlm.model.Chat` that encoding needs."""

    def prompt_ids(self, question: str) -> list[int]: ...
    def completion_ids(self, answer: str) -> list[int]: ...
    def text_ids(self, prose: str) -> list[int]: ...


def rows_of_document(document: Document) -> tuple[list[Row], list[str]]:
    """The rows for supervised fine-tuning, and a line for each source file that cannot be read as text.

    Rows are questions with their answers (probes marked), prose, and the files that `training.sources` names.

    Raises:
        UsageError: a section names an adapter; training several adapters is not supported.
    """
    origin = str(document.path or "<text>")
    rows: list[Row] = []
    for section in document.sections:
        if section.adapter is not None:
            raise UsageError(
                f"section for the adapter {section.adapter!r}: training named adapters is not supported",
                where=f"{origin}:{section.line}:1",  # every fence is at column 1
                next_step=f"write ::{section.kind}:: without #{section.adapter}, or keep one document per adapter",
            )
        if section.kind == "prose" and section.prose.strip():
            rows.append(Row("prose", None, section.prose, origin, section.line))
        for question in section.questions:
            rows.append(Row("chat", question.prompt, question.answer, origin, question.line, question.probe))
    gathered = gather_sources(document)
    rows.extend(Row("prose", None, text, str(path), 1) for path, text in gathered.files if text.strip())
    return rows, [f"source left out: {path}: {reason}" for path, reason in gathered.skipped]


def read_rows_file(path: Path) -> list[Row]:
    """Read extra rows from JSON lines.

    Accepted per line: `{"prompt", "completion"}`, `{"question", "answer"}`, `{"messages": [user, assistant]}`
    (OpenAI's chat shape, one turn), or `{"text"}` for prose.

    Raises:
        DocumentError: every bad line, with its number.
        UsageError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the rows file: {error}",
            where=str(path),
            expected="JSON lines in UTF-8",
            next_step="check the path: --rows FILE",
        ) from None
    rows: list[Row] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_row_of_json(json.loads(line), str(path), number))
        except json.JSONDecodeError as error:
            problems.append(Problem(number, error.colno, "rows-json", f"not JSON: {error.msg}"))
        except ValueError as error:
            problems.append(Problem(number, 1, "rows-shape", str(error)))
    if problems:
        raise DocumentError(problems, str(path), next_step="mend those lines, then run the command again")
    if not rows:
        raise UsageError(
            "the rows file holds no rows",
            where=str(path),
            expected='lines such as {"prompt": "…", "completion": "…"}',
            next_step="leave --rows away, or name another file",
        )
    return rows


_SHAPES: tuple[tuple[str, ...], ...] = (
    ("prompt", "completion"),
    ("question", "answer"),
    ("messages",),
    ("text",),
)


def _row_of_json(item: Any, origin: str, line: int) -> Row:
    if not isinstance(item, dict):
        raise ValueError(f"expected an object, found {type(item).__name__}")
    shape = next((shape for shape in _SHAPES if set(item) == set(shape)), None)
    if shape is None:
        raise ValueError(
            f"expected the keys prompt+completion, question+answer, messages, or text, and no others; found {sorted(item)}"
        )
    values = _one_turn(item["messages"]) if shape == ("messages",) else tuple(item[key] for key in shape)
    for value in values:
        if not isinstance(value, str) or not value.strip():
            raise ValueError("expected texts that are not empty")
        if _UNWRITABLE.search(value):
            raise ValueError("the text has a NUL or a lone surrogate, which no UTF-8 file can hold")
    *prompt, text = values
    return Row("chat" if prompt else "prose", prompt[0] if prompt else None, text, origin, line)


def _one_turn(messages: Any) -> tuple[Any, Any]:
    roles = (
        [m.get("role") if isinstance(m, dict) else None for m in messages]
        if isinstance(messages, list)
        else []
    )
    if roles != ["user", "assistant"]:
        raise ValueError(f"expected messages of one user and one assistant turn; found roles {roles}")
    return messages[0].get("content"), messages[1].get("content")


def encode(rows: Iterable[Row], chat: ChatLike, max_len: int) -> Encoded:
    """Turn rows into examples of at most `max_len` tokens.

    A question and answer that are longer are skipped with the reason. Prose that is longer is split into windows of
    `max_len` tokens; each window after the first repeats one token, the context of its first target.
    """
    examples: list[Example] = []
    skipped: list[SkippedRow] = []
    split_prose = 0
    for row in rows:
        if row.prompt is None:
            windows = _windows(chat.text_ids(row.text), max_len)
            split_prose += len(windows) > 1
            examples.extend(Example(row, ids, 1) for ids in windows)
            if not windows:
                skipped.append(SkippedRow(row, "no tokens to learn"))
            continue
        prompt = chat.prompt_ids(row.prompt)
        ids = (*prompt, *chat.completion_ids(row.text))
        if len(ids) > max_len:
            skipped.append(
                SkippedRow(
                    row,
                    f"{len(ids):,} tokens, {len(prompt):,} of them the question; the limit is {max_len:,}",
                )
            )
        else:
            examples.append(Example(row, ids, len(prompt)))
    return Encoded(tuple(examples), tuple(skipped), split_prose)


def _windows(ids: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Cover ids[1:] as targets exactly once, in windows of at most `size` tokens."""
    return [tuple(ids[start : start + size]) for start in range(0, max(len(ids) - 1, 0), size - 1)]


def split_rows(rows: Sequence[Row], fraction: float) -> tuple[list[Row], list[Row], str]:
    """Split rows into (train, validation, reason).

    A row's side follows from its own content, so it stays where it is when the document grows, and equal rows never
    stand on both sides. Probes are in neither part. Below 20 rows nothing is held out.
    """
    usable = [row for row in rows if not row.probe]
    if fraction == 0:
        return usable, [], "val_fraction is 0"
    if len(usable) < MIN_ROWS_FOR_VALIDATION:
        return (
            usable,
            [],
            f"fewer than {MIN_ROWS_FOR_VALIDATION} rows: every row is trained on, nothing is held out",
        )
    held_out = {row.key for row in usable if int(row.key[:16], 16) / 2**64 < fraction}
    if not held_out:
        held_out = {
            min(row.key for row in usable)
        }  # a small document must not lose its validation to bad luck
    if held_out >= {row.key for row in usable}:
        return usable, [], "the rows are all alike: every row is trained on, nothing is held out"
    train = [row for row in usable if row.key not in held_out]
    validation = [row for row in usable if row.key in held_out]
    return train, validation, f"{len(validation)} of {len(usable)} rows held out by their content"


def data_hash(rows: Iterable[Row]) -> str:
    """64 hex digits over every row in order, probes included."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.key}{int(row.probe)}\n".encode())
    return digest.hexdigest()
