"""What a command prints: results on stdout, notes and warnings on stderr, one JSON object with `--json`.

Text from models and documents is never sent raw to a terminal: control characters arrive as visible escapes, so that
an answer can neither recolour a screen nor rewrite a line that was printed before it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import re
import shlex
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO, TypeVar, cast

import click
from click.core import ParameterSource

from dlm.cli.groups import words_of
from dlm.errors import BaseModelError, DlmError, DocumentError, UsageError

__all__ = [
    "Output",
    "clean",
    "duration",
    "is_terminal",
    "json_option",
    "local_minute",
    "narrowed",
    "pair_lines",
    "plain_table",
    "plural",
    "remember_document",
    "report",
    "side_by_side",
    "size",
    "terminal_width",
    "typed",
    "waiting",
    "wrapped",
]

F = TypeVar("F", bound=Callable[..., Any])

MIN_WRAP = 24  # columns below which wrapping makes things worse

SCHEMA_VERSIONS = {"train": 2, "demo": 2, "show": 2, "prune": 2}
"""Versions of the envelopes' schemas that are not 1; each schema lies in `schemas/`."""

_META = "dlm.output"
_DOCUMENT = "dlm.document"

# C0 without newline and tab, DEL, and C1: what a terminal obeys instead of showing.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """The text with every control character but newline and tab as a visible escape (`\\x1b`)."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text)


def plural(count: int, noun: str) -> str:
    """`1 version`, `2 versions`, `0 versions`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(n_bytes: int) -> str:
    """Bytes for people, in powers of ten: `12 B`, `3.4 MB`."""
    amount, unit = float(n_bytes), "B"
    for bigger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, bigger
    return f"{int(amount)} B" if unit == "B" else f"{amount:.3g} {unit}"


def duration(seconds: float) -> str:
    """`3.2 s`, `48 s`, `4:07 min`, `1:02:03 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"


def local_minute(time: str) -> str:
    """An ISO time in UTC as local date and minute."""
    return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M")


def typed(*words: str) -> str:
    """A command as it can be typed into a shell: spaces and signs quoted."""
    return shlex.join(words)


def pair_lines(items: Mapping[str, str], width: int | None = None) -> list[str]:
    """Names and values under each other, as indented lines; a value of several lines keeps its column.

    Lines longer than `width` are wrapped between words, and keep their column too. Where the names leave too little
    room beside them, the values stand under their names.
    """
    indent = max((_cells(name) for name in items), default=0) + 4
    beside = width is None or width - indent >= MIN_WRAP
    lines = []
    for name, value in items.items():
        if beside:
            head = f"  {_pad(name, indent - 4, False)}  "
        else:
            head, indent = "    ", 4
            lines.append(f"  {name}")
        for line in value.split("\n"):
            for part in wrapped(line, width and width - indent):
                lines.append((head + part).rstrip())
                head = " " * indent
    return lines


def wrapped(line: str, width: int | None) -> list[str]:
    """A line as lines of at most `width` columns, broken between words; a longer word is left whole."""
    if width is None or _cells(line) <= width:
        return [line]
    return textwrap.wrap(line, max(width, 1), break_long_words=False, break_on_hyphens=False) or [line]


def terminal_width(stream: TextIO | None) -> int | None:
    """Columns of the terminal behind a stream, None where there is none and lines may be as long as they are."""
    return shutil.get_terminal_size().columns if is_terminal(stream) else None


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at this stream (a closed stream is nobody)."""
    return stream is not None and not stream.closed and stream.isatty()


@dataclass
class Output:
    """Where one command's results go. With `as_json`, lines and tables are left out and `finish` prints the envelope.

    `aside` prints what goes to stderr; a live display puts its own in, which prints above the display.
    """

    command: str
    as_json: bool
    warnings: list[str] = field(default_factory=list)
    aside: Callable[[str], None] = field(default_factory=lambda: _aside)

    def line(self, text: str = "") -> None:
        """A line of the result."""
        if not self.as_json:
            click.echo(clean(text))

    def text(self, text: str) -> None:
        """A block of the result that is laid out already, with its control characters escaped by `clean`."""
        if not self.as_json:
            click.echo(text)

    def heading(self, text: str) -> None:
        """A line of the result that opens a part of it."""
        if not self.as_json:
            for part in wrapped(clean(text), terminal_width(sys.stdout)):
                click.echo(_styled(part, sys.stdout, bold=True))

    def note(self, text: str) -> None:
        """Progress or a remark, on stderr."""
        self.aside(clean(text))

    def warn(self, text: str) -> None:
        """A warning: on stderr, and in the envelope's `warnings`."""
        self.warnings.append(text)
        self.aside(_styled("warning: ", sys.stderr, fg="yellow") + clean(text))

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        right: Sequence[str] = (),
        spare: Sequence[str] = (),
    ) -> None:
        """A table of the result; the columns named in `right` are aligned to the right.

        On a terminal too narrow for it, columns of `spare` are left out, the first of them first.
        """
        if self.as_json:
            return
        shown, cells = narrowed(columns, rows, spare, terminal_width(sys.stdout))
        head, _, body = plain_table(shown, cells, right).partition("\n")
        click.echo(_styled(head, sys.stdout, bold=True))
        click.echo(body)

    def pairs(self, items: Mapping[str, str]) -> None:
        """Names and values under each other."""
        for line in pair_lines(items, terminal_width(sys.stdout)):
            self.line(line)

    def finish(self, data: Mapping[str, Any]) -> None:
        """The envelope, when JSON was asked for."""
        if self.as_json:
            _print_json(self.command, {"data": data}, self.warnings)

    def raw_json(self, value: Mapping[str, Any]) -> None:
        """An object of somebody else's format, without our envelope; its numbers are finite."""
        click.echo(json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False))


@contextlib.contextmanager
def waiting(text: str) -> Iterator[None]:
    """A moving line on stderr while the block runs, where a person watches; nothing elsewhere."""
    if not is_terminal(sys.stderr):
        yield
        return
    from rich.console import Console

    with Console(stderr=True, highlight=False).status(clean(text)):
        yield


def json_option(function: F) -> F:
    """Give a command `--json`, and its `Output` as the first argument."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(click.get_current_context().meta[_META], *args, **kwargs)

    def remember(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        ctx.meta[_META] = Output(words_of(ctx), value)

    option = click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=remember,
        help="Print one JSON object instead of text.",
    )
    return cast(F, option(call))


def remember_document(ctx: click.Context, document: Path) -> None:
    """Tell the context which document the command line names, so that every message can name it too."""
    ctx.meta[_DOCUMENT] = str(document)


def report(error: DlmError | click.ClickException, ctx: click.Context) -> int:
    """Print a fault on stderr, and with `--json` as an object on stdout; returns the exit code."""
    output: Output | None = ctx.meta.get(_META)
    args: Sequence[str] = ctx.meta.get("dlm.args", ())
    command = output.command if output else next((arg for arg in args if not arg.startswith("-")), "")
    if isinstance(error, click.ClickException):
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(error.ctx.get_usage(), err=True)
        fault: DlmError = UsageError(
            error.format_message(),
            where=_variable_of(error),
            next_step=f"{_path_of(error)} --help lists what it takes",
        )
    else:
        fault = error
        fault.next_step = _with_document(fault, command, ctx.meta.get(_DOCUMENT, ""))
        if isinstance(fault, UsageError) and not fault.next_step:
            fault.next_step = f"dlm {command} --help lists what it takes"
    lines = [clean(line) for line in fault.lines()]
    if not isinstance(fault, DocumentError):  # a document's problems stand at the start of their lines
        lines[0] = _styled("error: ", sys.stderr, fg="red", bold=True) + lines[0]
    click.echo("\n".join(lines), err=True)
    if output.as_json if output else "--json" in args:
        warnings = output.warnings if output else []
        _print_json(command, {"data": None, "error": _error_object(fault)}, warnings, schema="error")
    return fault.exit_code


def _with_document(fault: DlmError, command: str, document: str) -> str:
    """The next step with the document's name, as it can be typed, where a room that does not know it left a word."""
    step = fault.next_step
    if not document or isinstance(fault, BaseModelError):  # whose DOCUMENT is the one that made the base
        return step
    quoted = typed(document)
    words = r"DOCUMENT|DOC|FILE" if command == "init" else r"DOCUMENT|DOC"
    step = re.sub(rf"(?<![\w-])(?:{words})(?![\w-])", lambda _: quoted, step)
    return re.sub(rf"(?<!\S){re.escape(document)}(?!\S)", lambda _: quoted, step)


def _variable_of(error: click.ClickException) -> str:
    """The environment variable a refused value came from, "" when it was typed."""
    ctx, param = getattr(error, "ctx", None), getattr(error, "param", None)
    if ctx is None or param is None:
        return ""
    if ctx.get_parameter_source(param.name) is not ParameterSource.ENVIRONMENT:
        return ""
    return f"the environment variable {param.envvar}"


def _path_of(error: click.ClickException) -> str:
    ctx = getattr(error, "ctx", None)
    return ctx.command_path if ctx is not None else "dlm"


def _error_object(fault: DlmError) -> dict[str, Any]:
    found = {
        "type": type(fault).__name__,
        "message": fault.message,
        "expected": fault.expected,
        "found": fault.found,
        "where": fault.where,
        "next_step": fault.next_step,
        "exit_code": fault.exit_code,
    }
    if isinstance(fault, DocumentError):
        found["problems"] = [
            {"path": fault.path, **{k: getattr(p, k) for k in ("line", "column", "code", "message", "fix")}}
            for p in fault.problems
        ]
    return found


def _print_json(command: str, body: Mapping[str, Any], warnings: Sequence[str], schema: str = "") -> None:
    name = schema or command.replace(" ", "-")
    envelope = {
        "schema": f"dlm/{name}/{SCHEMA_VERSIONS.get(name, 1)}",
        "command": command,
        **body,
        "warnings": list(warnings),
    }
    # ASCII: it survives every locale, and no control character reaches a terminal.
    click.echo(json.dumps(_speakable(envelope), indent=2, ensure_ascii=True, allow_nan=False))


def _speakable(value: Any) -> Any:
    """The value with NaN and infinities, which JSON has no numbers for, as "NaN", "Infinity", "-Infinity"."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _speakable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_speakable(item) for item in value]
    return value


def _aside(text: str) -> None:
    """Write to stderr. Whoever stopped reading remarks must not end a training with that: what fails is dropped."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def _styled(text: str, stream: TextIO | None, **style: Any) -> str:
    return click.style(text, **style) if is_terminal(stream) and not os.environ.get("NO_COLOR") else text


def _cells(text: str) -> int:
    """Columns a text takes in a terminal."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def _pad(text: str, width: int, to_right: bool) -> str:
    space = " " * (width - _cells(text))
    return space + text if to_right else text + space


def _one_line(text: str) -> str:
    return clean(text).replace("\n", "⏎").replace("\t", " ")


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> str:
    """Aligned columns two spaces apart, a header line first; nothing is cut."""
    lines = [list(columns), *([_one_line(cell) for cell in row] for row in rows)]
    widths = [max(_cells(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            _pad(cell, width, name in right) for cell, width, name in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    )


def narrowed(
    columns: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str], width: int | None
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Columns and rows of a table with columns of `spare` left out, in their order, until its lines fit `width`."""
    for name in spare:
        if width is None or _cells(plain_table(columns, rows, columns).partition("\n")[0]) <= width:
            break
        out = list(columns).index(name)
        columns = [*columns[:out], *columns[out + 1 :]]
        rows = [[*row[:out], *row[out + 1 :]] for row in rows]
    return columns, rows


def side_by_side(left: tuple[str, str], right: tuple[str, str]) -> str:
    """Two (title, text) blocks: next to each other on a terminal, under each other elsewhere."""
    if not is_terminal(sys.stdout):
        return "\n\n".join(f"== {title}\n{clean(text)}" for title, text in (left, right))
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_edge=False, pad_edge=False, header_style="bold", expand=True)
    for title, _ in (left, right):
        table.add_column(title, ratio=1, overflow="fold")
    table.add_row(*(Text(clean(text)) for _, text in (left, right)))
    console = Console(file=sys.stdout, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")
