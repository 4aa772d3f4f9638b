"""Consent receipts: ISO/IEC TS 27560:2023 field names, with the terms of the W3C DPV (docs/RECEIPTS.md)."""

from datetime import datetime
from typing import Any

from twins.consent.ledger import timestamp
from twins.consent.models import Consent

TYPE = "consent-receipt+jwt"

_STATES = {
    "given": "dpv:ConsentGiven",
    "withdrawn": "dpv:ConsentWithdrawn",
    "expired": "dpv:ConsentExpired",
    "replaced": "dpv:RenewedConsentGiven",
}


def payload(consent: Consent, owner: str, at: datetime) -> dict[str, Any]:
    """Return what a receipt says about a consent as it is `at` this moment."""
    events = [{"event_time": timestamp(consent.given_at), "event_state": "dpv:ConsentGiven"}]
    if consent.withdrawn_at is not None:
        events.append({"event_time": timestamp(consent.withdrawn_at), "event_state": "dpv:ConsentWithdrawn"})
    return {
        "iat": int(at.timestamp()),
        "@context": "https://w3id.org/dpv",
        "schema_version": "ISO/IEC TS 27560:2023",
        "record_id": str(consent.id),
        "pii_principal_id": consent.principal,
        "pii_controllers": [owner],
        "pii_processing": {
            "subject": str(consent.twin_id),
            "purposes": consent.purposes,
            "lawful_basis": "dpv:Consent",
            "collection_method": consent.method,
            "privacy_notice": consent.notice.model_dump(),
            "valid_from": timestamp(consent.not_before or consent.given_at),
            "valid_until": timestamp(consent.expires_at),
        },
        "consent_status": _STATES[consent.state],
        "events": events,
    }
