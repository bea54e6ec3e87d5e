"""The home: whose folder it is, and where it lies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dlm.errors import ForeignFolderError, StoreError
from dlm.store import Home, home_root

ID = "01J9Z3W5E8RT2Y4VQ7NDPXK6MA"


def test_environment_names_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLM_HOME", str(tmp_path / "here"))
    assert Home.open().root == tmp_path / "here"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLM_HOME", "relative")
    assert Home.open().root == tmp_path / "relative"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DLM_HOME", "~/of-mine")
    assert Home.open().root == tmp_path / "of-mine"


def test_without_it_the_platform_decides(tmp_path: Path) -> None:
    empty = home_root({"DLM_HOME": ""})
    assert empty == home_root({})
    assert empty.name == "dlm"
    assert empty.is_absolute()


def test_opening_and_finding_write_nothing(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    assert home.find(ID) is None
    assert not home.root.exists()


def test_store_makes_the_home_and_find_then_finds(home: Home) -> None:
    with home.store(ID) as made:
        assert made.folder == home.root / "store" / ID
    found = home.find(ID)
    assert found is not None
    with found:
        assert found.folder == made.folder
    assert json.loads((home.root / "dlm-home.json").read_text())["format"] == 1
    assert home.root.stat().st_mode & 0o077 == 0  # private


def test_an_empty_folder_may_become_a_home(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"")
    with Home.open(tmp_path).store(ID):
        assert (tmp_path / "dlm-home.json").exists()


@pytest.mark.parametrize("marker", [None, "not json", "[]", '{"tool": "something else"}'])
def test_a_folder_of_another_tool_is_refused_and_left_alone(tmp_path: Path, marker: str | None) -> None:
    (tmp_path / "config.toml").write_text("a = 1")
    if marker is not None:
        (tmp_path / "dlm-home.json").write_text(marker)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ForeignFolderError) as caught:
        Home.open(tmp_path)
    assert "DLM_HOME" in caught.value.next_step
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ForeignFolderError, match="not a folder"):
        Home.open(tmp_path / "file")


def test_a_newer_home_is_refused(home: Home) -> None:
    home.store(ID).close()
    marker = home.root / "dlm-home.json"
    marker.write_text(marker.read_text().replace("1", "2"))
    with pytest.raises(StoreError, match="newer dlm"):
        Home.open(home.root)


@pytest.mark.parametrize("dlm_id", ["", "..", "a/b", "../../x", "a b", "é" * 26, "x" * 65, "a\0b", "-x"])
def test_an_id_cannot_leave_the_home(home: Home, dlm_id: str) -> None:
    with pytest.raises(StoreError, match="dlm_id"):
        home.store(dlm_id)
    with pytest.raises(StoreError, match="dlm_id"):
        home.find(dlm_id)
    assert not (home.root / "store").exists()


def test_many_may_create_at_once(tmp_path: Path) -> None:
    def create(_: int) -> int:
        with Home.open(tmp_path / "home").store(ID) as store:
            return len(store.runs.list())

    for attempt in range(5):
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(create, range(8))) == [0] * 8, attempt


def test_many_processes_may_create_at_once(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from dlm.store import Home; Home.open(Path(sys.argv[1])).store(sys.argv[2]).close()"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "home"), ID], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()


def test_a_home_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        Home(tmp_path / "file" / "home").store(ID)
    assert "DLM_HOME" in caught.value.next_step


def test_importing_the_store_brings_no_torch() -> None:
    code = "import sys, dlm.store, dlm.bases, dlm.curves; print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout.strip() == "[]"
