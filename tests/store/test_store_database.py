"""The database: migrations, refusals, damage, disks that refuse."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dlm.errors import DlmError, StoreError
from dlm.store import Home, RunSpec, Store
from dlm.store import database as database_module
from dlm.store.database import Database, from_json, to_json

ID = "01J9Z3W5E8RT2Y4VQ7NDPXK6MA"
KNOWN = 4


def schema_of(path: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql NOT NULL ORDER BY name"
    ).fetchall()
    connection.close()
    return rows


def set_version(path: Path, version: int) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


def test_a_new_database_has_the_newest_schema(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "a.sqlite3")
    row = database.row("PRAGMA user_version")
    assert row is not None
    assert row[0] == KNOWN == len(list(Path(database_module.__file__).parent.glob("migrations/*.sql")))
    assert database.row("PRAGMA journal_mode")[0] == "wal"  # type: ignore[index]
    assert database.row("PRAGMA foreign_keys")[0] == 1  # type: ignore[index]
    database.close()
    database.close()


def test_an_empty_file_is_migrated_from_version_0(tmp_path: Path) -> None:
    (tmp_path / "a.sqlite3").write_bytes(b"")
    Database.open(tmp_path / "a.sqlite3").close()
    Database.open(tmp_path / "b.sqlite3").close()
    assert schema_of(tmp_path / "a.sqlite3") == schema_of(tmp_path / "b.sqlite3") != []


def test_later_migrations_keep_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.sqlite3"
    database = Database.open(path)
    with database.transaction() as connection:
        connection.execute("INSERT INTO store_facts VALUES ('key', 'value; -- with a semicolon')")
    database.close()
    first = database_module._migrations()
    second = "-- why; and what\nALTER TABLE store_facts ADD COLUMN note TEXT DEFAULT 'a;b';\n\nCREATE TABLE more (id INTEGER);\n-- the end\n"
    monkeypatch.setattr(database_module, "_migrations", lambda: (*first, second))
    database = Database.open(path)
    assert [tuple(row) for row in database.rows("SELECT * FROM store_facts")] == [
        ("key", "value; -- with a semicolon", "a;b")
    ]
    assert database.row("PRAGMA user_version")[0] == KNOWN + 1  # type: ignore[index]
    database.close()


def test_a_migration_that_fails_leaves_the_old_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.sqlite3"
    Database.open(path).close()
    before = schema_of(path)
    first = database_module._migrations()
    monkeypatch.setattr(
        database_module, "_migrations", lambda: (*first, "CREATE TABLE more (id);\nSELECT nonsense(1);\n")
    )
    with pytest.raises(sqlite3.OperationalError):
        Database.open(path)
    assert schema_of(path) == before
    monkeypatch.undo()
    Database.open(path).close()


def test_many_threads_may_migrate_at_once(tmp_path: Path) -> None:
    def open_and_close(_: int) -> None:
        Database.open(tmp_path / "a.sqlite3").close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_and_close, range(16)))


@pytest.mark.parametrize("version", [KNOWN + 1, 99, -1])
def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path, version: int) -> None:
    path = tmp_path / "a.sqlite3"
    Database.open(path).close()
    set_version(path, version)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="newer dlm") as caught:
        Database.open(path)
    assert "upgrade" in caught.value.next_step
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"hello, this is a text file, not a database at all" * 40, b"\0" * 8192])
def test_a_file_that_is_no_database_is_explained(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.sqlite3"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged") as caught:
        Database.open(path)
    assert "move" in caught.value.next_step
    assert path.read_bytes() == content


def test_a_lost_database_beside_versions_is_not_started_afresh(
    home: Home, store: Store, publish: object
) -> None:
    publish()  # type: ignore[operator]
    store.close()
    for path in store.folder.glob("store.sqlite3*"):
        path.unlink()
    with pytest.raises(StoreError, match="holds versions"):
        home.store(ID)
    assert (store.folder / "versions" / "v0001" / "adapter_model.safetensors").exists()


def test_the_store_of_another_document_is_refused(home: Home, store: Store) -> None:
    store.close()
    shutil.copytree(store.folder, store.folder.with_name("OTHER"))
    with pytest.raises(StoreError, match="another document"):
        home.store("OTHER")


def read_everything(home: Home) -> None:
    """All that `show` and `metrics` do."""
    store = home.find(ID)
    assert store is not None
    with store:
        for run in store.runs.list():
            store.metrics.read(run.id)
            store.runs.events(run.id)
        store.versions.list(removed=True)
        store.versions.promotions()
        store.versions.current()


@pytest.mark.parametrize("kind", ["truncate", "overwrite", "zero"])
def test_damage_is_an_error_with_words_never_a_traceback(
    home: Home, store: Store, publish: object, kind: str
) -> None:
    """Sixty damaged copies of one database: each is read or explained."""
    for _ in range(3):
        version = publish()  # type: ignore[operator]
        with store.metrics.writer(version.run_id) as writer:
            for step in range(300):
                writer.log(step, {"train_loss": float(step), "grad_norm": 1.0})
        store.runs.event(version.run_id, "note", {"text": "x" * 2000})
    store.close()
    path = store.folder / "store.sqlite3"
    whole = path.read_bytes()
    explained: list[DlmError] = []
    chance = random.Random(kind)
    for _ in range(60):
        data = bytearray(whole)
        place = chance.randrange(len(data))
        if kind == "truncate":
            del data[place:]
        else:
            size = chance.choice([16, 512, 4096])
            junk = chance.randbytes(size) if kind == "overwrite" else bytes(size)
            data[place : place + size] = junk[: len(data) - place]
        for extra in path.parent.glob("store.sqlite3-*"):
            extra.unlink()
        path.write_bytes(bytes(data))
        try:
            read_everything(home)
        except DlmError as error:
            explained.append(error)
    assert len(explained) >= 10  # the damage was real
    assert all(error.next_step for error in explained)


def test_a_full_disk_is_explained_and_nothing_is_half_written(store: Store) -> None:
    with store.lock("test"):
        run = store.runs.start(RunSpec("sft"))
    database = store.runs._database
    database.row(f"PRAGMA max_page_count = {database.row('PRAGMA page_count')[0] + 2}")  # type: ignore[index]
    with pytest.raises(StoreError, match="disk refused"):
        store.runs.event(run.id, "note", {"text": "x" * 100_000})
    assert store.runs.events(run.id) == ()
    database.row("PRAGMA max_page_count = 1000000")
    store.runs.event(run.id, "note", {"text": "x" * 100_000})
    assert len(store.runs.events(run.id)) == 1


def test_another_writer_that_takes_too_long_is_explained(store: Store) -> None:
    other = Database.open(store.folder / "store.sqlite3", busy_timeout_s=0.05)
    with store.runs._database.transaction(), pytest.raises(StoreError, match="too long"), other.transaction():
        pass
    with other.transaction() as connection:
        connection.execute("INSERT INTO store_facts VALUES ('a', 'b')")
    other.close()


READ_ONLY = """
import os, sys
from pathlib import Path
from dlm.errors import StoreError
from dlm.store import Home
from dlm.store.database import Database
Database.open(Path(sys.argv[3])).close()  # so that everything is loaded
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)  # root may write anywhere
store = Home.open(Path(sys.argv[1])).find(sys.argv[2])
assert store.versions.current().name == "v0001"
assert len(store.metrics.read(1)["train_loss"]) == 5
assert store.holder() is None
for act in (lambda: store.runs.event(1, "a", {}), lambda: store.lock("x").__enter__(), lambda: store.versions.rollback("x"),
            lambda: Home.open(Path(sys.argv[1])).store("NEW")):
    try:
        act()
    except StoreError as error:
        assert error.next_step, error
    else:
        raise SystemExit("it could be written")
store.close()
print("fine")
"""


def test_a_read_only_store_is_read_and_refuses_writes(publish: object, store: Store, home: Home) -> None:
    version = publish()  # type: ignore[operator]
    with store.metrics.writer(version.run_id) as writer:
        for step in range(5):
            writer.log(step, {"train_loss": 1.0})
    store.close()
    # pytest's own folders are closed to other users, to whom root has to step down here.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        root = Path(folder, "home")
        shutil.copytree(home.root, root)
        for path in [root, *root.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            done = subprocess.run(
                [sys.executable, "-c", READ_ONLY, str(root), ID, str(store.folder / "other")],
                capture_output=True,
                text=True,
            )
        finally:
            for path in [root, *root.rglob("*")]:
                path.chmod(path.stat().st_mode | stat.S_IWUSR)
    assert done.stdout.strip() == "fine", done.stderr


def test_json_columns_keep_what_json_cannot_name() -> None:
    value = {"a": float("inf"), "b": [None, "é\u2028", 2**70], "c": {}}
    assert from_json(to_json(value), Path("x")) == value
    with pytest.raises(StoreError, match="damaged"):
        from_json("[1]", Path("x"))
    with pytest.raises(StoreError, match="damaged"):
        from_json("{", Path("x"))
