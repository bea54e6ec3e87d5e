"""One trained store, made once and copied."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import Cli, ten_questions


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    folder = tmp_path / "work"
    folder.mkdir()
    return Cli(tmp_path / "home", folder)


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A store with one trained version of the ten questions. Do not change it: take `trained`."""
    root = tmp_path_factory.mktemp("trained")
    (root / "work").mkdir()
    made = Cli(root / "home", root / "work")
    (made.folder / "ten.dlm").write_text(ten_questions(), encoding="utf-8")
    made.run("train", "ten.dlm")
    return made


@pytest.fixture
def trained(trained_once: Cli, tmp_path: Path) -> Iterator[Cli]:
    """A copy of the trained store and its document, free to be changed."""
    shutil.copytree(trained_once.home, tmp_path / "home")
    shutil.copytree(trained_once.folder, tmp_path / "work")
    (trained_once.folder / "ten.dlm").rename(
        trained_once.folder / "ten.moved"
    )  # else the copy would be a second holder
    yield Cli(tmp_path / "home", tmp_path / "work")
    (trained_once.folder / "ten.moved").rename(trained_once.folder / "ten.dlm")
