"""Commands with commands of their own (`dlm preference list`), each imported only when it is called."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click

from dlm.errors import UsageError

__all__ = ["Family", "Member", "leaves", "name_variables", "words_of"]


@dataclass(frozen=True)
class Member:
    """A command of a family: where it is defined, as `module:function` within the family's package, and its help."""

    place: str
    help: str


class Family(click.Group):
    """A group whose commands stand in a table, so that its help imports none of them."""

    def __init__(
        self, *args: Any, package: str = "", members: Mapping[str, Member] | None = None, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        self.package = package
        self.members = dict(members or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.members)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.members:
            return None
        module, _, function = self.members[cmd_name].place.partition(":")
        command: click.Command = getattr(importlib.import_module(f"{self.package}.{module}"), function)
        name_variables(command, f"DLM_{self.name}_{cmd_name}".upper())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.members and not name.startswith("-"):
            near = next(iter(difflib.get_close_matches(name, self.members, n=1)), "--help")
            raise UsageError(
                f"{ctx.command_path} has no command {name!r}", next_step=f"{ctx.command_path} {near}"
            )
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:  # as `dlm` alone does
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.members))
        with formatter.section("Commands"):
            formatter.write_dl([(name.ljust(width), member.help) for name, member in self.members.items()])


def name_variables(command: click.Command, prefix: str) -> None:
    """Let each option read `<prefix>_<LONG_NAME>`; named by the flag people type, not by our parameter."""
    for param in command.params:
        long = next((name for name in param.opts if name.startswith("--")), None)
        if isinstance(param, click.Option) and long and param.envvar is None:
            param.envvar = f"{prefix}_{long[2:].replace('-', '_').upper()}"


def words_of(ctx: click.Context) -> str:
    """What stands behind `dlm` to call a command: `check`, `preference list`."""
    words = [str(ctx.info_name)]
    while ctx.parent is not None and ctx.parent.parent is not None:
        ctx = ctx.parent
        words.insert(0, str(ctx.info_name))
    return " ".join(words)


def leaves(group: click.Group, ctx: click.Context) -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command that does something, by its name behind `dlm` (`preference list`), with a context of its own."""
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is None:
            continue
        below = click.Context(command, info_name=name, parent=ctx)
        if isinstance(command, click.Group):
            for path, leaf, leaf_ctx in leaves(command, below):
                yield f"{name} {path}", leaf, leaf_ctx
        else:
            yield name, command, below
