"""What an account may store: counted by the database, given back by erasure, and never in the way of a no."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.app import ALEX, Client, id_of, is_problem, make_twin, token
from tests.support.consent import NOTICE, grant, location, reason, renew
from tests.support.database import owner_of
from tests.support.erasure import finish
from tests.support.stores import Stores
from twins.app import create_app
from twins.context import Context
from twins.settings import Settings

TWINS, VERSIONS, BYTES = 3, 4, 8000
QUOTAS = ("account_twins", "account_versions", "account_bytes", "account_consents")

type ClientFor = Callable[[str], Client]


@pytest.fixture
async def small(settings: Settings) -> AsyncIterator[tuple[Context, ClientFor]]:
    """An application with small quotas."""
    update = {"account_twins": TWINS, "account_versions": VERSIONS, "account_bytes": BYTES}
    app = create_app(settings.model_copy(update=update))

    def client(sub: str) -> Client:
        headers = {"Authorization": f"Bearer {token(sub)}"}
        return Client(transport=httpx.ASGITransport(app), base_url="http://twins.test", headers=headers)

    yield app.state.context, client
    await app.close()


@pytest.fixture
def sub() -> str:
    return f"storing-{uuid4()}"


async def usage(stores: Stores, account: str) -> tuple[int, int, int] | None:
    async with owner_of(stores) as connection:
        row = await connection.fetchrow("SELECT twins, versions, bytes FROM account_usage WHERE account = $1", account)
        return None if row is None else tuple(row)


async def put(client: Client, path: str, persona: dict[str, Any]) -> httpx.Response:
    return await client.put(f"{path}/persona", json=persona)


async def test_twins(small: tuple[Context, ClientFor], sub: str, stores: Stores) -> None:
    _, client_for = small
    client = client_for(sub)
    paths = [await make_twin(client) for _ in range(TWINS)]
    key = {"Idempotency-Key": "a"}
    refused = await client.post("/api/v1/twins", json=ALEX, headers=key)
    assert is_problem(refused, 409, "quota-exceeded")
    assert refused.json()["detail"] == "The owner has 3 twins, as many as it may have."
    await make_twin(client_for(f"{sub}-other"))  # its own
    assert await usage(stores, sub) == (TWINS, 0, 0)

    assert (await client.delete(paths[0])).status_code == 204
    assert await usage(stores, sub) == (TWINS - 1, 0, 0)
    assert (await client.post("/api/v1/twins", json=ALEX, headers=key)).status_code == 201
    assert (await client.post("/api/v1/twins", json=ALEX, headers=key)).headers["idempotency-replayed"] == "true"
    assert await usage(stores, sub) == (TWINS, 0, 0)


async def test_versions_and_bytes(small: tuple[Context, ClientFor], sub: str, stores: Stores) -> None:
    context, client_for = small
    client = client_for(sub)
    one, two = [await make_twin(client) for _ in range(2)]
    empty = {"summary": "x"}
    for _ in range(VERSIONS):
        assert (await put(client, one, empty)).status_code == 200
    counted = await usage(stores, sub)
    assert counted is not None
    size = len((await client.get(f"{one}/persona")).text)
    assert counted[:2] == (2, VERSIONS)
    assert 0 < counted[2] < VERSIONS * size
    for answer in (
        await put(client, two, empty),
        await client.patch(f"{one}/persona", json={"summary": "y"}),
        await client.post(f"{one}/persona/versions/1/restore"),
    ):
        assert is_problem(answer, 409, "quota-exceeded")
    assert await usage(stores, sub) == counted
    async with context.mongo.collection("personas") as collection:  # what was refused is not left behind
        assert await collection.count_documents({"twin_id": id_of(two)}) == 0

    assert (await client.delete(one)).status_code == 204
    assert await usage(stores, sub) == (1, 0, 0)
    assert (await put(client, two, {"summary": "x" * 5000})).status_code == 200
    large = await put(client, two, {"summary": "y" * 5000})
    assert is_problem(large, 409, "quota-exceeded")


async def test_long_notices(small: tuple[Context, ClientFor], sub: str, stores: Stores) -> None:
    _, client_for = small
    client = client_for(sub)
    path = await make_twin(client)
    long = NOTICE | {"text": "I agree." * 500}
    first = await grant(client, path, "voice", notice=long)
    assert await usage(stores, sub) == (1, 0, 4000)
    again = await grant(client, path, "face", notice=long)  # it is there already
    await renew(client, again)
    assert await usage(stores, sub) == (1, 0, 4000)
    other = NOTICE | {"text": "You agree." * 500}
    body = {"purposes": ["dance"], "notice": other}
    assert is_problem(await client.post(f"{path}/consents", json=body), 409, "quota-exceeded")
    refused = await client.post(f"{location(first)}/renew", json={"notice": other})
    assert is_problem(refused, 409, "quota-exceeded")
    await grant(client, path, "dance")  # with a short one
    missing = await client.post(f"/api/v1/twins/{uuid4()}/consents", json=body)
    assert is_problem(missing, 404, "not-found")


def uses(*purposes: str) -> dict[str, Any]:
    return {"uses": [{"purpose": purpose, "description": "x" * 900} for purpose in purposes]}


async def test_long_terms(small: tuple[Context, ClientFor], sub: str, stores: Stores) -> None:
    context, client_for = small
    client, person = client_for(sub), client_for(f"{sub}-person")
    path = await make_twin(client, consent=False)
    body = {"purposes": ["voice", "face"], "notice": NOTICE, "principal": f"{sub}-person"}
    long = await client.post(f"{path}/consents", json=body | uses("voice", "face"))
    assert long.status_code == 201
    counted = await usage(stores, sub)
    assert counted is not None
    assert 1_800 < counted[2] < 2_000
    many = [f"use-{number}" for number in range(8)]
    for answer in (
        await client.post(f"{path}/consents", json={"purposes": many, "notice": NOTICE} | uses(*many)),
        await client.post(f"{path}/consents", json={"purposes": many, "notice": NOTICE | {"text": "x" * 7_000}}),
    ):
        assert is_problem(answer, 409, "quota-exceeded")
    await grant(client, path, *many)  # with short ones
    assert await usage(stores, sub) == counted

    erased = await person.delete("/api/v1/me")
    assert erased.status_code == 202
    await finish(context, erased.headers["location"])
    assert await usage(stores, sub) == (1, 0, 0)


async def test_a_stranger_does_not_learn_whether_an_owner_is_at_a_quota(settings: Settings, sub: str) -> None:
    app = create_app(settings.model_copy(update={"account_consents": 0, "account_bytes": 0}))
    owner, stranger = (
        Client(
            transport=httpx.ASGITransport(app),
            base_url="http://twins.test",
            headers={"Authorization": f"Bearer {token(name)}"},
        )
        for name in (sub, f"{sub}-stranger")
    )
    path = await make_twin(owner)
    body = {"purposes": ["voice"], "notice": NOTICE | {"text": "I agree." * 500}}

    assert is_problem(await owner.post(f"{path}/consents", json=body), 409, "quota-exceeded")
    assert is_problem(await stranger.post(f"{path}/consents", json=body), 404, "not-found")
    await app.close()


async def test_consents(settings: Settings, sub: str, stores: Stores) -> None:
    app = create_app(settings.model_copy(update={"account_consents": 2}))
    headers = {"Authorization": f"Bearer {token(sub)}"}
    async with Client(transport=httpx.ASGITransport(app), base_url="http://twins.test", headers=headers) as client:
        one, two = await make_twin(client), await make_twin(client, consent=False, principals=[sub])
        first = await grant(client, two, "voice")  # of each twin, it counts nothing
        consent = await grant(client, two, "face")
        await renew(client, consent)
        assert await consents_of(stores, sub) == 2
        body = {"purposes": ["dance"], "notice": NOTICE}
        for answer in (
            await client.post(f"{one}/consents", json=body),
            await client.post(f"{location(first)}/renew", json={}),
        ):
            assert is_problem(answer, 409, "quota-exceeded")
        # A no is none, and a new twin with its first consent is as good as before.
        assert (await client.post(f"{location(first)}/withdraw")).status_code == 200
        assert (await client.patch(one, json={"consent": False})).status_code == 200
        assert is_problem(await client.patch(one, json={"consent": True}), 409, "quota-exceeded")
        await make_twin(client)
        missing = await client.post(f"/api/v1/twins/{uuid4()}/consents", json=body)
        assert is_problem(missing, 404, "not-found")
        assert await consents_of(stores, sub) == 2

        assert (await client.delete(two)).status_code == 204
        assert await consents_of(stores, sub) == 0
        assert (await client.patch(one, json={"consent": True})).status_code == 200
    await app.close()


async def consents_of(stores: Stores, account: str) -> int:
    async with owner_of(stores) as connection:
        number: int | None = await connection.fetchval(
            "SELECT consents FROM account_consents WHERE account = $1", account
        )
        return number or 0


async def test_no_quota_refuses_a_no(settings: Settings, sub: str, stores: Stores) -> None:
    async def client_with(update: dict[str, int], name: str) -> tuple[Client, Any]:
        app = create_app(settings.model_copy(update=update))
        headers = {"Authorization": f"Bearer {token(name)}"}
        return Client(transport=httpx.ASGITransport(app), base_url="http://twins.test", headers=headers), app

    free, free_app = await client_with({}, sub)
    paths = [await make_twin(free, principals=[sub]) for _ in range(4)]
    consent = await grant(free, paths[0], "voice")
    assert (await put(free, paths[0], {"summary": "x"})).status_code == 200
    full, full_app = await client_with(dict.fromkeys(QUOTAS, 0), sub)

    assert is_problem(await full.post("/api/v1/twins", json=ALEX), 409, "quota-exceeded")
    assert is_problem(await put(full, paths[0], {}), 409, "quota-exceeded")
    assert (await full.post(f"{location(consent)}/withdraw")).status_code == 200
    assert (await full.post(f"{paths[1]}/refusals")).status_code == 201
    assert (await full.patch(paths[2], json={"consent": False})).status_code == 200
    assert (await full.patch(paths[2], json={"tone": "warm"})).status_code == 200
    assert await reason(full, paths[1]) == "refused"
    assert (await full.delete(paths[3])).status_code == 204
    assert (await full.delete("/api/v1/me")).status_code == 202
    for app in (free_app, full_app):
        await app.close()


async def test_names_in_principals(alice: Client, stores: Stores, sub: str) -> None:
    path, other = await make_twin(alice, consent=False, principals=[sub]), await make_twin(alice, consent=False)
    async with owner_of(stores) as connection:
        await connection.execute(
            "INSERT INTO named_accounts SELECT $1, 'named ' || n, now() FROM generate_series(2, 9999) n",
            id_of(path),
        )
    assert (await alice.patch(path, json={"principals": ["the 10,000th"]})).status_code == 200
    refused = await alice.patch(path, json={"principals": ["one more"], "tone": "warm"})

    assert is_problem(refused, 409, "quota-exceeded")
    assert (await alice.get(path)).json()["principals"] == ["the 10,000th"]
    assert (await alice.get(path)).json()["tone"] == ALEX["tone"]
    assert (await alice.patch(path, json={"principals": [sub, "named 2"]})).status_code == 200  # named before
    assert (await alice.patch(path, json={"principals": []})).status_code == 200
    assert (await alice.patch(other, json={"principals": ["one more"]})).status_code == 200
    await grant(alice, path, "voice", principal="one more")  # consents have a quota of their own


async def test_an_erased_account_leaves_no_row_and_who_comes_back_has_room(
    small: tuple[Context, ClientFor], sub: str, stores: Stores
) -> None:
    context, client_for = small
    client = client_for(sub)
    paths = [await make_twin(client) for _ in range(TWINS)]
    await put(client, paths[0], {"summary": "x"})
    await grant(client, paths[1], "voice", notice=NOTICE | {"text": "I agree. " * 300})
    url = (await client.delete("/api/v1/me")).headers["location"]
    await finish(context, url)
    assert await usage(stores, sub) is None

    again = [await make_twin(client) for _ in range(TWINS)]
    assert await usage(stores, sub) == (TWINS, 0, 0)
    for path in again:
        assert (await client.delete(path)).status_code == 204
    assert await usage(stores, sub) is None


async def test_twins_made_at_once_are_counted_and_do_not_wait_for_one_another(
    small: tuple[Context, ClientFor], client_of: Callable[..., Client], sub: str, stores: Stores
) -> None:
    client = client_of(sub)
    async with owner_of(stores) as connection, connection.transaction():
        # Another creation of this owner that has not committed: it holds no lock that these wait for.
        await connection.execute("INSERT INTO twins (owner, twin_name, use_case, tone) VALUES ($1, 'a', 'b', 'c')", sub)
        answers = await asyncio.gather(*(client.post("/api/v1/twins", json=ALEX) for _ in range(30)))
    assert {answer.status_code for answer in answers} == {201}
    assert await usage(stores, sub) == (31, 0, 0)
    paths = [answer.headers["location"] for answer in answers]
    gone = await asyncio.gather(*(client.delete(path) for path in paths))
    assert {answer.status_code for answer in gone} == {204}
    assert await usage(stores, sub) == (1, 0, 0)


async def test_the_serving_role_cannot_change_what_is_counted(stores: Stores, context: Context) -> None:
    async with context.postgres.connection() as connection:
        for statement in (
            "UPDATE account_usage SET twins = 0",
            "DELETE FROM account_usage",
            "UPDATE account_consents SET consents = 0",
            "DELETE FROM account_consents",
        ):
            with pytest.raises(Exception, match="permission denied"):
                await connection.execute(statement)
