"""Organisations own, their members act, and each scope gives the right that it names, through both fronts."""

import itertools
import json
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from tests.support import log_search
from tests.support.app import ALEX, FRONTS, MISSING, Client, front, id_of, is_problem, make_twin
from tests.support.consent import NOTICE, decide, grant, location, verify
from tests.support.database import superuser
from tests.support.erasure import dump, finish, traces
from tests.support.issuer_server import IssuerServer, Signing
from tests.support.stores import Stores
from twins.context import Context
from twins.scopes import SCOPES

KEY = Signing("key")
ORGANIZATION = "/api/v1/organization"

type MemberOf = Callable[..., Client]
"""`member_of(sub, organisation, scope="")`: a client of a member, or of nobody's with None."""

_numbers = itertools.count()


@pytest.fixture
def acme() -> str:
    """A new organisation, which has nothing yet."""
    return f"acme-{next(_numbers)}"


@pytest.fixture(scope="module")
async def issuer() -> AsyncIterator[IssuerServer]:
    async with IssuerServer() as server:
        server.keys = [KEY.jwk()]
        yield server


@pytest.fixture(scope="module", params=FRONTS)
async def transport(
    request: pytest.FixtureRequest, environment: dict[str, str], issuer: IssuerServer
) -> AsyncIterator[httpx.AsyncBaseTransport]:
    """The application that trusts an issuer with organisations, beside HS256."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTH_ISSUERS", json.dumps([issuer.entry(owner_claim="org_id")]))
        async with front(request.param) as opened:
            yield opened


@pytest.fixture
def member_of(transport: httpx.AsyncBaseTransport, issuer: IssuerServer) -> MemberOf:
    def client(sub: str, organisation: str | None, scope: str | None = None, **claims: Any) -> Client:
        credentials = KEY.sign(issuer.claims(sub, org_id=organisation, scope=scope, **claims))
        headers = {"Authorization": f"Bearer {credentials}"}
        hooks = {"request": [log_search.hide_names]}
        return Client(transport=transport, base_url="http://twins.test", headers=headers, event_hooks=hooks)

    return client


async def test_me_shows_who_acts_for_whom(member_of: MemberOf, issuer: IssuerServer, acme: str) -> None:
    client = member_of("alice", acme, "twins:read openid", azp="an-app")
    me = (await client.get("/api/v1/me")).json()

    assert {name: me[name] for name in ("issuer", "subject", "owner", "actor", "client", "scopes")} == {
        "issuer": issuer.url,
        "subject": "alice",
        "owner": {"issuer": issuer.url, "organization": acme},
        "actor": {"issuer": issuer.url, "subject": "alice"},
        "client": "an-app",
        "scopes": ["openid", "twins:read"],
    }
    alone = (await member_of("alice", None).get("/api/v1/me")).json()
    assert (alone["owner"], alone["actor"], alone["client"]) == (None, me["actor"], None)


async def test_me_of_hs256_is_as_it_was(client_of: Callable[..., Client]) -> None:
    me = (await client_of("somebody-plain").get("/api/v1/me")).json()

    assert (me["sub"], me["subject"], me["owner"], me["actor"]) == ("somebody-plain",) * 4
    assert (me["issuer"], me["client"], me["scopes"]) == (None, None, [])


async def test_colleagues_share_what_the_organisation_owns(
    member_of: MemberOf, acme: str, issuer: IssuerServer
) -> None:
    alice, bob, eve = member_of("alice", acme), member_of("bob", acme), member_of("eve", f"{acme}-2")
    path = await make_twin(alice)

    assert (await bob.get(path)).status_code == 200
    assert (await bob.patch(path, json={"tone": "warm"})).status_code == 200
    assert (await alice.get(path)).json()["tone"] == "warm"
    assert (await bob.get("/api/v1/me")).json()["twins"] == 1
    assert [item["id"] for item in (await bob.get("/api/v1/twins")).json()["items"]] == [path.rpartition("/")[2]]
    for stranger in (eve, member_of("alice", f"{acme}-2"), member_of(acme, f"{acme}-2")):
        assert is_problem(await stranger.get(path), 404, "not-found")
        assert (await stranger.get("/api/v1/twins")).json()["items"] == []
    # The principal is the member who agreed, and not the organisation.
    (consent,) = (await bob.get(f"{path}/consents")).json()["items"]
    assert consent["principal"] == {"issuer": issuer.url, "subject": "alice"}
    assert consent["withdrawn_by"] is None
    withdrawn = (await bob.post(location(consent) + "/withdraw")).json()
    assert withdrawn["withdrawn_by"] == "owner"


async def test_a_member_of_two_organisations_sees_one_at_a_time(member_of: MemberOf, acme: str) -> None:
    key = {"Idempotency-Key": "the-same-in-both"}
    here, there = member_of("alice", acme), member_of("alice", f"{acme}-2")
    first = await here.post("/api/v1/twins", json=ALEX, headers=key)
    second = await there.post("/api/v1/twins", json=ALEX, headers=key)
    again = await member_of("bob", acme).post("/api/v1/twins", json=ALEX, headers=key)

    assert [it.status_code for it in (first, second, again)] == [201] * 3
    assert len({it.headers["location"] for it in (first, second, again)}) == 3
    assert (await here.post("/api/v1/twins", json=ALEX, headers=key)).headers["idempotency-replayed"] == "true"
    assert len((await here.get("/api/v1/twins")).json()["items"]) == 2
    assert len((await there.get("/api/v1/twins")).json()["items"]) == 1


async def test_a_cursor_is_of_one_member_of_one_organisation(member_of: MemberOf, acme: str) -> None:
    alice = member_of("alice", acme)
    for _ in range(2):
        await make_twin(alice)
    cursor = (await alice.get("/api/v1/twins?limit=1")).json()["next_cursor"]

    assert (await alice.get(f"/api/v1/twins?limit=1&cursor={cursor}")).status_code == 200
    for other in (member_of("alice", f"{acme}-2"), member_of("bob", acme)):
        assert is_problem(await other.get(f"/api/v1/twins?limit=1&cursor={cursor}"), 422, "validation-failed")


async def test_without_an_organisation_a_token_owns_nothing_and_acts_as_a_person(
    member_of: MemberOf, acme: str
) -> None:
    name = f"paula-{acme}"
    owner, paula = member_of("alice", acme), member_of(name, None)
    path = await make_twin(owner, consent=False)

    for method, where, body in (
        ("POST", "/api/v1/twins", ALEX),
        ("GET", "/api/v1/twins", None),
        ("GET", path, None),
        ("PATCH", path, {"tone": "warm"}),
        ("DELETE", path, None),
        ("PUT", f"{path}/persona", {"summary": "Mine."}),
        ("GET", f"{path}/persona", None),
        ("GET", f"{path}/ledger", None),
    ):
        answer = await paula.request(method, where, json=body)
        assert is_problem(answer, 403, "no-owner"), (method, where, answer.text)
    # What a person may do is for people whom the twin names.
    assert is_problem(await yes(paula, path, "voice"), 404, "not-found")
    assert is_problem(await paula.post(f"{path}/refusals"), 404, "not-found")
    # As a person she reads, receives and withdraws what she gave as a member.
    consent = await grant(member_of(name, acme), path, "voice")
    assert (await decide(owner, path, "voice"))["decision"] is True
    mine = location(consent)
    assert (await paula.get(mine)).json()["state"] == "given"
    assert [it["id"] for it in (await paula.get("/api/v1/me/consents")).json()["items"]] == [consent["id"]]
    assert (await paula.get("/api/v1/me")).json()["consents_given"] == 1
    assert (await paula.get(f"{mine}/receipt")).status_code == 200
    assert (await paula.post(f"{mine}/withdraw")).json()["withdrawn_by"] == "principal"
    assert (await decide(owner, path, "voice"))["decision"] is False
    assert is_problem(await member_of("petra", None).get(mine), 404, "not-found")


async def test_me_erases_ones_own_and_never_the_organisations(
    member_of: MemberOf, acme: str, issuer: IssuerServer, stores: Stores, context: Context
) -> None:
    name = f"alice-{acme}"
    alice, bob = member_of(name, acme), member_of("bob", acme)
    path = await make_twin(alice)
    await list_(bob, path, issuer, name)
    gone = await alice.delete("/api/v1/me")

    assert gone.status_code == 202
    assert (await bob.get(path)).json()["consent"] is False  # her own consent is withdrawn
    assert (await alice.get(gone.headers["location"])).status_code == 200
    assert is_problem(await bob.get(gone.headers["location"]), 404, "not-found")
    await finish(context, gone.headers["location"])
    twin = (await bob.get(path)).json()
    assert (twin["tone"], twin["principals"]) == (ALEX["tone"], [])
    (consent,) = (await bob.get(f"{path}/consents")).json()["items"]
    assert (consent["state"], consent["principal"][:8]) == ("withdrawn", "\x01erased:")
    assert (await verify(bob, path))["valid"]
    assert traces(await dump(stores), name) == []
    assert (await alice.delete("/api/v1/me")).status_code == 204


async def test_an_organisation_is_erased_by_its_scope_alone(
    member_of: MemberOf, client_of: Callable[..., Client], acme: str, stores: Stores, context: Context
) -> None:
    alice, bob = member_of("alice", acme), member_of("bob", acme, "twins:erase")
    elsewhere = member_of("bob", f"{acme}-2")
    paths = [await make_twin(alice), await make_twin(bob)]
    kept = await make_twin(elsewhere)

    refused = await alice.delete(ORGANIZATION)
    assert is_problem(refused, 403, "insufficient-scope")
    assert refused.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="twins:erase"'
    assert is_problem(await member_of("alice", acme, "twins:read").delete(ORGANIZATION), 403, "insufficient-scope")
    for nobodys in (member_of("bob", None, "twins:erase"), client_of("plain", "twins:erase")):
        assert is_problem(await nobodys.delete(ORGANIZATION), 403, "no-owner")
    assert is_problem(await bob.request("DELETE", ORGANIZATION, json={"dry_run": True}), 422, "validation-failed")
    assert [(await alice.get(path)).status_code for path in paths] == [200, 200]

    done = await bob.delete(ORGANIZATION)
    assert done.status_code == 202
    assert (await bob.delete(ORGANIZATION)).headers["location"] == done.headers["location"]
    assert [(await alice.get(path)).status_code for path in paths] == [404, 404]
    assert (await elsewhere.get(kept)).status_code == 200
    await finish(context, done.headers["location"])
    again = await bob.delete(ORGANIZATION)
    assert (again.status_code, again.headers["location"]) == (204, done.headers["location"])
    for member in (alice, bob):
        assert (await member.get(done.headers["location"])).json()["twins"] == 2
        assert len((await member.get(f"{done.headers['location']}/ledgers")).json()["items"]) == 2
        assert [it["twins"] for it in (await member.get("/api/v1/erasures")).json()["items"]] == [2]
    async with superuser(stores) as connection:
        sql = "SELECT account, actor FROM erased_accounts WHERE erasure_id = $1"
        assert await connection.fetch(sql, id_of(done.headers["location"])) == [(None, None)]
    for stranger in (elsewhere, member_of("bob", None)):
        assert is_problem(await stranger.get(done.headers["location"]), 404, "not-found")


async def test_a_twin_that_a_colleague_erased_can_be_followed_by_the_organisation(
    member_of: MemberOf, acme: str
) -> None:
    alice, bob = member_of("alice", acme), member_of("bob", acme)
    gone = await bob.delete(await make_twin(alice))

    assert (await alice.get(gone.headers["location"])).status_code == 200
    assert is_problem(await member_of("bob", None).get(gone.headers["location"]), 404, "not-found")


# --- The word of colleagues ----------------------------------------------------------------------


async def list_(client: Client, path: str, issuer: IssuerServer, *subjects: str) -> None:
    """Set the principals of a twin."""
    principals = [{"issuer": issuer.url, "subject": subject} for subject in subjects]
    changed = await client.patch(path, json={"principals": principals})
    assert changed.json()["principals"] == principals


async def yes(client: Client, path: str, *purposes: str, **terms: Any) -> httpx.Response:
    return await client.post(f"{path}/consents", json={"purposes": purposes, "notice": NOTICE} | terms)


async def refusals(client: Client, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await client.get(f"{path}/refusals")).json()["items"]
    return items


async def test_a_colleagues_no_on_their_own_consent_is_a_refusal_that_no_colleague_opens(
    member_of: MemberOf, acme: str
) -> None:
    alice, bob = member_of("alice", acme), member_of(f"bob-{acme}", acme)
    path = await make_twin(alice, consent=False)
    assert is_problem(await bob.post(f"{path}/refusals"), 404, "not-found")  # nobody has named him
    consent = await grant(bob, path, "voice")

    assert (await bob.post(location(consent) + "/withdraw")).json()["withdrawn_by"] == "principal"
    (refusal,) = await refusals(alice, path)
    assert (refusal["by"], refusal["purposes"]) == ("account", ["voice"])
    where = f"{path}/refusals/{refusal['id']}"
    for other in (alice, member_of(f"bob-{acme}-2", acme), member_of("alice", None)):
        assert is_problem(await other.delete(where), 404, "not-found")
    assert is_problem(await yes(alice, path, "voice"), 409, "person-must-consent")
    assert (await bob.delete(where)).status_code == 204
    assert await refusals(alice, path) == []


async def test_once_a_person_has_spoken_no_colleagues_word_grants_anything(
    member_of: MemberOf, client_of: Callable[..., Client], acme: str
) -> None:
    alice, bob, paula = member_of("alice", acme), member_of("bob", acme), client_of(f"paula-{acme}")
    path = await make_twin(alice)
    consent = await grant(bob, path, "voice", "chat", principal=f"paula-{acme}")
    assert (await paula.post(f"{path}/refusals", json={"purposes": ["chat"]})).status_code == 201
    (refusal,) = await refusals(paula, path)

    for member in (alice, bob):
        assert await refusals(member, path) == [refusal]
        assert is_problem(await member.delete(f"{path}/refusals/{refusal['id']}"), 404, "not-found")
        for purposes, terms in ((("chat",), {}), (("other",), {}), (("other",), {"principal": "somebody"})):
            assert is_problem(await yes(member, path, *purposes, **terms), 409, "person-must-consent")
        assert is_problem(await member.post(location(consent) + "/renew"), 409, "person-must-consent")
    assert (await bob.patch(path, json={"consent": False})).status_code == 200
    assert is_problem(await alice.patch(path, json={"consent": True}), 409, "person-must-consent")
    assert await refusals(alice, path) == [refusal]
    assert (await yes(paula, path, "chat")).status_code == 201


async def test_a_colleague_whom_principals_lists_speaks_as_a_person(
    member_of: MemberOf, acme: str, issuer: IssuerServer
) -> None:
    name = f"bob-{acme}"
    alice, bob = member_of("alice", acme), member_of(name, acme)
    path = await make_twin(alice)
    await list_(alice, path, issuer, name)

    assert (await alice.patch(path, json={"consent": False})).status_code == 200
    assert await refusals(alice, path) == []  # a revocation
    assert (await alice.patch(path, json={"consent": True})).status_code == 200
    assert (await bob.patch(path, json={"consent": False})).status_code == 200
    (refusal,) = await refusals(alice, path)
    assert (refusal["by"], refusal["purposes"]) == ("account", ["general"])
    assert is_problem(await alice.patch(path, json={"consent": True}), 409, "person-must-consent")
    assert is_problem(await yes(alice, path, "voice", principal="paula"), 409, "person-must-consent")
    assert is_problem(await yes(bob, path, "voice", principal="paula"), 409, "person-must-consent")
    assert (await bob.patch(path, json={"consent": True})).json()["consent"] is True
    assert (await yes(bob, path, "voice")).json()["principal"] == {"issuer": issuer.url, "subject": name}
    assert await refusals(alice, path) == []
    # Without the organisation he is the same person.
    assert (await yes(member_of(name, None), path, "other")).status_code == 201
    assert (await verify(alice, path))["valid"]


async def test_the_ledger_names_who_acted_and_never_the_organisation(
    member_of: MemberOf, acme: str, issuer: IssuerServer, stores: Stores
) -> None:
    alice, bob = member_of("alice", acme), member_of("bob", acme)
    path = await make_twin(alice)
    assert (await bob.post(location((await alice.get(f"{path}/consents")).json()["items"][0]) + "/withdraw")).is_success

    async with superuser(stores) as connection:
        actors = await connection.fetch(
            """
            SELECT n.name FROM consent_events e JOIN salts s ON s.twin_id = e.twin_id
            JOIN unnest($2::text[]) AS n (name) ON seal(s.salt, n.name) = e.event::json->>'actor'
            WHERE e.twin_id = $1 ORDER BY e.seq
            """,
            id_of(path),
            [f"{issuer.url}\nalice", f"{issuer.url}\nbob", f"{issuer.url}\norg_id\n{acme}"],
        )
    assert [row["name"] for row in actors] == [f"{issuer.url}\nalice", f"{issuer.url}\nbob"]


async def receipt_of(client: Client, consent: dict[str, Any]) -> dict[str, Any]:
    signed = (await client.get(location(consent) + "/receipt")).text
    payload: dict[str, Any] = json.loads(urlsafe_b64decode(signed.split(".")[1] + "=="))
    return payload


def who(payload: dict[str, Any]) -> list[tuple[Any, str, str | None]]:
    return [(event["entity_id"], event["entity_role"], event["client"]) for event in payload["events"]]


async def test_a_receipt_names_the_member_who_acted_and_the_organisation_as_controller(
    member_of: MemberOf, client_of: Callable[..., Client], acme: str, issuer: IssuerServer
) -> None:
    alice, bob = member_of("alice", acme, azp="console"), member_of("bob", acme, azp="phone")
    path = await make_twin(alice)
    (own,) = (await bob.get(f"{path}/consents")).json()["items"]
    consent = await grant(bob, path, "voice", principal=f"paula-{acme}")
    assert (await alice.post(location(consent) + "/withdraw")).is_success
    assert (await bob.post(location(own) + "/withdraw")).is_success
    by_alice = {"issuer": issuer.url, "subject": "alice"}, "owner", "console"
    by_bob = {"issuer": issuer.url, "subject": "bob"}, "owner", "phone"

    for client in (bob, client_of(f"paula-{acme}")):
        receipt = await receipt_of(client, consent)
        assert receipt["pii_principal_id"] == f"paula-{acme}"
        assert receipt["pii_processing"]["pii_controllers"][0] == {"issuer": issuer.url, "organization": acme}
        assert who(receipt) == [by_bob, by_alice]
    receipt = await receipt_of(alice, own)
    assert receipt["pii_principal_id"] == by_alice[0]
    assert who(receipt) == [(by_alice[0], "principal", "console"), by_bob]
    assert (await verify(alice, path))["valid"]


async def test_a_colleague_who_erases_their_account_is_named_nowhere_and_what_they_did_stays(
    member_of: MemberOf, client_of: Callable[..., Client], acme: str, stores: Stores, context: Context
) -> None:
    name = f"carol-{acme}"
    alice, carol, paula = member_of("alice", acme), member_of(name, acme, azp="phone"), client_of(f"paula-{acme}")
    path = await make_twin(alice, consent=False)
    kept = await grant(alice, path, "kept", principal=f"paula-{acme}")
    recorded = await grant(carol, path, "voice", principal=f"paula-{acme}")
    ended = await grant(alice, path, "ads", principal=f"paula-{acme}")
    assert (await carol.post(location(ended) + "/withdraw")).json()["withdrawn_by"] == "owner"
    assert traces(await dump(stores), name) != []
    gone = await carol.delete("/api/v1/me")

    assert gone.status_code == 202
    await finish(context, gone.headers["location"])
    assert traces(await dump(stores), name) == []
    for consent, place in ((recorded, 0), (ended, 1)):
        entity, role, client = who(await receipt_of(paula, consent))[place]
        assert (entity[:8], role, client) == ("\x01erased:", "owner", None)
    assert (await decide(alice, path, "voice"))["decision"] is True
    # Nobody can test a guess of her name: the salts of these two lines are gone, and that of the third is not.
    assert (await verify(alice, path))["valid"]
    assert (await verify(alice, path))["terms_unverifiable"] == 2
    async with superuser(stores) as connection:
        salts = await connection.fetch("SELECT lineage FROM salts WHERE twin_id = $1", id_of(path))
    assert [str(row["lineage"]) for row in salts] == [kept["id"]]
    assert (await carol.delete("/api/v1/me")).status_code == 204
    # What follows on such a line has a new salt.
    assert (await alice.post(location(recorded) + "/renew")).status_code == 201
    assert (await verify(alice, path))["valid"]
    assert (await verify(alice, path))["terms_unverifiable"] == 2


async def test_what_a_colleague_does_after_an_erasure_is_theirs_to_erase_again(
    member_of: MemberOf, acme: str, stores: Stores, context: Context
) -> None:
    name = f"dora-{acme}"
    alice, dora = member_of("alice", acme), member_of(name, acme)
    path = await make_twin(alice, consent=False)
    for act in ("given", "withdrawn"):
        consent = await grant(alice if act == "withdrawn" else dora, path, act, principal=f"paula-{acme}")
        if act == "withdrawn":
            assert (await dora.post(location(consent) + "/withdraw")).is_success
        gone = await dora.delete("/api/v1/me")
        assert gone.status_code == 202
        await finish(context, gone.headers["location"])
        assert traces(await dump(stores), name) == []


async def test_a_token_for_reading_says_no_only_with_another_scope(member_of: MemberOf, acme: str) -> None:
    name = f"paula-{acme}"
    path = await make_twin(member_of(name, acme))

    assert is_problem(await member_of(name, None, "twins:read").post(f"{path}/refusals"), 403, "insufficient-scope")
    for scope in (None, "openid", "twins:decide", "twins:read twins:decide"):
        assert (await member_of(name, None, scope).post(f"{path}/refusals")).status_code in {200, 201}


# --- Scopes --------------------------------------------------------------------------------------


async def test_a_token_for_reading_reads_and_changes_nothing(member_of: MemberOf, acme: str) -> None:
    alice = member_of("alice", acme)
    path = await make_twin(alice)
    reader = member_of("bob", acme, "openid twins:read profile")

    for where in (path, "/api/v1/twins", f"{path}/decision", f"{path}/consents", f"{path}/ledger", "/api/v1/me"):
        assert (await reader.get(where)).status_code == 200
    asked = await reader.post("/api/v1/decisions", json={"items": [{"twin_id": path.rpartition("/")[2]}]})
    assert asked.json()["items"][0]["decision"] is True
    for method, where, body in (
        ("POST", "/api/v1/twins", ALEX),
        ("PATCH", path, {"consent": False}),
        ("DELETE", path, None),
        ("PUT", f"{path}/persona", {"summary": "x"}),
        ("DELETE", "/api/v1/me", None),
        ("POST", "/api/v1/twins", {"broken": True}),
    ):
        assert is_problem(await reader.request(method, where, json=body), 403, "insufficient-scope")
    assert (await alice.get(path)).json()["consent"] is True


@pytest.mark.parametrize("scope", ["twins:read twins:decide", "twins:decide", "openid", "other:read", "twins:readx"])
async def test_only_that_scope_alone_limits_a_token(member_of: MemberOf, acme: str, scope: str) -> None:
    await make_twin(member_of("alice", acme, scope))


async def test_a_token_of_hs256_for_reading_is_limited_too(client_of: Callable[..., Client]) -> None:
    reader = client_of("a-reader", "twins:read")

    assert (await reader.get("/api/v1/twins")).status_code == 200
    assert is_problem(await reader.post("/api/v1/twins", json=ALEX), 403, "insufficient-scope")


async def test_the_scope_to_decide_is_for_any_twin(member_of: MemberOf, acme: str) -> None:
    path = await make_twin(member_of("alice", acme))

    for scope in ("twins:decide", "twins:decide twins:read"):
        service = member_of("a-service", None, scope)
        assert (await service.get(f"{path}/decision")).json()["decision"] is True
    assert is_problem(await member_of("a-service", None, "twins:read").get(f"{path}/decision"), 404, "not-found")


async def test_the_scope_to_prompt_is_for_any_twin_that_the_gate_allows(member_of: MemberOf, acme: str) -> None:
    owner = member_of("alice", acme)
    path = await make_twin(owner)
    where = f"{path}/persona/prompt"
    assert (await owner.put(f"{path}/persona", json={"summary": "Of Acme."})).is_success

    for scope in (None, "twins:decide", "twins:read"):
        assert is_problem(await member_of("bob", f"{acme}-2", scope).get(where), 404, "not-found")
        assert is_problem(await member_of("bob", None, scope).get(where), 403, "no-owner")
    runtimes = member_of("bob", None, "twins:prompt"), member_of("bob", f"{acme}-2", "twins:read twins:prompt")
    for runtime in runtimes:
        assert (await runtime.get(where)).json() == (await owner.get(where)).json()
        assert "Of Acme." in (await runtime.get(where, headers={"Accept": "text/plain"})).text
        assert (await runtime.get(f"{path}/persona")).status_code in (403, 404)
        assert (await runtime.put(f"{path}/persona", json={"summary": "Mine."})).status_code in (403, 404)
        assert is_problem(await runtime.get(f"/api/v1/twins/{MISSING}/persona/prompt"), 404, "not-found")
    assert (await owner.patch(path, json={"consent": False})).is_success
    for runtime in runtimes:
        refused = await runtime.get(where)
        assert is_problem(refused, 403, "consent-required")
        assert refused.json()["reason"] == "withdrawn"
    await owner.delete(path)
    for runtime in runtimes:
        assert is_problem(await runtime.get(where), 404, "not-found")


async def test_every_operation_declares_the_scopes_that_it_takes(transport: httpx.AsyncBaseTransport) -> None:
    async with Client(transport=transport, base_url="http://twins.test") as anyone:
        document = (await anyone.get("/openapi.json")).json()
    declared = {
        (method, path): [way["bearer"] for way in operation["security"]]
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if path.startswith("/api/")
    }
    described = document["components"]["securitySchemes"]["bearer"]["description"]

    assert declared.pop(("delete", ORGANIZATION)) == [["twins:erase"]]
    assert declared.pop(("post", "/api/v1/decisions")) == [[], ["twins:decide"], ["twins:read"]]
    assert declared.pop(("get", "/api/v1/twins/{twin_id}/decision")) == [[], ["twins:decide"], ["twins:read"]]
    prompt = declared.pop(("get", "/api/v1/twins/{twin_id}/persona/prompt"))
    assert prompt == [[], ["twins:prompt"], ["twins:read"]]
    for method, path in [key for key in declared if "/refusals" in key[1] or key[1].endswith("/withdraw")]:
        declared[method, path].remove(["twins:stop"])
    for (method, _), ways in declared.items():
        assert ways == ([[], ["twins:read"]] if method == "get" else [[]])
    assert all(f"`{scope}`: {meaning}" in described for scope, meaning in SCOPES.items())
