"""The smoke test against the real app: it passes, and one broken rule makes it fail."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import override

import httpx
import pytest

from devstack import smoke
from devstack.local import ROOT
from devstack.process import LOCALHOST, free_port
from tests.conftest import token
from tests.serving import serving

type Change = Callable[[httpx.Request, httpx.Response], None]


@pytest.fixture(scope="module", params=["app", "functions"])
def url(request: pytest.FixtureRequest, environment: dict[str, str]) -> Iterator[str]:
    with serving(environment, request.param) as service:
        yield service.url


class Broken(httpx.HTTPTransport):
    """The real server with one rule broken on the way."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self._change = change

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        response.read()
        kept = {name: value for name, value in response.headers.items() if name != "content-length"}
        answer = httpx.Response(response.status_code, headers=kept, content=response.content)
        self._change(request, answer)
        return answer


def _client(url: str, transport: httpx.BaseTransport | None = None) -> httpx.Client:
    return httpx.Client(base_url=url, transport=transport, trust_env=False)


def test_a_whole_service_passes_and_nothing_of_the_test_is_left(url: str) -> None:
    owner = token("smoke-whole")
    with _client(url) as client:
        assert smoke.run(client, owner) == []
        left = client.get("/api/v1/twins", headers={"Authorization": f"Bearer {owner}"})
    assert left.json()["items"] == []


def test_without_a_token_only_what_anyone_may_see_is_checked(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with _client(url) as client:
        assert smoke.run(client, None) == []
    assert len(capsys.readouterr().out.splitlines()) == len(smoke.ANYONE)


def _status(method: str, end: str, old: int, new: int) -> Change:
    def change(request: httpx.Request, response: httpx.Response) -> None:
        if request.method == method and request.url.path.endswith(end) and response.status_code == old:
            response.status_code = new

    return change


def _without(header: str) -> Change:
    def change(_: httpx.Request, response: httpx.Response) -> None:
        response.headers.pop(header, None)

    return change


def _text(end: str, old: bytes, new: bytes) -> Change:
    def change(request: httpx.Request, response: httpx.Response) -> None:
        if request.url.path.endswith(end):
            response._content = response.content.replace(old, new)

    return change


BROKEN: dict[str, tuple[Change, str]] = {
    "unhealthy": (_text("/health", b"healthy", b"poorly"), "is_healthy"),
    "not ready": (_status("GET", "/ready", 200, 503), "is_ready"),
    "no schema": (_status("GET", "/openapi.json", 200, 404), "is_documented"),
    "no request id": (_without("x-request-id"), "is_hardened"),
    "sniffing": (_without("x-content-type-options"), "is_hardened"),
    "open to all": (_status("GET", "/twins", 401, 200), "asks_for_a_token"),
    "no challenge": (_without("www-authenticate"), "asks_for_a_token"),
    "plain errors": (_without("content-type"), "asks_for_a_token"),
    "no Allow": (_without("allow"), "refuses_what_is_not_there"),
    "no ETag": (_without("etag"), "creates_once"),
    "no Location": (_without("location"), "creates_once"),
    "no replay": (_without("idempotency-replayed"), "creates_once"),
    "echo": (_text("/twins", b'"status":422', b'"status":422,"input":98765'), "validates"),
    "no 304": (
        lambda request, response: setattr(response, "status_code", 200) if "if-none-match" in request.headers else None,
        "reads_and_changes",
    ),
    "lost update": (
        lambda _, response: setattr(response, "status_code", 200) if response.status_code == 412 else None,
        "reads_and_changes",
    ),
    "lost persona": (_text("/persona", b"smoke test", b"other text"), "keeps_a_persona"),
    "deaf gate": (_text("/decision", b'"decision":false', b'"decision":true'), "enforces_consent"),
    "prompt without consent": (_status("GET", "/prompt", 403, 200), "enforces_consent"),
    "undead twin": (_status("GET", "", 404, 200), "erases"),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_one_broken_rule_is_found(url: str, rule: str) -> None:
    change, check = BROKEN[rule]
    with _client(url, Broken(change)) as client:
        broken = smoke.run(client, token(f"smoke-{rule}"))
    assert check in {problem.partition(":")[0] for problem in broken}


def test_a_service_that_is_not_there_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with _client(f"http://{LOCALHOST}:{free_port()}") as client:
        assert len(smoke.run(client, None)) == len(smoke.ANYONE)
    assert all(line.startswith("FAILED") for line in capsys.readouterr().out.splitlines())


def test_what_is_no_url_is_told_how_it_is_called() -> None:
    done = subprocess.run(
        [sys.executable, "devstack/smoke.py", "nonsense"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "BASE_URL" in done.stderr
