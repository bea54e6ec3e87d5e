"""Every route, with whatever its own description allows and forbids: none may answer with a fault of ours."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
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
from mined_pairs import mine
from recorded_runs import DLM_ID, record_runs, recorded_document

FORM = "application/x-www-form-urlencoded"
LARGEST = 2**53  # the largest number that a route takes for one of its runs or signals
EXAMPLES = max(10, int(os.environ.get("DLM_TEST_EXAMPLES", "100")) // 50)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    root = tmp_path_factory.mktemp("fuzzed")
    document = root / "notes.dlm"
    document.write_text(recorded_document(), encoding="utf-8")
    home = Home.open(root / "home")
    with home.store(DLM_ID) as store:
        record_runs(store)
        mine(store, document)
    return create_app(Desk(document, DLM_ID, home), Keys(port=80))


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    """A browser that opened the address. What would start a process is answered in its place; streams of events end."""

    def refuse(*words: str) -> dict[str, Any]:
        assert all(isinstance(word, str) for word in words)
        raise UsageError("the command line has its own tests")

    async def answers(*asked: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"kind": "end"}

    patch = pytest.MonkeyPatch()
    patch.setattr(training_actions, "run_command", refuse)
    patch.setattr(app.state.answerer, "ask", answers)
    patch.setattr(app.state.memory.trainers, "start", refuse)
    keys: Keys = app.state.keys
    with TestClient(app, base_url="http://127.0.0.1:80", raise_server_exceptions=True) as opened:
        opened.headers |= {"Host": "127.0.0.1:80", TOKEN_HEADER: keys.write}
        opened.cookies.set(keys.cookie, keys.session)
        app.state.feed.end()
        yield opened
    patch.undo()


def operations(client: TestClient, there: int | None) -> list[Any]:
    """Every operation of the app's own description; of runs and signals the first `there` alone, where that is given."""

    def narrowed(schema: dict[str, Any]) -> dict[str, Any]:
        is_number = schema.get("type") == "integer" and schema.get("maximum", LARGEST) == LARGEST
        return schema | {"minimum": 1, "maximum": there} if there and is_number else schema

    told = json.loads(client.get("/openapi.json").text, object_hook=narrowed)
    found = [one.ok() for one in schemathesis.openapi.from_dict(told).get_all_operations()]
    assert len(found) == sum(len(methods) for methods in told["paths"].values()) > 20
    return found


@pytest.mark.parametrize(
    ("mode", "there"),
    [(GenerationMode.POSITIVE, None), (GenerationMode.POSITIVE, 3), (GenerationMode.NEGATIVE, None)],
    ids=["allowed", "allowed, of what is there", "forbidden"],
)
def test_no_request_makes_a_fault_of_ours(
    client: TestClient, mode: GenerationMode, there: int | None
) -> None:
    answers: Counter[tuple[str, int]] = Counter()
    for operation in operations(client, there):
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
            body = {} if isinstance(case.body, NotSet) else {"content": _bytes(case.body, case.media_type)}
            query = urlencode(dict(case.query or {}), doseq=True, errors="surrogatepass")
            address = f"{quote(case.formatted_path, safe='/%:')}?{query}"
            headers = {"Content-Type": case.media_type or "application/json", **(case.headers or {})}
            answer = client.request(case.method, address, headers=headers, **body)
            assert answer.status_code < 500, (
                case.method,
                case.formatted_path,
                case.query,
                case.body,
                answer.text,
            )
            assert answer.status_code not in (403, 405), "the requests are meant to arrive"
            answers[case.operation.label, answer.status_code] += 1

        try:
            ask()
        except Unsatisfiable:
            continue
    if mode is GenerationMode.POSITIVE:
        arrived = {label for label, status in answers if status != 422}
        assert arrived == {label for label, _ in answers}, "a handler that no request got into"


def _bytes(body: Any, media_type: str | None) -> bytes:
    if isinstance(body, bytes):
        return body
    if media_type == FORM and isinstance(body, dict):
        return urlencode(body, doseq=True, errors="surrogatepass").encode()
    return json.dumps(body).encode()


def test_the_description_names_no_machine(client: TestClient) -> None:
    assert str(Path.home()) not in client.get("/openapi.json").text
