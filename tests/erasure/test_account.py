"""`/api/v1/me`: what is stored of an account, and the erasure of all of it."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from shared import outbox
from shared.context import Context
from shared.errors import Unavailable
from tests.conftest import ALEX, Client, ClientOf, is_problem, make_twin
from tests.consent.steps import (
    HOUR,
    NOTICE,
    after,
    decide,
    grant,
    location,
    reason,
    renew,
    superuser,
    transitions,
    verify,
    withdraw,
)
from tests.erasure.steps import certificate_of, documents_of, dump, erasure_of, finish, id_of, removed, traces
from tests.stores import Stores
from twins.consent import queries as consent_queries
from twins.erasure import queries, service

ME = "/api/v1/me"
NOTHING = {
    "twins": 0,
    "persona_versions": 0,
    "consents": 0,
    "ledger_events": 0,
    "idempotency_answers": 0,
    "consents_given": 0,
}


async def counts(client: Client) -> dict[str, Any]:
    answer = await client.get(ME)
    assert answer.status_code == 200, answer.text
    return {name: value for name, value in answer.json().items() if name != "sub"}


async def leave(client: Client) -> str:
    answer = await client.delete(ME)
    assert (answer.status_code, answer.content) == (204, b"")
    return str(answer.headers["location"])


async def full_account(client: Client, sub: str, *others: Client) -> list[str]:
    """Give an account two twins with all there is, and let it agree to a twin of each other; return the paths."""
    paths = []
    for n in range(2):
        key = {"Idempotency-Key": f"key-{n}"}
        paths.append((await client.post("/api/v1/twins", json=ALEX, headers=key)).headers["location"])
        await client.put(f"{paths[n]}/persona", json={"summary": f"Number {n}."})
        await grant(client, paths[n], "voice", principal="paula")
    for other in others:
        path = await make_twin(other, consent=False)
        key = {"Idempotency-Key": f"for-{sub}"}
        body = {"purposes": ["general"], "notice": NOTICE, "principal": sub}
        assert (await other.post(f"{path}/consents", json=body, headers=key)).status_code == 201
        paths.append(path)
    return paths


async def test_an_account_without_anything_has_nothing_and_can_be_erased(
    client_of: ClientOf, anyone: Client, context: Context
) -> None:
    sub = f"nobody-{uuid4()}"
    client = client_of(sub)
    assert (await client.get(ME)).json() == {"sub": sub} | NOTHING
    url = await leave(client)
    await finish(context, url)

    erasure = await erasure_of(client, url)
    assert (erasure["state"], erasure["twins"], erasure["removed"]) == ("complete", 0, removed())
    assert (await certificate_of(client, erasure))["ledgers"] == []
    assert is_problem(await anyone.get(ME), 401, "unauthorized")
    assert is_problem(await anyone.delete(ME), 401, "unauthorized")


async def test_what_is_stored_of_an_account_is_counted(alice: Client, client_of: ClientOf) -> None:
    sub = f"counted-{uuid4()}"
    client = client_of(sub)
    await full_account(client, sub, alice)

    assert await counts(client) == {
        "twins": 2,
        "persona_versions": 2,
        "consents": 4,
        "ledger_events": 4,
        "idempotency_answers": 2,
        "consents_given": 1,
    }


async def test_erasing_an_account_takes_its_twins_and_nothing_of_others(
    alice: Client, client_of: ClientOf, context: Context, stores: Stores
) -> None:
    sub = f"leaving-{uuid4()}"
    client = client_of(sub)
    first, second, kept = await full_account(client, sub, alice)
    hers = await counts(alice)
    url = await leave(client)

    assert await counts(client) == NOTHING
    assert (await client.get("/api/v1/twins")).json()["items"] == []
    for path in (first, second):
        assert is_problem(await client.get(path), 404, "not-found")
    await finish(context, url)
    erasure = await erasure_of(client, url)
    assert erasure["twins"] == 2
    expected = removed(twins=2, persona_versions=2, persona_documents=2, consents=4, idempotency_answers=2)
    assert erasure["removed"] == expected
    certificate = await certificate_of(client, erasure)
    assert {ledger["twin_id"] for ledger in certificate["ledgers"]} == {str(id_of(path)) for path in (first, second)}
    assert (await alice.get(kept)).status_code == 200
    # The stored answer that named the person is the only thing that she has lost.
    assert await counts(alice) == hers | {"ledger_events": 2, "idempotency_answers": 0}


async def test_what_the_person_agreed_to_for_others_is_withdrawn_and_names_nobody(
    alice: Client, bob: Client, client_of: ClientOf, context: Context, stores: Stores
) -> None:
    sub = f"gundula-{uuid4()}"
    client = client_of(sub)
    _, _, hers, his = await full_account(client, sub, alice, bob)
    renewed = await renew(alice, (await alice.get(f"{hers}/consents")).json()["items"][0])
    ended = await withdraw(alice, await grant(alice, hers, "ended", principal=sub))
    future = await grant(alice, hers, "later", principal=sub, not_before=after(HOUR))
    other = await grant(alice, hers, "training", principal=f"{sub}-but-not-quite")
    await finish(context, await leave(client))

    for path, owner in ((hers, alice), (his, bob)):
        assert await reason(owner, path) == "withdrawn"
        assert (await verify(owner, path))["valid"] is True
    assert await transitions(bob, his) == ["given", "withdrawn"]
    assert await transitions(alice, hers) == [
        *("given", "renewed", "given", "withdrawn", "given", "given"),
        *("withdrawn", "withdrawn"),
    ]
    assert await reason(alice, hers, "later") == "withdrawn"
    assert (await decide(alice, hers, "training"))["decision"] is True
    for consent in (renewed, ended, future):
        seen = (await alice.get(location(consent))).json()
        assert seen["state"] == "withdrawn"
        assert seen["principal"].startswith("erased:")
        # Whoever gets a new account of that name is somebody else.
        assert is_problem(await client.get(location(consent)), 404, "not-found")
    assert (await alice.get(location(ended))).json()["withdrawn_at"] == ended["withdrawn_at"]
    assert (await alice.get(location(other))).json() == other
    found = {
        name: [text.replace(other["principal"], "") for text in texts] for name, texts in (await dump(stores)).items()
    }
    assert traces(found, sub) == []


async def test_two_people_who_leave_cannot_be_told_to_be_one(alice: Client, client_of: ClientOf) -> None:
    path = await make_twin(alice, consent=False)
    seen = []
    for n in range(2):
        sub = f"person-{n}-{uuid4()}"
        consent = await grant(alice, path, f"p{n}", principal=sub)
        await leave(client_of(sub))
        seen.append((await alice.get(location(consent))).json()["principal"])

    assert len(set(seen)) == 2


async def test_an_erased_account_can_begin_anew(client_of: ClientOf, context: Context) -> None:
    client = client_of(f"phoenix-{uuid4()}")
    await make_twin(client)
    await finish(context, await leave(client))
    path = await make_twin(client)
    second = await leave(client)
    await finish(context, second)

    assert is_problem(await client.get(path), 404, "not-found")
    assert (await erasure_of(client, second))["removed"] == removed(twins=1, consents=1)


async def test_of_two_erasures_of_an_account_at_once_each_twin_is_in_one(
    client_of: ClientOf, context: Context, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_BATCH", 2)
    client = client_of(f"twice-{uuid4()}")
    paths = [await make_twin(client) for _ in range(7)]
    for path in paths:
        await client.put(f"{path}/persona", json={})
    urls = await asyncio.gather(*(leave(client) for _ in range(4)))
    for url in urls:
        await finish(context, url)
    erasures = [await erasure_of(client, url) for url in urls]

    assert {erasure["state"] for erasure in erasures} == {"complete"}
    assert sum(erasure["twins"] for erasure in erasures) == 7
    assert sum(erasure["removed"]["persona_documents"] for erasure in erasures) == 7
    for path in paths:
        assert documents_of(stores, twin_id=id_of(path))["personas"] == []


async def test_nothing_of_an_account_is_certified_while_it_has_twins_left(
    client_of: ClientOf, context: Context, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_BATCH", 3)
    client = client_of(f"many-{uuid4()}")
    paths = await asyncio.gather(*(make_twin(client) for _ in range(10)))
    await asyncio.gather(*(client.put(f"{path}/persona", json={"summary": "One of many."}) for path in paths))
    lock_twins = queries.lock_twins

    async def sweep_and_lock(connection: Any, owner: str, limit: int) -> list[UUID]:
        # Between two batches every job runs as often as it takes to end.
        for _ in range(2):
            async with context.postgres.connection() as other:
                await other.execute("UPDATE outbox SET run_at = now() WHERE dead_at IS NULL")
            await outbox.drain(context.postgres, service.handlers(context))
        return await lock_twins(connection, owner, limit)

    monkeypatch.setattr(queries, "lock_twins", sweep_and_lock)
    url = await leave(client)
    await finish(context, url)
    erasure = await erasure_of(client, url)

    assert (erasure["state"], erasure["twins"]) == ("complete", 10)
    assert erasure["removed"] == removed(twins=10, persona_versions=10, persona_documents=10, consents=10)
    assert len((await certificate_of(client, erasure))["ledgers"]) == 10
    for path in paths:
        assert documents_of(stores, twin_id=id_of(path))["personas"] == []


@pytest.mark.parametrize(("count", "carries_events"), [(service._SKELETON, True), (service._BATCH * 2 + 50, False)])
async def test_an_account_of_many_twins_is_erased_whole_and_its_certificate_can_be_verified(
    client_of: ClientOf, context: Context, stores: Stores, count: int, carries_events: bool
) -> None:
    sub = f"rich-{uuid4()}"
    client = client_of(sub)
    async with superuser(stores) as connection:
        await connection.execute(
            """
            INSERT INTO twins (owner, twin_name, use_case, tone)
            SELECT $1, 'Alex', 'support', 'warm' FROM generate_series(1, $2::int)
            """,
            sub,
            count,
        )
    assert await counts(client) == NOTHING | {"twins": count}
    url = await leave(client)
    assert await counts(client) == NOTHING
    await finish(context, url)
    certificate = await certificate_of(client, await erasure_of(client, url))

    assert certificate["removed"] == removed(twins=count)
    assert [ledger["seq"] for ledger in certificate["ledgers"]] == [1] * count
    events = certificate["events"]
    assert (events is not None) == carries_events
    assert {event["type"] for event in events or ()} <= {"erased"}
    assert len(events or ()) in (0, count)


async def test_nothing_is_erased_and_certified_before_the_person_has_left_everywhere(
    alice: Client, client_of: ClientOf, stores: Stores
) -> None:
    sub = f"held-up-{uuid4()}"
    client = client_of(sub)
    own, other = await make_twin(client), await make_twin(alice, consent=False)
    consent = await grant(alice, other, principal=sub)
    before = await counts(client)
    async with superuser(stores) as connection, connection.transaction():
        await connection.execute("SELECT FROM twins WHERE id = $1 FOR UPDATE", id_of(other))
        assert is_problem(await client.delete(ME), 503, "unavailable")
    assert await counts(client) == before
    assert (await client.get(own)).status_code == 200

    await leave(client)
    assert await counts(client) == NOTHING
    assert await reason(alice, other) == "withdrawn"
    assert (await alice.get(location(consent))).json()["principal"].startswith("erased:")


async def test_an_account_is_erased_whole_or_not_at_all(client_of: ClientOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_BATCH", 2)
    client = client_of(f"half-{uuid4()}")
    for _ in range(5):
        await make_twin(client)
    before = await counts(client)
    erase_twins = queries.erase_twins

    async def fail_at_the_third(connection: Any, erasure_id: UUID, twin_ids: list[UUID]) -> None:
        if len(twin_ids) == 1:
            raise Unavailable("The database does not answer in time.")
        await erase_twins(connection, erasure_id, twin_ids)

    monkeypatch.setattr(queries, "erase_twins", fail_at_the_third)
    assert is_problem(await client.delete(ME), 503, "unavailable")

    assert await counts(client) == before


async def test_a_twin_that_is_erased_by_its_owner_meanwhile_does_not_stop_a_person_from_leaving(
    alice: Client, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    sub = f"racing-{uuid4()}"
    client = client_of(sub)
    gone, kept = await make_twin(alice, consent=False), await make_twin(alice, consent=False)
    for path in (gone, kept):
        await grant(alice, path, principal=sub)
    select_given_to_others = consent_queries.select_given_to_others

    async def select_and_erase(connection: Any, principal: str, limit: int) -> Any:
        rows = await select_given_to_others(connection, principal, limit)
        await alice.delete(gone)
        return rows

    monkeypatch.setattr(consent_queries, "select_given_to_others", select_and_erase)
    await leave(client)

    assert await reason(alice, kept) == "withdrawn"
    assert await counts(client) == NOTHING
