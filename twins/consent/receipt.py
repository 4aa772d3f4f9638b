"""Consent receipts: ISO/IEC TS 27560:2023 field names, with the terms of the W3C DPV (docs/RECEIPTS.md)."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from shared.stores.postgres import Record
from twins.consent import linked_data
from twins.consent.members import DETAILS, RecipientRecord
from twins.consent.models import Consent
from twins.ledger.chain import timestamp
from twins.parties import person, shown
from twins.refusal.models import Refusal

TYPE = "consent-receipt+jwt"

_STATED_BY = {"recorded": "owner", "link": "link", "token": "principal"}  # nosec B105  # an assurance
"""Whose word it is, by the assurance."""
_KINDS = {
    "body": "pd:PhysicalCharacteristic",
    "face": "pd:FacialPrint",
    "name": "pd:Name",
    "style": "dpv:PersonalData",  # the vocabulary has no term for it
    "text": "pd:Communication",
    "voice": "pd:VoiceCommunicationRecording",
}
_STATEMENTS = {*DETAILS, "guardian"}

_FROM_SETTINGS = "storage_locations", "retention_period", "jurisdiction", "withdrawal_method"
"""What a consent keeps of the settings beside its controller; null where nothing was set."""


def payload(row: Record, refusals: Sequence[Refusal]) -> dict[str, Any]:
    """Return the members of a receipt for a consent in its state at the moment `at`, with the refusals over it."""
    consent, owner = Consent.of(row), shown(row["owner"])
    controller: dict[str, Any] = json.loads(row["controller"] or "{}")
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
    found = {
        "iat": int(row["at"].timestamp()),
        "@context": linked_data.CONTEXT,
        "schema_version": "ISO/IEC TS 27560:2023",
        "receipt_id": str(uuid4()),
        "record_id": str(consent.id),
        "pii_principal_id": person(consent.principal),
        "assurance": consent.assurance,
        "stated_by": "principal" if _is_own(row) else _STATED_BY[consent.assurance],
        "pii_processing": {
            "pii_controllers": [owner, *([controller["name"]] if controller else [])],
            "subject": str(consent.twin_id),
            "purposes": consent.purposes,
            "lawful_basis": "dpv:Consent",
            "collection_method": consent.method,
            "pii_information": _information(consent.modalities),
            "recipient_third_parties": _recipients(consent.recipients),
            "geographic_restrictions": consent.territories,
            **{name: controller.get(name) for name in _FROM_SETTINGS},
            "language": consent.notice.language,
            "privacy_notice": consent.notice.model_dump(),
            "valid_from": timestamp(consent.not_before or consent.given_at),
            "valid_until": timestamp(until),
        },
        "source": consent.source and str(consent.source),
        "statements": consent.model_dump(mode="json", include=_STATEMENTS, exclude_none=True),
        "consent_status": statuses[consent.state],
        "withdrawn": [item.model_dump(mode="json") for item in consent.withdrawn],
        "taken": consent.taken,
        "refusals": [
            refusal.model_dump(mode="json", include={"purposes", "exceptions", "by"})
            | {"refused_at": timestamp(refusal.refused_at)}
            for refusal in refusals
        ],
        "events": [_given(row, given), *_ended(row, withdrawn)],
        "party_identification": [
            _party("dpv:DataSubject", person(consent.principal), {"name": row["label"]}),
            _party("dpv:DataController", owner),
            *([_party("dpv:DataController", controller["name"], controller)] if controller else []),
            *([_party("dpv:GuardianOfDataSubject", shown(consent.guardian.id))] if consent.guardian else []),
        ],
    }
    return found | linked_data.members(found, str(timestamp(row["at"])), controller)


def _is_own(row: Record) -> bool:
    """Return whether the account in whose name a consent is recorded it."""
    return row["actor"] is not None and row["actor"] == row["principal"]


def _information(modalities: Sequence[str] | None) -> list[dict[str, str]]:
    """Return the kinds of personal data; without modalities no kind is meant more than another."""
    found = [{"pii_type": _KINDS[modality], "modality": modality} for modality in modalities or ()]
    return found or [{"pii_type": "dpv:PersonalData"}]


def _recipients(recipients: Sequence[RecipientRecord] | None) -> list[dict[str, Any]]:
    """Return for whom the consent is; where it names nobody, a recipient without a name."""
    found = [
        {"party_id": one.id, "party_name": one.name, "recipient_type": one.type, "issuer": one.issuer}
        for one in recipients or ()
    ]
    return [{"party_type": "dpv:Recipient", **one} for one in found or [{}]]


def _party(kind: str, identifier: object, known: Mapping[str, str | None] | None = None) -> dict[str, Any]:
    """Return a party; of an account nobody here knows more than its id."""
    names = {f"party_{name}": known.get(name) if known else None for name in ("name", "address", "contact")}
    return {"party_id": identifier, "party_type": kind, **names}


def _given(row: Record, state: str) -> dict[str, Any]:
    at, until, actor = row["given_at"], row["expires_at"], row["actor"]
    # Whoever records for somebody else does so for the owner.
    role = actor and ("principal" if _is_own(row) else "owner")
    # Seconds, as an ISO 8601 duration; null: without end.
    valid_for = f"PT{int((until - at).total_seconds())}S" if until else None
    return _event(at, state, role, actor, row["client"], row["method"], valid_for)


def _ended(row: Record, state: str) -> list[dict[str, Any]]:
    """Return the last withdrawal as an event, if there is one."""
    withdrawn = [item | {"at": datetime.fromisoformat(item["at"])} for item in json.loads(row["withdrawn"])]
    last = max(withdrawn, key=lambda item: item["at"], default=None)
    return [_event(last["at"], state, last["by"], last["actor"], last["client"], "api")] if last else []


def _event(
    at: datetime,
    state: str,
    role: str | None,
    actor: str | None,
    client: str | None,
    method: str,
    valid_for: str | None = None,
) -> dict[str, Any]:
    return {
        "event_time": timestamp(at),
        # Only the person expresses it; of anybody else it is a statement about them.
        "event_type": "dpv:ExpressedConsent" if role == "principal" else "dpv:Consent",
        "event_state": state,
        "entity_id": actor and shown(actor),
        "entity_role": role,
        "client": client,
        "indication_method": method,
        "validity_duration": valid_for,
    }
