"""Consent receipts: ISO/IEC TS 27560:2023 field names, with the terms of the W3C DPV (docs/RECEIPTS.md)."""

from datetime import datetime
from typing import Any
from uuid import uuid4

from twins.consent.ledger import timestamp
from twins.consent.models import Consent

TYPE = "consent-receipt+jwt"


def payload(consent: Consent, owner: str, at: datetime) -> dict[str, Any]:
    """Return what a receipt says about a consent as it is `at` this moment."""
    return {
        "iat": int(at.timestamp()),
        "@context": {"dpv": "https://w3id.org/dpv#"},
        "schema_version": "ISO/IEC TS 27560:2023",
        "receipt_id": str(uuid4()),
        "record_id": str(consent.id),
        "pii_principal_id": consent.principal,
        "pii_processing": {
            "pii_controllers": [owner],
            "subject": str(consent.twin_id),
            "purposes": consent.purposes,
            "lawful_basis": "dpv:Consent",
            "collection_method": consent.method,
            "language": consent.notice.language,
            "privacy_notice": consent.notice.model_dump(),
            "valid_from": timestamp(consent.not_before or consent.given_at),
            "valid_until": timestamp(consent.expires_at),
        },
        "consent_status": _status(consent),
        "events": _events(consent, owner),
    }


def _status(consent: Consent) -> str:
    if consent.state == "given":
        return _given(consent)
    if consent.state == "withdrawn":
        return _withdrawn(consent)
    # The renewal is a record of its own; this one allows nothing any more.
    return "dpv:ConsentExpired" if consent.state == "expired" else "dpv:ConsentStatusInvalidForProcessing"


def _given(consent: Consent) -> str:
    return "dpv:ConsentGiven" if consent.renews is None else "dpv:RenewedConsentGiven"


def _withdrawn(consent: Consent) -> str:
    """Return the term that says who ended it: a withdrawal is the person's own."""
    return "dpv:ConsentWithdrawn" if consent.withdrawn_by == "principal" else "dpv:ConsentRevoked"


def _events(consent: Consent, owner: str) -> list[dict[str, Any]]:
    until = consent.expires_at
    events = [
        {
            "event_time": timestamp(consent.given_at),
            "event_type": "dpv:ExpressedConsent",
            "event_state": _given(consent),
            "entity_id": consent.principal,
            # Seconds, as an ISO 8601 duration; null: without end.
            "validity_duration": until and f"PT{int((until - consent.given_at).total_seconds())}S",
        }
    ]
    if consent.withdrawn_at is not None:
        events.append(
            {
                "event_time": timestamp(consent.withdrawn_at),
                "event_type": "dpv:ExpressedConsent",
                "event_state": _withdrawn(consent),
                "entity_id": consent.principal if consent.withdrawn_by == "principal" else owner,
                "validity_duration": None,
            }
        )
    return events
