"""What a question to the gate may name beside the purpose, and what limits a consent: every answer, and their order."""

import itertools
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.app import Client, ClientOf, id_of, is_problem, make_twin, token
from tests.support.consent import grant, location, renew
from tests.support.database import superuser
from tests.support.stores import Stores
from twins.app import create_app
from twins.settings import Settings

STUDIO = {"recipient_type": "organization", "recipient_id": "studio"}
LIMITS = {
    "recipients": [{"type": "organization", "id": "studio", "name": "The studio"}],
    "modalities": ["voice", "face"],
    "territories": ["DE", "FR"],
}


async def ask(client: Client, path: str, purpose: str = "a", **attributes: Any) -> dict[str, Any]:
    """Ask the gate alone and in a batch, which has to answer the same."""
    answer = await client.get(f"{path}/decision", params={"purpose": purpose} | attributes)
    assert answer.status_code == 200, answer.text
    decision: dict[str, Any] = answer.json()
    item = {"twin_id": str(id_of(path)), "purpose": purpose} | attributes
    if issuer := item.pop("principal_issuer", None):
        item["principal"] = {"issuer": issuer, "subject": item["principal"]}
    items = [{"twin_id": str(id_of(path)), "purpose": "b"}, item]
    batch = await client.post("/api/v1/decisions", json={"items": items})
    assert batch.status_code == 200, batch.text
    first, same = batch.json()["items"]
    assert same | {"evaluated_at": None} == decision | {"evaluated_at": None}
    assert first["recipient"]["type"] == "account"
    return decision


async def reason(client: Client, path: str, **attributes: Any) -> str:
    return str((await ask(client, path, **attributes))["reason"])


# --- Limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "asked", "expected"),
    [
        ("recipients", {}, "granted"),  # the owner, asking for itself
        ("recipients", STUDIO, "granted"),
        ("recipients", STUDIO | {"recipient_id": "Studio"}, "recipient_not_covered"),
        ("recipients", STUDIO | {"recipient_type": "account"}, "recipient_not_covered"),
        ("recipients", STUDIO | {"recipient_issuer": "https://acme.example"}, "recipient_not_covered"),
        ("modalities", {}, "modality_not_covered"),
        ("modalities", {"modality": "voice"}, "granted"),
        ("modalities", {"modality": "text"}, "modality_not_covered"),
        ("territories", {}, "territory_not_covered"),
        ("territories", {"territory": "FR"}, "granted"),
        ("territories", {"territory": "US"}, "territory_not_covered"),
        (None, STUDIO | {"modality": "style", "territory": "US"}, "granted"),
    ],
)
async def test_a_limited_term_that_the_question_leaves_out_is_a_no(
    alice: Client, limit: str | None, asked: dict[str, str], expected: str
) -> None:
    path = await make_twin(alice, consent=False)
    await grant(alice, path, "a", **({limit: LIMITS[limit]} if limit else {}))

    assert await reason(alice, path, **asked) == expected


async def test_whoever_names_no_recipient_is_it(alice: Client, client_of: ClientOf) -> None:
    name = f"vendor-{uuid4()}"
    vendor, other = client_of(name, "twins:decide"), client_of(f"other-{uuid4()}", "twins:decide")
    path = await make_twin(alice, consent=False)
    await grant(alice, path, "a", recipients=[{"type": "account", "id": name}])

    assert await reason(vendor, path) == "granted"
    assert await reason(other, path) == "recipient_not_covered"
    named = {"recipient_type": "account", "recipient_id": name}
    decision = await ask(other, path, **named)
    assert (decision["reason"], decision["recipient"]) == ("granted", {"type": "account", "id": name, "issuer": None})
    # The owner, asking for itself by name, is one recipient among others.
    assert await reason(alice, path) == "granted"
    me = (await alice.get("/api/v1/me")).json()["subject"]
    assert await reason(alice, path, recipient_type="account", recipient_id=me) == "recipient_not_covered"


async def test_a_recipient_of_an_identity_provider_is_found_by_its_issuer(alice: Client) -> None:
    issuer = "https://id.example"
    path = await make_twin(alice, consent=False)
    await grant(alice, path, "a", recipients=[{"type": "account", "id": "studio", "issuer": issuer}])
    named = {"recipient_type": "account", "recipient_id": "studio"}

    assert await reason(alice, path, **named) == "recipient_not_covered"
    assert await reason(alice, path, **named, recipient_issuer=issuer) == "granted"


async def test_a_renewal_and_a_withdrawal_change_what_the_gate_compares(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    consent = await grant(alice, path, "a", **LIMITS)
    asked = STUDIO | {"modality": "text", "territory": "DE"}
    seen = [await reason(alice, path, **asked)]
    consent = await renew(alice, consent, modalities=["text"])
    seen.append(await reason(alice, path, **asked))
    consent = await renew(alice, consent, modalities=None, recipients=None, territories=None)
    seen.append(await reason(alice, path))
    await alice.post(f"{location(consent)}/withdraw")
    seen.append(await reason(alice, path, **asked))

    assert seen == ["modality_not_covered", "granted", "granted", "withdrawn"]


# --- Assurance and the person ---------------------------------------------------------------------


async def test_the_stricter_assurance_decides(alice: Client, client_of: ClientOf) -> None:
    sub = f"paula-{uuid4()}"
    path = await make_twin(alice, consent=False, principals=[sub])
    await grant(alice, path, "recorded", principal=sub)
    await grant(client_of(sub), path, "token")
    words = ("recorded", "link", "token")

    assert {
        (purpose, word): (await ask(alice, path, purpose, min_assurance=word))["reason"]
        for purpose in ("recorded", "token")
        for word in words
    } == {
        ("recorded", "recorded"): "granted",
        ("recorded", "link"): "assurance_too_low",
        ("recorded", "token"): "assurance_too_low",
    } | {("token", word): "granted" for word in words}


async def test_a_named_person_is_whose_own_yes_counts(alice: Client, client_of: ClientOf) -> None:
    sub = f"paula-{uuid4()}"
    path = await make_twin(alice, consent=False, principals=[sub])
    await grant(alice, path, "recorded", principal=sub)
    await grant(client_of(sub), path, "token")

    assert (await ask(alice, path, "token", principal=sub))["reason"] == "granted"
    assert (await ask(alice, path, "recorded", principal=sub))["reason"] == "assurance_too_low"
    assert (await ask(alice, path, "token", principal="another"))["reason"] == "assurance_too_low"
    of_an_issuer = {"principal": sub, "principal_issuer": "https://id.example"}
    assert (await ask(alice, path, "token", **of_an_issuer))["reason"] == "assurance_too_low"
    assert (await ask(alice, path, "nothing", principal=sub))["reason"] == "no_consent"


@pytest.fixture
async def strict(settings: Settings) -> AsyncIterator[Client]:
    """An owner's client of a deployment that takes nothing but a person's own word."""
    app = create_app(settings.model_copy(update={"min_assurance": "token"}))
    headers = {"Authorization": f"Bearer {token(f'strict-{uuid4()}')}"}
    async with Client(transport=httpx.ASGITransport(app), base_url="http://twins.test", headers=headers) as client:
        yield client
    await app.close()


async def test_a_deployment_may_take_nothing_but_a_persons_own_word(strict: Client) -> None:
    path = await make_twin(strict, consent=True)
    owner = (await strict.get("/api/v1/me")).json()["subject"]

    assert (await strict.get(path)).json()["consent"] is False
    assert (await ask(strict, path, "general", min_assurance="recorded"))["reason"] == "assurance_too_low"
    refused = await strict.put(f"{path}/persona", json={"summary": "One."})
    assert refused.json()["reason"] == "assurance_too_low"
    listed = (await strict.get("/api/v1/twins", params={"consent": "true"})).json()["items"]
    assert listed == []
    await strict.patch(path, json={"principals": [owner]})
    assert (await strict.patch(path, json={"consent": True})).json()["consent"] is True
    assert (await strict.put(f"{path}/persona", json={"summary": "One."})).status_code == 200


async def test_this_api_itself_uses_a_twin_as_text_wherever_that_is(alice: Client, client_of: ClientOf) -> None:
    name = f"runtime-{uuid4()}"
    runtime = client_of(name, "twins:prompt")
    path = await make_twin(alice, consent=False)
    consent = await grant(alice, path, modalities=["text"], territories=["DE"], recipients=LIMITS["recipients"])

    assert (await alice.get(path)).json()["consent"] is True
    assert (await alice.put(f"{path}/persona", json={"summary": "One."})).status_code == 200
    assert (await alice.get(f"{path}/persona/prompt")).status_code == 200
    refused = await runtime.get(f"{path}/persona/prompt")
    assert (refused.status_code, refused.json()["reason"]) == (403, "recipient_not_covered")
    consent = await renew(alice, consent, recipients=[{"type": "account", "id": name}])
    assert (await runtime.get(f"{path}/persona/prompt")).status_code == 200
    await renew(alice, consent, modalities=["voice"])
    assert (await alice.get(path)).json()["consent"] is False
    refused = await alice.get(f"{path}/persona/prompt")
    assert (refused.status_code, refused.json()["reason"]) == (403, "modality_not_covered")


# --- The order ------------------------------------------------------------------------------------

ORDER = (
    "unconfirmed_after_restore",
    "withdrawn",
    "refused",
    "no_consent",
    "expired",
    "not_yet_valid",
    "assurance_too_low",
    "recipient_not_covered",
    "modality_not_covered",
    "territory_not_covered",
    "granted",
)


async def test_the_first_reason_that_applies_is_the_answer(stores: Stores) -> None:
    """Each pair of causes at once, by the function that every room asks."""
    causes = {
        "unconfirmed_after_restore": {"is_unconfirmed": "true"},
        "withdrawn": {"ended": "'withdrawn'"},
        "refused": {"stop_seq": "5"},
        "no_consent": {"standing": "'no_consent'"},
        "expired": {"standing": "'expired'"},
        "not_yet_valid": {"standing": "'not_yet_valid'"},
        "assurance_too_low": {"lowest": "1::smallint"},
        "recipient_not_covered": {"recipients": "'{other}'::text[]"},
        "modality_not_covered": {"modalities": "'{face}'::text[]"},
        "territory_not_covered": {"territories": "'{DE}'::text[]"},
        "granted": {},
    }
    asked = {
        "is_unconfirmed": "false",
        "stop_seq": "NULL",
        "seq": "1",
        "ended": "NULL",
        "standing": "'granted'",
        "assurance": "0::smallint",
        "lowest": "0::smallint",
        "account": "'paula'",
        "principal": "NULL",
        "recipients": "NULL",
        "recipient": "'me'",
        "modalities": "NULL",
        "modality": "NULL",
        "territories": "NULL",
        "territory": "NULL",
    }
    async with superuser(stores) as connection:
        for first, second in itertools.combinations_with_replacement(ORDER, 2):
            values = asked | causes[second] | causes[first]
            arguments = ", ".join(f"{name} => {value}" for name, value in values.items())
            assert await connection.fetchval(f"SELECT reason_of({arguments})") == first, (first, second)
        other = ", ".join(f"{name} => {value}" for name, value in (asked | {"principal": "'quentin'"}).items())
        assert await connection.fetchval(f"SELECT reason_of({other})") == "assurance_too_low"


# --- Questions that do not fit --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "parameter"),
    [
        ({"recipient_type": "account"}, "recipient_id"),
        ({"recipient_id": "studio"}, "recipient_type"),
        ({"recipient_issuer": "https://id.example"}, "recipient_id"),
        ({"recipient_type": "Account", "recipient_id": "x"}, "recipient_type"),
        ({"recipient_type": "account", "recipient_id": "a\nb"}, "recipient_id"),
        ({"recipient_type": "account", "recipient_id": "x", "recipient_issuer": "a b"}, "recipient_issuer"),
        ({"modality": "smell"}, "modality"),
        ({"territory": "de"}, "territory"),
        ({"territory": "ZZ"}, "territory"),
        ({"min_assurance": "high"}, "min_assurance"),
        ({"principal": ""}, "principal"),
    ],
)
async def test_a_question_that_does_not_fit_is_refused(alice: Client, asked: dict[str, str], parameter: str) -> None:
    path = await make_twin(alice)
    single = await alice.get(f"{path}/decision", params=asked)
    item = {"twin_id": str(id_of(path))} | asked
    batch = await alice.post("/api/v1/decisions", json={"items": [item]})

    assert is_problem(single, 422, "validation-failed")
    assert single.json()["errors"][0]["parameter"] == parameter
    assert is_problem(batch, 422, "validation-failed")
    assert batch.json()["errors"][0]["pointer"].startswith(f"#/items/0/{parameter}")


async def test_an_issuer_without_its_account_and_a_label_are_refused(alice: Client) -> None:
    path = await make_twin(alice)
    single = await alice.get(f"{path}/decision", params={"principal_issuer": "https://id.example"})
    assert single.json()["errors"][0]["parameter"] == "principal"
    item = {"twin_id": str(id_of(path)), "principal": {"label": "Alex"}}
    assert is_problem(await alice.post("/api/v1/decisions", json={"items": [item]}), 422, "validation-failed")
