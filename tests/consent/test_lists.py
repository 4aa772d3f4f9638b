"""`GET /consents` and `GET /me/consents`: filters, pages, and a bounded number of rows that a page looks at."""

import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from tests.support.app import Client, ClientOf, id_of, is_problem, make_twin
from tests.support.consent import HOUR, after, grant, pass_time, renew, withdraw
from tests.support.database import superuser
from tests.support.erasure import erase, finish
from tests.support.stores import Stores
from twins.consent.lists import service
from twins.context import Context

OWNED, GIVEN = "/api/v1/consents", "/api/v1/me/consents"


async def page(client: Client, path: str, **query: Any) -> dict[str, Any]:
    answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["next_cursor"] is None) == ("link" not in answer.headers)
    found: dict[str, Any] = answer.json()
    return found


async def listed(client: Client, path: str, **query: Any) -> list[str]:
    """Follow a list to its end, and return the ids."""
    ids: list[str] = []
    found = await page(client, path, **query)
    while True:
        ids += [consent["id"] for consent in found["items"]]
        if found["next_cursor"] is None:
            return ids
        found = await page(client, path, cursor=found["next_cursor"], **query)


@pytest.mark.parametrize("path", [OWNED, GIVEN])
@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("state=granted", "state"),
        ("state=", "state"),
        ("purpose=Voice", "purpose"),
        ("principal=", "principal"),
        ("principal=a%0Ab", "principal"),
        ("principal_issuer=https://idp.test", "principal"),
        ("principal=a&principal_issuer=a%20b", "principal_issuer"),
        ("expiring_before=2030-01-01", "expiring_before"),
        ("expiring_before=tomorrow", "expiring_before"),
        ("assurance=paper", "assurance"),
        ("owner=somebody", "owner"),
        ("limit=0", "limit"),
        ("cursor=x", "cursor"),
    ],
)
async def test_a_bad_filter_is_refused(alice: Client, anyone: Client, path: str, query: str, parameter: str) -> None:
    refused = await alice.get(f"{path}?{query}")

    assert is_problem(refused, 422, "validation-failed")
    assert refused.json()["errors"][0]["parameter"] == parameter
    assert is_problem(await anyone.get(path), 401, "unauthorized")


async def test_a_cursor_is_of_one_list_its_filters_and_its_account(alice: Client, bob: Client) -> None:
    for _ in range(2):
        await make_twin(alice)
        await make_twin(bob)
    cursor = (await page(alice, OWNED, limit=1, state="given"))["next_cursor"]
    for client, path, query in (
        (alice, OWNED, {"state": "expired"}),
        (alice, OWNED, {}),
        (alice, GIVEN, {"state": "given"}),
        (bob, OWNED, {"state": "given"}),
    ):
        refused = await client.get(path, params={"cursor": cursor} | query)
        assert is_problem(refused, 422, "validation-failed"), (path, query)


async def world(alice: Client, stores: Stores, paula: str) -> dict[str, dict[str, Any]]:
    """Make three twins with a consent of each kind, the newest first."""
    one, two = [await make_twin(alice, consent=False) for _ in range(2)]
    found = {"expired": await grant(alice, one, "film", expires_at=after(HOUR))}
    async with superuser(stores) as connection:
        await pass_time(connection, 2 * HOUR, one)
    found["general"] = await grant(alice, two)
    found["renewed"] = await grant(alice, two, "voice", "face", principal=paula, expires_at=after(HOUR))
    found["renewal"] = await renew(alice, found["renewed"], expires_at=after(2 * HOUR))
    found["withdrawn"] = await withdraw(alice, await grant(alice, two, "dance", principal=paula))
    found["later"] = await grant(
        alice, one, "voice", principal=paula, not_before=after(HOUR), expires_at=after(3 * HOUR)
    )
    return found


@pytest.mark.parametrize("scanned", [1, 2, 3, 2000])
async def test_each_filter_of_the_owner(
    alice: Client, bob: Client, stores: Stores, monkeypatch: pytest.MonkeyPatch, scanned: int
) -> None:
    paula = f"paula-{uuid4()}"
    made = await world(alice, stores, paula)
    empty = [await make_twin(alice, consent=False) for _ in range(2)]
    theirs = await grant(bob, await make_twin(bob, consent=False), "voice", principal=paula)
    monkeypatch.setattr(service, "_SCANNED", scanned)
    # By twin, the newest first, and of each twin the newest first.
    everything = ["withdrawn", "renewal", "renewed", "general", "later", "expired"]
    cases: dict[str, tuple[dict[str, Any], list[str]]] = {
        "all": ({}, everything),
        "given": ({"state": "given"}, ["renewal", "general", "later"]),
        "withdrawn": ({"state": "withdrawn"}, ["withdrawn"]),
        "expired": ({"state": "expired"}, ["expired"]),
        "replaced": ({"state": "replaced"}, ["renewed"]),
        "purpose": ({"purpose": "voice"}, ["renewal", "renewed", "later"]),
        "no such purpose": ({"purpose": "voic"}, []),
        "principal": ({"principal": paula}, ["withdrawn", "renewal", "renewed", "later"]),
        "nobody": ({"principal": paula.upper()}, []),
        "issuer": ({"principal": paula, "principal_issuer": "https://idp.test"}, []),
        "soon": ({"expiring_before": after(1.5 * HOUR)}, ["renewed", "expired"]),
        "later": ({"expiring_before": after(4 * HOUR), "state": "given"}, ["renewal", "later"]),
        "together": ({"principal": paula, "purpose": "voice", "state": "given"}, ["renewal", "later"]),
    }
    for limit in (1, 2, 100):
        for name, (query, expected) in cases.items():
            ids = await listed(alice, OWNED, limit=limit, **query)
            assert ids == [made[it]["id"] for it in expected], (name, limit)
    assert await listed(alice, OWNED, assurance="token") == []
    assert len(await listed(alice, OWNED, assurance="recorded")) == len(everything)
    assert await listed(bob, OWNED, principal=paula) == [theirs["id"]]
    await erase(alice, f"/api/v1/twins/{made['general']['twin_id']}")
    for path in empty:
        await erase(alice, path)
    assert await listed(alice, OWNED) == [made["later"]["id"], made["expired"]["id"]]
    assert await listed(alice, OWNED, principal=paula) == [made["later"]["id"]]


async def test_an_item_is_as_the_twins_own_list_has_it(alice: Client, stores: Stores) -> None:
    made = await world(alice, stores, "paula")
    found = {consent["id"]: consent for consent in (await page(alice, OWNED))["items"]}

    for twin_id in {consent["twin_id"] for consent in made.values()}:
        items = (await alice.get(f"/api/v1/twins/{twin_id}/consents")).json()["items"]
        assert items == [found.pop(consent["id"]) for consent in items]
    assert found == {}


@pytest.mark.parametrize("scanned", [1, 2, 3, 2000])
async def test_each_filter_of_the_person(
    alice: Client, client_of: ClientOf, stores: Stores, monkeypatch: pytest.MonkeyPatch, scanned: int
) -> None:
    sub = f"paula-{uuid4()}"
    paula = client_of(sub)
    made = await world(alice, stores, sub)
    gone = await make_twin(alice, consent=False)
    for purpose in ("voice", "dance", "film"):
        await grant(alice, gone, purpose, principal=sub)
    await erase(alice, gone)
    monkeypatch.setattr(service, "_SCANNED", scanned)
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["later", "withdrawn", "renewal", "renewed"]),
        ({"state": "given"}, ["later", "renewal"]),
        ({"purpose": "dance"}, ["withdrawn"]),
        ({"purpose": "voice", "state": "replaced"}, ["renewed"]),
        ({"principal": sub}, ["later", "withdrawn", "renewal", "renewed"]),
        ({"principal": "somebody"}, []),
        ({"expiring_before": after(2.5 * HOUR)}, ["renewal", "renewed"]),
    ]
    for limit in (1, 2, 100):
        for query, expected in cases:
            ids = await listed(paula, GIVEN, limit=limit, **query)
            assert ids == [made[it]["id"] for it in expected], (query, limit)


async def test_consents_of_an_assurance(alice: Client, client_of: ClientOf) -> None:
    paula = client_of(f"paula-{uuid4()}")
    sub = (await paula.get("/api/v1/me")).json()["sub"]
    path = await make_twin(alice, consent=False, principals=[sub])
    recorded = await grant(alice, path, "film", principal=sub)
    own = await grant(paula, path, "voice")
    for client, where in ((alice, OWNED), (paula, GIVEN)):
        assert await listed(client, where, assurance="token") == [own["id"]]
        assert await listed(client, where, assurance="recorded") == [recorded["id"]]
        assert await listed(client, where, assurance="link") == []


async def test_who_comes_back_after_an_erasure_sees_nothing_from_before(
    alice: Client, client_of: ClientOf, context: Context
) -> None:
    paula = client_of(f"paula-{uuid4()}")
    sub = (await paula.get("/api/v1/me")).json()["sub"]
    path = await make_twin(alice, consent=False, principals=[sub])
    await grant(paula, path, "voice")
    url = (await paula.delete("/api/v1/me")).headers["location"]
    for _ in range(2):
        assert await listed(paula, GIVEN) == []
        await finish(context, url)
    other = await make_twin(alice, consent=False, principals=[sub])
    consent = await grant(paula, other, "voice")
    assert await listed(paula, GIVEN) == [consent["id"]]


# --- However many there are --------------------------------------------------------------------------------

MANY = 10_000
QUICK = 1.0

_FILL = """
    WITH twin AS (
        INSERT INTO twins (owner, twin_name, use_case, tone)
        SELECT $1, 'Alex', 'x', 'y' FROM generate_series(1, $3::int) n RETURNING id
    ), made AS (
        INSERT INTO consents (id, twin_id, lineage, seq, principal, method, purposes, notice_version, notice_language,
                              notice_sha256, given_at)
        SELECT g, id, g, 1, $2, 'api', CASE n WHEN 7 THEN '{rare}' ELSE '{voice}' END::text[], '1', 'en',
               sha256('x'), now()
        FROM (SELECT id, row_number() OVER () AS n, uuidv7() AS g FROM twin) t
        RETURNING twin_id
    )
    INSERT INTO notices (twin_id, sha256, notice) SELECT twin_id, sha256('x'), 'x' FROM made
"""


_MORE = "INSERT INTO twins (owner, twin_name, use_case, tone) SELECT $1, 'Alex', 'x', 'y' FROM generate_series(1, $2)"


@pytest.fixture(scope="module")
async def many(stores: Stores) -> AsyncIterator[tuple[str, str]]:
    """An owner with many twins, each with a consent of one person, and as many without one."""
    owner, person = f"many-{uuid4()}", f"given-{uuid4()}"
    async with superuser(stores) as connection:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(_FILL, owner, person, MANY)
        await connection.execute(_MORE, owner, MANY)
        await connection.execute("ANALYZE twins, consents, notices")
        yield owner, person
        for table in ("consents", "notices"):
            await connection.execute(
                f"DELETE FROM {table} WHERE twin_id IN (SELECT id FROM twins WHERE owner = $1)", owner
            )
        await connection.execute("DELETE FROM twins WHERE owner = $1", owner)
        await connection.execute("ANALYZE twins, consents, notices")


@pytest.mark.parametrize("query", [{}, {"purpose": "rare"}, {"state": "expired"}, {"principal": "p"}, {"of": "person"}])
async def test_each_page_comes_quickly(client_of: ClientOf, many: tuple[str, str], query: dict[str, str]) -> None:
    owner, person = many
    filters = {"principal": person, "purpose": "rare"} if "of" in query else query
    for client, path in ((client_of(owner), OWNED), (client_of(person), GIVEN)):
        began = time.monotonic()
        found = await page(client, path, limit=100, **filters)
        for _ in range(3):
            if found["next_cursor"] is not None:
                found = await page(client, path, limit=100, cursor=found["next_cursor"], **filters)
        assert time.monotonic() - began < 4 * QUICK


async def test_the_only_one_is_found_by_going_on(client_of: ClientOf, many: tuple[str, str]) -> None:
    owner, person = many
    assert len(await listed(client_of(owner), OWNED, purpose="rare")) == 1
    assert await listed(client_of(owner), OWNED, purpose="rare") == await listed(
        client_of(person), GIVEN, purpose="rare"
    )


async def test_a_twin_with_many_consents_costs_a_page_no_more(
    alice: Client, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await make_twin(alice)
    async with superuser(stores) as connection:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(
            """
            INSERT INTO consents (id, twin_id, lineage, seq, principal, method, purposes, notice_version,
                                  notice_language, notice_sha256, given_at)
            SELECT uuidv7(), twin_id, lineage, 1, principal, method, purposes, notice_version, notice_language,
                   notice_sha256, given_at
            FROM consents, generate_series(1, $2::int) WHERE twin_id = $1
            """,
            id_of(path),
            MANY,
        )
    later = await make_twin(alice)
    began = time.monotonic()
    found = await page(alice, OWNED, limit=2, state="expired")
    assert time.monotonic() - began < QUICK
    assert (found["items"], found["next_cursor"] is None) == ([], False)
    assert len({*await listed(alice, OWNED, limit=100, purpose="general")}) == MANY + 2
    monkeypatch.setattr(service, "_SCANNED", 1)
    first = await page(alice, OWNED, limit=1)
    assert first["items"][0]["twin_id"] == str(id_of(later))
