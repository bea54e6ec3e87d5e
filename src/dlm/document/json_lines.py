"""Files of JSON lines: what reading rows, pairs and scored answers has in common.

A file is read whole and every bad line is reported with its number, so that it is mended in one go. Nothing is guessed:
a key that is not known, a text that is empty or that no UTF-8 file can hold, or a conversation of several turns is a
fault of its line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from dlm.errors import DocumentError, Problem, UsageError

__all__ = [
    "LineError",
    "known_fields",
    "number_of",
    "one_turn",
    "read_json_lines",
    "require_roles",
    "text_of",
    "turns_of",
]

T = TypeVar("T")
MAX_PROBLEMS: Final = (
    100  # then the rest are counted in one line: a dump of another shape has as many as lines
)
_UNWRITABLE: Final = re.compile("[\x00\ud800-\udfff]")
_EMPTY: Final[tuple[Any, ...]] = (None, "", [], {})
_SYSTEM: Final = ("system", "developer")  # OpenAI's newer models call the system message the developer's


class LineError(ValueError):
    """What is wrong with one line, in words for the user."""


def read_json_lines(
    path: Path,
    read_item: Callable[[Any, int], T],
    *,
    noun: str,
    flag: str,
    example: str,
    empty_step: str = "",
) -> list[T]:
    """Read every line that is not blank with `read_item(value, line)`, which raises `LineError` for a bad one.

    Args:
        path: the file, in UTF-8, with or without a byte order mark.
        read_item: turns the value of one line (1-based) into what it stands for.
        noun: what the lines hold ("rows"), for messages and problem codes.
        flag: the option that named the file.
        example: a good line.
        empty_step: what to do about a file without lines, where leaving the option away is no way.

    Raises:
        DocumentError: the bad lines, with their numbers.
        UsageError: the file cannot be read, or holds no lines.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the {noun} file: {error}",
            where=str(path),
            expected="JSON lines in UTF-8",
            next_step=f"check the path: {flag} FILE",
        ) from None
    items: list[T] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            items.append(read_item(_parse(line), number))
        except json.JSONDecodeError as error:
            problems.append(Problem(number, error.colno, f"{noun}-json", f"not JSON: {error.msg}"))
        except LineError as error:
            problems.append(Problem(number, 1, f"{noun}-shape", str(error)))
    if problems:
        raise DocumentError(
            _first(problems),
            str(path),
            count=len(problems),
            next_step="mend those lines, then run the command again",
        )
    if not items:
        raise UsageError(
            f"the {noun} file holds no {noun}",
            where=str(path),
            expected=f"lines such as {example}",
            next_step=empty_step or f"leave {flag} away, or name another file",
        )
    return items


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets in thousands
        raise LineError(f"cannot be read: {error}") from None


def _first(problems: list[Problem]) -> list[Problem]:
    more = len(problems) - MAX_PROBLEMS
    if more <= 0:
        return problems
    code, line = problems[MAX_PROBLEMS].code, problems[MAX_PROBLEMS].line
    return [*problems[:MAX_PROBLEMS], Problem(line, 1, code, f"and so on: {more:,} more bad lines from here")]


def known_fields(item: Any, known: Collection[str], expected: str) -> dict[str, Any]:
    """The keys of an object that say something; null and empty values say nothing, whatever their key.

    Raises:
        LineError: no object, or a key beside the known ones that says something.
    """
    if not isinstance(item, dict):
        raise LineError(f"expected an object, found {_kind(item)}")
    fields = {key: value for key, value in item.items() if value not in _EMPTY}
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise LineError(
            f"expected {expected}, and no others; found {', '.join(map(repr, unknown))} "
            "(take columns that are not needed out before the export: dataset.remove_columns)"
        )
    return fields


def text_of(value: Any, name: str) -> str:
    """A text to learn from; `name` says where it stands. A list of one text part, as OpenAI writes it, is its text.

    Raises:
        LineError: no text, an empty one, or one that no UTF-8 file can hold.
    """
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        part = value[0]
        if part.get("type") == "text" and set(part) == {"type", "text"}:
            value = part["text"]
    if not isinstance(value, str):
        raise LineError(f"{name}: expected a text, found {_kind(value)}")
    if not value.strip():
        raise LineError(f"{name}: expected a text that is not empty")
    if _UNWRITABLE.search(value):
        raise LineError(f"{name}: the text has a NUL or a lone surrogate, which no UTF-8 file can hold")
    return value


def number_of(value: Any, name: str) -> float:
    """A finite number.

    Raises:
        LineError: anything else, true and false included.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LineError(f"{name}: expected a number, found {_kind(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise LineError(f"{name}: expected a finite number")
    return number


def turns_of(messages: Any, name: str, system_prompt: str | None) -> list[tuple[str, str]]:
    """A conversation as (role, text) without its system message, which must be empty or the document's own.

    Raises:
        LineError: no list of messages, a message with more than a role and a text, or another system message.
    """
    if not isinstance(messages, list):
        raise LineError(f"{name}: expected a list of messages, found {_kind(messages)}")
    turns: list[tuple[str, str]] = []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise LineError(f"{name}: expected messages with a role and a content")
        extra = sorted(
            key for key in message if key not in ("role", "content") and message[key] not in _EMPTY
        )
        if extra:
            raise LineError(
                f"{name}: a message has {', '.join(map(repr, extra))}, which dlm does not train on"
            )
        role, content = message["role"], message.get("content")
        if role not in _SYSTEM:
            turns.append((role, text_of(content, f"{name} ({role})")))
        elif content not in _EMPTY and (
            text_of(content, f"{name} ({role})").strip() != (system_prompt or "").strip()
        ):
            raise LineError(
                f"{name}: a system message that is not the document's own; a document has one for all its "
                "questions: write it into the header as system_prompt, or take it out here"
            )
    return turns


def one_turn(messages: Any, name: str, system_prompt: str | None) -> tuple[str, str]:
    """The question and answer of a conversation of one turn.

    Raises:
        LineError: more or fewer turns, or whatever `turns_of` refuses.
    """
    turns = turns_of(messages, name, system_prompt)
    require_roles(turns, ("user", "assistant"), name)
    return turns[0][1], turns[1][1]


def require_roles(turns: Sequence[tuple[str, str]], roles: tuple[str, ...], name: str) -> None:
    """Refuse a conversation of other turns than these.

    Raises:
        LineError: the roles differ.
    """
    found = [role for role, _ in turns]
    if tuple(found) != roles:
        raise LineError(
            f"{name}: expected one turn ({' and '.join(roles)}), found {', '.join(found) or 'no message'}; "
            "conversations of several turns are not supported"
        )


def _kind(value: Any) -> str:
    """What a JSON value is, as JSON calls it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}
    return names.get(type(value), "a number")
