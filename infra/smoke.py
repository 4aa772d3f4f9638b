"""`make smoke BASE_URL=… [TOKEN=…]`: does the service behind a URL keep its rules?

Reads nothing of this project and needs only httpx, so it runs anywhere against any deployment. With a
bearer token in TOKEN it also makes a twin of its own, uses it, and erases it. Exit code 1 where a rule
does not hold.

`make demo` takes the same steps, and tells what each shows.
"""

import base64
import contextlib
import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx

PROBLEM = "application/problem+json"
TIMEOUT = 30.0
"""Seconds for one answer; a first request can meet a cold instance."""

_ALEX: dict[str, Any] = {"twin_name": "Alex", "use_case": "customer support", "tone": "professional", "consent": False}
_PERSONA: dict[str, Any] = {
    "summary": "Alex helps customers of a bicycle shop.",
    "languages": ["en"],
    "traits": ["patient"],
}
_TERMS: dict[str, Any] = {
    "purposes": ["general", "voice"],
    "notice": {
        "version": "2026-11",
        "language": "en",
        "text": "I agree that Alex writes for me and speaks with my voice.",
    },
    "method": "web-form",
}
_THEIRS = _TERMS | {"modalities": ["text", "voice"]}
"""What the person says by their own token."""
_OWNERS = _TERMS | {"principal": {"label": "Alex"}}
"""What the owner says of a person whose account it may not know."""


class RuleBrokenError(Exception):
    """The service answered otherwise than it should."""


class Tour(contextlib.ExitStack):
    """One service as anyone, an owner and a person see it, and what the steps so far have made.

    A context manager, which closes the connections. `owner` and `person` are their tokens; without the
    second, the owner is the person too. Other `options` are those of httpx.
    """

    def __init__(self, base_url: str, owner: str | None = None, person: str | None = None, **options: Any) -> None:
        super().__init__()

        def client(token: str | None) -> httpx.Client:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            made = httpx.Client(base_url=base_url, headers=headers, **({"timeout": TIMEOUT} | options))
            return self.enter_context(made)

        self.anyone, self.owner, self.person = client(None), client(owner), client(person or owner)
        self.twin: dict[str, Any] = {}
        self.etag = ""
        self.consent = ""
        """Path of the person's consent."""
        self.receipt = ""
        self.ledger: dict[str, Any] = {}
        self.erasure = ""
        """Path of the erasure."""

    @property
    def path(self) -> str:
        """Path of the twin."""
        return f"/api/v1/twins/{self.twin['id']}"

    def decision(self, purpose: str, *reasons: str, **attributes: str) -> httpx.Response:
        """Ask the gate, which has to decide for one of these reasons; only `granted` is a yes."""
        response = self.owner.get(f"{self.path}/decision", params={"purpose": purpose} | attributes)
        found = response.json()
        reason = found.get("reason")
        expect(reason in reasons, f"the gate's reason is {' or '.join(reasons)}", response)
        expect(found.get("decision") is (reason == "granted"), "only granted is a yes", response)
        return response


def expect(condition: object, rule: str, response: httpx.Response) -> None:
    """Raise unless the condition holds; the message shows the start of the answer, never a token."""
    if not condition:
        request = response.request
        raise RuleBrokenError(
            f"{rule}; {request.method} {request.url.path} answered {response.status_code} "
            f"{response.headers.get('Content-Type', '')}: {response.text[:200]!r}"
        )


def answered(response: httpx.Response, status: int) -> httpx.Response:
    """Return an answer that has this status."""
    expect(response.status_code == status, f"the status is {status}", response)
    return response


def expect_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """Return the body of an RFC 9457 problem with this status."""
    answered(response, status)
    expect(response.headers.get("Content-Type", "").startswith(PROBLEM), f"the error is {PROBLEM}", response)
    body: dict[str, Any] = response.json()
    expect(body.get("status") == status, "the problem repeats its status", response)
    expect(body.get("request_id"), "the problem has a request id", response)
    return body


def location(response: httpx.Response) -> str:
    """Return the path of what was made."""
    return httpx.URL(response.headers.get("Location", "/")).path


def is_healthy(tour: Tour) -> object:
    """The service is up."""
    response = answered(tour.anyone.get("/health"), 200)
    expect(response.json() == {"status": "healthy"}, "/health says healthy", response)
    return response.text


def is_ready(tour: Tour) -> object:
    """Both stores answer."""
    response = answered(tour.anyone.get("/ready"), 200)
    return response.text


def is_documented(tour: Tour) -> object:
    """The API describes itself, without the network."""
    response = answered(tour.anyone.get("/openapi.json"), 200)
    paths = response.json().get("paths", {})
    expect("/api/v1/twins" in paths, "/openapi.json has the twins", response)
    docs = answered(tour.anyone.get("/docs"), 200)
    expect("://cdn" not in docs.text, "/docs loads nothing from elsewhere", docs)
    return f"{len(paths)} paths in /openapi.json, and /docs"


def is_hardened(tour: Tour) -> object:
    """Answers carry request ids and security headers."""
    given = str(uuid.uuid4())
    response = tour.anyone.get("/health", headers={"X-Request-Id": given})
    expect(response.headers.get("X-Request-Id") == given, "X-Request-Id comes back", response)
    nosniff = response.headers.get("X-Content-Type-Options")
    expect(nosniff == "nosniff", "X-Content-Type-Options is nosniff", response)
    return f"X-Request-Id: {given}, X-Content-Type-Options: {nosniff}"


def asks_for_a_token(tour: Tour) -> object:
    """Nothing under /api/v1 answers without a valid token."""
    forged = {"Authorization": "Bearer not.a.token"}
    for response in (tour.anyone.get("/api/v1/twins", headers=headers) for headers in ({}, forged)):
        expect_problem(response, 401)
        challenge = response.headers.get("WWW-Authenticate", "")
        expect(challenge.startswith("Bearer"), "a 401 has a Bearer challenge", response)
    return response.text


def refuses_what_is_not_there(tour: Tour) -> object:
    """Unknown paths are 404 and wrong methods 405, as problems."""
    expect_problem(tour.anyone.get("/nothing-here"), 404)
    response = tour.anyone.delete("/health")
    expect_problem(response, 405)
    expect("GET" in response.headers.get("Allow", ""), "a 405 says what is allowed", response)
    return response.text


def creates_once(tour: Tour) -> object:
    """Create a twin, once for one Idempotency-Key."""
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    response = answered(tour.owner.post("/api/v1/twins", json=_ALEX, headers=headers), 201)
    tour.twin = response.json()
    tour.etag = response.headers.get("ETag", "")
    expect(tour.etag, "a twin has an ETag", response)
    expect(location(response) == tour.path, "Location is the twin", response)
    again = tour.owner.post("/api/v1/twins", json=_ALEX, headers=headers)
    expect(again.json() == tour.twin, "the same key makes no second twin", again)
    expect(again.headers.get("Idempotency-Replayed") == "true", "a replay says so", again)
    return response.text


def validates(tour: Tour) -> object:
    """What does not fit the model is 422, names the field and does not echo the value."""
    response = tour.owner.post("/api/v1/twins", json=_ALEX | {"tone": 98765})
    problem = expect_problem(response, 422)
    pointers = [error.get("pointer") for error in problem.get("errors", [])]
    expect(pointers == ["#/tone"], "a 422 points at the field", response)
    expect("98765" not in response.text, "a 422 does not echo the value", response)
    return response.text


def reads_and_changes(tour: Tour) -> object:
    """An unchanged twin is 304, a change of an older version 412, and the list has the twin."""
    answered(tour.owner.get(tour.path, headers={"If-None-Match": tour.etag}), 304)
    patch, if_match = {"tone": "warm"}, {"If-Match": tour.etag}
    changed = answered(tour.owner.patch(tour.path, json=patch, headers=if_match), 200)
    expect(changed.json().get("tone") == "warm", "the patch was applied", changed)
    expect_problem(tour.owner.patch(tour.path, json=patch, headers=if_match), 412)
    listed = tour.owner.get("/api/v1/twins")
    ids = [item["id"] for item in listed.json().get("items", [])]
    expect(tour.twin["id"] in ids, "the list has the newest twin", listed)
    return changed.text


def records_their_word(tour: Tour) -> object:
    """The owner records that a person agreed. May it be used? Yes, and the answer says on whose word: `recorded`."""
    given = answered(tour.owner.post(f"{tour.path}/consents", json=_OWNERS), 201)
    expect(given.json().get("assurance") == "recorded", "what an owner records is recorded", given)
    # A deployment may require more (MIN_ASSURANCE).
    response = tour.decision("voice", "granted", "assurance_too_low")
    expect(response.json().get("assurance") == "recorded", "the gate answers recorded", response)
    return response.text


def asks_for_their_own_word(tour: Tour) -> object:
    """Whoever needs the person's own word asks with `min_assurance=token`: no."""
    return tour.decision("voice", "assurance_too_low", min_assurance="token").text


def takes_their_word(tour: Tour) -> object:
    """The owner lists the person's account, and the person agrees by their own token: yes, `token`."""
    account = answered(tour.person.get("/api/v1/me"), 200).json()["actor"]
    answered(tour.owner.patch(tour.path, json={"principals": [account]}), 200)
    given = answered(tour.person.post(f"{tour.path}/consents", json=_THEIRS), 201)
    tour.consent = location(given)
    response = tour.decision("voice", "granted", min_assurance="token", modality="voice")
    expect(response.json().get("assurance") == "token", "the gate answers token", response)
    return response.text


def keeps_to_their_terms(tour: Tour) -> object:
    """They agreed to text and voice. May it be used with their face? No."""
    tour.decision("voice", "modality_not_covered")
    return tour.decision("voice", "modality_not_covered", modality="face").text


def takes_no_other_word(tour: Tour) -> object:
    """From now on the owner's word grants and widens nothing, whatever the purpose."""
    response = tour.owner.post(f"{tour.path}/consents", json=_OWNERS | {"purposes": ["voice-2"]})
    _expect_person(response)
    return response.text


def keeps_a_persona(tour: Tour) -> object:
    """Give it a persona, which is compiled to a system prompt."""
    path = f"{tour.path}/persona"
    expect_problem(tour.owner.get(path), 404)
    stored = answered(tour.owner.put(path, json=_PERSONA), 200)
    expect(stored.json().get("version") == 1, "the first persona is version 1", stored)
    read = tour.owner.get(path)
    expect(read.json().get("summary") == _PERSONA["summary"], "the persona comes back", read)
    prompt = answered(tour.owner.get(f"{path}/prompt", headers={"Accept": "text/plain"}), 200)
    expect(_PERSONA["summary"] in prompt.text, "the prompt says what the persona says", prompt)
    return repr(prompt.text)


def gives_a_receipt(tour: Tour) -> object:
    """The person has a receipt, signed with a published key."""
    receipt = answered(tour.person.get(f"{tour.consent}/receipt"), 200)
    tour.receipt = receipt.text
    part = receipt.text.partition(".")[0]
    header = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    keys = tour.anyone.get("/.well-known/jwks.json")
    expect(header["kid"] in [key["kid"] for key in keys.json()["keys"]], "the key of a receipt is published", keys)
    return header


def obeys_the_person(tour: Tour) -> object:
    """The person withdraws. May it be used? No, and why; nor is there a prompt."""
    withdrawn = tour.person.post(f"{tour.consent}/withdraw")
    expect(withdrawn.json().get("state") == "withdrawn", "a withdrawn consent says so", withdrawn)
    expect_problem(tour.owner.get(f"{tour.path}/persona/prompt"), 403)
    return tour.decision("voice", "withdrawn", modality="voice").text


def keeps_a_refusal(tour: Tour) -> object:
    """The person refuses `training` too, before anybody has asked, and the owner cannot grant it."""
    refused = tour.person.post(f"{tour.path}/refusals", json={"purposes": ["training"]})
    expect(refused.status_code in (200, 201), "the person may refuse", refused)
    _expect_person(tour.owner.post(f"{tour.path}/consents", json=_OWNERS | {"purposes": ["training"]}))
    return tour.decision("training", "refused").text


def keeps_a_ledger(tour: Tour) -> object:
    """The ledger has all of this, and is whole."""
    verification = tour.owner.get(f"{tour.path}/ledger/verification")
    expect(verification.json().get("valid") is True, "the ledger is whole", verification)
    page = tour.owner.get(f"{tour.path}/ledger", params={"limit": 100})
    tour.ledger = page.json()
    hashes = [item["hash"] for item in tour.ledger["items"]]
    expect(hashes[-1:] == [verification.json()["head"]], "the ledger ends with the verified head", page)
    return verification.text


def erases(tour: Tour) -> object:
    """Erase the twin: it is gone at once, and its erasure can be followed."""
    deleted = answered(tour.owner.delete(tour.path), 204)
    tour.erasure = location(deleted)
    expect_problem(tour.owner.get(tour.path), 404)
    answered(tour.owner.get(tour.erasure), 200)
    return tour.erasure


def _expect_person(response: httpx.Response) -> None:
    problem = expect_problem(response, 409)
    expect(str(problem.get("type")).endswith("/person-must-consent"), "only the person may grant now", response)


type Step = Callable[[Tour], object]
"""Raises where a rule does not hold; returns what there is to see. Its docstring says what it shows."""

ANYONE: tuple[Step, ...] = (
    is_healthy,
    is_ready,
    is_documented,
    is_hardened,
    asks_for_a_token,
    refuses_what_is_not_there,
)
OWNER: tuple[Step, ...] = (
    creates_once,
    validates,
    reads_and_changes,
    records_their_word,
    asks_for_their_own_word,
    takes_their_word,
    keeps_to_their_terms,
    takes_no_other_word,
    keeps_a_persona,
    gives_a_receipt,
    obeys_the_person,
    keeps_a_refusal,
    keeps_a_ledger,
    erases,
)
"""In this order: each goes on with the twin that the first made."""


def take(tour: Tour, step: Step) -> object:
    """Take one step.

    Raises:
        RuleBrokenError: a rule does not hold, or the service does not answer at all.
    """
    try:
        return step(tour)
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RuleBrokenError(f"no such answer as there should be ({type(error).__name__}: {error})") from error


def run(tour: Tour, steps: tuple[Step, ...]) -> list[str]:
    """Take every step that can be taken, printing a line each; return what does not hold."""
    broken: list[str] = []
    whole = False
    try:
        for step in steps:
            started, outcome = time.monotonic(), "ok"
            try:
                take(tour, step)
            except RuleBrokenError as error:
                outcome = "FAILED"
                broken.append(f"{step.__name__}: {error}")
            milliseconds = round((time.monotonic() - started) * 1000)
            print(f"{outcome:8}{step.__name__.replace('_', ' '):32}{milliseconds:6} ms")
            if step is creates_once and not tour.twin:
                break
        whole = not broken
    finally:
        if tour.twin and not whole:  # whatever failed, or who stopped it, leave nothing behind
            with contextlib.suppress(httpx.HTTPError):
                tour.owner.delete(tour.path)
    return broken


def main() -> int:
    """Run against the URL of the command line, with the token of the environment."""
    if len(sys.argv) != len(["program", "url"]) or not sys.argv[1].startswith(("http://", "https://")):
        print(__doc__, file=sys.stderr)
        return 2
    token = os.environ.get("TOKEN")
    with Tour(sys.argv[1].rstrip("/"), token) as tour:
        broken = run(tour, (*ANYONE, *(OWNER if token else ())))
    for problem in broken:
        print(f"        {problem}")
    if not token:
        print(f"        no TOKEN: the {len(OWNER)} checks that use a twin were not run")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
