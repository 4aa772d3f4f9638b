"""Receipts: whoever has one verifies it from the published keys alone, with any JOSE library."""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

import httpx
import pytest
from joserfc import jws
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from pydantic import SecretStr

from infra.new_secrets import receipt_key, signing_key
from tests.support.app import Client, ClientOf, make_twin, token
from tests.support.consent import HOUR, NOTICE, after, grant, location, pass_time, renew, withdraw
from tests.support.database import superuser
from tests.support.stores import Stores
from twins.app import create_app
from twins.settings import Settings

AppOf = Callable[[Settings], Awaitable[Client]]


def opened(receipt: str, keys: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Verify a receipt with a second library; return its header and payload."""
    found = jws.deserialize_compact(receipt, KeySet.import_key_set(keys), algorithms=["ES256"])  # type: ignore[arg-type]
    return dict(found.headers()), json.loads(found.payload)


async def keys_of(client: Client) -> dict[str, Any]:
    answer = await client.get("/.well-known/jwks.json")
    assert answer.status_code == 200
    keys: dict[str, Any] = answer.json()
    return keys


async def receipt_of(client: Client, consent: dict[str, Any]) -> str:
    answer = await client.get(f"{location(consent)}/receipt")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/jose"
    assert answer.headers["cache-control"] == "no-store"
    return answer.text


@pytest.fixture
async def client_with(settings: Settings) -> AsyncIterator[AppOf]:
    """`client_with(settings)`: one account's client of an application with these settings."""
    async with AsyncExitStack() as stack:

        async def client(changed: Settings) -> Client:
            app = create_app(changed)
            stack.push_async_callback(app.close)
            headers = {"Authorization": f"Bearer {token('rotating')}"}
            transport = httpx.ASGITransport(app)
            return await stack.enter_async_context(
                Client(transport=transport, base_url="http://twins.test", headers=headers)
            )

        yield client


async def test_a_receipt_verifies_from_the_published_keys_alone(client_of: ClientOf, anyone: Client) -> None:
    owner, principal = client_of("owner-of-receipts"), client_of("paula")
    path = await make_twin(owner, consent=False)
    terms = {"principal": "paula", "method": "web-form", "expires_at": after(HOUR)}
    consent = await grant(owner, path, "voice", "training", **terms)
    keys = await keys_of(anyone)
    for client in (owner, principal):
        header, payload = opened(await receipt_of(client, consent), keys)
        assert (header["alg"], header["typ"]) == ("ES256", "consent-receipt+jwt")
        assert header["kid"] in [key["kid"] for key in keys["keys"]]
        assert payload["record_id"] == consent["id"]
        assert payload["pii_principal_id"] == "paula"
        assert payload["assurance"] == "recorded"
        assert (payload["events"][0]["entity_id"], payload["events"][0]["entity_role"]) == (
            "owner-of-receipts",
            "owner",
        )
        processing = payload["pii_processing"]
        assert processing["pii_controllers"] == ["owner-of-receipts", "Example Ltd"]
        assert processing["subject"] == consent["twin_id"]
        assert processing["purposes"] == ["training", "voice"]
        assert processing["collection_method"] == "web-form"
        assert processing["privacy_notice"] == consent["notice"]
        times = [datetime.fromisoformat(processing[name]) for name in ("valid_from", "valid_until")]
        assert times == [datetime.fromisoformat(consent[name]) for name in ("given_at", "expires_at")]
        assert payload["consent_status"] == "dpv:ConsentGiven"


async def test_a_receipt_says_what_became_of_the_consent(alice: Client, anyone: Client, stores: Stores) -> None:
    path = await make_twin(alice, consent=False)
    keys = await keys_of(anyone)

    async def told(consent: dict[str, Any]) -> tuple[str, list[str]]:
        _, payload = opened(await receipt_of(alice, consent), keys)
        return payload["consent_status"], [event["event_state"] for event in payload["events"]]

    consent = await grant(alice, path, expires_at=after(HOUR))
    renewed = await renew(alice, consent)
    assert await told(consent) == ("dpv:ConsentStatusInvalidForProcessing", ["dpv:ConsentGiven"])
    assert await told(renewed) == ("dpv:RenewedConsentGiven", ["dpv:RenewedConsentGiven"])
    async with superuser(stores) as connection:
        await pass_time(connection, 2 * HOUR, path)
    assert await told(renewed) == ("dpv:ConsentExpired", ["dpv:RenewedConsentGiven"])
    await withdraw(alice, renewed)
    assert await told(renewed) == ("dpv:ConsentWithdrawn", ["dpv:RenewedConsentGiven", "dpv:ConsentWithdrawn"])


async def test_a_receipt_names_who_acted_and_the_client_of_their_token_and_nobody_else(
    client_of: ClientOf, anyone: Client
) -> None:
    keys = await keys_of(anyone)

    def by(sub: str, client: str | None) -> Client:
        """Return a client with a token that names the software."""
        found = client_of(sub)
        found.headers["Authorization"] = f"Bearer {token(sub, azp=client)}"
        return found

    owner, paula, quentin = by("acting-owner", "console"), by("acting-paula", "an-app"), by("acting-quentin", "other")
    operator = client_of("acting-operator", "twins:stop")
    path = await make_twin(owner, principals=["acting-quentin"], consent=False)

    async def told(consent: dict[str, Any]) -> list[tuple[str | None, str | None, str | None]]:
        _, payload = opened(await receipt_of(owner, consent), keys)
        return [(event["entity_id"], event["entity_role"], event["client"]) for event in payload["events"]]

    recorded, own = ("acting-owner", "owner", "console"), ("acting-paula", "principal", "an-app")
    terms = {"principal": "acting-paula"}
    voice = await grant(owner, path, "voice", **terms)
    for purpose in ("ads", "games", "films", "news"):
        await grant(owner, path, purpose, **terms)
    ads, games, films, news = (await owner.get(f"{path}/consents")).json()["items"][:4][::-1]
    assert await told(voice) == [recorded]
    await withdraw(owner, ads)
    assert await told(ads) == [recorded, recorded]
    await withdraw(paula, games)
    assert await told(games) == [recorded, own]
    await withdraw(operator, films)
    assert await told(films) == [recorded, (None, "operator", None)]
    renewed = await renew(paula, voice)
    assert await told(renewed) == [own]
    assert await told(voice) == [recorded]
    # A no to everything: of another person, whom the receipt does not name, and later of paula.
    stopped = await quentin.post(f"{path}/refusals")
    assert stopped.status_code == 201
    for consent, given in ((news, recorded), (renewed, own)):
        assert await told(consent) == [given, (None, "person", None)]
    assert (await quentin.delete(stopped.headers["location"])).status_code == 204
    later = await grant(paula, path, "later")
    assert (await paula.post(f"{path}/refusals")).is_success
    assert await told(later) == [own, own]
    assert (await owner.get(f"{path}/ledger/verification")).json()["valid"] is True


async def test_a_no_that_is_taken_again_names_who_said_it_first(client_of: ClientOf, anyone: Client) -> None:
    owner, paula = client_of("first-owner"), client_of("first-paula")
    path = await make_twin(owner, consent=False)
    consent = await grant(owner, path, "voice", principal="first-paula")
    await withdraw(owner, consent)
    await withdraw(paula, consent)
    _, payload = opened(await receipt_of(paula, consent), await keys_of(anyone))

    assert payload["events"][1]["entity_id"] == "first-owner"
    assert payload["consent_status"] == "dpv:ConsentRevoked"
    assert [refusal["by"] for refusal in payload["refusals"]] == ["account"]


async def test_the_published_keys_are_public_and_complete(anyone: Client) -> None:
    keys = (await keys_of(anyone))["keys"]

    for key in keys:
        assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
        assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("EC", "P-256", "sig", "ES256")
        # The key id is the RFC 7638 thumbprint, computed here by the second library.
        imported = KeySet.import_key_set({"keys": [{name: key[name] for name in ("kty", "crv", "x", "y")}]}).keys[0]
        assert imported.thumbprint() == key["kid"]


async def test_every_altered_character_of_a_receipt_is_refused(alice: Client, anyone: Client) -> None:
    receipt = await receipt_of(alice, await grant(alice, await make_twin(alice, consent=False)))
    keys = await keys_of(anyone)
    assert opened(receipt, keys)
    for place in [*range(0, len(receipt), 97), receipt.rindex(".") + 1]:
        if receipt[place] == ".":
            continue
        altered = receipt[:place] + ("A" if receipt[place] != "A" else "B") + receipt[place + 1 :]
        with pytest.raises((JoseError, ValueError)):
            opened(altered, keys)


async def test_another_payload_under_the_same_signature_is_refused(alice: Client, anyone: Client) -> None:
    consent = await grant(alice, await make_twin(alice, consent=False), "voice")
    header, payload, signature = (await receipt_of(alice, consent)).split(".")
    told = json.loads(base64.urlsafe_b64decode(payload + "=="))
    told["pii_processing"]["purposes"] = ["everything"]
    forged = base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=")

    with pytest.raises(BadSignatureError):
        opened(f"{header}.{forged}.{signature}", await keys_of(anyone))


async def test_a_receipt_of_another_key_is_refused(client_with: AppOf, settings: Settings, anyone: Client) -> None:
    other = await client_with(settings.model_copy(update={"receipt_keys": SecretStr(receipt_key())}))
    receipt = await receipt_of(other, await grant(other, await make_twin(other, consent=False)))
    keys = await keys_of(anyone)

    with pytest.raises(InvalidKeyIdError):
        opened(receipt, keys)
    posing = {"keys": [key | {"kid": (await keys_of(other))["keys"][0]["kid"]} for key in keys["keys"]]}
    with pytest.raises(BadSignatureError):
        opened(receipt, posing)


async def test_after_a_rotation_old_receipts_still_verify_and_new_ones_have_the_new_key(
    client_with: AppOf, settings: Settings
) -> None:
    old, new = signing_key(), signing_key()

    def having(*keys: dict[str, str]) -> Settings:
        return settings.model_copy(update={"receipt_keys": SecretStr(json.dumps(keys))})

    before, after_it = await client_with(having(old)), await client_with(having(new, old))
    consent = await grant(before, await make_twin(before, consent=False), notice=NOTICE)
    old_receipt, new_receipt = await receipt_of(before, consent), await receipt_of(after_it, consent)
    published_before, published_after = await keys_of(before), await keys_of(after_it)
    (old_kid,) = [key["kid"] for key in published_before["keys"]]
    new_kid = published_after["keys"][0]["kid"]

    assert [key["kid"] for key in published_after["keys"]] == [new_kid, old_kid]
    assert new_kid != old_kid
    assert opened(old_receipt, published_after)[0]["kid"] == old_kid
    assert opened(new_receipt, published_after)[0]["kid"] == new_kid
    with pytest.raises(InvalidKeyIdError):
        opened(new_receipt, published_before)
