"""The `dlm` command: a table of commands, each imported only when it is called.

`dlm --help` reads the table alone, so it starts at once on any installation. Faults a user can act on (`DlmError`,
misuse, an interrupt, a full disk) end here with a message and an exit code; anything else shows its traceback.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
from dataclasses import dataclass
from typing import NoReturn, TextIO

import click
from click.exceptions import Exit

from dlm import __version__
from dlm.cli.groups import name_variables
from dlm.cli.output import report
from dlm.errors import DlmError, UsageError

__all__ = ["app", "main"]

INTERRUPTED = 130

# What the machine refuses, as opposed to what dlm does wrong: told in one line, without a traceback.
_MACHINE_FAULTS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE}
)

EPILOG = (
    "Every option also reads an environment variable: --max-steps of `dlm train` is DLM_TRAIN_MAX_STEPS. "
    "DLM_HOME is the folder where dlm keeps what it remembers about your documents."
)


@dataclass(frozen=True)
class Entry:
    """A command as `dlm --help` shows it; its module is `dlm.cli.commands.<name>` unless it says otherwise.

    The module's function has the module's name.
    """

    section: str
    help: str
    module: str = ""


COMMANDS = {
    "init": Entry("Write", "Write a new document that teaches the format."),
    "check": Entry("Write", "Find every problem in a document."),
    "train": Entry("Teach", "Train a new version of the model on a document."),
    "prompt": Entry("Teach", "Ask the trained model a question."),
    "preference": Entry("Improve", "Mine pairs of better and worse answers, review and apply them."),
    "import": Entry("Improve", "Bring preference data, votes and past runs in.", "import_data"),
    "export-data": Entry("Improve", "Write preference data for other tools, or for dlm.", "export_data"),
    "export": Entry("Teach", "Write a version as plain PEFT files or a merged model."),
    "demo": Entry("Teach", "See the whole loop once, on an example document."),
    "show": Entry("See", "What dlm knows about a document: versions, runs, size."),
    "metrics": Entry("See", "The curves of a training run as numbers."),
    "diagnose": Entry("See", "Read the curves of a run or file: what is wrong, what to keep."),
    "checkpoints": Entry("See", "The checkpoints of a run, and which one to keep."),
    "ui": Entry("See", "Runs, curves and preference data in the browser, live."),
    "doctor": Entry("See", "What this machine has, and what dlm will do with it."),
    "promote": Entry("Keep house", "Make a version the current one."),
    "rollback": Entry("Keep house", "Go back to the version that was current before."),
    "prune": Entry("Keep house", "Free the space of old checkpoints and versions."),
}


class App(click.Group):
    """A group whose commands live in modules that are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = COMMANDS[cmd_name].module or cmd_name
        command: click.Command = getattr(importlib.import_module(f"dlm.cli.commands.{module}"), module)
        name_variables(command, f"DLM_{cmd_name.upper().replace('-', '_')}")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = next(iter(difflib.get_close_matches(name, COMMANDS, n=1)), "")
            raise UsageError(
                f"there is no command {name!r}",
                next_step=f"dlm {near}" if near else "dlm --help lists the commands",
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            rows = [
                (name.ljust(width), entry.help)
                for name, entry in COMMANDS.items()
                if entry.section == section
            ]
            with formatter.section(section):
                formatter.write_dl(rows)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["dlm.args"] = list(
            args
        )  # an error before the command's own options are read looks for --json
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> None:
        try:
            try:
                code = self._run(ctx)
            finally:
                _flush(sys.stdout)
        except BrokenPipeError:
            _abandon_output()  # the reader has seen enough, as in `dlm metrics … | head`
            code = 0
        if code:
            raise Exit(code)

    def _run(self, ctx: click.Context) -> int:
        """Run the command; returns the exit code."""
        try:
            super().invoke(ctx)
        except Exit as finished:
            return finished.exit_code
        except (DlmError, click.ClickException) as error:
            return report(error, ctx)
        except (KeyboardInterrupt, click.Abort):
            click.echo("\ninterrupted", err=True)
            return INTERRUPTED
        except OSError as error:
            if error.errno not in _MACHINE_FAULTS:
                raise
            return report(DlmError(error.strerror or str(error), where=str(error.filename or "")), ctx)
        return 0


def _flush(stream: TextIO | None) -> None:
    if stream is not None:
        stream.flush()


def _abandon_output() -> None:
    """Point standard output at nothing, so that the interpreter's own last flush does not complain."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return  # no descriptor behind it (a test's buffer): nothing will be flushed


def _prepare_streams() -> None:
    """Never fail to print: what the locale cannot show is written as an escape such as \\u03c3."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


@click.command(
    cls=App,
    name="dlm",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", prog_name="dlm", message="%(prog)s %(version)s")
def app() -> None:
    """Turn a document into a fine-tuned language model, and prove that it got better.

    \b
    dlm init notes.dlm           a document that teaches the format
    dlm train notes.dlm          train on it
    dlm prompt notes.dlm "…?"    ask the result a question
    """


def main() -> NoReturn:
    """Entry point of the `dlm` script."""
    _prepare_streams()
    try:
        app(prog_name="dlm")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)
