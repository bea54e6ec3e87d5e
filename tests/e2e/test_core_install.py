"""The core without extras: an environment that holds nothing but the core's own dependencies."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from command_line import Cli

ROOT = Path(__file__).parents[2]
CORE = ("click", "numpy", "platformdirs", "pydantic", "PyYAML", "rich")


def closure(names: tuple[str, ...]) -> set[str]:
    """Distributions reachable from `names` through requirements that no extra guards."""
    found: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name.lower() in found:
            continue
        found.add(name.lower())
        for requirement in distribution(name).requires or []:
            head, _, marker = requirement.partition(";")
            if "extra ==" not in marker and "python_version" not in marker and "platform" not in marker:
                queue.append(re.split(r"[\s<>=!~\[(]", head.strip())[0])
    return found


@pytest.fixture(scope="module")
def core_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that sees the core's dependencies, and dlm's source, and nothing else."""
    folder = tmp_path_factory.mktemp("core") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in closure(CORE):
        installed = distribution(name)
        for top in {Path(file).parts[0] for file in installed.files or [] if not str(file).startswith("..")}:
            source = Path(str(installed.locate_file(top)))
            if top != "__pycache__" and source.exists():
                (packages / top).symlink_to(source)
    (packages / "dlm.pth").write_text(str(ROOT / "src"), encoding="utf-8")
    return folder / "bin" / "python"


def run(python: Path, cli: Cli, *args: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in cli.env.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [str(python), "-m", "dlm", *args],
        cwd=cli.folder,
        env=env,
        text=True,
        capture_output=True,
        check=False,
        timeout=120,
    )


def test_the_environment_has_no_torch(core_python: Path, cli: Cli) -> None:
    done = subprocess.run(
        [str(core_python), "-c", "import torch"], capture_output=True, text=True, check=False
    )
    assert "No module named 'torch'" in done.stderr


def test_check_and_init_and_show_work(core_python: Path, cli: Cli) -> None:
    assert run(core_python, cli, "init", "a.dlm").returncode == 0
    assert run(core_python, cli, "check", "a.dlm").returncode == 0
    shown = run(core_python, cli, "show", "a.dlm")
    assert shown.returncode == 0, shown.stderr
    assert "pocket" in shown.stdout
    assert run(core_python, cli, "doctor").returncode == 0


@pytest.mark.torch
@pytest.mark.process
def test_metrics_of_a_trained_document(core_python: Path, trained: Cli) -> None:
    done = run(core_python, trained, "metrics", "ten.dlm")
    assert done.returncode == 0, done.stderr
    assert "train_loss" in done.stdout
    assert "v0001" in run(core_python, trained, "show", "ten.dlm").stdout


@pytest.mark.parametrize("command", [("train", "a.dlm"), ("prompt", "a.dlm", "Why?"), ("demo",)])
def test_training_says_exactly_what_to_install(core_python: Path, cli: Cli, command: tuple[str, ...]) -> None:
    run(core_python, cli, "init", "a.dlm")
    done = run(core_python, cli, *command)
    assert done.returncode == 1
    assert "pip install" in done.stderr
    assert "torch==2.13.0" in done.stderr
    assert "[train]" in done.stderr
    assert "Traceback" not in done.stderr
