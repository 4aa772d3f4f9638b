"""docs/RECEIPTS.md against receipts and certificates of the running application."""

import json
from typing import Any

import pytest
from joserfc.errors import JoseError

from tests.docs.erasures import signed_certificate_of, signed_certificate_of_account
from tests.docs.markdown import code, rows, section, words
from tests.support.app import Client, make_twin, token
from tests.support.consent import grant, location, renew, withdraw

NAME = "docs/RECEIPTS.md"


def _members(value: dict[str, Any], prefix: str = "") -> set[str]:
    """Return the names of the members, those of `pii_processing` with their path."""
    found = set()
    for name, member in value.items():
        found |= _members(member, f"{name}.") if name == "pii_processing" else {prefix + name}
    return found


def _documented(title: str) -> set[str]:
    return {word for cells in rows(section(NAME, title)) for word in words(cells[0])}


def _verified(url: str, text: str) -> dict[str, Any]:
    """Verify by the very lines that the document gives."""
    (lines,) = code(section(NAME, "Verify one"), "python")
    names: dict[str, Any] = {"base_url": url, "text": text}
    exec(lines, names)
    payload: dict[str, Any] = names["payload"]
    return payload


async def test_a_receipt_verifies_by_the_lines_of_the_document_and_has_its_members(url: str, owner: Client) -> None:
    consent = await grant(owner, await make_twin(owner), "voice")

    receipt = _verified(url, (await owner.get(f"{location(consent)}/receipt")).text)

    assert receipt["record_id"] == consent["id"]
    assert _members(receipt) == _documented("A consent receipt")


async def test_the_hash_of_a_notice_is_recomputed_by_the_lines_of_the_document(url: str, owner: Client) -> None:
    text = "Zoe\u0308 \u2068agrees\u2069.\r\n"
    notice = {"version": "1", "language": "de", "text": text}
    consent = await grant(owner, await make_twin(owner), "voice", notice=notice)
    receipt = _verified(url, (await owner.get(f"{location(consent)}/receipt")).text)
    (lines,) = code(section(NAME, "The notice that was shown"), "python")

    exec(lines, {"payload": receipt})
    assert receipt["pii_processing"]["privacy_notice"]["text"] == text
    receipt["pii_processing"]["privacy_notice"]["text"] = text.strip()
    with pytest.raises(AssertionError):
        exec(lines, {"payload": receipt})


async def test_an_altered_receipt_does_not_verify(url: str, owner: Client) -> None:
    consent = await grant(owner, await make_twin(owner), "voice")
    header, payload, signature = (await owner.get(f"{location(consent)}/receipt")).text.split(".")

    with pytest.raises(JoseError):
        _verified(url, f"{header}.{payload[:-8]}{'A' * 8}.{signature}")


async def test_the_statuses_of_receipts_are_those_of_the_document(url: str, owner: Client) -> None:
    path = await make_twin(owner)
    given = await grant(owner, path, "voice")
    replaced = await grant(owner, path, "training")
    renewed = await renew(owner, replaced)
    withdrawn = await grant(owner, path, "dubbing")
    await withdraw(owner, withdrawn)
    revoked = await grant(owner, path, "singing", principal="somebody else")
    await withdraw(owner, revoked)

    statuses = {
        _verified(url, (await owner.get(f"{location(consent)}/receipt")).text)["consent_status"]
        for consent in (given, replaced, renewed, withdrawn, revoked)
    }

    assert statuses | {"dpv:ConsentExpired"} == {
        word for cells in rows(section(NAME, "The state of consent")) for word in words(cells[1])
    }


async def test_a_receipt_of_a_consent_withdrawn_in_part_is_given_and_shows_the_refusal(url: str, owner: Client) -> None:
    path = await make_twin(owner, principals=["docs-person"])
    consent = await grant(owner, path, "voice", "face")
    headers = {"Authorization": f"Bearer {token('docs-person')}"}
    async with Client(base_url=url, headers=headers, trust_env=False) as person:
        await person.post(f"{path}/refusals", json={"purposes": ["face", "training"]})

    receipt = _verified(url, (await owner.get(f"{location(consent)}/receipt")).text)

    assert receipt["consent_status"] == "dpv:ConsentGiven"
    assert [(item["purpose"], item["by"]) for item in receipt["withdrawn"]] == [("face", "person")]
    assert [event["event_state"] for event in receipt["events"]] == ["dpv:ConsentGiven", "dpv:ConsentWithdrawn"]
    assert [receipt["events"][1][name] for name in ("entity_id", "entity_role")] == [None, "person"]
    (refusal,) = receipt["refusals"]
    assert (refusal["purposes"], refusal["by"]) == (["face", "training"], "account")
    assert refusal.keys() == {"purposes", "exceptions", "refused_at", "by"}
    assert "docs-person" not in str(receipt)


async def test_a_certificate_verifies_by_the_lines_of_the_document_and_has_its_members(url: str, owner: Client) -> None:
    certificate = _verified(url, await signed_certificate_of(owner, await make_twin(owner)))

    assert set(certificate) == _documented("An erasure certificate")
    assert set(certificate["remaining"]) == set(certificate["removed"])
    assert json.dumps(certificate["events"]) != "null"


async def test_the_certificate_of_an_account_covers_its_ledgers_by_the_lines_of_the_document(
    url: str, owner: Client
) -> None:
    for _ in range(5):
        await make_twin(owner)
    signed, path = await signed_certificate_of_account(owner)
    certificate = _verified(url, signed)
    entries = (await owner.get(f"{path}/ledgers?limit=100")).json()["items"]
    (lines,) = code(section(NAME, "The ledgers of an account"), "python")
    names: dict[str, Any] = {}
    exec(lines, names)

    assert set(certificate) == _documented("An erasure certificate") - {"ledgers", "events"} | {"tree"}
    assert certificate["tree"]["leaves"] == len(entries) >= 5
    assert [names["is_covered"](entry, certificate["tree"]) for entry in entries] == [True] * len(entries)
    assert not names["is_covered"](entries[0] | {"seq": 9}, certificate["tree"])
    assert not names["is_covered"](entries[0] | {"index": 1}, certificate["tree"])
    documented = {word for cells in rows(section(NAME, "What stays")) for word in words(cells[0])}
    sometimes = {"external_id_digests", "records_of_people"}
    assert {item["what"] for item in certificate["stays"]} | sometimes == documented
