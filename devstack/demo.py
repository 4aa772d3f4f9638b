"""`make demo`: a guided tour of a running app; each step says what it shows, and fails where it does not."""

import json
import time
from typing import Any

import httpx
from joserfc import jws
from joserfc.jwk import KeySet

from devstack.bearer import bearer
from devstack.process import StackError
from twins.consent.ledger import Verifier, canonical

OWNER, PRINCIPAL = "demo-owner", "demo-person"
CERTIFICATE_WITHIN = 30.0
"""Seconds; the second sweep of an erasure waits for requests under way."""


class Tour:
    """The owner's and the principal's view of one app, and the steps that were taken."""

    def __init__(self, base_url: str) -> None:
        self.owner, self.principal, self.anyone = (
            httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=10)
            for token in (bearer(OWNER), bearer(PRINCIPAL), None)
        )
        self._steps = 0

    def step(self, what: str, shown: object, *, holds: bool) -> None:
        """Print a step and what came of it.

        Raises:
            StackError: it is not as it should be.
        """
        self._steps += 1
        print(f"{self._steps:>2}. {what}\n      {shown}")
        if not holds:
            raise StackError(f"step {self._steps} is not as it should be")

    def verified(self, token: str) -> dict[str, Any]:
        """Return what a signature covers, verified from the published keys alone."""
        keys = KeySet.import_key_set(self.anyone.get("/.well-known/jwks.json").json())
        payload: dict[str, Any] = json.loads(jws.deserialize_compact(token, keys, algorithms=["ES256"]).payload)
        return payload


def main(base_url: str) -> int:
    """Take the tour; returns 0.

    Raises:
        StackError: the app does not answer, or a step is not as it should be.
    """
    try:
        _tour(Tour(base_url))
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise StackError(f"{base_url} does not answer as it should ({type(error).__name__}). Is make run up?") from None
    print("\nEverything is as it should be.")
    return 0


def _tour(tour: Tour) -> None:
    owner, principal = tour.owner, tour.principal
    twin = {"twin_name": "Alex", "use_case": "customer support", "tone": "professional", "consent": True}
    made = owner.post("/api/v1/twins", json=twin)
    tour.step("Create a twin whose person agrees", made.text, holds=made.status_code == httpx.codes.CREATED)
    path = made.headers["location"]

    def decide(purpose: str) -> dict[str, Any]:
        decision: dict[str, Any] = owner.get(f"{path}/decision", params={"purpose": purpose}).json()
        return decision

    yes = decide("general")
    tour.step("May it be used? Yes", yes, holds=yes["decision"])

    persona = {"summary": "Alex helps customers of a bicycle shop.", "languages": ["en"], "traits": ["patient"]}
    put = owner.put(f"{path}/persona", json=persona)
    tour.step("Give it a persona", f"version {put.json()['version']}", holds=put.is_success)
    prompt = owner.get(f"{path}/persona/prompt", headers={"Accept": "text/plain"})
    tour.step("Compile the persona to a system prompt", repr(prompt.text), holds=prompt.is_success)

    notice = {"version": "2026-11", "language": "en", "text": "I agree that Alex speaks with my voice."}
    terms = {"purposes": ["voice"], "notice": notice, "principal": PRINCIPAL, "method": "web-form"}
    given = owner.post(f"{path}/consents", json=terms)
    consent = given.headers["location"]
    tour.step("A person agrees to `voice`, bound to the text they saw", given.text, holds=given.is_success)
    voice = decide("voice")
    tour.step("May it be used for `voice`? Yes", voice, holds=voice["decision"])

    receipt = tour.verified(principal.get(f"{consent}/receipt").text)
    tour.step(
        "The person's receipt, verified from the published keys alone",
        f"{receipt['consent_status']} by {receipt['pii_principal_id']}",
        holds=receipt["pii_principal_id"] == PRINCIPAL,
    )
    withdrawn = principal.post(f"{consent}/withdraw")
    tour.step("The person withdraws", withdrawn.json()["state"], holds=withdrawn.json()["state"] == "withdrawn")
    no = decide("voice")
    tour.step("May it be used for `voice`? No, and why", no, holds=no["reason"] == "withdrawn" and not no["decision"])

    stopped = owner.patch(path, json={"consent": False})
    tour.step("The general consent is withdrawn too", stopped.json()["consent"], holds=not stopped.json()["consent"])
    refused = owner.get(f"{path}/persona/prompt")
    tour.step("The prompt is refused", refused.text, holds=refused.status_code == httpx.codes.FORBIDDEN)

    ledger = owner.get(f"{path}/ledger/verification").json()
    tour.step("The ledger is whole", ledger, holds=ledger["valid"])

    erased = owner.delete(path)
    tour.step("Erase the twin", erased.headers["location"], holds=erased.status_code == httpx.codes.NO_CONTENT)
    tour.step("It is gone", owner.get(path).status_code, holds=owner.get(path).status_code == httpx.codes.NOT_FOUND)

    certificate = tour.verified(_certificate(owner, erased.headers["location"]))
    tour.step(
        "The certificate of erasure, verified",
        {name: certificate[name] for name in ("removed", "remaining")},
        holds=not any(certificate["remaining"].values()),
    )
    tour.step("The ledger's skeleton still verifies", certificate["ledgers"], holds=_is_whole(certificate))


def _certificate(owner: httpx.Client, erasure: str) -> str:
    deadline = time.monotonic() + CERTIFICATE_WITHIN
    while time.monotonic() < deadline:
        token: str | None = owner.get(erasure).json()["certificate"]
        if token is not None:
            return token
        time.sleep(0.5)
    raise StackError(f"no certificate within {CERTIFICATE_WITHIN:.0f} s")


def _is_whole(certificate: dict[str, Any]) -> bool:
    (ledger,) = certificate["ledgers"]
    verifier = Verifier(ledger["twin_id"])
    head = bytes.fromhex(ledger["head"])
    events = certificate["events"]
    hashes = [bytes.fromhex(event["prev_hash"]) for event in events[1:]] + [head]
    rows = [(event["seq"], canonical(event), digest) for event, digest in zip(events, hashes, strict=True)]
    return verifier.check(rows) is None and verifier.finish(ledger["seq"], head) is None
