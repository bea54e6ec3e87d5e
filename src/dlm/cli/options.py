"""Arguments and options that several commands share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from dlm.cli.output import remember_document

__all__ = ["DOCUMENT", "FiniteNumber", "device_option", "document_argument", "remember", "version_option"]

F = TypeVar("F", bound=Callable[..., Any])

# Only turned into a path: reading it is the document room's business, with its own messages.
DOCUMENT = click.Path(path_type=Path)


class FiniteNumber(click.ParamType[float]):
    """A number within bounds; `wanted` says them in words. Infinities and what is no number are refused."""

    name = "number"

    def __init__(self, wanted: str, fits: Callable[[float], bool]) -> None:
        self.wanted = wanted
        self._fits = fits

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or not self._fits(number):
            self.fail(f"{value!r} is not {self.wanted}", param, ctx)
        return number


def remember(ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path | None:
    """The callback of an argument or option that names the document."""
    if value is not None:
        remember_document(ctx, value)
    return value


def document_argument(function: F) -> F:
    """The `DOCUMENT` argument, as `document: Path`."""
    return click.argument("document", type=DOCUMENT, metavar="DOCUMENT", callback=remember)(function)


def device_option(function: F) -> F:
    """`--device`. Only its form is looked at; whether this machine has it is for the model room to say."""

    def check(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", value):
            raise click.BadParameter(f"{value!r} is none of auto, cpu, cuda, cuda:N, mps")
        return value

    return click.option(
        "--device",
        metavar="[auto|cpu|cuda|mps]",
        default="auto",
        show_default=True,
        callback=check,
        help="Where to compute; auto takes a GPU when there is one. cuda:1 names the second GPU.",
    )(function)


def version_option(help_text: str) -> Callable[[F], F]:
    """`--version NAME`, as `version: str | None`."""
    return click.option("--version", metavar="NAME", help=help_text)
