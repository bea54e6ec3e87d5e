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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO, TypeVar, cast

import click

from dlm.errors import DlmError, DocumentError, UsageError

__all__ = [
    "Output",
    "clean",
    "duration",
    "is_terminal",
    "json_option",
    "pair_lines",
    "plain_table",
    "plural",
    "report",
    "side_by_side",
    "size",
    "terminal_width",
    "typed",
]

F = TypeVar("F", bound=Callable[..., Any])

MIN_WRAP = 24  # columns below which wrapping makes things worse

_META = "dlm.output"

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


def typed(*words: str) -> str:
    """A command as it can be typed into a shell: spaces and signs quoted."""
    return shlex.join(words)


def pair_lines(items: Mapping[str, str], width: int | None = None) -> list[str]:
    """Names and values under each other, as indented lines; a value of several lines keeps its column.

    Lines longer than `width` are wrapped between words, and keep their column too.
    """
    indent = max((_cells(name) for name in items), default=0) + 4
    lines = []
    for name, value in items.items():
        head = f"  {_pad(name, indent - 4, False)}  "
        for line in value.split("\n"):
            for part in _wrap(line, width and width - indent):
                lines.append((head + part).rstrip())
                head = " " * indent
    return lines


def _wrap(line: str, width: int | None) -> list[str]:
    if width is None or width < MIN_WRAP or _cells(line) <= width:
        return [line]
    return textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [line]


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
            click.echo(_styled(clean(text), sys.stdout, bold=True))

    def note(self, text: str) -> None:
        """Progress or a remark, on stderr."""
        self.aside(clean(text))

    def warn(self, text: str) -> None:
        """A warning: on stderr, and in the envelope's `warnings`."""
        self.warnings.append(text)
        self.aside(_styled("warning: ", sys.stderr, fg="yellow") + clean(text))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
        """A table of the result; the columns named in `right` are aligned to the right."""
        if self.as_json:
            return
        if is_terminal(sys.stdout):
            _rich_table(columns, rows, right, sys.stdout)
        else:
            click.echo(plain_table(columns, rows, right))

    def pairs(self, items: Mapping[str, str]) -> None:
        """Names and values under each other."""
        for line in pair_lines(items, terminal_width(sys.stdout)):
            self.line(line)

    def finish(self, data: Mapping[str, Any]) -> None:
        """The envelope, when JSON was asked for."""
        if self.as_json:
            _print_json(self.command, {"data": data}, self.warnings)


def json_option(function: F) -> F:
    """Give a command `--json`, and its `Output` as the first argument."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(click.get_current_context().meta[_META], *args, **kwargs)

    def remember(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        ctx.meta[_META] = Output(str(ctx.info_name), value)

    option = click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=remember,
        help="Print one JSON object instead of text.",
    )
    return cast(F, option(call))


def report(error: DlmError | click.ClickException, ctx: click.Context) -> int:
    """Print a fault on stderr, and with `--json` as an object on stdout; returns the exit code."""
    output: Output | None = ctx.meta.get(_META)
    args: Sequence[str] = ctx.meta.get("dlm.args", ())
    if isinstance(error, click.ClickException):
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(error.ctx.get_usage(), err=True)
        fault: DlmError = UsageError(
            error.format_message(), next_step=f"{_path_of(error)} --help lists what it takes"
        )
    else:
        fault = error
    lines = [clean(line) for line in fault.lines()]
    if not isinstance(fault, DocumentError):  # a document's problems stand at the start of their lines
        lines[0] = _styled("error: ", sys.stderr, fg="red", bold=True) + lines[0]
    click.echo("\n".join(lines), err=True)
    if output.as_json if output else "--json" in args:
        command = output.command if output else next((arg for arg in args if not arg.startswith("-")), "")
        warnings = output.warnings if output else []
        _print_json(command, {"data": None, "error": _error_object(fault)}, warnings, schema="error")
    return fault.exit_code


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
    envelope = {
        "schema": f"dlm/{schema or command}/1",
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


def _rich_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str], stream: TextIO
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_one_line(cell)) for cell in row))  # Text: brackets in a cell are not markup
    Console(file=stream, highlight=False).print(table)
