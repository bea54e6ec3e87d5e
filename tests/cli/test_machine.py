"""`dlm doctor`, and what is said where the training extra is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlm.bases import BaseSpec
from dlm.cli import extras
from dlm.cli.machine import ask_torch, free_disk_bytes, memory, usable_cores
from dlm.errors import MissingExtraError

from .conftest import Dlm
from .test_schemas import validate


@pytest.fixture
def no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the training extra were not installed."""
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    monkeypatch.setattr(
        "dlm.cli.commands.doctor.installed_versions", lambda: dict.fromkeys(extras.TRAIN_PACKAGES)
    )


@pytest.mark.usefixtures("no_extra")
@pytest.mark.parametrize(
    "args",
    [
        ["train", "notes.dlm"],
        ["prompt", "notes.dlm", "Why?"],
        ["export", "notes.dlm", "--to", "out"],
        ["demo"],
    ],
)
def test_without_the_extra_the_message_says_exactly_what_to_install(
    args: list[str], dlm: Dlm, document: Path
) -> None:
    message = dlm(*args, expect=1).stderr
    torch_first = message.index("pip install torch==2.13.0")
    assert torch_first < message.index("pip install 'dlm[train]'") < message.index("pip install '.[train]'")
    assert dlm.json(*args, expect=1)["error"]["type"] == MissingExtraError.__name__
    assert not Path("demo").exists()


@pytest.mark.usefixtures("no_extra")
def test_doctor_without_the_extra(dlm: Dlm) -> None:
    data = validate(dlm.json("doctor"))
    assert data["device"] is None
    assert data["extras"]["train"]["installed"] is False
    text = dlm("doctor").stdout
    assert "torch missing" in text
    assert "pip install torch==2.13.0" in text


@pytest.mark.usefixtures("no_extra")
def test_doctor_names_what_keeps_dlm_from_working(
    dlm: Dlm, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_home.mkdir()
    (own_home / "precious.txt").write_text("mine", encoding="utf-8")
    assert "To mend" in dlm("doctor", expect=1).stdout
    monkeypatch.setenv("DLM_HOME", "/proc/nothing/here")
    if os.getuid() != 0:
        assert "cannot be written" in dlm("doctor", expect=1).stdout
    monkeypatch.setenv("DLM_HOME", str(own_home / "new"))
    (own_home / "base").mkdir()
    spec = BaseSpec("pocket", "embedded", str(own_home / "base"), {})
    monkeypatch.setattr("dlm.bases.resolve_base", lambda name: spec)
    assert "not complete" in dlm("doctor", expect=1).stdout


def test_doctor_makes_nothing(dlm: Dlm, own_home: Path, no_extra: None) -> None:
    dlm("doctor")
    assert not own_home.exists()


def test_the_machine_is_measured() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    room = memory()
    assert room.total is not None
    assert room.total > 10**8
    assert (free_disk_bytes(Path("/not/there/at/all")) or 0) > 0


@pytest.mark.torch
@pytest.mark.process
def test_doctor_asks_torch(dlm: Dlm) -> None:
    data = validate(dlm.json("doctor"))
    assert data["device"]["device"] in ("cpu", "cuda", "mps")
    assert data["base"]["fingerprint"]
    assert data["problems"] == []


def test_a_torch_that_cannot_be_imported_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so is missing')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert ask_torch(tmp_path) == (None, "torch cannot be used: ImportError: libcudart.so is missing")
