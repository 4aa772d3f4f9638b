"""The guided tour: it passes on the real app, and an app that does not keep its word fails it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, override

import httpx
import pytest

from devstack import demo
from devstack.local import ROOT
from devstack.process import LOCALHOST, StackError, free_port
from tests.serving import serving

type Lie = Callable[[httpx.Request, httpx.Response], Any]
"""Returns what the app is to have answered, or None for what it did."""


@pytest.fixture(scope="module")
def url(environment: dict[str, str]) -> Iterator[str]:
    with serving(environment) as service:
        yield service.url


class Lying(httpx.HTTPTransport):
    """The real app, with some answers changed on the way."""

    def __init__(self, lie: Lie) -> None:
        super().__init__()
        self._lie = lie

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        answer.read()
        lie = self._lie(request, answer)
        if lie is None:
            return answer
        content = lie if isinstance(lie, str) else json.dumps(lie)
        return httpx.Response(httpx.codes.OK, text=content, headers={"location": answer.headers.get("location", "")})


def _demo(base_url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "devstack", "demo", base_url]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_the_tour_passes_numbers_what_it_shows_and_shows_no_token(url: str) -> None:
    done = _demo(url)

    assert (done.returncode, done.stderr) == (0, "")
    numbers = [line.partition(".")[0].strip() for line in done.stdout.splitlines() if line[:2].strip().isdigit()]
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    assert len(numbers) >= 15
    assert done.stdout.endswith("Everything is as it should be.\n")
    assert "eyJ" not in done.stdout  # no token, no signature


def test_without_an_app_it_says_so_in_one_line_with_the_address() -> None:
    url = f"http://{LOCALHOST}:{free_port()}"
    done = _demo(url)

    assert done.returncode == 1
    assert done.stderr == (
        f"demo: {url} does not answer (ConnectError). Is make run up? On another port: make demo PORT=…\n"
    )


def _always_yes(request: httpx.Request, answer: httpx.Response) -> Any:
    return answer.json() | {"decision": True} if request.url.path.endswith("/decision") else None


def _prompt_for_everybody(request: httpx.Request, answer: httpx.Response) -> Any:
    return "You are Alex." if answer.status_code == httpx.codes.FORBIDDEN else None


def _altered_receipt(request: httpx.Request, answer: httpx.Response) -> Any:
    header, _, signature = answer.text.split(".") if request.url.path.endswith("/receipt") else ("", "", "")
    return f"{header}.e30.{signature}" if header else None


def _altered_ledger(request: httpx.Request, answer: httpx.Response) -> Any:
    if not request.url.path.endswith("/ledger"):
        return None
    page = answer.json()
    page["items"][1]["event"]["type"] = "withdrawn"
    return page


def _cut_ledger(request: httpx.Request, answer: httpx.Response) -> Any:
    page = answer.json() if request.url.path.endswith("/ledger") else None
    return page and page | {"items": page["items"][:-1]}


def _still_there(request: httpx.Request, answer: httpx.Response) -> Any:
    return {} if answer.status_code == httpx.codes.NOT_FOUND else None


def _receipt_for_certificate() -> Lie:
    receipts = []

    def lie(request: httpx.Request, answer: httpx.Response) -> Any:
        if request.url.path.endswith("/receipt"):
            receipts.append(answer.text)
        return answer.json() | {"certificate": receipts[-1]} if "/erasures/" in request.url.path else None

    return lie


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (lambda request, _answer: [] if request.method == "PUT" else None, "the app does not answer as it should"),
        (_always_yes, "step 9 is not as it should be"),
        (_prompt_for_everybody, "step 11 is not as it should be"),
        (_altered_receipt, "the consent-receipt does not verify"),
        (_altered_ledger, "the ledger does not verify: .*event 2 is not as it was written"),
        (_cut_ledger, "step 13 is not as it should be"),
        (_still_there, "step 15 is not as it should be"),
        (_receipt_for_certificate(), "what was signed is not a erasure-certificate"),
        (lambda _request, _answer: [], "step 1 is not as it should be"),
    ],
)
def test_an_app_that_does_not_keep_its_word_fails_the_tour(url: str, lie: Lie, said: str) -> None:
    with demo.Tour(url, Lying(lie)) as tour, pytest.raises(StackError, match=said):
        demo.take(tour)


def test_a_certificate_that_never_comes_fails_the_tour(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "CERTIFICATE_WITHIN", 0.5)

    def no_certificate(request: httpx.Request, answer: httpx.Response) -> Any:
        return answer.json() | {"certificate": None} if "/erasures/" in request.url.path else None

    with demo.Tour(url, Lying(no_certificate)) as tour, pytest.raises(StackError, match="no certificate within"):
        demo.take(tour)
