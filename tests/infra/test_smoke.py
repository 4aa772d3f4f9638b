"""The smoke test against the real app: it passes, and one broken rule makes it fail."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from devstack.local import ROOT
from devstack.process import LOCALHOST, free_port
from infra import smoke
from infra.smoke import Tour
from tests.support.altering import Altering, Change
from tests.support.app import token
from tests.support.serving import serving


@pytest.fixture(scope="module", params=["app", "functions"])
def url(request: pytest.FixtureRequest, drained: dict[str, str]) -> Iterator[str]:
    with serving(drained, request.param) as service:
        yield service.url


def _tour(url: str, owner: str | None = None, change: Change | None = None) -> Tour:
    return Tour(url, owner, transport=change and Altering(change), trust_env=False)


ALL = (*smoke.ANYONE, *smoke.OWNER)


def test_a_whole_service_passes_and_nothing_of_the_test_is_left(url: str) -> None:
    with _tour(url, token("smoke-whole")) as tour:
        assert smoke.run(tour, ALL) == []
        assert tour.owner.get("/api/v1/twins").json()["items"] == []


def test_a_service_that_requires_the_persons_own_word_passes(environment: dict[str, str]) -> None:
    with (
        serving(environment | {"MIN_ASSURANCE": "token"}) as service,
        _tour(service.url, token("smoke-strict")) as tour,
    ):
        assert smoke.run(tour, smoke.OWNER) == []


def test_without_a_token_only_what_anyone_may_see_is_checked(url: str) -> None:
    done = _run(url)
    *lines, note = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(lines) == len(smoke.ANYONE)
    assert note.strip().startswith("no TOKEN:")


def test_it_needs_httpx_and_nothing_else() -> None:
    tree = ast.parse(Path(smoke.__file__).read_text())
    names = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or "."] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    assert names - sys.stdlib_module_names == {"httpx"}


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


def _to(end: str, question: str, old: bytes, new: bytes) -> Change:
    def change(request: httpx.Request, response: httpx.Response) -> None:
        if request.url.path.endswith(end) and question in str(request.url):
            response._content = response.content.replace(old, new)

    return change


def _withdrawal_of_nothing(request: httpx.Request, response: httpx.Response) -> None:
    if request.url.path.endswith("/decision") and b'"withdrawn"' in response.content:
        response._content = response.content.replace(b"false", b"true").replace(b"withdrawn", b"granted")


def _further_word(purpose: bytes) -> Change:
    def change(request: httpx.Request, response: httpx.Response) -> None:
        if purpose in request.content and response.status_code == 409:
            response.status_code = 201

    return change


BROKEN: dict[str, tuple[Change, smoke.Step]] = {
    "unhealthy": (_text("/health", b"healthy", b"poorly"), smoke.is_healthy),
    "not ready": (_status("GET", "/ready", 200, 503), smoke.is_ready),
    "no schema": (_status("GET", "/openapi.json", 200, 404), smoke.is_documented),
    "no request id": (_without("x-request-id"), smoke.is_hardened),
    "sniffing": (_without("x-content-type-options"), smoke.is_hardened),
    "open to all": (_status("GET", "/twins", 401, 200), smoke.asks_for_a_token),
    "no challenge": (_without("www-authenticate"), smoke.asks_for_a_token),
    "plain errors": (_without("content-type"), smoke.asks_for_a_token),
    "no Allow": (_without("allow"), smoke.refuses_what_is_not_there),
    "no ETag": (_without("etag"), smoke.creates_once),
    "no Location": (_without("location"), smoke.creates_once),
    "no replay": (_without("idempotency-replayed"), smoke.creates_once),
    "a list for a twin": (_text("/twins", b"{", b"[{"), smoke.creates_once),
    "echo": (_text("/twins", b'"status":422', b'"status":422,"input":98765'), smoke.validates),
    "no 304": (
        lambda request, response: setattr(response, "status_code", 200) if "if-none-match" in request.headers else None,
        smoke.reads_and_changes,
    ),
    "lost update": (
        lambda _, response: setattr(response, "status_code", 200) if response.status_code == 412 else None,
        smoke.reads_and_changes,
    ),
    "a gate that is shut": (_text("/decision", b'"decision":true', b'"decision":false'), smoke.records_their_word),
    "the owner for the person": (_text("/consents", b'"recorded"', b'"token"'), smoke.records_their_word),
    "every word alike": (
        _to("/decision", "min_assurance=token", b"assurance_too_low", b"granted"),
        smoke.asks_for_their_own_word,
    ),
    "a word that is lost": (_text("/decision", b'"token"', b'"recorded"'), smoke.takes_their_word),
    "any modality": (_to("/decision", "face", b"modality_not_covered", b"granted"), smoke.keeps_to_their_terms),
    "a modality left out": (_text("/decision", b"modality_not_covered", b"granted"), smoke.keeps_to_their_terms),
    "the owner's further word": (_further_word(b"voice-2"), smoke.takes_no_other_word),
    "lost persona": (_text("/persona", b"bicycle", b"motor"), smoke.keeps_a_persona),
    "empty prompt": (_text("/prompt", b"bicycle", b"motor"), smoke.keeps_a_persona),
    "lost consent": (_status("POST", "/consents", 201, 200), smoke.takes_their_word),
    "another key": (_text("/jwks.json", b'"kid":"', b'"kid":"x'), smoke.gives_a_receipt),
    "deaf gate": (_withdrawal_of_nothing, smoke.obeys_the_person),
    "prompt without consent": (_status("GET", "/prompt", 403, 200), smoke.obeys_the_person),
    "a refusal that opens": (_further_word(b"training"), smoke.keeps_a_refusal),
    "flawed ledger": (_text("/verification", b'"valid":true', b'"valid":false'), smoke.keeps_a_ledger),
    "another ledger": (_text("/verification", b'"head":"', b'"head":"x'), smoke.keeps_a_ledger),
    "undead twin": (_status("GET", "", 404, 200), smoke.erases),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_one_broken_rule_is_found(url: str, rule: str) -> None:
    change, step = BROKEN[rule]
    with _tour(url, token(f"smoke-{rule}"), change) as tour:
        broken = smoke.run(tour, ALL)
    assert step.__name__ in {problem.partition(":")[0] for problem in broken}


def test_after_a_broken_rule_nothing_of_the_test_is_left(url: str) -> None:
    owner = token("smoke-broken")
    with _tour(url, owner, _text("/verification", b"true", b"false")) as tour:
        assert smoke.run(tour, smoke.OWNER[:-1])
    with _tour(url, owner) as tour:
        assert tour.owner.get("/api/v1/twins").json()["items"] == []


def test_who_stops_it_in_the_middle_leaves_nothing_behind(url: str) -> None:
    def stopped(_: Tour) -> object:
        raise KeyboardInterrupt

    owner = token("smoke-stopped")
    with _tour(url, owner) as tour:
        with pytest.raises(KeyboardInterrupt):
            smoke.run(tour, (*smoke.OWNER[:4], stopped))
        assert tour.owner.get("/api/v1/twins").json()["items"] == []


def test_a_service_that_is_not_there_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with _tour(f"http://{LOCALHOST}:{free_port()}") as tour:
        assert len(smoke.run(tour, smoke.ANYONE)) == len(smoke.ANYONE)
    assert all(line.startswith("FAILED") for line in capsys.readouterr().out.splitlines())


def test_what_is_no_url_is_told_how_it_is_called() -> None:
    done = _run("nonsense")
    assert done.returncode == 2
    assert "BASE_URL" in done.stderr


def _run(url: str) -> subprocess.CompletedProcess[str]:
    """Run it as the deploy workflow does: as a file."""
    environment = {name: value for name, value in os.environ.items() if name != "TOKEN"}
    return subprocess.run(
        [sys.executable, "infra/smoke.py", url],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
