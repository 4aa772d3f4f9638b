"""Consent receipts: ISO/IEC TS 27560:2023 field names, with the terms of the W3C DPV (docs/RECEIPTS.md)."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from shared.stores.postgres import Record
from twins.consent.models import Consent
from twins.ledger.chain import timestamp
from twins.parties import shown
from twins.refusal.models import Refusal

TYPE = "consent-receipt+jwt"


def payload(row: Record, refusals: Sequence[Refusal]) -> dict[str, Any]:
    """Return the members of a receipt for a consent in its state at the moment `at`, with the refusals over it."""
    consent, owner = Consent.of(row), shown(row["owner"])
    given = "dpv:ConsentGiven" if consent.renews is None else "dpv:RenewedConsentGiven"
    # The person withdraws a consent; the owner revokes it.
    withdrawn = "dpv:ConsentRevoked" if consent.withdrawn_by == "owner" else "dpv:ConsentWithdrawn"
    statuses = {
        "given": given,
        "withdrawn": withdrawn,
        "expired": "dpv:ConsentExpired",
        # The renewal is a record of its own; the replaced consent no longer allows anything.
        "replaced": "dpv:ConsentStatusInvalidForProcessing",
    }
    until = consent.expires_at
    return {
        "iat": int(row["at"].timestamp()),
        "@context": {"dpv": "https://w3id.org/dpv#"},
        "schema_version": "ISO/IEC TS 27560:2023",
        "receipt_id": str(uuid4()),
        "record_id": str(consent.id),
        "pii_principal_id": shown(consent.principal),
        "pii_processing": {
            "pii_controllers": [owner],
            "subject": str(consent.twin_id),
            "purposes": consent.purposes,
            "lawful_basis": "dpv:Consent",
            "collection_method": consent.method,
            "language": consent.notice.language,
            "privacy_notice": consent.notice.model_dump(),
            "valid_from": timestamp(consent.not_before or consent.given_at),
            "valid_until": timestamp(until),
        },
        "consent_status": statuses[consent.state],
        "withdrawn": [item.model_dump(mode="json") for item in consent.withdrawn],
        "refusals": [
            refusal.model_dump(mode="json", include={"purposes", "exceptions", "by"})
            | {"refused_at": timestamp(refusal.refused_at)}
            for refusal in refusals
        ],
        "events": [_given(row, given), *_ended(row, withdrawn)],
    }


def _given(row: Record, state: str) -> dict[str, Any]:
    at, until, actor = row["given_at"], row["expires_at"], row["actor"]
    # Whoever records for somebody else does so for the owner.
    role = actor and ("principal" if actor == row["principal"] else "owner")
    # Seconds, as an ISO 8601 duration; null: without end.
    valid_for = f"PT{int((until - at).total_seconds())}S" if until else None
    return _event(at, state, role, actor, row["client"], valid_for)


def _ended(row: Record, state: str) -> list[dict[str, Any]]:
    """Return the last withdrawal as an event, if there is one."""
    withdrawn = [item | {"at": datetime.fromisoformat(item["at"])} for item in json.loads(row["withdrawn"])]
    last = max(withdrawn, key=lambda item: item["at"], default=None)
    return [_event(last["at"], state, last["by"], last["actor"], last["client"])] if last else []


def _event(
    at: datetime, state: str, role: str | None, actor: str | None, client: str | None, valid_for: str | None = None
) -> dict[str, Any]:
    return {
        "event_time": timestamp(at),
        "event_type": "dpv:ExpressedConsent",
        "event_state": state,
        "entity_id": actor and shown(actor),
        "entity_role": role,
        "client": client,
        "validity_duration": valid_for,
    }
