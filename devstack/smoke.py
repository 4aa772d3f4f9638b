"""`make smoke BASE_URL=… [TOKEN=…]`: is the service behind a URL the one that was meant to be there?

Reads nothing of this project and needs only httpx, so it runs anywhere against any deployment. With a
bearer token in TOKEN it also makes a twin of its own, uses it, and erases it. Exit code 1 where a rule
does not hold.
"""

import os
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

PROBLEM = "application/problem+json"
TIMEOUT = 30.0
"""Seconds for one answer; a first request can meet a cold instance."""


class RuleBrokenError(Exception):
    """The service answered otherwise than it should."""


@dataclass
class Service:
    """The service under test, the account's token, and the twin that was made."""

    client: httpx.Client
    token: str | None = None
    twin: dict[str, Any] = field(default_factory=dict)
    etag: str = ""

    def call(self, method: str, path: str, *, token: str | None = None, **options: Any) -> httpx.Response:
        """Send one request, signed by the account unless another token is given."""
        headers = {**options.pop("headers", {})}
        if bearer := self.token if token is None else token:
            headers["Authorization"] = f"Bearer {bearer}"
        return self.client.request(method, path, headers=headers, **options)

    @property
    def path(self) -> str:
        """Path of the twin that was made."""
        return f"/api/v1/twins/{self.twin['id']}"


def expect(condition: object, rule: str, response: httpx.Response) -> None:
    """Raise unless the condition holds; the message shows the answer's first line, never a token."""
    if not condition:
        request = response.request
        raise RuleBrokenError(
            f"{rule}; {request.method} {request.url.path} answered {response.status_code} "
            f"{response.headers.get('Content-Type', '')}: {response.text[:200]!r}"
        )


def expect_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """Return the body of an RFC 9457 problem with this status."""
    expect(response.status_code == status, f"the status is {status}", response)
    expect(response.headers.get("Content-Type", "").startswith(PROBLEM), f"the error is {PROBLEM}", response)
    body: dict[str, Any] = response.json()
    expect(body.get("status") == status, "the problem repeats its status", response)
    expect(body.get("request_id"), "the problem has a request id", response)
    return body


def is_healthy(service: Service) -> None:
    """/health answers."""
    response = service.call("GET", "/health", token="")
    expect(response.status_code == httpx.codes.OK, "/health is 200", response)
    expect(response.json() == {"status": "healthy"}, "/health says healthy", response)


def is_ready(service: Service) -> None:
    """Both stores answer."""
    response = service.call("GET", "/ready", token="")
    expect(response.status_code == httpx.codes.OK, "/ready is 200: both stores answer", response)


def is_documented(service: Service) -> None:
    """The API describes itself, without the network."""
    response = service.call("GET", "/openapi.json", token="")
    expect(response.status_code == httpx.codes.OK, "/openapi.json is 200", response)
    expect("/api/v1/twins" in response.json().get("paths", {}), "/openapi.json has the twins", response)
    docs = service.call("GET", "/docs", token="")
    expect(docs.status_code == httpx.codes.OK, "/docs is 200", docs)
    expect("://cdn" not in docs.text, "/docs loads nothing from elsewhere", docs)


def is_hardened(service: Service) -> None:
    """Answers carry request ids and security headers."""
    given = str(uuid.uuid4())
    response = service.call("GET", "/health", token="", headers={"X-Request-Id": given})
    expect(response.headers.get("X-Request-Id") == given, "X-Request-Id comes back", response)
    nosniff = response.headers.get("X-Content-Type-Options")
    expect(nosniff == "nosniff", "X-Content-Type-Options is nosniff", response)


def asks_for_a_token(service: Service) -> None:
    """Nothing under /api/v1 without a valid token."""
    for token in ("", "not.a.token"):
        response = service.call("GET", "/api/v1/twins", token=token)
        expect_problem(response, 401)
        challenge = response.headers.get("WWW-Authenticate", "")
        expect(challenge.startswith("Bearer"), "a 401 has a Bearer challenge", response)


def refuses_what_is_not_there(service: Service) -> None:
    """Unknown paths are 404 and wrong methods 405, as problems."""
    expect_problem(service.call("GET", "/nothing-here", token=""), 404)
    response = service.call("DELETE", "/health", token="")
    expect_problem(response, 405)
    expect("GET" in response.headers.get("Allow", ""), "a 405 says what is allowed", response)


def creates_once(service: Service) -> None:
    """A twin is made once for one Idempotency-Key."""
    body = {"twin_name": "Smoke", "use_case": "smoke test", "tone": "plain", "consent": True}
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    response = service.call("POST", "/api/v1/twins", json=body, headers=headers)
    expect(response.status_code == httpx.codes.CREATED, "creating a twin is 201", response)
    service.twin = response.json()
    service.etag = response.headers.get("ETag", "")
    expect(service.etag, "a twin has an ETag", response)
    location = response.headers.get("Location", "")
    expect(httpx.URL(location).path == service.path, "Location is the twin", response)
    again = service.call("POST", "/api/v1/twins", json=body, headers=headers)
    expect(again.json() == service.twin, "the same key gives the first answer", again)
    expect(again.headers.get("Idempotency-Replayed") == "true", "a replay says so", again)


def validates(service: Service) -> None:
    """What does not fit the model is 422, names the field and does not echo the value."""
    body = {"twin_name": "Smoke", "use_case": "smoke test", "tone": 98765, "consent": True}
    response = service.call("POST", "/api/v1/twins", json=body)
    problem = expect_problem(response, 422)
    pointers = [error.get("pointer") for error in problem.get("errors", [])]
    expect(pointers == ["#/tone"], "a 422 points at the field", response)
    expect("98765" not in response.text, "a 422 does not echo the value", response)


def reads_and_changes(service: Service) -> None:
    """Conditional requests and merge patch work, the list has the twin."""
    fresh = service.call("GET", service.path, headers={"If-None-Match": service.etag})
    expect(fresh.status_code == httpx.codes.NOT_MODIFIED, "an unchanged twin is 304", fresh)
    patch, if_match = {"tone": "warm"}, {"If-Match": service.etag}
    changed = service.call("PATCH", service.path, json=patch, headers=if_match)
    expect(changed.status_code == httpx.codes.OK, "patching a twin is 200", changed)
    expect(changed.json().get("tone") == "warm", "the patch was applied", changed)
    expect_problem(service.call("PATCH", service.path, json=patch, headers=if_match), 412)
    listed = service.call("GET", "/api/v1/twins")
    ids = [item["id"] for item in listed.json().get("items", [])]
    expect(service.twin["id"] in ids, "the list has the newest twin", listed)


def keeps_a_persona(service: Service) -> None:
    """The document store takes a persona and gives it back."""
    path = f"{service.path}/persona"
    expect_problem(service.call("GET", path), 404)
    stored = service.call("PUT", path, json={"summary": "A persona of the smoke test."})
    expect(stored.status_code == httpx.codes.OK, "storing a persona is 200", stored)
    read = service.call("GET", path)
    expect("A persona of the smoke test." in read.text, "the persona comes back", read)
    prompt = service.call("GET", f"{path}/prompt")
    expect(prompt.status_code == httpx.codes.OK, "with consent there is a prompt", prompt)


def enforces_consent(service: Service) -> None:
    """Withdrawal turns the gate, and with it the prompt, off at once."""
    gate = f"{service.path}/decision"
    before = service.call("GET", gate, params={"purpose": "general"})
    expect(before.json().get("decision") is True, "with consent the gate says yes", before)
    withdrawn = service.call("PATCH", service.path, json={"consent": False})
    expect(withdrawn.status_code == httpx.codes.OK, "withdrawing is 200", withdrawn)
    after = service.call("GET", gate, params={"purpose": "general"})
    expect(after.json().get("decision") is False, "after withdrawal the gate says no", after)
    expect(after.json().get("reason") == "withdrawn", "and says why", after)
    expect_problem(service.call("GET", f"{service.path}/persona/prompt"), 403)


def erases(service: Service) -> None:
    """A deleted twin is gone at once, and its erasure can be followed."""
    deleted = service.call("DELETE", service.path)
    expect(deleted.status_code == httpx.codes.NO_CONTENT, "deleting a twin is 204", deleted)
    expect_problem(service.call("GET", service.path), 404)
    erasure = service.call("GET", httpx.URL(deleted.headers.get("Location", "/")).path)
    expect(erasure.status_code == httpx.codes.OK, "the erasure can be read", erasure)


ANYONE: tuple[Callable[[Service], None], ...] = (
    is_healthy,
    is_ready,
    is_documented,
    is_hardened,
    asks_for_a_token,
    refuses_what_is_not_there,
)
OWNER: tuple[Callable[[Service], None], ...] = (
    creates_once,
    validates,
    reads_and_changes,
    keeps_a_persona,
    enforces_consent,
    erases,
)
"""In this order: each goes on with the twin that the first made."""


def run(client: httpx.Client, token: str | None) -> list[str]:
    """Check every rule that can be, printing a line each; return what does not hold."""
    service = Service(client, token or None)
    broken: list[str] = []
    for check in (*ANYONE, *(OWNER if token else ())):
        started = time.monotonic()
        try:
            check(service)
        except (RuleBrokenError, httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            broken.append(f"{check.__name__}: {error or type(error).__name__}")
        outcome = "FAILED" if broken and broken[-1].startswith(f"{check.__name__}:") else "ok"
        milliseconds = round((time.monotonic() - started) * 1000)
        print(f"{outcome:8}{check.__name__.replace('_', ' '):32}{milliseconds:6} ms")
        if check is creates_once and not service.twin:
            break
    if service.twin and broken:
        service.call("DELETE", service.path)  # whatever else failed, leave nothing behind
    return broken


def main() -> int:
    """Run against the URL of the command line, with the token of the environment."""
    if len(sys.argv) != len(["program", "url"]) or not sys.argv[1].startswith(("http://", "https://")):
        print(__doc__, file=sys.stderr)
        return 2
    token = os.environ.get("TOKEN")
    with httpx.Client(base_url=sys.argv[1].rstrip("/"), timeout=TIMEOUT) as client:
        broken = run(client, token)
    for problem in broken:
        print(f"        {problem}")
    if not token:
        print(f"        no TOKEN: the {len(OWNER)} checks that use a twin were not run")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
