"""Runs that `dlm import` brought: told as such, with the parent they had where they trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from dlm.store import Home, RunSpec
from dlm.web.app import create_app
from dlm.web.desk import Desk
from dlm.web.security import Keys
from recorded_runs import DLM_ID, record_run, recorded_document

FOREIGN = {
    "ref": "orpo-<b>7</b>",
    "file": "page.jsonl",
    "digest": "0" * 64,
    "parent_version": "v0012",
    "origin": {"dlm_id": "01J9Z3W5E8RT2Y4VQ7NDPXK6MB", "run": 7},
}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """A browser on a document with a run of its own and an imported one, which planned nothing and was interrupted."""
    document = tmp_path / "notes.dlm"
    document.write_text(recorded_document(), encoding="utf-8")
    home = Home.open(tmp_path / "home")
    with home.store(DLM_ID) as store:
        record_run(store, steps=3)
        store.runs.record(RunSpec("preference", "orpo"), status="interrupted", imported=FOREIGN)
    keys = Keys(port=80)
    with TestClient(create_app(Desk(document, DLM_ID, home), keys), base_url="http://127.0.0.1:80") as opened:
        opened.headers |= {"Host": "127.0.0.1:80"}
        opened.cookies.set(keys.cookie, keys.session)
        yield opened


def test_an_imported_run_is_told_with_its_file_and_its_own_parent(client: TestClient) -> None:
    page = client.get("/training?run=2").text
    assert "Imported from page.jsonl, where it is orpo-&lt;b&gt;7&lt;/b&gt;." in page
    assert "dlm_id 01J9Z3W5E8RT2Y4VQ7NDPXK6MB; run 7." in page
    assert "<small>from v0012</small>" in page
    assert "It started from v0012 of where it was trained" in page
    assert "from the base" not in page


def test_the_table_marks_it_and_names_no_plan_that_there_was_not(client: TestClient) -> None:
    ours, foreign = (client.get("/training/list").text.partition('data-run="2"')[2]).split("</tr>")[1::-1]
    assert ">imported</span>" in foreign
    assert ">imported</span>" not in ours
    assert '<td data-label="Parent">v0012</td>' in foreign
    assert '<td data-label="Parent">base</td>' in ours
    assert '<td data-label="Steps" class="num" data-figure="steps 2">0 / –</td>' in foreign
    assert '<td data-label="Steps" class="num" data-figure="steps 1">3 / 3</td>' in ours


def test_an_imported_run_cannot_be_resumed_here(client: TestClient) -> None:
    assert "/resume" not in client.get("/training?run=2").text
