"""Rows and examples: what a run trains on, before and after the tokenizer.

A row is one text to learn, with the place it came from; an example is the same row as token ids with the part that
carries loss. Nothing is cut here: a question and answer that do not fit are listed and left out, long prose is split
into windows that together hold every token once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from dlm.document import Document, gather_sources
from dlm.document.json_lines import LineError, known_fields, one_turn, read_json_lines, text_of
from dlm.errors import UsageError

__all__ = [
    "Encoded",
    "Example",
    "Row",
    "SkippedRow",
    "data_hash",
    "encode",
    "hold_out",
    "origin_of",
    "read_rows_file",
    "refuse_named_adapters",
    "rows_of_document",
    "split_rows",
]

MIN_ROWS_FOR_VALIDATION = 20

T = TypeVar("T")


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

    @property
    def prompt(self) -> tuple[int, ...]:
        """What stands before the first target."""
        return self.ids[: self.first_target]

    @property
    def branches(self) -> tuple[tuple[int, ...], ...]:
        """The targets, as the single answer of a tree."""
        return (self.ids[self.first_target :],)


@dataclass(frozen=True)
class SkippedRow:
    """A row left out of the run, and why."""

    row: Row
    reason: str
    kind: Literal["too_long", "empty"] = "too_long"


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


def refuse_named_adapters(document: Document) -> None:
    """Refuse a document with a section for a named adapter.

    Raises:
        UsageError: a section names an adapter; training several adapters is not supported.
    """
    for section in document.sections:
        if section.adapter is not None:
            raise UsageError(
                f"section for the adapter {section.adapter!r}: training named adapters is not supported",
                where=f"{origin_of(document)}:{section.line}:1",  # every fence is at column 1
                next_step=f"write ::{section.kind}:: without #{section.adapter}, or keep one document per adapter",
            )


def origin_of(document: Document) -> str:
    """How a document's rows and pairs name their file."""
    return str(document.path or "<text>")


def rows_of_document(document: Document) -> tuple[list[Row], list[str]]:
    """The rows for supervised fine-tuning, and a line for each source file that cannot be read as text.

    Rows are questions with their answers (probes marked), prose, and the files that `training.sources` names.

    Raises:
        UsageError: a section names an adapter; training several adapters is not supported.
    """
    refuse_named_adapters(document)
    origin = origin_of(document)
    rows: list[Row] = []
    for section in document.sections:
        if section.kind == "prose" and section.prose.strip():
            rows.append(Row("prose", None, section.prose, origin, section.line))
        for question in section.questions:
            rows.append(Row("chat", question.prompt, question.answer, origin, question.line, question.probe))
    gathered = gather_sources(document)
    rows.extend(Row("prose", None, text, str(path), 1) for path, text in gathered.files if text.strip())
    return rows, [f"source left out: {path}: {reason}" for path, reason in gathered.skipped]


def read_rows_file(path: Path, system_prompt: str | None = None) -> list[Row]:
    """Read extra rows from JSON lines.

    Accepted per line: `{"prompt", "completion"}`, `{"question", "answer"}`, `{"messages": [user, assistant]}`
    (OpenAI's chat shape, one turn), or `{"text"}` for prose. A system message must be the document's own
    `system_prompt`.

    Raises:
        DocumentError: the bad lines, with their numbers.
        UsageError: the file cannot be read, or holds no rows.
    """

    def read(item: Any, line: int) -> Row:
        return _row_of_json(item, str(path), line, system_prompt)

    example = '{"prompt": "…", "completion": "…"}'
    return read_json_lines(path, read, noun="rows", flag="--rows", example=example)


_SHAPES: tuple[tuple[str, ...], ...] = (
    ("prompt", "completion"),
    ("question", "answer"),
    ("messages",),
    ("text",),
)


def _row_of_json(item: Any, origin: str, line: int, system_prompt: str | None) -> Row:
    keys = "the keys prompt+completion, question+answer, messages, or text"
    fields = known_fields(item, {key for shape in _SHAPES for key in shape}, keys)
    shape = next((shape for shape in _SHAPES if set(fields) == set(shape)), None)
    if shape is None:
        raise LineError(f"expected {keys}, and no others, with something in them; found {sorted(fields)}")
    if shape == ("messages",):
        prompt, text = one_turn(fields["messages"], "messages", system_prompt)
        return Row("chat", prompt, text, origin, line)
    texts = [text_of(fields[key], key) for key in shape]
    return Row("chat" if texts[1:] else "prose", texts[0] if texts[1:] else None, texts[-1], origin, line)


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
                skipped.append(SkippedRow(row, "no tokens to learn", "empty"))
            continue
        prompt = chat.prompt_ids(row.prompt)
        completion = chat.completion_ids(row.text)
        ids = (*prompt, *completion)
        if not row.text.strip() or len(completion) < 2:  # the end token alone teaches to say nothing
            skipped.append(SkippedRow(row, "the answer is empty: no tokens to learn", "empty"))
        elif len(ids) > max_len:
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
    return hold_out(usable, lambda row: row.key, fraction, "rows", "content")


def hold_out(
    items: Sequence[T], key_of: Callable[[T], str], fraction: float, noun: str, by: str
) -> tuple[list[T], list[T], str]:
    """Split items into (train, validation, reason) by their keys, 64 hex digits each; equal keys stay together.

    `noun` and `by` are for the reason: what the items are, and what of them their keys stand for.
    """
    everything = list(items)
    if fraction == 0:
        return everything, [], "val_fraction is 0"
    if len(items) < MIN_ROWS_FOR_VALIDATION:
        return (
            everything,
            [],
            f"fewer than {MIN_ROWS_FOR_VALIDATION} {noun}: every one is trained on, nothing is held out",
        )
    keys = [key_of(item) for item in items]
    distinct = set(keys)
    if len(distinct) == 1:
        return (
            everything,
            [],
            f"the {noun} are all alike in {by}: every one is trained on, nothing is held out",
        )
    held_out = {key for key in distinct if int(key[:16], 16) / 2**64 < fraction}
    # neither part may be empty by bad luck
    held_out = (held_out or {min(distinct)}) if held_out != distinct else distinct - {max(distinct)}
    train = [item for item, key in zip(items, keys, strict=True) if key not in held_out]
    validation = [item for item, key in zip(items, keys, strict=True) if key in held_out]
    return train, validation, f"{len(validation)} of {len(items)} {noun} held out by their {by}"


def data_hash(rows: Iterable[Row]) -> str:
    """64 hex digits over every row in order, probes included."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.key}{int(row.probe)}\n".encode())
    return digest.hexdigest()
