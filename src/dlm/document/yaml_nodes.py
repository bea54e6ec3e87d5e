"""The header's YAML as nodes that know where they stand.

Built from parser events rather than with `yaml.load`: events come without recursion, scalars stay as written (the
schema decides what is a number), anchors are followed but counted, so that neither deep nesting nor a few nested
aliases can take time or memory, and nothing is ever constructed but text, lists and mappings.

A syntax error costs only the line in which it stands (with the lines below it that it opens): they are blanked and
the rest is read again, so that one slip does not hide the others.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import yaml

from dlm.errors import Problem

__all__ = ["HeaderText", "Node", "read_nodes"]

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where it is there: ten times faster

MAX_DEPTH: Final = 20  # the deepest key of the schema is at 5
MAX_VALUES: Final = 10_000  # values after anchors are followed
MAX_CHARACTERS: Final = 262_144
MAX_RETRIES: Final = 50  # syntax errors reported in one pass
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_CORE_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")
)
_UNPRINTABLE: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_KEY: Final = re.compile(r"^[ \t\-]*[\"']?(\w+)", re.MULTILINE)  # what a line is about, sound YAML or not
_WIDE_BREAK: Final = re.compile("[\x85\u2028\u2029]|\r(?!\n)")

Kind = Literal["scalar", "sequence", "mapping"]


@dataclass(slots=True)
class Node:
    """One value of the header. Offsets count characters of the header's text."""

    kind: Kind
    start: int
    end: int
    text: str | None = None  # of a scalar, as read; None is null
    items: list[Node] = field(default_factory=list)  # of a sequence
    entries: list[tuple[Node, Node]] = field(default_factory=list)  # of a mapping: key, value
    values: int = 1  # values in it, anchors followed


@dataclass(frozen=True, slots=True)
class HeaderText:
    """The text between the header's two `---` lines, and the document line it starts on."""

    text: str
    first_line: int
    feeds: tuple[int, ...]  # offsets of its line feeds

    @classmethod
    def of(cls, text: str, first_line: int) -> HeaderText:
        """Index the line feeds of `text`."""
        return cls(text, first_line, tuple(match.start() for match in re.finditer("\n", text)))

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column, both from 1, of an offset."""
        index = bisect.bisect_left(self.feeds, offset)
        line_start = self.feeds[index - 1] + 1 if index else 0
        return self.first_line + index, offset - line_start + 1

    def problem(self, offset: int, code: str, message: str, fix: str = "") -> Problem:
        """A problem at an offset."""
        return Problem(*self.place(offset), code, message, fix)


class _FaultError(Exception):
    """A fault that stops reading: where, and what."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message


def read_nodes(header: HeaderText) -> tuple[Node | None, list[Problem], frozenset[str]]:
    """The header's top mapping, what is wrong with its YAML, and the keys lost to syntax errors.

    The node is None when there is no mapping to go on with. Characters that YAML does not
    allow are reported and read as `x`.
    """
    problems: list[Problem] = []
    if len(header.text) > MAX_CHARACTERS:
        message = f"the header is {len(header.text):,} characters long; at most {MAX_CHARACTERS:,} are read"
        return None, [header.problem(0, "yaml", message)], frozenset()
    text = header.text
    for match in _UNPRINTABLE.finditer(text):
        message = f"the header has the control character U+{ord(match[0]):04X}"
        problems.append(header.problem(match.start(), "yaml", message))
    text = _UNPRINTABLE.sub("x", text)
    # Line ends to YAML but not to this format (which only knows \n and \r\n): spaces, so that lines agree.
    text = _WIDE_BREAK.sub(" ", text)
    lost: set[str] = set()
    for _ in range(MAX_RETRIES):
        try:
            node = _build(text)
        except _FaultError as fault:
            offset = min(fault.offset, max(len(text) - 1, 0))
            problems.append(header.problem(offset, "yaml", fault.message))
            start, end = _entry_around(text, offset)
            if text[slice(*_line_around(text, offset))].strip():
                start, end = _line_around(text, offset)
            elif not text[start:end].strip():
                return None, problems, frozenset(lost)
            lost.update(_KEY.findall(text, start, end))
            text = text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]
            continue
        if node is None:
            return Node("mapping", 0, 0), problems, frozenset(lost)
        if node.kind != "mapping":
            problems.append(
                header.problem(node.start, "yaml", "the header is not a list of `key: value` lines")
            )
            return None, problems, frozenset(lost)
        problems += _settle_keys(node, header)
        return node, problems, frozenset(lost)
    return None, problems, frozenset(lost)


def _entry_around(text: str, offset: int) -> tuple[int, int]:
    """The top-level entry around an offset: from a line that starts at column 0 to the next such line."""
    line_start = text.rfind("\n", 0, offset) + 1
    start = line_start
    while start > 0 and (start >= len(text) or text[start] in " \t\r\n#-"):
        start = text.rfind("\n", 0, start - 1) + 1
    following = re.compile(r"^[^\s#\-]", re.MULTILINE).search(
        text, text.find("\n", line_start) + 1 or len(text)
    )
    return start, following.start() if following else len(text)


def _leaves_block(text: str, opened: int, noticed: int) -> bool:
    """Whether a later line up to offset `noticed` is indented no deeper than the line of offset `opened`."""
    start = text.rfind("\n", 0, opened) + 1
    below = text.find("\n", opened) + 1
    if not 0 < below <= noticed:
        return False
    indent = len(text[start:below]) - len(text[start:below].lstrip(" "))
    stop = text.find("\n", noticed) + 1 or len(text)
    return re.compile(rf"^ {{0,{indent}}}[^\s\]}}#]", re.MULTILINE).search(text, below, stop) is not None


def _line_around(text: str, offset: int) -> tuple[int, int]:
    """The line around an offset, with the deeper lines below it when it opens a block."""
    start = text.rfind("\n", 0, offset) + 1
    end = text.find("\n", start) + 1 or len(text)
    line = text[start:end]
    if re.search(r"(?::|[|>][-+]?)\s*(?:#.*)?$", line):
        indent = len(line) - len(line.lstrip(" "))
        deeper = re.compile(rf"(?:[ \t]*\r?\n| {{{indent + 1},}}.*(?:\n|$))*").match(text, end)
        end = deeper.end() if deeper else end
    return start, end


def _build(text: str) -> Node | None:
    """Build the one document in `text` from events; None when it is empty.

    Raises:
        _FaultError: on whatever YAML or the limits above do not allow.
    """
    anchors: dict[str, Node] = {}
    root: Node | None = None
    stack: list[tuple[Node, list[Node]]] = []
    documents = 0
    for event in _events(text):
        start = _index(event.start_mark)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _FaultError(start, "the header holds more than one YAML document")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            node, children = stack.pop()
            node.end = _index(event.end_mark)
            _close(node, children)
        elif isinstance(event, yaml.NodeEvent):
            node = _open(event, anchors, len(stack))
            if isinstance(event, yaml.CollectionStartEvent):
                stack.append((node, []))
                continue
        else:
            continue
        if stack:
            stack[-1][1].append(node)
        else:
            root = node
    return root


def _index(mark: Any) -> int:
    """A mark's offset in characters. The types of PyYAML leave open that an event has none; parsed ones have one."""
    return int(mark.index)


def _events(text: str) -> Iterator[yaml.Event]:
    """Parser events; every YAML error becomes a fault at the place where the mistake began."""
    try:
        yield from yaml.parse(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        problem, context = error.problem_mark, error.context_mark
        mark = problem or context
        # A quote or bracket that is never closed is noticed below: report where it was opened.
        if problem and context and _leaves_block(text, context.index, problem.index):
            mark = context
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise _FaultError(mark.index if mark else 0, f"not YAML: {what}") from None
    except yaml.YAMLError as error:
        raise _FaultError(
            getattr(error, "position", 0) or 0, f"not YAML: {str(error).splitlines()[0]}"
        ) from None


def _open(event: yaml.NodeEvent, anchors: dict[str, Node], depth: int) -> Node:
    """The node that an event begins (or, for an alias, names)."""
    start, end = _index(event.start_mark), _index(event.end_mark)
    if isinstance(event, yaml.AliasEvent):
        target = anchors.get(event.anchor or "")
        if target is None:
            raise _FaultError(start, f"*{event.anchor} names no anchor above it")
        if target.values == 0:
            raise _FaultError(start, f"*{event.anchor} stands inside itself")
        return Node(target.kind, start, end, target.text, target.items, target.entries, target.values)
    tag = getattr(event, "tag", None)
    if tag is not None and tag not in _CORE_TAGS and tag != "!":
        raise _FaultError(start, f"the tag {tag} is not used in headers")
    if isinstance(event, yaml.ScalarEvent):
        plain = event.style in (None, "") and (tag is None or tag.endswith(":null"))
        node = Node("scalar", start, end, None if plain and event.value in _NULLS else event.value)
    else:
        if depth >= MAX_DEPTH:
            raise _FaultError(start, f"nested deeper than {MAX_DEPTH} levels")
        node = Node(
            "sequence" if isinstance(event, yaml.SequenceStartEvent) else "mapping", start, end, values=0
        )
    if event.anchor is not None:
        anchors[event.anchor] = node
    return node


def _close(node: Node, children: list[Node]) -> None:
    """Give a finished collection its children, and count its values."""
    node.values = 1 + sum(child.values for child in children)
    if node.values > MAX_VALUES:
        raise _FaultError(
            node.start, f"the header holds more than {MAX_VALUES:,} values once its anchors are followed"
        )
    if node.kind == "sequence":
        node.items.extend(children)
        return
    node.entries.extend(zip(children[::2], children[1::2], strict=True))


def _settle_keys(root: Node, header: HeaderText) -> list[Problem]:
    """Report keys that are no text or stand twice, and merge `<<` entries, in every mapping below `root`."""
    problems: list[Problem] = []
    todo = [root]
    while todo:
        node = todo.pop()
        todo += node.items
        seen: dict[str, Node] = {}
        kept: list[tuple[Node, Node]] = []
        merged: list[tuple[Node, Node]] = []
        for key, value in node.entries:
            todo.append(value)
            if key.kind != "scalar" or key.text is None:
                problems.append(header.problem(key.start, "yaml", "a key must be plain text"))
            elif key.text == "<<" and value.kind in ("mapping", "sequence"):
                sources = value.items if value.kind == "sequence" else [value]
                merged += [entry for source in sources for entry in source.entries]
            elif key.text in seen:
                line, _ = header.place(seen[key.text].start)
                problems.append(
                    header.problem(
                        key.start, "duplicate-key", f"the key {key.text!r} stands twice; first on line {line}"
                    )
                )
            else:
                seen[key.text] = key
                kept.append((key, value))
        for key, value in merged:
            if key.kind == "scalar" and key.text is not None and key.text not in seen:
                seen[key.text] = key
                kept.append((key, value))
        node.entries[:] = kept
    return problems
