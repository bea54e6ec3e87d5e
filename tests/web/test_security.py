"""Who may talk to the server: every refusal over real sockets, since that is where a stranger would come from."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest

from command_line import Cli
from dlm.web.security import MAX_BODY_BYTES, TOKEN_HEADER
from dlm.web.static_files import static_files
from web_server import Served, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    from dlm.store import Home
    from recorded_runs import DLM_ID, record_runs, recorded_document

    root = tmp_path_factory.mktemp("served")
    cli = Cli(root / "home", root / "work")
    cli.folder.mkdir()
    (cli.folder / "notes.dlm").write_text(recorded_document(), encoding="utf-8")
    with Home.open(cli.home).store(DLM_ID) as store:
        store.attach(cli.folder / "notes.dlm")
        record_runs(store)
    with serving(cli, "notes.dlm") as served:
        yield served


class Person(httpx.Client):
    """A browser; `write` is the key that it was handed behind the `#`."""

    write = ""


@pytest.fixture
def person(server: Served) -> Iterator[Person]:
    """A browser that opened the printed address."""
    with Person(base_url=server.base, follow_redirects=True) as client:
        answer = client.get(server.url)
        assert answer.status_code == 200
        client.write = answer.history[0].headers["location"].partition("#write=")[2]
        assert client.write
        yield client


@pytest.fixture
def stranger(server: Served) -> Iterator[httpx.Client]:
    """Another program of this machine, without the address."""
    with httpx.Client(base_url=server.base) as client:
        yield client


def writes(person: Person) -> dict[str, str]:
    return {TOKEN_HEADER: person.write, "Origin": str(person.base_url).rstrip("/")}


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/training",
        "/data",
        "/prompt",
        "/live",
        "/api/chart?chart=loss&run=1",
        "/openapi.json",
        "/?token=wrong",
        "/none",
    ],
)
def test_a_stranger_reads_nothing(stranger: httpx.Client, path: str) -> None:
    answer = stranger.get(path)
    assert answer.status_code == 403
    assert "notes" not in answer.text


def test_the_address_is_exchanged_for_a_cookie_that_scripts_cannot_read(
    server: Served, stranger: httpx.Client
) -> None:
    answer = stranger.get(server.url)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/#write=")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert server.url.partition("token=")[2] not in cookie


def test_the_cookie_alone_finds_no_key_to_write_with(person: Person) -> None:
    """A browser sends it to other users' servers on this host, too."""
    for path in ("/", "/training", "/training/runs/1/head", "/data", "/prompt", "/none", "/openapi.json"):
        answer = person.get(path)
        for one in (*answer.history, answer):
            assert person.write not in one.text
            assert person.write not in str(one.headers)
    assert (
        person.post("/api/runs/1/stop").status_code == 403
    )  # no origin is said, and none is needed to be refused


def test_only_our_own_host_name_is_answered(server: Served, person: Person) -> None:
    for host in (
        "evil.example",
        f"evil.example:{server.port}",
        "127.0.0.1",
        f"127.0.0.1:{server.port}.evil.example",
        "",
    ):
        assert person.get("/training", headers={"Host": host}).status_code == 403
    assert person.get("/static/base.css", headers={"Host": "evil.example"}).status_code == 403
    assert person.get("/training", headers={"Host": f"localhost:{server.port}"}).status_code == 200


def test_the_server_listens_on_loopback_alone(server: Served) -> None:
    for address in {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}:
        if not str(address).startswith("127."):
            with socket.socket() as probe:
                probe.settimeout(2)
                assert probe.connect_ex((address, server.port)) != 0


def test_a_write_needs_the_token_and_our_origin(person: Person, stranger: httpx.Client) -> None:
    good, body = writes(person), {"reason": "test"}
    refused: list[dict[str, str]] = [
        {},
        {"Origin": good["Origin"]},
        {TOKEN_HEADER: "wrong", "Origin": good["Origin"]},
        {TOKEN_HEADER: good[TOKEN_HEADER], "Origin": "http://evil.example"},
        {TOKEN_HEADER: good[TOKEN_HEADER], "Origin": "null"},
        {TOKEN_HEADER: good[TOKEN_HEADER], "Origin": "http://127.0.0.1:1"},
        {TOKEN_HEADER: good[TOKEN_HEADER], "Sec-Fetch-Site": "cross-site"},
        {TOKEN_HEADER: good[TOKEN_HEADER], "Sec-Fetch-Site": "same-site"},
    ]
    for headers in refused:
        assert person.post("/api/rollback", json=body, headers=headers).status_code == 403, headers
    assert stranger.post("/api/rollback", json=body, headers=good).status_code == 403
    assert (
        person.post("/api/runs/1/stop", headers=good).status_code == 400
    )  # let through, and nothing to stop


def test_a_stranger_hears_nothing_of_the_document(stranger: httpx.Client) -> None:
    for path in ("/", "/training", "/none", "/static", "/static/", "/static/none", "/static/../training"):
        answer = stranger.get(path)
        assert answer.status_code in (403, 404), path
        assert "notes" not in answer.text, path


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"])
def test_every_method_that_is_no_read_needs_the_token(person: Person, method: str) -> None:
    assert person.request(method, "/training").status_code == 403
    assert person.request(method, "/static/base.css").status_code == 403


def test_a_body_beyond_the_limit_is_not_read(server: Served, person: Person) -> None:
    headers = writes(person)
    # said beforehand: refused at once, whatever then comes
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest("POST", "/api/rollback")
    for name, value in {
        **headers,
        "Cookie": _cookie(person),
        "Content-Length": str(100 * 1024 * 1024),
    }.items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * (1024 * 1024)

    # not said beforehand: counted as it comes
    try:
        answer = person.post(
            "/api/promote", content=pieces(), headers={**headers, "Content-Type": "application/json"}
        )
    except httpx.TransportError:
        pass  # the server hung up before the sender was done
    else:
        assert answer.status_code == 413
    assert person.get("/training").status_code == 200
    assert MAX_BODY_BYTES < 100 * 1024 * 1024


@pytest.mark.parametrize(
    "path",
    [
        "/static/../security.py",
        "/static/%2e%2e/security.py",
        "/static/..%2f..%2fsecurity.py",
        "/static/%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2fetc/passwd",
        "/static//etc/passwd",
        "/static/%00",
        f"{static_files().address}/../../security.py",
        f"{static_files().address}/js/..%2f..%2f..%2fsecurity.py",
        f"{static_files().address}//etc/passwd",
        "/training/runs/..%2f..%2fetc%2fpasswd/head",
        "/api/chart?chart=../../../../etc/passwd&run=1",
        "/api/chart?chart=metric:../../../etc/passwd&run=1",
        "/training/table?chart=%00&run=1",
        "/api/marks/1?x=../../etc/passwd",
        "/training?run=../../etc/passwd",
        "/training?with=../../etc/passwd",
        "/data/../../etc/passwd",
        "/data/signals/..%2f..%2fetc%2fpasswd",
        "/data/signals/..%2f..%2fetc%2fpasswd/edit",
        "/data/signals/..%2f..%2fetc%2fpasswd/details",
        "/data/export?shape=../../etc/passwd",
        *(
            f"/data{part}?{name}=../../etc/passwd"
            for part in ("", "/counts", "/audit", "/export")
            for name in ("tab", "source", "standing", "flag", "run", "margin", "order", "page")
        ),
    ],
)
def test_no_parameter_leads_out_of_its_place(server: Served, person: Person, path: str) -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", path, headers={"Cookie": _cookie(person)})  # as it stands: httpx would tidy it
    answer = connection.getresponse()
    text = answer.read().decode("utf-8", "replace")
    connection.close()
    assert 400 <= answer.status < 500
    assert "root:" not in text
    assert "import" not in text


@pytest.mark.parametrize("name", ["search", "judge"])
@pytest.mark.parametrize("part", ["", "/counts", "/audit", "/export"])
def test_words_to_look_for_are_words(person: Person, part: str, name: str) -> None:
    answer = person.get(f"/data{part}?{name}=../../../etc/passwd")
    assert answer.status_code in (200, 400)  # 400: there is nothing to export
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/ask", {"question": "Who?", "versions": ["../../etc"]}),
        ("/api/ask", {"question": "Who?", "versions": ["v0001", "/etc/passwd"]}),
        ("/api/answers/vote", {"prompt": "q", "answer": "a", "score": 1, "version": "../../etc"}),
        ("/api/answers/prefer", {"prompt": "q", "chosen": "a", "rejected": "b", "version": "../v0001"}),
    ],
)
def test_a_version_is_a_version_s_name(person: Person, path: str, body: dict[str, Any]) -> None:
    assert person.post(path, json=body, headers=writes(person)).status_code == 422


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("vote", "signal"), ("vote", "side"), ("vote", "score"),
        ("decide", "signal"), ("decide", "seen"), ("decide", "action"), ("decide", "to"),
        ("edit", "signal"), ("edit", "seen"),
        ("apply", "digest"), ("apply", "ids"),
    ],
)  # fmt: skip
def test_a_form_s_field_takes_only_what_it_names(person: Person, path: str, wrong: str) -> None:
    good = {
        "vote": {"signal": "1", "side": "chosen", "score": "1"},
        "decide": {"signal": "1", "seen": "staged", "action": "accept", "to": "staged"},
        "edit": {"signal": "1", "seen": "staged", "chosen": "a", "rejected": "b"},
        "apply": {"digest": "0" * 64, "ids": "1"},
    }[path]
    assert person.post(f"/data/{path}", data=good, headers=writes(person)).status_code in (404, 409)
    bad = good | {wrong: "../../etc/passwd"}
    assert person.post(f"/data/{path}", data=bad, headers=writes(person)).status_code == 422


@pytest.mark.parametrize(
    "body",
    [
        {"version": "../../etc"},
        {"version": "v0001 --force"},
        {"version": "--help"},
        {"version": "v0001", "force": True},
        {"run_id": 10**30, "step": 1},
        {"run_id": 1},
        {"version": "v0001", "run_id": 1, "step": 1},
        {},
        [],
        "text",
    ],
)
def test_a_promotion_takes_only_what_it_names(person: Person, body: Any) -> None:
    assert person.post("/api/promote", json=body, headers=writes(person)).status_code in (400, 422)


def test_pages_may_run_nothing_but_our_scripts(person: Person) -> None:
    for path in ("/training", "/none", "/static/base.css", "/api/chart?chart=loss&run=1"):
        headers = person.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


def test_answers_of_a_model_are_text(person: Person) -> None:
    page = person.get("/training?run=1").text
    assert "<script>document" not in page
    assert "<img" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;document" in page
    assert r"\x1b[31mred" in page
    assert r"\u202eturned" in page


def test_a_fault_does_not_echo_what_was_sent(person: Person) -> None:
    answer = person.get("/api/marks/1?x=<script>alert(1)</script>")
    assert answer.status_code == 422
    assert "alert" not in answer.text


def test_a_port_that_is_taken_is_said(server: Served, cli: Cli) -> None:
    (cli.folder / "other.dlm").write_text(
        "---\ndlm_id: 01J9Z3W5E8RT2Y4VQ7NDPXK6MB\ndlm_version: 15\nbase_model: pocket\n---\ntext\n"
    )
    done = cli.run("ui", "other.dlm", "--no-browser", "--port", str(server.port), expect=1)
    assert "is taken by another program" in done.stderr
    assert "--port 0" in done.stderr
    assert done.stdout == ""


def test_the_cookie_of_another_server_opens_nothing(server: Served, person: Person) -> None:
    for cookie in (
        f"dlm-{server.port}=",
        f"dlm-{server.port}=wrong",
        "dlm-1=x",
        'a="b',
        f"x=dlm-{server.port}",
    ):
        assert httpx.get(f"{server.base}/training", headers={"Cookie": cookie}).status_code == 403


def _cookie(person: Person) -> str:
    return "; ".join(f"{name}={value}" for name, value in person.cookies.items())
