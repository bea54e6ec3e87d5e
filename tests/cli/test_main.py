"""The frame around every command: help, misuse, exit codes, environment, streams."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from dlm.cli.groups import leaves
from dlm.cli.main import COMMANDS, app

from .conftest import BODY, HEADER, Dlm, Train, spawn

HEAVY = ("torch", "transformers", "peft", "tokenizers", "fastapi")
NOT_FOR_HELP = (*HEAVY, "pydantic", "numpy", "yaml", "rich", "sqlite3")


def loaded(args: list[str], modules: tuple[str, ...]) -> list[str]:
    """Which of `modules` a command imports, seen in a process of its own."""
    code = (
        "import sys\nfrom dlm.cli.main import app\n"
        f"try:\n    app({args!r})\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', *(name for name in {modules!r} if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize(
    "args",
    [["--help"], ["--version"], ["nonsense"], [], ["preference", "--help"], ["preference", "nonsense"]],
)
def test_help_imports_nothing_it_does_not_show(args: list[str]) -> None:
    assert loaded(args, NOT_FOR_HELP) == []


@pytest.mark.parametrize(
    "args",
    [
        ["init", "new.dlm"],
        ["check", "notes.dlm"],
        ["show", "notes.dlm"],
        ["metrics", "notes.dlm"],
        ["diagnose", "notes.dlm", "--html", "report.html"],
        ["checkpoints", "notes.dlm"],
        ["prune", "notes.dlm"],
        ["promote", "notes.dlm", "v0001"],
        ["rollback", "notes.dlm"],
        ["gate", "notes.dlm", "--no-eval"],
        ["grader", "test", "spreadsheet", "-n", "2"],
        ["import", "notes.dlm", "notes.dlm"],
        ["export-data", "notes.dlm", "--to", "out.jsonl"],
        ["preference", "list", "notes.dlm"],
        ["preference", "apply", "notes.dlm"],
        ["preference", "show", "notes.dlm", "1"],
        pytest.param(
            ["doctor"], marks=(pytest.mark.torch, pytest.mark.process)
        ),  # asks torch in its own process
        *([name, "--help"] for name in COMMANDS),
    ],
    ids=str,
)
def test_light_commands_import_no_torch(args: list[str], train: Train) -> None:
    train()
    train()
    assert loaded(args, HEAVY) == []


def test_help_names_every_command_with_its_own_help(dlm: Dlm) -> None:
    text = dlm("--help").stdout
    ctx = click.Context(app)
    for name, entry in COMMANDS.items():
        assert entry.help in text
        command = app.get_command(ctx, name)
        assert command is not None
        assert command.name == name
        assert name in dlm(name, "--help").stdout


def test_version() -> None:
    done = spawn("-V")
    assert done.stdout.decode().split() == ["dlm", "0.1.0"]


def test_an_unknown_command_suggests_the_nearest(dlm: Dlm) -> None:
    result = dlm("chek", "notes.dlm", expect=2)
    assert "'chek'" in result.stderr
    assert "dlm check" in result.stderr
    assert "--help" in dlm("xyzzy", expect=2).stderr


@pytest.mark.parametrize(
    "args",
    [
        ["train"],
        ["check"],
        ["show", "--bogus", "x"],
        ["train", "a.dlm", "--max-steps", "0"],
        ["prompt", "a", "b", "c"],
    ],
)
def test_misuse_exits_2_and_says_where_to_read(args: list[str], dlm: Dlm) -> None:
    result = dlm(*args, expect=2)
    assert f"dlm {args[0]} --help" in result.stderr
    assert result.stdout == ""


def test_misuse_with_json_is_an_envelope_on_stdout(dlm: Dlm) -> None:
    envelope = dlm.json("show", "--bogus", expect=2)
    assert envelope["schema"] == "dlm/error/1"
    assert envelope["command"] == "show"
    assert "--bogus" in envelope["error"]["message"]
    assert dlm.json("nonsense", expect=2)["error"]["exit_code"] == 2


def test_options_read_the_environment_by_their_typed_names(
    document: Path, dlm: Dlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLM_CHECK_JSON", "1")
    assert json.loads(dlm("check", "notes.dlm").stdout)["data"]["ok"]
    monkeypatch.setenv("DLM_INIT_TEMPLATE", "qa")
    monkeypatch.setenv("DLM_INIT_JSON", "1")
    assert json.loads(dlm("init", "new.dlm").stdout)["data"]["template"] == "qa"
    assert (
        json.loads(dlm("init", "other.dlm", "--template", "starter").stdout)["data"]["template"] == "starter"
    )


def test_a_refused_value_from_the_environment_names_its_variable(
    document: Path, dlm: Dlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "DLM_TRAIN" not in dlm("train", "notes.dlm", "--max-steps", "x", expect=2).stderr
    monkeypatch.setenv("DLM_TRAIN_MAX_STEPS", "x")
    assert "variable DLM_TRAIN_MAX_STEPS: " in dlm("train", "notes.dlm", expect=2).stderr
    assert "DLM_TRAIN_MAX_STEPS" in dlm.json("train", "notes.dlm", expect=2)["error"]["where"]
    monkeypatch.setenv("DLM_PROMPT_TEMP", "nan")
    assert "variable DLM_PROMPT_TEMP: " in dlm("prompt", "notes.dlm", "Why?", expect=2).stderr


def test_every_option_has_a_variable_of_its_own() -> None:
    for name, command, _ in leaves(app, click.Context(app)):
        options = [param for param in command.params if isinstance(param, click.Option)]
        variables = [option.envvar for option in options]
        assert len(set(variables)) == len(variables)
        prefix = f"DLM_{name.upper().replace(' ', '_').replace('-', '_')}"
        for option in options:
            long = next(flag for flag in option.opts if flag.startswith("--"))
            assert option.envvar == f"{prefix}_{long[2:].replace('-', '_').upper()}"


def test_a_bug_shows_its_traceback_and_a_refusing_machine_does_not(
    document: Path, dlm: Dlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/some/where")

    monkeypatch.setattr("dlm.cli.commands.show.find_project", full)
    result = dlm("show", "notes.dlm", expect=1)
    assert result.stderr == "error: /some/where: No space left on device\n"

    def bug(*_: object) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("dlm.cli.commands.show.find_project", bug)
    with pytest.raises(OSError, match="Bad file descriptor"):
        dlm("show", "notes.dlm")


def test_ctrl_c_exits_130(document: Path, dlm: Dlm, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dlm.cli.commands.show.find_project", interrupt)
    assert "interrupted" in dlm("show", "notes.dlm", expect=130).stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "args", [["check", "notes.dlm"], ["check", "bad.dlm"], ["show", "notes.dlm", "--json"]]
)
def test_a_reader_that_leaves_is_no_error(args: list[str], unbuffered: str, document: Path) -> None:
    Path("bad.dlm").write_text("no header", encoding="utf-8")
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = subprocess.Popen(
        [sys.executable, "-m", "dlm", *args],
        stdout=write_end,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(write_end)
    _, errors = process.communicate(timeout=60)
    assert errors == b""
    assert process.returncode in (0, 1)


def test_closed_streams_are_no_error(document: Path) -> None:
    command = ["sh", "-c", f"{sys.executable} -m dlm check notes.dlm >&- 2>&-"]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=str,
)
def test_a_locale_without_our_signs_still_prints(env: dict[str, str]) -> None:
    Path("grün-σ.dlm").write_text(HEADER + BODY, encoding="utf-8")
    done = spawn("check", "grün-σ.dlm", env=env)
    assert done.returncode == 0, done.stderr
    assert b"no problems" in done.stdout
    data = json.loads(spawn("check", "grün-σ.dlm", "--json", env=env).stdout)["data"]
    assert data["documents"][0]["ok"]


def test_python_dash_m_is_dlm() -> None:
    assert b"dlm init notes.dlm" in spawn("--help").stdout
