"""The guided tour: it passes on the real app, and an app that does not keep its word fails it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from devstack import demo
from devstack.local import ROOT
from devstack.process import LOCALHOST, StackError, free_port
from tests.support.altering import Altering, Change
from tests.support.serving import serving


@pytest.fixture(scope="module")
def url(drained: dict[str, str]) -> Iterator[str]:
    with serving(drained) as service:
        yield service.url


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


def _end(end: str, change: Callable[[Any], Any]) -> Change:
    """Alter the JSON of what is read from paths that end so."""

    def alter(request: httpx.Request, answer: httpx.Response) -> None:
        if request.method == "GET" and request.url.path.endswith(end):
            answer._content = json.dumps(change(answer.json())).encode()

    return alter


def _altered_receipt(request: httpx.Request, answer: httpx.Response) -> None:
    if request.url.path.endswith("/receipt"):
        header, _, signature = answer.content.decode().split(".")
        answer._content = f"{header}.e30.{signature}".encode()


def _granted_again(request: httpx.Request, answer: httpx.Response) -> None:
    if request.url.path.endswith("/consents") and answer.status_code == 409:
        answer.status_code = 201


def _altered_event(page: Any) -> Any:
    page["items"][1]["event"]["type"] = "withdrawn"
    return page


def _without_first(page: Any) -> Any:
    return page | {"items": page["items"][1:]}


def _with_certificate(certificate: Callable[[], str | None]) -> Change:
    def alter(request: httpx.Request, answer: httpx.Response) -> None:
        if "/erasures/" in request.url.path:
            answer._content = json.dumps(answer.json() | {"certificate": certificate()}).encode()

    return alter


def _receipt_for_certificate() -> Change:
    receipts: list[str] = []
    replace = _with_certificate(lambda: receipts[-1])

    def alter(request: httpx.Request, answer: httpx.Response) -> None:
        if request.url.path.endswith("/receipt"):
            receipts.append(answer.text)
        replace(request, answer)

    return alter


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_end("/decision", lambda found: found | {"decision": True}), "step 11 .* only granted is a yes"),
        (_end("/decision", lambda _: []), "step 10 .* no such answer as there should be"),
        (_granted_again, "step 14 .* the status is 409"),
        (_altered_receipt, "step 17 .* the consent-receipt does not verify"),
        (_end("/ledger", _altered_event), "the ledger does not verify: .*event 2 is not as it was written"),
        (_end("/ledger", _without_first), "the ledger does not verify: .*event 1 is missing"),
        (_receipt_for_certificate(), "what was signed is no erasure-certificate"),
    ],
)
def test_an_app_that_does_not_keep_its_word_fails_the_tour(url: str, change: Change, said: str) -> None:
    with pytest.raises(StackError, match=said):
        demo.main(url, Altering(change))


def test_a_certificate_that_never_comes_fails_the_tour(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "CERTIFICATE_WITHIN", 0.5)
    with pytest.raises(StackError, match="no certificate within"):
        demo.main(url, Altering(_with_certificate(lambda: None)))
