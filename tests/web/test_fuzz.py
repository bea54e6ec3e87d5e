"""Every route, with whatever its own description allows and forbids: none may answer with a fault of ours."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core import NotSet
from schemathesis.errors import SchemathesisError

from dlm.errors import UsageError
from dlm.store import Home
from dlm.web import training_actions
from dlm.web.app import create_app
from dlm.web.desk import Desk
from dlm.web.security import TOKEN_HEADER, Keys
from recorded_runs import DLM_ID, record_runs, recorded_document

ENDLESS = ("/live",)  # event streams; test_live.py
STARTS_A_MODEL = (
    "/api/ask",
    "/resume",
)  # their bodies are refused or accepted by the same models; test_browser.py
EXAMPLES = max(10, int(os.environ.get("DLM_TEST_EXAMPLES", "100")) // 50)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    root = tmp_path_factory.mktemp("fuzzed")
    document = root / "notes.dlm"
    document.write_text(recorded_document(), encoding="utf-8")
    home = Home.open(root / "home")
    with home.store(DLM_ID) as store:
        record_runs(store)
    return create_app(Desk(document, DLM_ID, home), Keys(port=80))


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    """A browser that opened the address. What would start `dlm` is answered as if it had refused: it takes half a second."""

    def refuse(*words: str) -> dict[str, Any]:
        assert all(isinstance(word, str) for word in words)
        raise UsageError("the command line has its own tests")

    patch = pytest.MonkeyPatch()
    patch.setattr(training_actions, "run_command", refuse)
    keys: Keys = app.state.keys
    with TestClient(app, base_url="http://127.0.0.1:80", raise_server_exceptions=True) as opened:
        opened.headers |= {"Host": "127.0.0.1:80", TOKEN_HEADER: keys.write}
        opened.cookies.set(keys.cookie, keys.session)
        yield opened
    patch.undo()


def operations(client: TestClient) -> list[Any]:
    """Every operation of the app's own description but those that are left out."""
    told = client.get("/openapi.json").json()
    told["paths"] = {
        path: about
        for path, about in told["paths"].items()
        if path not in ENDLESS and not any(part in path for part in STARTS_A_MODEL)
    }
    found = [one.ok() for one in schemathesis.openapi.from_dict(told).get_all_operations()]
    assert len(found) > 10
    return found


@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "forbidden"]
)
def test_no_request_makes_a_fault_of_ours(client: TestClient, mode: GenerationMode) -> None:
    for operation in operations(client):
        try:
            strategy = operation.as_strategy(generation_mode=mode)
        except SchemathesisError:
            continue  # nothing is forbidden where there is no parameter

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
        )
        @given(case=strategy)
        def ask(case: Any) -> None:
            body = {} if isinstance(case.body, NotSet) else {"content": _bytes(case.body)}
            query = urlencode(dict(case.query or {}), doseq=True, errors="surrogatepass")
            address = f"{quote(case.formatted_path, safe='/%:')}?{query}"
            headers = {"Content-Type": case.media_type or "application/json"}
            answer = client.request(case.method, address, headers=headers, **body)
            assert answer.status_code < 500, (
                case.method,
                case.formatted_path,
                case.query,
                case.body,
                answer.text,
            )
            assert answer.status_code not in (403, 405), "the requests are meant to arrive"

        try:
            ask()
        except Unsatisfiable:
            continue


def _bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def test_what_is_left_out_is_there(app: FastAPI, client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert set(ENDLESS) <= set(paths)
    for part in STARTS_A_MODEL:
        assert any(part in path for path in paths)


def test_the_description_names_no_machine(client: TestClient) -> None:
    assert str(Path.home()) not in client.get("/openapi.json").text
