"""`make demo`: a guided tour of a running app; each step says what it shows, and fails where it does not."""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from devstack.bearer import bearer
from devstack.local import ROOT
from devstack.process import StackError

OWNER, PRINCIPAL = "demo-owner", "demo-person"
CERTIFICATE_WITHIN = 30.0
"""Seconds; the second sweep of an erasure waits for requests under way."""

_ALEX: dict[str, Any] = {"twin_name": "Alex", "use_case": "customer support", "tone": "professional", "consent": True}
_PERSONA: dict[str, Any] = {
    "summary": "Alex helps customers of a bicycle shop.",
    "languages": ["en"],
    "traits": ["patient"],
}
_VOICE: dict[str, Any] = {
    "purposes": ["voice"],
    "notice": {"version": "2026-11", "language": "en", "text": "I agree that Alex speaks with my voice."},
    "principal": PRINCIPAL,
    "method": "web-form",
}


class Tour(contextlib.ExitStack):
    """One app as its owner, a person and anybody see it, and the steps that were taken.

    A context manager, which closes the connections. `transport` is how requests get there; None: over the network.
    """

    def __init__(self, base_url: str, transport: httpx.BaseTransport | None = None) -> None:
        def client(**headers: str) -> httpx.Client:
            # The app is on this machine, so no proxy of the environment is asked.
            made = httpx.Client(base_url=base_url, headers=headers, transport=transport, timeout=10, trust_env=False)
            return self.enter_context(made)

        super().__init__()
        self.owner = client(Authorization=f"Bearer {bearer(OWNER)}")
        self.principal = client(Authorization=f"Bearer {bearer(PRINCIPAL)}")
        self.anyone = client()
        self._steps = 0

    def step(self, what: str, shown: object, *, holds: object) -> None:
        """Print a step and what came of it.

        Raises:
            StackError: it is not as it should be.
        """
        self._steps += 1
        print(f"{self._steps:>2}. {what}\n      {shown if isinstance(shown, str) else json.dumps(shown)}")
        if not holds:
            raise StackError(f"step {self._steps} is not as it should be")

    def verified(self, token: str, kind: str) -> dict[str, Any]:
        """Return what a signature covers, verified from the published keys alone.

        Raises:
            StackError: the signature is not that of these keys, or is not on what was asked for.
        """
        keys = KeySet.import_key_set(self.anyone.get("/.well-known/jwks.json").json())
        try:
            signed = jws.deserialize_compact(token, keys, algorithms=["ES256"])
        except JoseError as error:
            raise StackError(f"the {kind} does not verify ({type(error).__name__})") from None
        if signed.headers()["typ"] != f"{kind}+jwt":
            raise StackError(f"what was signed is not a {kind}")
        payload: dict[str, Any] = json.loads(signed.payload)
        return payload


def main(base_url: str) -> int:
    """Take the tour; returns 0.

    Raises:
        StackError: the app does not answer, or a step is not as it should be.
    """
    with Tour(base_url) as tour:
        take(tour)
    print("\nEverything is as it should be.")
    return 0


def take(tour: Tour) -> None:
    """Take every step.

    Raises:
        StackError: the app does not answer, or a step is not as it should be.
    """
    try:
        _use_and_stop(tour, _create(tour))
    except httpx.HTTPError as error:
        raise StackError(
            f"{tour.anyone.base_url} does not answer ({type(error).__name__}). "
            "Is make run up? On another port: make demo PORT=…"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise StackError(f"the app does not answer as it should ({type(error).__name__})") from None


def _create(tour: Tour) -> str:
    made = tour.owner.post("/api/v1/twins", json=_ALEX)
    tour.step("Create a twin whose person agrees", made.text, holds=made.status_code == httpx.codes.CREATED)
    return made.headers["location"]


def _use_and_stop(tour: Tour, path: str) -> None:
    owner, principal = tour.owner, tour.principal

    def decide(purpose: str) -> dict[str, Any]:
        decision: dict[str, Any] = owner.get(f"{path}/decision", params={"purpose": purpose}).json()
        return decision

    yes = decide("general")
    tour.step("May it be used? Yes", yes, holds=yes["decision"])
    put = owner.put(f"{path}/persona", json=_PERSONA)
    tour.step("Give it a persona", put.text, holds=put.json()["version"] == 1)
    prompt = owner.get(f"{path}/persona/prompt", headers={"Accept": "text/plain"})
    tour.step("Compile the persona to a system prompt", repr(prompt.text), holds=_PERSONA["summary"] in prompt.text)

    given = owner.post(f"{path}/consents", json=_VOICE)
    tour.step("A person agrees to `voice`, bound to the text they saw", given.text, holds=given.is_success)
    consent = given.headers["location"]
    voice = decide("voice")
    tour.step("May it be used for `voice`? Yes", voice, holds=voice["decision"])
    receipt = tour.verified(principal.get(f"{consent}/receipt").text, "consent-receipt")
    tour.step(
        "The person's receipt, verified from the published keys alone",
        {name: receipt[name] for name in ("record_id", "pii_principal_id", "consent_status")},
        holds=(receipt["pii_principal_id"], receipt["record_id"]) == (PRINCIPAL, given.json()["id"]),
    )

    withdrawn = principal.post(f"{consent}/withdraw").json()["state"]
    tour.step("The person withdraws", withdrawn, holds=withdrawn == "withdrawn")
    no = decide("voice")
    tour.step(
        "May it be used for `voice`? No, and why", no, holds=(no["decision"], no["reason"]) == (False, "withdrawn")
    )
    stopped = owner.patch(path, json={"consent": False})
    tour.step("The general consent is withdrawn too", stopped.text, holds=stopped.json()["consent"] is False)
    refused = owner.get(f"{path}/persona/prompt")
    tour.step("The prompt is refused", refused.text, holds=refused.status_code == httpx.codes.FORBIDDEN)

    ledger = owner.get(f"{path}/ledger/verification").json()
    tour.step("The ledger is whole, says the app", ledger, holds=ledger["valid"])
    page = owner.get(f"{path}/ledger", params={"limit": 100}).json()
    whole = _verify_offline(page)
    tour.step("And so does docs/verify_ledger.py", whole, holds=ledger["head"] in whole)

    erased = owner.delete(path)
    tour.step("Erase the twin", erased.headers["location"], holds=erased.status_code == httpx.codes.NO_CONTENT)
    gone = owner.get(path)
    tour.step("It is gone", gone.text, holds=gone.status_code == httpx.codes.NOT_FOUND)
    certificate = tour.verified(_certificate(owner, erased.headers["location"]), "erasure-certificate")
    tour.step(
        "The certificate of its erasure, verified",
        {name: certificate[name] for name in ("removed", "remaining")},
        holds=certificate["removed"]["persona_documents"] == 1 and not any(certificate["remaining"].values()),
    )
    skeleton = _verify_offline(certificate)
    tour.step("The skeleton of its ledger still verifies", skeleton, holds=path.rpartition("/")[2] in skeleton)


def _certificate(owner: httpx.Client, erasure: str) -> str:
    deadline = time.monotonic() + CERTIFICATE_WITHIN
    while time.monotonic() < deadline:
        token: str | None = owner.get(erasure).json()["certificate"]
        if token is not None:
            return token
        time.sleep(0.2)
    raise StackError(f"no certificate within {CERTIFICATE_WITHIN:.0f} s")


def _verify_offline(exported: dict[str, Any]) -> str:
    """Return what the verifier of the docs says of a page of the ledger or a certificate's payload."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.json"
        file.write_text(json.dumps(exported), encoding="utf-8")
        command = [sys.executable, "docs/verify_ledger.py", str(file)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"the ledger does not verify: {done.stderr.strip()}")
    return done.stdout.strip()
