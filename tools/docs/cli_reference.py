"""Write `docs/cli.md` from the command line itself, so that the page cannot say what the program does not do.

python tools/docs/cli_reference.py            writes docs/cli.md
python tools/docs/cli_reference.py --check    exit code 1 when the page is not current
"""

from __future__ import annotations

import argparse
import inspect
import sys
from pathlib import Path

import click
from pydantic.fields import FieldInfo

from dlm.cli.groups import Family, leaves
from dlm.cli.main import COMMANDS, app
from dlm.recipe import PHASE_KNOBS, Recipe

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"

PREFACE = """\
# Command line

<!-- Written by tools/docs/cli_reference.py (`make docs`). Edit the commands, not this page. -->

Results go to stdout; progress, notes and warnings go to stderr. Where stdout is no terminal, tables are plain aligned
text and progress is about twenty lines a run. Control characters in documents and answers are shown as escapes.

**Exit codes.** 0 done · 1 failed (`dlm check`: there are problems) · 2 misuse, or nothing to do · 3 gate not passed ·
130 interrupted; what was saved can be resumed.

**`--json`** prints one object, `{"schema", "command", "data", "warnings"}`. The schemas lie in `src/dlm/cli/schemas/`.
A command that fails prints `{"schema": "dlm/error/1", "command", "data": null, "error", "warnings"}` on stdout and its
message on stderr; `dlm check` with problems is no failure of the command: its envelope lists them. NaN and infinities
are the texts `"NaN"`, `"Infinity"`, `"-Infinity"`.

**Environment.** `DLM_HOME` is the folder where dlm keeps what it remembers (default: the platform's data folder).
Every option also reads a variable, named in the tables below; a flag counts as set with `1` or `true`, and an option
that may be repeated takes several values with spaces between them (paths: as in `PATH`). `NO_COLOR` turns colours off.
"""


_WHERE = {
    "preference": """
        In `--set` they are written as here (`--set preference.beta=0.2`). In the header they stand under
        `training.preference`, the numbers `beta` to `num_epochs` under its `hyperparams`.""",
    "reward": """
        In `--set` they are written as here (`--set reward.center=0`), in the header under `training.reward`.""",
    "rft": """
        In `--set` they are written as here (`--set rft.group_size=16`), in the header under `training.rft`.
        What they do is told in [rft.md](rft.md).""",
}


def page() -> str:
    """The whole page."""
    parts = [PREFACE, _contents()]
    group = click.Context(app, info_name="dlm")
    for name, command, ctx in leaves(app, group):
        parts.append(_command(name, command, ctx))
        if name == "train":
            parts.append(_knobs())
    return "\n".join(parts)


def _contents() -> str:
    lines = ["| command | does |", "|---|---|"]
    helps = {name: entry.help for name, entry in COMMANDS.items()}
    group = click.Context(app, info_name="dlm")
    for family in COMMANDS:
        command = app.get_command(group, family)
        if isinstance(command, Family):
            helps |= {f"{family} {name}": member.help for name, member in command.members.items()}
    for name, _, _ in leaves(app, group):
        lines.append(f"| [`dlm {name}`](#dlm-{name.replace(' ', '-')}) | {helps[name]} |")
    return "\n".join(lines) + "\n"


def _command(name: str, command: click.Command, ctx: click.Context) -> str:
    usage = " ".join(["dlm", name, *command.collect_usage_pieces(ctx)])
    text = [f"## dlm {name}", "", f"    {usage}", "", inspect.cleandoc(command.help or ""), ""]
    if command.epilog:
        text += [command.epilog, ""]
    text += ["| option | does | default | variable |", "|---|---|---|---|"]
    text += [_option(option) for option in command.params if isinstance(option, click.Option)]
    return "\n".join(text) + "\n"


def _option(option: click.Option) -> str:
    flag = ", ".join([*option.opts, *option.secondary_opts])
    if isinstance(option.type, click.Choice):
        flag += f" [{'|'.join(option.type.choices)}]"
    elif not option.is_flag:
        flag += f" {option.metavar}"
    text, _, stated = (option.help or "").partition("  [default: ")
    default = stated.removesuffix("]") or (str(option.default) if option.show_default else "")
    cells = (f"`{flag}`".replace("|", "\\|"), text, default, f"`{option.envvar}`")
    return "| " + " | ".join(cells) + " |"


def _knobs() -> str:
    """The recipe as a table; `recipe/` is the only place that describes a knob."""
    lines = [
        "### Knobs of --set and of `training:` in the header",
        "",
        "| knob | does | default |",
        "|---|---|---|",
    ]
    lines += [_knob(name, field) for name, field in Recipe.model_fields.items()]
    for phase, model in PHASE_KNOBS.items():
        lines += [
            "",
            f"### Knobs of the {phase} phase",
            "",
            *inspect.cleandoc(_WHERE[phase]).split("\n"),
            "",
            "| knob | does | default |",
            "|---|---|---|",
        ]
        lines += [_knob(f"{phase}.{name}", field) for name, field in model.model_fields.items()]
    lines += [
        "",
        "A base may bring its own default for some of them; `dlm train` shows which, and why, before it starts.",
    ]
    return "\n".join(lines) + "\n"


def _knob(name: str, field: FieldInfo) -> str:
    default = "unset" if field.default is None else str(field.default)
    return f"| `{name}` | {field.description} | {default} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether the page is current")
    if parser.parse_args().check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
            sys.exit(f"{PAGE.name} is not current; write it with: python tools/docs/cli_reference.py")
        return
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
