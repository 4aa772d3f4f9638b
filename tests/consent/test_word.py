"""Whose word a consent is: its assurance, who may widen it, what a person's own yes takes the place of, and terms."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
from jose import jws

from tests.support.app import Client, ClientOf, is_problem, make_twin
from tests.support.consent import HOUR, NOTICE, after, decide, grant, ledger, location, reason, renew, verify, withdraw
from tests.support.database import superuser
from tests.support.erasure import finish
from tests.support.stores import Stores
from twins.context import Context


@pytest.fixture
def sub() -> str:
    return f"paula-{uuid4()}"


@pytest.fixture
def paula(client_of: ClientOf, sub: str) -> Client:
    return client_of(sub)


async def twin_of(owner: Client, *principals: str) -> str:
    return await make_twin(owner, consent=False, principals=list(principals))


async def refused(client: Client, url: str, body: Any = None) -> bool:
    return is_problem(await client.post(url, json=body), 409, "person-must-consent")


# --- Assurance ------------------------------------------------------------------------------------


async def test_only_a_listed_accounts_own_yes_is_by_token(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    by_owner = await grant(alice, path, "a", principal=sub)
    by_person = await grant(paula, path, "b")

    assert [consent["assurance"] for consent in (by_owner, by_person)] == ["recorded", "token"]
    assert [(await decide(alice, path, purpose))["assurance"] for purpose in "ab"] == ["recorded", "token"]
    assert [e["event"].get("assurance") for e in await ledger(alice, path)] == ["recorded", "token"]
    items = [{"twin_id": by_owner["twin_id"], "purpose": purpose} for purpose in "abc"]
    batch = (await alice.post("/api/v1/decisions", json={"items": items})).json()["items"]
    assert [item["assurance"] for item in batch] == ["recorded", "token", None]
    assert (await verify(alice, path))["valid"] is True


async def test_an_owner_whom_the_twin_lists_is_a_person_and_one_whom_it_does_not_list_is_not(
    client_of: ClientOf, sub: str
) -> None:
    owner = client_of(sub)
    unlisted, listed = await twin_of(owner), await twin_of(owner, sub)

    assert [(await grant(owner, path))["assurance"] for path in (unlisted, listed)] == ["recorded", "token"]
    made = await owner.post("/api/v1/twins", json={"twin_name": "A", "use_case": "b", "tone": "c", "consent": True})
    (consent,) = (await owner.get(f"{made.headers['location']}/consents")).json()["items"]
    assert consent["assurance"] == "recorded"


async def test_the_own_yes_of_an_account_that_only_consents_name_is_recorded(
    alice: Client, paula: Client, sub: str
) -> None:
    path = await twin_of(alice)
    first = await grant(alice, path, "a", principal=sub)
    own = await grant(paula, path, "b")

    assert [first["assurance"], own["assurance"]] == ["recorded", "recorded"]
    assert await refused(alice, f"{path}/consents", {"purposes": ["c"], "notice": NOTICE})


async def test_assurance_is_judged_when_the_yes_is_given(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    consent = await grant(paula, path, "a")
    await alice.patch(path, json={"principals": []})

    assert (await alice.get(location(consent))).json()["assurance"] == "token"
    assert (await decide(alice, path, "a"))["assurance"] == "token"
    # Once a listed account has said yes, an unlisted one grants nothing more.
    assert await refused(paula, f"{path}/consents", {"purposes": ["b"], "notice": NOTICE})
    assert await refused(paula, f"{location(consent)}/renew")
    await alice.patch(path, json={"principals": [sub]})
    assert (await grant(paula, path, "b"))["assurance"] == "token"


async def test_a_person_raises_their_recorded_consent_by_renewing_it(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    renewed = await renew(paula, await grant(alice, path, "a", principal=sub))

    assert (renewed["assurance"], renewed["source"]) == ("token", None)
    assert (await decide(alice, path, "a"))["assurance"] == "token"


# --- Labels ---------------------------------------------------------------------------------------


async def test_a_label_names_a_person_and_is_no_account(alice: Client, client_of: ClientOf) -> None:
    name = f"Alex {uuid4()}"
    namesake = client_of(name)
    path = await twin_of(alice)
    consent = await grant(alice, path, "a", principal={"label": name})

    assert (consent["principal"], consent["assurance"]) == ({"label": name}, "recorded")
    assert (await namesake.get("/api/v1/me/consents")).json()["items"] == []
    for method, url in (("GET", location(consent)), ("POST", f"{path}/refusals"), ("GET", f"{path}/decision")):
        assert is_problem(await namesake.request(method, url), 404, "not-found")
    assert is_problem(await namesake.post(f"{location(consent)}/withdraw"), 404, "not-found")
    renewed = await renew(alice, consent, expires_at=after(HOUR))
    assert renewed["principal"] == {"label": name}
    assert (await verify(alice, path))["valid"] is True
    assert (await withdraw(alice, renewed))["withdrawn_by"] == "owner"


async def test_somebody_else_whom_the_twin_names_withdraws_no_labelled_consent(
    alice: Client, paula: Client, sub: str
) -> None:
    path = await twin_of(alice, sub)
    consent = await grant(alice, path, "a", principal={"label": "Alex"})

    assert is_problem(await paula.post(f"{location(consent)}/withdraw"), 404, "not-found")
    assert await reason(alice, path, "a") == "granted"


@pytest.mark.parametrize(
    "principal", [{"label": ""}, {"label": 7}, {"label": "a", "issuer": "b"}, {"label": "a\nb"}, {}]
)
async def test_a_label_that_is_none_is_refused(alice: Client, principal: Any) -> None:
    body = {"purposes": ["a"], "notice": NOTICE, "principal": principal}
    answer = await alice.post(f"{await twin_of(alice)}/consents", json=body)

    assert is_problem(answer, 422, "validation-failed")


async def test_a_person_speaks_for_themself_alone(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    for principal in ("somebody-else", {"label": "Alex"}):
        body = {"purposes": ["a"], "notice": NOTICE, "principal": principal}
        answer = await paula.post(f"{path}/consents", json=body)
        assert is_problem(answer, 422, "validation-failed")
        assert answer.json()["errors"][0]["pointer"] == "#/principal"


# --- A person's yes takes the place of what is recorded -------------------------------------------


async def test_a_persons_yes_takes_its_purposes_from_recorded_consents(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    old = await grant(alice, path, "a", "b", principal={"label": "Alex"})
    other = await grant(alice, path, "c", principal="quentin")
    own = await grant(paula, path, "a", "c")

    states = [(await alice.get(location(consent))).json() for consent in (old, other, own)]
    assert [(one["state"], one["replaced_by"]) for one in states] == [
        ("given", None),
        ("replaced", own["id"]),
        ("given", None),
    ]
    assert [one["taken"] for one in states] == [["a"], ["c"], []]
    receipt = await alice.get(f"{location(old)}/receipt")
    assert json.loads(jws.get_unverified_claims(receipt.text))["taken"] == ["a"]
    assert [(await decide(alice, path, purpose))["consent_id"] for purpose in "abc"] == [
        own["id"],
        old["id"],
        own["id"],
    ]
    kinds = [(entry["event"]["type"], entry["event"].get("replaced_by")) for entry in await ledger(alice, path)]
    assert kinds == [("given", None)] * 2 + [("replaced", own["id"])] * 2 + [("given", None)]
    assert (await verify(alice, path))["reason"] is None
    # What is left of the old consent is narrowed and withdrawn by itself.
    assert (await renew(alice, old, expires_at=after(HOUR)))["purposes"] == ["b"]
    await withdraw(alice, old)
    assert [await reason(alice, path, purpose) for purpose in "abc"] == ["granted", "withdrawn", "granted"]
    assert (await verify(alice, path))["reason"] is None


async def test_nobody_takes_the_place_of_a_yes_by_token(alice: Client, client_of: ClientOf, sub: str) -> None:
    rosa = f"rosa-{uuid4()}"
    path = await twin_of(alice, sub, rosa)
    first = await grant(client_of(sub), path, "a")
    for client in (client_of(sub), client_of(rosa)):
        answer = await client.post(f"{path}/consents", json={"purposes": ["a", "b"], "notice": NOTICE})
        assert is_problem(answer, 409, "consent-active")
        assert answer.json()["consent_id"] == first["id"]
    assert await reason(alice, path, "b") == "no_consent"


async def test_all_withdrawn_is_withdrawn_and_not_replaced(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    old = await grant(alice, path, "a", "b")
    await grant(paula, path, "a")
    await alice.post(f"{location(old)}/withdraw", json={"purposes": ["b"]})
    partly = (await alice.get(location(old))).json()
    await withdraw(alice, old)

    assert partly["state"] == "replaced"
    assert (await alice.get(location(old))).json()["state"] == "withdrawn"


# --- The owner narrows ----------------------------------------------------------------------------

WIDE: dict[str, Any] = {
    "recipients": [{"type": "organization", "id": "acme"}, {"type": "account", "id": "studio", "name": "Studio"}],
    "modalities": ["voice", "text"],
    "territories": ["DE", "FR"],
    "uses": [{"purpose": "a", "description": "Dubbing."}, {"purpose": "b", "description": "Adverts."}],
    "representation": {"kind": "none"},
}
NARROWER: list[dict[str, Any]] = [
    {"purposes": ["a"]},
    {"recipients": [{"type": "account", "id": "studio", "name": "Studio"}]},
    {"modalities": ["voice"]},
    {"territories": ["DE"]},
    {"not_before": None},
]
WIDER: list[dict[str, Any]] = [
    {"purposes": ["a"], "expires_at": None},
    {"recipients": None},
    {"recipients": [*WIDE["recipients"], {"type": "account", "id": "third"}]},
    {"recipients": [{"type": "account", "id": "studio", "issuer": "https://acme.example", "name": "Studio"}]},
    {"modalities": ["voice", "face"]},
    {"modalities": None},
    {"territories": ["DE", "US"]},
    {"territories": None},
    {"purposes": ["a"], "method": "phone"},
    {"purposes": ["a"], "notice": NOTICE | {"text": "Anything."}},
    {"purposes": ["a"], "jurisdiction": "DE"},
    {"purposes": ["a"], "uses": [{"purpose": "a", "description": "Anything."}]},
    {"purposes": ["a"], "representation": {"kind": "union"}},
    {"purposes": ["a"], "guardian": {"relation": "mother", "id": "mona"}},
    {},
]


@pytest.mark.parametrize("change", [change for change in NARROWER if change != {"not_before": None}])
async def test_the_owner_narrows_what_a_person_agreed_to(
    alice: Client, paula: Client, sub: str, change: dict[str, Any]
) -> None:
    path = await twin_of(alice, sub)
    end = after(HOUR)
    own = await grant(paula, path, "a", "b", expires_at=end, **WIDE)
    narrowed = await renew(alice, own, **({"expires_at": end} | change))
    again = await renew(alice, narrowed, expires_at=after(HOUR / 2))

    assert [(one["assurance"], one["source"]) for one in (own, narrowed, again)] == [
        ("token", None),
        ("token", own["id"]),
        ("token", own["id"]),
    ]
    assert (narrowed["principal"], again["state"]) == (sub, "given")
    if "purposes" in change:
        assert narrowed["uses"] == WIDE["uses"][:1]
        assert await reason(alice, path, "b") == "withdrawn"
        old = (await alice.get(location(own))).json()
        assert [(item["purpose"], item["by"]) for item in old["withdrawn"]] == [("b", "owner")]
    assert (await verify(alice, path))["reason"] is None


@pytest.mark.parametrize("change", WIDER)
async def test_the_owner_widens_nothing_that_a_person_agreed_to(
    alice: Client, paula: Client, sub: str, change: dict[str, Any]
) -> None:
    path = await twin_of(alice, sub)
    end = after(HOUR)
    own = await grant(paula, path, "a", "b", expires_at=end, **WIDE)
    before = await ledger(alice, path)

    assert await refused(alice, f"{location(own)}/renew", {"expires_at": end} | change)
    assert await ledger(alice, path) == before
    assert (await alice.get(location(own))).json() == own


async def test_the_person_widens_and_narrows_their_own(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    own = await grant(paula, path, "a", "b", expires_at=after(HOUR), **WIDE)
    widened = await renew(paula, own, expires_at=None, recipients=None, modalities=None, territories=None)
    narrowed = await renew(paula, widened, purposes=["b"])

    assert widened["recipients"] is widened["modalities"] is widened["territories"] is widened["expires_at"] is None
    assert (narrowed["purposes"], narrowed["source"]) == (["b"], None)
    assert [await reason(alice, path, purpose) for purpose in "ab"] == ["withdrawn", "granted"]
    assert (await verify(alice, path))["reason"] is None


@pytest.mark.parametrize("purposes", [["c"], ["a", "c"], []])
async def test_a_renewal_names_no_other_purposes(alice: Client, purposes: list[str]) -> None:
    consent = await grant(alice, await twin_of(alice), "a", "b")
    answer = await alice.post(f"{location(consent)}/renew", json={"purposes": purposes})

    assert is_problem(answer, 422, "validation-failed")
    assert answer.json()["errors"][0]["pointer"] == "#/purposes"


# --- Terms ----------------------------------------------------------------------------------------

DIGEST = "a" * 64
ALL: dict[str, Any] = WIDE | {
    "signature": {"method": "e-signature", "signed_at": "2026-11-01T10:00:00Z", "sha256": DIGEST},
    "evidence": [
        {"kind": "audio", "sha256": DIGEST, "media_type": "audio/wav", "language": "de", "notice_sha256": DIGEST}
    ],
    "guardian": {"relation": "mother", "id": {"issuer": "https://id.example", "subject": "mona"}},
    "compensation_ref": "contract 7",
    "jurisdiction": "DE",
    "withdrawal": {"effect": "take_down"},
}


async def test_all_terms_are_kept_renewed_taken_away_and_verified(alice: Client) -> None:
    path = await twin_of(alice)
    consent = await grant(alice, path, "a", "b", **ALL)

    def shown(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shown(member) for name, member in value.items() if member is not None}
        return [shown(item) for item in value] if isinstance(value, list) else value

    expected = ALL | {"modalities": ["text", "voice"], "recipients": WIDE["recipients"][::-1]}
    assert {name: shown(consent[name]) for name in ALL} == expected
    kept = await renew(alice, consent)
    assert {name: kept[name] for name in ALL} == {name: consent[name] for name in ALL}
    gone = await renew(alice, kept, **dict.fromkeys(ALL))
    assert {gone[name] for name in ALL} == {None}
    assert (await verify(alice, path))["reason"] is None


@pytest.mark.parametrize(
    ("terms", "pointer"),
    [
        ({"recipients": []}, "#/recipients"),
        ({"recipients": [{"type": "account"}]}, "#/recipients/0/id"),
        ({"recipients": [{"type": "A", "id": "x"}]}, "#/recipients/0/type"),
        ({"recipients": [{"type": "a", "id": "x"}, {"type": "a", "id": "x", "name": "X"}]}, "#/recipients"),
        ({"recipients": [{"type": "a", "id": str(n)} for n in range(101)]}, "#/recipients"),
        ({"modalities": ["smell"]}, "#/modalities/0"),
        ({"modalities": ["text", "text"]}, "#/modalities"),
        ({"modalities": []}, "#/modalities"),
        ({"territories": ["ZZ"]}, "#/territories/0"),
        ({"territories": ["de"]}, "#/territories/0"),
        ({"uses": [{"purpose": "other", "description": "x"}]}, "#/uses"),
        ({"uses": [{"purpose": "a", "description": "x"}] * 2}, "#/uses"),
        ({"representation": {"kind": "none"}}, "#/uses"),
        ({"representation": {"kind": "none"}, "uses": [{"purpose": "a", "description": "x"}]}, "#/uses"),
        ({"representation": {"kind": "friend"}}, "#/representation/kind"),
        ({"signature": {"method": "paper", "signed_at": "2026-11-01T10:00:00Z"}}, "#/signature/sha256"),
        ({"evidence": [{"kind": "audio", "sha256": DIGEST.upper()}]}, "#/evidence/0/sha256"),
        ({"evidence": [{"kind": "audio", "sha256": DIGEST, "challenge_id": DIGEST}]}, "#/evidence/0/challenge_id"),
        ({"guardian": {"relation": "mother"}}, "#/guardian/id"),
        ({"withdrawal": {"effect": "nothing"}}, "#/withdrawal/effect"),
        ({"prohibited": ["ads"]}, "#/prohibited"),
    ],
)
async def test_terms_that_do_not_fit_are_refused(alice: Client, terms: dict[str, Any], pointer: str) -> None:
    path = await twin_of(alice)
    answer = await alice.post(f"{path}/consents", json={"purposes": ["a", "b"], "notice": NOTICE} | terms)

    assert is_problem(answer, 422, "validation-failed"), answer.text
    assert pointer in {error["pointer"] for error in answer.json()["errors"]}, answer.text
    assert await ledger(alice, path) == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("assurance", "2"),
        ("label", "'Somebody'"),
        ("recipients", "NULL"),
        ("modalities", "NULL"),
        ("territories", "'{DE}'"),
        ("guardian", "'mallory'"),
        ("details", "'{}'"),
        ("source", "id"),
    ],
)
async def test_terms_that_are_changed_behind_the_ledger_are_found(
    alice: Client, stores: Stores, column: str, value: str
) -> None:
    path = await twin_of(alice)
    consent = await grant(alice, path, "a", "b", principal={"label": "Alex"}, **ALL)
    async with superuser(stores) as connection:
        await connection.execute(f"UPDATE consents SET {column} = {value} WHERE id = $1", consent["id"])
    found = await verify(alice, path)

    assert (found["valid"], found["broken_at"]) == (False, 1)
    assert found["reason"] == ("record differs" if column == "assurance" else "terms differ")


@pytest.mark.parametrize("column", ["recipients", "modalities", "territories", "assurance"])
async def test_limits_that_the_state_lost_are_found(alice: Client, stores: Stores, column: str) -> None:
    path = await twin_of(alice)
    consent = await grant(alice, path, "a", "b", **ALL)
    async with superuser(stores) as connection:
        value = "2" if column == "assurance" else "NULL"
        sql = f"UPDATE consent_states SET {column} = {value} WHERE consent_id = $1 AND purpose = 'a'"
        await connection.execute(sql, consent["id"])

    assert (await verify(alice, path))["reason"] == "state of a purpose differs"


# --- The person by token --------------------------------------------------------------------------


async def test_a_person_reads_the_events_of_their_consents_and_asks_the_gate(
    alice: Client, paula: Client, bob: Client, sub: str
) -> None:
    path = await twin_of(alice)
    await grant(alice, path, "x")
    consent = await grant(alice, path, "a", principal=sub)
    await grant(alice, path, "y", principal="quentin")
    await paula.post(f"{location(consent)}/withdraw")
    whole = await ledger(alice, path)
    page = (await paula.get(f"{path}/ledger", params={"limit": 1})).json()
    rest = (await paula.get(f"{path}/ledger", params={"cursor": page["next_cursor"]})).json()

    assert page["items"] + rest["items"] == [whole[1], whole[3]]
    assert rest["next_cursor"] is None
    assert [await reason(paula, path, purpose) for purpose in ("x", "a", "z")] == ["granted", "withdrawn", "no_consent"]
    batch = await paula.post("/api/v1/decisions", json={"items": [{"twin_id": consent["twin_id"], "purpose": "x"}]})
    assert batch.json()["items"][0]["reason"] == "granted"
    assert is_problem(await paula.get(f"{path}/ledger/verification"), 404, "not-found")
    for url in (f"{path}/ledger", f"{path}/decision"):
        assert is_problem(await bob.get(url), 404, "not-found")


async def test_an_erased_person_reads_nothing_any_more(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice, sub)
    await grant(paula, path, "a")
    assert len((await paula.get(f"{path}/ledger")).json()["items"]) == 1
    assert (await paula.delete("/api/v1/me")).status_code == 202

    for url in (f"{path}/ledger", f"{path}/decision"):
        assert is_problem(await paula.get(url), 404, "not-found")


# --- All at once ----------------------------------------------------------------------------------


async def test_fifty_grants_of_an_owner_against_one_withdrawal_end_no(alice: Client, paula: Client, sub: str) -> None:
    path = await twin_of(alice)
    consent = await grant(alice, path, "a", principal=sub)
    await withdraw(alice, consent)  # a revocation: the owner may grant it again
    grants = [
        alice.post(f"{path}/consents", json={"purposes": [purpose], "notice": NOTICE, "principal": sub})
        for n in range(25)
        for purpose in ("a", f"p{n}")
    ]
    withdrawal = paula.post(f"{location(consent)}/withdraw")
    answers = await asyncio.gather(*grants[:4], withdrawal, *grants[4:])
    said_no = answers.pop(4)

    assert said_no.status_code == 200, said_no.text
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert await reason(alice, path, "a") in ("withdrawn", "refused")
    for number, answer in enumerate(answers[1::2]):
        assert await reason(alice, path, f"p{number}") == ("granted" if answer.status_code == 201 else "no_consent")
    assert await refused(alice, f"{path}/consents", {"purposes": ["p25"], "notice": NOTICE, "principal": sub})
    assert (await verify(alice, path))["reason"] is None


async def test_an_old_request_that_comes_again_gets_what_it_made_and_makes_nothing(
    alice: Client, paula: Client, sub: str
) -> None:
    path = await twin_of(alice, sub)
    body = {"purposes": ["a"], "notice": NOTICE, "principal": sub}
    key = {"Idempotency-Key": str(uuid4())}
    first = await alice.post(f"{path}/consents", json=body, headers=key)
    renewal = {"Idempotency-Key": str(uuid4())}
    renewed = await alice.post(f"{location(first.json())}/renew", json={}, headers=renewal)
    assert [first.status_code, renewed.status_code] == [201, 201]
    assert (await paula.post(f"{location(first.json())}/withdraw")).status_code == 200
    own = await grant(paula, path, "a")

    for url, sent, used in ((f"{path}/consents", body, key), (f"{location(first.json())}/renew", {}, renewal)):
        again = await alice.post(url, json=sent, headers=used)
        assert again.headers["idempotency-replayed"] == "true"
        assert again.json()["state"] == "withdrawn"
        assert again.json()["id"] != own["id"]
        assert (await alice.post(url, json=sent)).status_code == 409
    assert (await decide(alice, path, "a"))["consent_id"] == own["id"]


# --- While an erasure runs ------------------------------------------------------------------------


async def test_the_no_of_an_erasure_holds_before_its_job_has_written_it(
    alice: Client, paula: Client, sub: str, context: Context
) -> None:
    path, other = await twin_of(alice), await twin_of(alice)
    external_id = {"type": "voice", "id": str(uuid4())}
    assert (await alice.patch(path, json={"external_ids": [external_id]})).status_code == 200
    await grant(alice, path, "voice", principal=sub)
    erased = await paula.delete("/api/v1/me")
    assert erased.status_code == 202

    async def attempts() -> None:
        for listed in ([], [sub]):
            assert (await alice.patch(path, json={"principals": listed})).status_code == 200
            for purposes in (["voice"], ["voice-2"]):
                body = {"purposes": purposes, "notice": NOTICE, "principal": {"label": "x"}}
                assert await refused(alice, f"{path}/consents", body)
        moved = await alice.patch(other, json={"external_ids": [external_id]})
        assert is_problem(moved, 409, "external-id-kept")
        assert (await alice.patch(path, json={"external_ids": []})).status_code == 200
        moved = await alice.patch(other, json={"external_ids": [external_id]})
        assert is_problem(moved, 409, "external-id-kept")
        assert (await alice.patch(path, json={"external_ids": [external_id]})).status_code == 200

    await attempts()
    await finish(context, erased.headers["location"])
    await attempts()
    assert [await reason(alice, path, purpose) for purpose in ("voice", "voice-2")] == ["withdrawn", "no_consent"]
    assert (await verify(alice, path))["reason"] is None


async def test_whoever_comes_back_has_to_be_listed_again(
    alice: Client, paula: Client, sub: str, context: Context
) -> None:
    path = await twin_of(alice, sub)
    await grant(paula, path, "voice")
    erased = await paula.delete("/api/v1/me")
    body = {"purposes": ["new"], "notice": NOTICE}
    assert is_problem(await paula.post(f"{path}/consents", json=body), 404, "not-found")
    await alice.patch(path, json={"principals": []})
    await alice.patch(path, json={"principals": [sub]})
    assert (await grant(paula, path, "new"))["assurance"] == "token"
    await finish(context, erased.headers["location"])

    assert [await reason(alice, path, purpose) for purpose in ("voice", "new")] == ["withdrawn", "granted"]
    assert (await alice.get(path)).json()["principals"] == [sub]


async def test_a_guardian_who_erases_their_account_is_named_no_more(
    alice: Client, client_of: ClientOf, context: Context
) -> None:
    mona = f"mona-{uuid4()}"
    path = await twin_of(alice)
    guardian = {"guardian": {"relation": "mother", "id": mona}}
    consent = await grant(alice, path, "voice", principal={"label": "Alex"}, **guardian)
    erased = await client_of(mona).delete("/api/v1/me")
    assert erased.status_code == 202

    renewed = await renew(alice, consent)
    await finish(context, erased.headers["location"])
    assert (renewed["guardian"], (await alice.get(location(consent))).json()["guardian"]) == (None, None)
    for url, body in (
        (f"{path}/consents", {"purposes": ["face"], "notice": NOTICE} | guardian),
        (f"{location(renewed)}/renew", guardian),
    ):
        assert await refused(alice, url, body)


# --- Erasure --------------------------------------------------------------------------------------


async def test_a_persons_erasure_empties_the_evidence_and_a_guardians_the_guardian(
    alice: Client, client_of: ClientOf, sub: str, context: Context
) -> None:
    mona = f"mona-{uuid4()}"
    path = await twin_of(alice)
    terms = ALL | {"guardian": {"relation": "mother", "id": mona}}
    ward = await grant(alice, path, "a", "b", principal={"label": "Alex"}, **terms)
    own = await grant(alice, path, "c", principal=sub, modalities=["text"], jurisdiction="DE")
    for account in (mona, sub):
        erased = await client_of(account).delete("/api/v1/me")
        assert erased.status_code == 202, account
        await finish(context, erased.headers["location"])

    ward, own = [(await alice.get(location(consent))).json() for consent in (ward, own)]
    assert (ward["guardian"], ward["jurisdiction"], ward["state"]) == (None, "DE", "given")
    assert ward["principal"] == {"label": "Alex"}
    assert (own["jurisdiction"], own["modalities"], own["state"]) == (None, ["text"], "withdrawn")
    assert [await reason(alice, path, purpose) for purpose in "ac"] == ["modality_not_covered", "withdrawn"]
    found = await verify(alice, path)
    assert (found["reason"], found["terms_unverifiable"]) == (None, 2)


async def test_a_notice_stays_while_somebody_without_an_account_is_shown_with_it(
    alice: Client, paula: Client, sub: str, context: Context
) -> None:
    path = await twin_of(alice)
    await grant(alice, path, "a", principal=sub)
    labelled = await grant(alice, path, "b", principal={"label": "Alex"})
    await finish(context, (await paula.delete("/api/v1/me")).headers["location"])

    assert (await alice.get(location(labelled))).json()["notice"]["text"] == NOTICE["text"]
