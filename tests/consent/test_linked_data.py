"""Receipts as JSON-LD: what a reader of the W3C DPV finds, and that the profile's required properties are there."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from joserfc import jws
from joserfc.jwk import KeySet
from pydantic import SecretStr
from pyld import jsonld

from tests.support.app import Client, ClientOf, make_twin, token
from tests.support.consent import HOUR, after, grant, location, pass_time, renew, withdraw
from tests.support.database import superuser
from tests.support.fixtures import CONTROLLER
from tests.support.stores import Stores
from twins.app import create_app
from twins.settings import Settings

DPV = "https://w3id.org/dpv#"
DCT = "http://purl.org/dc/terms/"
LOC = "https://w3id.org/dpv/loc#"
PD = "https://w3id.org/dpv/pd#"
OWN = "urn:twins:receipt:"
PROFILE = "https://w3id.org/dpv/schema/dpv-27560#"

# What the guide consent-27560 of DPV 2.3 says must be present, by who has it.
RECEIPT = {DCT + "conformsTo", DCT + "created", DPV + "hasIdentifier", DPV + "hasRecordOfActivity"}
RECORD = {DCT + "conformsTo", DCT + "identifier", DCT + "language"} | {
    DPV + name for name in ("hasIdentifier", "hasDataSubject", "hasNotice", "hasProcess", "hasConsentStatus")
}
PROCESS = {
    DPV + name
    for name in (
        *("hasPurpose", "hasPersonalData", "hasStorageCondition", "hasDataController", "hasRecipient", "hasRight"),
        *("hasConsentControl", "hasJurisdiction", "hasLegalBasis"),
    )
}
EVENT = {
    DPV + name for name in ("hasLegalBasis", "isIndicatedAtTime", "hasDuration", "isIndicatedBy", "hasIndicationMethod")
}
CONTROLLER_OF_RECORD = {DPV + name for name in ("hasIdentifier", "hasName", "hasAddress", "hasContact")}

# Every term that a receipt may have, each of which is one of DPV 2.3.
TERMS = {
    *("Consent", "ConsentExpired", "ConsentGiven", "ConsentNotice", "ConsentReceipt", "ConsentRecord"),
    *("ConsentRevoked", "ConsentStatusInvalidForProcessing", "ConsentWithdrawn", "DataController", "DataSubject"),
    *("DataSubjectRight", "EndlessDuration", "Entity", "ExpressedConsent", "GuardianOfDataSubject", "Permission"),
    *("PersonalData", "Process", "Purpose", "hasEntity", "hasRule"),
    *("Recipient", "RenewedConsentGiven", "Representative", "StorageDuration", "StorageLocation"),
    *("TemporalDuration", "UntilEventDuration", "WithdrawConsent", "hasAddress", "hasConsentControl"),
    *("hasConsentStatus", "hasContact", "hasDataController", "hasDataSubject", "hasDuration", "hasIdentifier"),
    *("hasIndicationMethod", "hasJurisdiction", "hasLegalBasis", "hasLocation", "hasName", "hasNotice"),
    *("hasPersonalData", "hasProcess", "hasPurpose", "hasRecipient", "hasRecordOfActivity", "hasRight", "hasStatus"),
    *("hasStorageCondition", "isExercisedAt", "isImplementedUsingTechnology", "isIndicatedAtTime", "isIndicatedBy"),
}

type Node = Mapping[str, Any]


def no_network(url: str, options: object) -> Any:
    raise AssertionError(f"a receipt needs {url}")


def expand(receipt: Node) -> Node:
    """Expand a receipt with nothing but what is in it, and check that it has no term that the vocabulary lacks."""
    (node,) = jsonld.expand(receipt, {"documentLoader": no_network})
    used = {iri.removeprefix(DPV) for iri in strings(node) if iri.startswith(DPV)}
    assert used <= TERMS
    assert not [iri for iri in strings(node) if iri.startswith(("dpv:", "pd:", "loc:"))]
    found: Node = node
    return found


def strings(value: Any) -> Iterator[str]:
    """Yield all names and texts in what was expanded."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield name
            yield from strings(member)
    elif isinstance(value, list):
        for member in value:
            yield from strings(member)
    elif isinstance(value, str):
        yield value


def one(node: Node, name: str) -> Any:
    """Return the one value of a property: a literal, an IRI or a node."""
    (found,) = node[DPV + name if ":" not in name else name]
    return found.get("@value", found.get("@id") if found.keys() == {"@id"} else found)


def types(node: Node) -> list[str]:
    return [name.removeprefix(DPV) for name in node["@type"]]


async def receipt_of(client: Client, consent: dict[str, Any]) -> dict[str, Any]:
    answer = await client.get(f"{location(consent)}/receipt")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = json.loads(jws.extract_compact(answer.content).payload)
    return found


async def test_the_profile_s_required_properties_are_there(client_of: ClientOf) -> None:
    owner, paula = client_of("ld-owner"), client_of("ld-paula")
    path = await make_twin(owner, consent=False)
    consent = await grant(
        owner, path, "voice", "training", principal="ld-paula", expires_at=after(HOUR), method="phone"
    )
    await withdraw(paula, consent)
    plain = await receipt_of(paula, consent)
    receipt = expand(plain)
    record = one(receipt, "hasRecordOfActivity")
    process = one(record, "hasProcess")

    assert receipt.keys() >= RECEIPT
    assert types(receipt) == ["ConsentReceipt"]
    assert one(receipt, DCT + "conformsTo") == PROFILE + "receipt"
    assert one(receipt, "hasIdentifier") == plain["receipt_id"]
    assert receipt["@id"] == f"urn:uuid:{plain['receipt_id']}"
    assert record.keys() >= RECORD
    assert types(record) == ["ConsentRecord"]
    assert one(record, DCT + "conformsTo") == PROFILE + "record"
    assert one(record, DCT + "identifier") == consent["id"]
    assert types(one(record, "hasNotice")) == ["ConsentNotice"]
    assert one(one(record, "hasNotice"), DCT + "identifier") == consent["notice"]["sha256"]
    assert one(one(record, "hasDataSubject"), "hasIdentifier") == "ld-paula"
    assert one(record, "hasStatus") == DPV + "ConsentWithdrawn"
    assert process.keys() >= PROCESS
    assert [one(purpose, DCT + "identifier") for purpose in process[DPV + "hasPurpose"]] == ["training", "voice"]
    assert types(one(process, "hasConsentControl")) == ["WithdrawConsent"]
    assert one(one(process, "hasConsentControl"), "isExercisedAt") == CONTROLLER["withdrawal_method"]
    assert one(process, "hasJurisdiction") == LOC + "IE"
    places, period = process[DPV + "hasStorageCondition"]
    assert [place["@id"] for place in places[DPV + "hasLocation"]] == [LOC + "IE", LOC + "US-VA"]
    assert types(one(period, "hasDuration")) == ["TemporalDuration"]
    (account, controller) = process[DPV + "hasDataController"]
    assert one(account, "hasIdentifier") == "ld-owner"
    assert controller.keys() >= CONTROLLER_OF_RECORD
    assert one(controller, "hasAddress") == CONTROLLER["address"]
    given, withdrawn = record[DPV + "hasConsentStatus"]
    assert [one(purpose, DCT + "identifier") for purpose in withdrawn[DPV + "hasPurpose"]] == ["training", "voice"]
    assert given.keys() >= EVENT <= withdrawn.keys()
    assert (types(given), types(withdrawn)) == (["ConsentGiven"], ["ConsentWithdrawn"])
    assert [types(one(event, "isIndicatedBy")) for event in (given, withdrawn)] == [["DataController"], ["DataSubject"]]
    assert one(given, "hasIndicationMethod") == "phone"
    assert one(given, "hasDuration")["@type"] == [DPV + "TemporalDuration"]


async def test_nothing_of_a_receipt_is_lost_to_a_reader_of_json_ld(client_of: ClientOf) -> None:
    owner, paula = client_of("ld-keeper"), client_of("ld-whole")
    path = await make_twin(owner, principals=["ld-whole"], consent=False)
    consent = await grant(paula, path, "voice", expires_at=after(HOUR))
    assert (await paula.post(f"{path}/refusals", json={"purposes": ["voice"]})).status_code == 201
    plain = await receipt_of(owner, consent)
    receipt = expand(plain)
    own = {name.removeprefix(OWN) for name in strings(receipt) if name.startswith(OWN)}

    assert own >= {
        "stated_by",
        "pii_processing",
        "subject",
        "valid_from",
        "valid_until",
        "withdrawn",
        "refusals",
        "events",
    }
    assert one(one(receipt, OWN + "pii_processing"), OWN + "valid_until") == plain["pii_processing"]["valid_until"]
    assert one(receipt, OWN + "consent_status") == DPV + "ConsentWithdrawn"
    assert {party[OWN + "party_type"][0]["@id"] for party in receipt[OWN + "party_identification"]} == {
        DPV + "DataSubject", DPV + "DataController",
    }  # fmt: skip


async def test_every_state_has_its_status(alice: Client, stores: Stores) -> None:
    path = await make_twin(alice, consent=False)

    async def status(consent: dict[str, Any]) -> str:
        record = one(expand(await receipt_of(alice, consent)), "hasRecordOfActivity")
        return str(one(record, "hasStatus")).removeprefix(DPV)

    consent = await grant(alice, path, expires_at=after(HOUR))
    assert await status(consent) == "ConsentGiven"
    renewed = await renew(alice, consent)
    assert [await status(one) for one in (consent, renewed)] == [
        "ConsentStatusInvalidForProcessing", "RenewedConsentGiven",
    ]  # fmt: skip
    async with superuser(stores) as connection:
        await pass_time(connection, 2 * HOUR, path)
    assert await status(renewed) == "ConsentExpired"
    recorded = await grant(alice, path, "voice", principal="ld-somebody")
    await withdraw(alice, recorded)
    assert await status(recorded) == "ConsentRevoked"
    await withdraw(alice, renewed)
    assert await status(renewed) == "ConsentWithdrawn"


async def test_a_receipt_says_whose_word_it_is(client_of: ClientOf) -> None:
    owner, paula, quentin = client_of("ld-teller"), client_of("ld-told"), client_of("ld-named-only")
    path = await make_twin(owner, principals=["ld-told"], consent=False)
    recorded = await grant(owner, path, "voice", principal="ld-told")
    named = await grant(owner, path, "ads", principal="ld-named-only")
    named = await renew(quentin, named)
    assert named["assurance"] == "recorded"  # nobody has listed the account
    own = await renew(paula, recorded)
    narrower = await renew(owner, own, expires_at=after(HOUR))

    for consent, word, side, actor in (
        (recorded, "owner", "DataController", "ld-teller"),
        (named, "principal", "DataSubject", "ld-named-only"),
        (own, "principal", "DataSubject", "ld-told"),
        (narrower, "principal", "DataController", "ld-teller"),
    ):
        plain = await receipt_of(owner, consent)
        record = one(expand(plain), "hasRecordOfActivity")
        (event,) = record[DPV + "hasConsentStatus"]
        assert plain["stated_by"] == word
        assert one(record, DCT + "provenance") == f"stated by the {word}"
        assert plain["events"][0]["entity_id"] == actor
        assert plain["source"] == (own["id"] if consent is narrower else None)
        assert (DCT + "source" in record) == (consent is narrower)
        assert (types(one(event, "isIndicatedBy")), one(one(event, "isIndicatedBy"), "hasIdentifier")) == (
            [side],
            actor,
        )


SECOND_EDITION: dict[str, Any] = {
    "recipients": [
        {"type": "account", "id": "ld-studio", "issuer": "https://id.example", "name": "The studio"},
        {"type": "organization", "id": "radio"},
    ],
    "modalities": ["voice", "face", "body", "name", "style", "text"],
    "territories": ["IE", "FR"],
    "uses": [{"purpose": "ads", "description": "One spot on the radio."}],
    "representation": {"kind": "counsel", "reference": "Bar 7"},
    "signature": {"method": "paper", "signed_at": "2026-11-01T00:00:00Z", "sha256": "0" * 64},
    "evidence": [{"kind": "audio", "sha256": "1" * 64, "media_type": "audio/wav"}],
    "guardian": {"relation": "mother", "id": "ld-mother"},
    "compensation_ref": "PO 7",
    "jurisdiction": "Ireland",
    "withdrawal": {"effect": "take_down"},
}


async def test_the_terms_of_the_second_edition_are_there_and_whose_statements_they_are(client_of: ClientOf) -> None:
    owner = client_of("ld-riders")
    path = await make_twin(owner, consent=False)
    consent = await grant(owner, path, "ads", "news", principal={"label": "Alex, by phone"}, **SECOND_EDITION)
    plain = await receipt_of(owner, consent)
    record = one(expand(plain), "hasRecordOfActivity")
    process = one(record, "hasProcess")

    assert (plain["assurance"], plain["stated_by"]) == ("recorded", "owner")
    limits = {"recipients", "modalities", "territories"}
    assert plain["statements"].keys() == SECOND_EDITION.keys() - limits
    for name in plain["statements"].keys() - {"signature"}:
        assert plain["statements"][name] == SECOND_EDITION[name], name
    assert plain["pii_processing"]["geographic_restrictions"] == ["FR", "IE"]
    assert [item["modality"] for item in plain["pii_processing"]["pii_information"]] == sorted(
        SECOND_EDITION["modalities"]
    )
    assert plain["pii_processing"]["jurisdiction"] == "IE"  # of the record, as the settings say
    assert one(one(record, "hasDataSubject"), "hasName") == "Alex, by phone"
    assert one(one(record, "hasEntity"), "hasIdentifier") == "ld-mother"
    studio, radio = process[DPV + "hasRecipient"]
    assert (types(studio), one(studio, "hasIdentifier"), one(studio, "hasName")) == (
        ["Recipient"], "ld-studio", "The studio",
    )  # fmt: skip
    assert (one(radio, "hasIdentifier"), DPV + "hasName" in radio) == ("radio", False)
    kinds = [item["@type"][0] for item in process[DPV + "hasPersonalData"]]
    assert kinds == [
        PD + "PhysicalCharacteristic", PD + "FacialPrint", PD + "Name", DPV + "PersonalData", PD + "Communication",
        PD + "VoiceCommunicationRecording",
    ]  # fmt: skip
    assert [place["@id"] for place in one(process, "hasRule")[DPV + "hasLocation"]] == [LOC + "FR", LOC + "IE"]
    ads, news = process[DPV + "hasPurpose"]
    assert one(ads, DCT + "description") == "One spot on the radio."
    assert DCT + "description" not in news


async def test_what_is_not_limited_is_not_invented(alice: Client) -> None:
    plain = await receipt_of(alice, await grant(alice, await make_twin(alice, consent=False)))
    process = one(one(expand(plain), "hasRecordOfActivity"), "hasProcess")

    assert plain["statements"] == {}
    assert plain["pii_processing"]["geographic_restrictions"] is None
    assert DPV + "hasRule" not in process
    assert one(process, "hasRecipient") == {"@type": [DPV + "Recipient"]}
    assert one(process, "hasPersonalData") == {"@type": [DPV + "PersonalData"]}


async def test_whoever_a_receipt_does_not_name_is_an_entity_or_a_representative(client_of: ClientOf) -> None:
    owner, other = client_of("ld-hider"), client_of("ld-other")
    operator = client_of("ld-operator", "twins:stop")
    path = await make_twin(owner, principals=["ld-other"], consent=False)
    voice = await grant(owner, path, "voice", principal="ld-named")
    ads = await grant(owner, path, "ads", principal="ld-named")
    await withdraw(operator, ads)
    assert (await other.post(f"{path}/refusals", json={"purposes": ["voice"]})).status_code == 201

    for consent, kind in ((voice, "Entity"), (ads, "Representative")):
        record = one(expand(await receipt_of(owner, consent)), "hasRecordOfActivity")
        ended = record[DPV + "hasConsentStatus"][1]
        assert one(ended, "isIndicatedBy") == {"@type": [DPV + kind]}
        assert types(one(ended, "hasDuration")) == ["EndlessDuration"]


async def test_a_consent_keeps_the_controller_of_its_day(settings: Settings) -> None:
    later = {**CONTROLLER, "name": "Other GmbH", "jurisdiction": "DE", "retention_period": "until the twin is erased"}
    own = token("ld-moving")
    receipts: list[dict[str, Any]] = []
    consents: list[dict[str, Any]] = []
    path = ""
    for controller in (None, CONTROLLER, later):
        changed = Settings(**(settings.model_dump() | {"controller": controller}))
        app = create_app(changed)
        headers = {"Authorization": f"Bearer {own}"}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://twins.test", headers=headers
        ) as client:
            path = path or await make_twin(client, consent=False)
            consents.append(await renew(client, consents[-1]) if consents else await grant(client, path))
            receipts = [await receipt_of(client, consent) for consent in consents]
        await app.close()

    assert [receipt["pii_processing"]["jurisdiction"] for receipt in receipts] == [None, "IE", "DE"]
    assert [receipt["pii_processing"]["pii_controllers"] for receipt in receipts] == [
        ["ld-moving"], ["ld-moving", CONTROLLER["name"]], ["ld-moving", "Other GmbH"],
    ]  # fmt: skip
    unsaid, said, last = (expand(receipt) for receipt in receipts)
    assert DCT + "conformsTo" not in unsaid
    assert unsaid.keys() | {DCT + "conformsTo"} == said.keys()
    process = one(one(last, "hasRecordOfActivity"), "hasProcess")
    assert types(one(process[DPV + "hasStorageCondition"][1], "hasDuration")) == ["UntilEventDuration"]
    for receipt in receipts:
        assert receipt["party_identification"][1] | {"party_id": ""} == {
            "party_id": "", "party_type": "dpv:DataController",
            "party_name": None, "party_address": None, "party_contact": None,
        }  # fmt: skip


async def test_a_receipt_from_before_still_verifies_by_its_key(settings: Settings) -> None:
    stored = json.loads((Path(__file__).parent / "earlier_receipt.json").read_text())
    keys = [json.loads(settings.receipt_keys.get_secret_value()), stored["key"]] if settings.receipt_keys else []
    app = create_app(settings.model_copy(update={"receipt_keys": SecretStr(json.dumps(keys))}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://twins.test") as client:
        published = (await client.get("/.well-known/jwks.json")).json()
    await app.close()
    found = jws.deserialize_compact(stored["receipt"], KeySet.import_key_set(published), algorithms=["ES256"])
    receipt = json.loads(found.payload)

    assert found.headers()["typ"] == "consent-receipt+jwt"
    assert receipt["pii_processing"]["pii_controllers"] == ["owner-of-receipts"]
    assert [event["entity_role"] for event in receipt["events"]] == ["owner", "principal"]
    assert jsonld.expand(receipt, {"documentLoader": no_network}) == []  # it was no JSON-LD, and is none


def test_the_document_lists_what_the_setting_has() -> None:
    text = (Path(__file__).parents[2] / "docs" / "RECEIPTS.md").read_text()
    table = text.partition("\n## The controller\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE)))) == set(CONTROLLER)
