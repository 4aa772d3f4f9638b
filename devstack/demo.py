"""`make demo`: the tour of `infra.smoke`, told step by step, with what it was shown verified here."""

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
from infra import smoke
from infra.smoke import RuleBrokenError, Step, Tour

OWNER, PERSON = "demo-owner", "demo-person"
CERTIFICATE_WITHIN = 30.0
"""Seconds; the second sweep of an erasure waits for requests under way."""


def main(base_url: str, transport: httpx.BaseTransport | None = None) -> int:
    """Take each step of the tour, and print what it shows; returns 0.

    `transport` is how requests get to the app; None: over the network.

    Raises:
        StackError: the app does not answer, or a step is not as it should be.
    """
    # The app is on this machine, so no proxy of the environment is asked.
    options = {"transport": transport, "trust_env": False}
    with Tour(base_url, bearer(OWNER), bearer(PERSON), **options) as tour:
        for number, step in enumerate(STEPS, 1):
            try:
                shown = smoke.take(tour, step)
            except RuleBrokenError as error:
                if isinstance(error.__cause__, httpx.TransportError):
                    raise StackError(
                        f"{base_url} does not answer ({type(error.__cause__).__name__}). "
                        "Is make run up? On another port: make demo PORT=…"
                    ) from None
                raise StackError(f"step {number} is not as it should be: {error}") from None
            print(f"{number:>2}. {step.__doc__}\n      {shown if isinstance(shown, str) else json.dumps(shown)}")
    print("\nEverything is as it should be.")
    return 0


def verify_the_receipt(tour: Tour) -> object:
    """The person verifies their receipt, from the published keys alone."""
    receipt = _verified(tour, tour.receipt, "consent-receipt")
    shown = {name: receipt[name] for name in ("record_id", "pii_principal_id", "assurance", "consent_status")}
    if (receipt["pii_principal_id"], receipt["record_id"]) != (PERSON, tour.consent.rpartition("/")[2]):
        raise RuleBrokenError(f"the receipt is another's: {shown}")
    return shown


def verify_the_ledger(tour: Tour) -> object:
    """Anybody verifies the ledger, with docs/verify_ledger.py."""
    return _verify_offline(tour.ledger)


def verify_the_certificate(tour: Tour) -> object:
    """The certificate of the erasure counts what was removed, and nothing is left."""
    certificate = _verified(tour, _certificate(tour), "erasure-certificate")
    shown = {name: certificate[name] for name in ("removed", "remaining")}
    if certificate["removed"]["persona_documents"] != 1 or any(certificate["remaining"].values()):
        raise RuleBrokenError(f"something is left, or was never there: {shown}")
    whole = _verify_offline(certificate)
    if tour.twin["id"] not in whole:
        raise RuleBrokenError(f"the certificate has not the ledger of this twin: {whole}")
    return shown | {"ledger": whole}


_PROOF: dict[Step, Step] = {
    smoke.gives_a_receipt: verify_the_receipt,
    smoke.keeps_a_ledger: verify_the_ledger,
    smoke.erases: verify_the_certificate,
}
"""What follows a step."""
STEPS: tuple[Step, ...] = tuple(
    one for step in (*smoke.ANYONE, *smoke.OWNER) for one in (step, _PROOF.get(step)) if one is not None
)


def _verified(tour: Tour, token: str, kind: str) -> dict[str, Any]:
    """Return what a signature covers."""
    keys = KeySet.import_key_set(tour.anyone.get("/.well-known/jwks.json").json())
    try:
        signed = jws.deserialize_compact(token, keys, algorithms=["ES256"])
    except JoseError as error:
        raise RuleBrokenError(f"the {kind} does not verify ({type(error).__name__})") from None
    if signed.headers()["typ"] != f"{kind}+jwt":
        raise RuleBrokenError(f"what was signed is no {kind}")
    payload: dict[str, Any] = json.loads(signed.payload)
    return payload


def _certificate(tour: Tour) -> str:
    deadline = time.monotonic() + CERTIFICATE_WITHIN
    while time.monotonic() < deadline:
        token: str | None = tour.owner.get(tour.erasure).json()["certificate"]
        if token is not None:
            return token
        time.sleep(0.2)
    raise RuleBrokenError(f"no certificate within {CERTIFICATE_WITHIN:.0f} s")


def _verify_offline(exported: dict[str, Any]) -> str:
    """Return what the verifier of the docs says of a page of the ledger or a certificate's payload."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.json"
        file.write_text(json.dumps(exported), encoding="utf-8")
        command = [sys.executable, "docs/verify_ledger.py", str(file)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuleBrokenError(f"the ledger does not verify: {done.stderr.strip()}")
    return done.stdout.strip()
