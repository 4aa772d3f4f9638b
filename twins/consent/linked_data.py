"""A receipt as JSON-LD: its consent again, as the profile `dpv-27560` of the W3C DPV words it (docs/RECEIPTS.md)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from twins.controller import is_duration

_IRIS = (
    *("consent_status", "event_state", "event_type", "lawful_basis", "party_type", "pii_type"),
    *("dct:conformsTo", "dct:source", "dpv:hasJurisdiction", "dpv:hasLegalBasis", "dpv:hasLocation", "dpv:hasStatus"),
)
_TIMES = "dct:created", "dpv:isIndicatedAtTime", "event_time", "refused_at", "valid_from", "valid_until"

CONTEXT: dict[str, Any] = {
    # The names of the specification and our own: nothing of a receipt is lost to a reader of JSON-LD.
    "@vocab": "urn:twins:receipt:",
    "dct": "http://purl.org/dc/terms/",
    "dpv": "https://w3id.org/dpv#",
    "loc": "https://w3id.org/dpv/loc#",
    "pd": "https://w3id.org/dpv/pd#",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
    **{name: {"@type": "@id"} for name in _IRIS},
    **{name: {"@type": "xsd:dateTime"} for name in _TIMES},
}
"""Whole in each receipt, so that it means the same when nobody serves anything any more."""

_PROFILE = "https://w3id.org/dpv/schema/dpv-27560#"

_SIDES = {"principal": "dpv:DataSubject", "owner": "dpv:DataController", "operator": "dpv:Representative"}


def members(receipt: Mapping[str, Any], created: str, controller: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that make a receipt JSON-LD; `controller` is what the consent keeps of the settings."""
    return {
        "@id": f"urn:uuid:{receipt['receipt_id']}",
        "@type": "dpv:ConsentReceipt",
        **_conforms_to("receipt", controller),
        "dct:created": created,
        "dpv:hasIdentifier": receipt["receipt_id"],
        "dpv:hasRecordOfActivity": _record(receipt, controller),
    }


def _conforms_to(profile: str, controller: Mapping[str, Any]) -> dict[str, str]:
    """Claim the profile only where nothing is missing that it requires."""
    return {"dct:conformsTo": _PROFILE + profile} if controller else {}


def _record(receipt: Mapping[str, Any], controller: Mapping[str, Any]) -> dict[str, Any]:
    processing = receipt["pii_processing"]
    parties = defaultdict(list)
    for party in receipt["party_identification"]:
        parties[party["party_type"]].append(_party(party))
    given, *ended = receipt["events"]
    gone = [_purpose(item["purpose"], {}) for item in receipt["withdrawn"]]
    guardian = parties.get("dpv:GuardianOfDataSubject")
    described = {use["purpose"]: use["description"] for use in receipt["statements"].get("uses", ())}
    notice = processing["privacy_notice"]
    return {
        "@id": f"urn:uuid:{receipt['record_id']}",
        "@type": "dpv:ConsentRecord",
        **_conforms_to("record", controller),
        "dct:identifier": receipt["record_id"],
        "dpv:hasIdentifier": receipt["record_id"],
        "dct:language": processing["language"],
        "dct:provenance": f"stated by the {receipt['stated_by']}",
        **({"dct:source": f"urn:uuid:{receipt['source']}"} if receipt["source"] else {}),
        "dpv:hasDataSubject": parties["dpv:DataSubject"],
        "dpv:hasNotice": {
            "@type": "dpv:ConsentNotice",
            "dct:identifier": notice["sha256"],
            "dct:hasVersion": notice["version"],
            "dct:language": notice["language"],
        },
        "dpv:hasProcess": {
            "@type": "dpv:Process",
            "dpv:hasLegalBasis": processing["lawful_basis"],
            "dpv:hasPurpose": [_purpose(name, described) for name in processing["purposes"]],
            "dpv:hasPersonalData": [{"@type": item["pii_type"]} for item in processing["pii_information"]],
            "dpv:hasRecipient": [_party(party) for party in processing["recipient_third_parties"]],
            "dpv:hasDataController": parties["dpv:DataController"],
            **_restriction(processing["geographic_restrictions"]),
            **(_conditions(controller) if controller else {}),
        },
        **({"dpv:hasEntity": guardian} if guardian else {}),
        "dpv:hasStatus": receipt["consent_status"],
        "dpv:hasConsentStatus": [_event(given), *(_event(event) | {"dpv:hasPurpose": gone} for event in ended)],
    }


def _party(party: Mapping[str, Any]) -> dict[str, Any]:
    """Return a party with what is known of it."""
    names = {
        "dpv:hasIdentifier": "party_id",
        "dpv:hasName": "party_name",
        "dpv:hasAddress": "party_address",
        "dpv:hasContact": "party_contact",
    }
    known = {name: party[own] for name, own in names.items() if party.get(own) is not None}
    return {"@type": party["party_type"], **known}


def _purpose(name: str, described: Mapping[str, str]) -> dict[str, str]:
    description = {"dct:description": described[name]} if name in described else {}
    return {"@type": "dpv:Purpose", "dct:identifier": name, **description}


def _restriction(territories: Sequence[str] | None) -> dict[str, Any]:
    """Return where the processing is permitted, if it is not everywhere."""
    if territories is None:
        return {}
    return {"dpv:hasRule": {"@type": "dpv:Permission", "dpv:hasLocation": [f"loc:{place}" for place in territories]}}


def _conditions(controller: Mapping[str, Any]) -> dict[str, Any]:
    period, method = controller["retention_period"], controller["withdrawal_method"]
    lasts = "dpv:TemporalDuration" if is_duration(period) else "dpv:UntilEventDuration"
    return {
        "dpv:hasStorageCondition": [
            {
                "@type": "dpv:StorageLocation",
                "dpv:hasLocation": [f"loc:{place}" for place in controller["storage_locations"]],
            },
            {"@type": "dpv:StorageDuration", "dpv:hasDuration": {"@type": lasts, "rdf:value": period}},
        ],
        "dpv:hasJurisdiction": f"loc:{controller['jurisdiction']}",
        "dpv:hasConsentControl": {"@type": "dpv:WithdrawConsent", "dpv:isExercisedAt": method},
        "dpv:hasRight": {
            "@type": "dpv:DataSubjectRight",
            "dct:title": "Right to withdraw consent",
            "dpv:isExercisedAt": method,
        },
    }


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    valid_for, client = event["validity_duration"], event["client"]
    found = {
        "@type": event["event_state"],
        "dpv:hasLegalBasis": event["event_type"],
        "dpv:isIndicatedAtTime": event["event_time"],
        "dpv:hasDuration": (
            {"@type": "dpv:TemporalDuration", "rdf:value": valid_for} if valid_for else {"@type": "dpv:EndlessDuration"}
        ),
        "dpv:isIndicatedBy": {"@type": _SIDES.get(event["entity_role"], "dpv:Entity")},
        "dpv:hasIndicationMethod": event["indication_method"],
    }
    if event["entity_id"] is not None:
        found["dpv:isIndicatedBy"]["dpv:hasIdentifier"] = event["entity_id"]
    return found if client is None else found | {"dpv:isImplementedUsingTechnology": client}
