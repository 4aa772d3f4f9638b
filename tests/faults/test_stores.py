"""Stores that go away under load, and come back; apps that are killed; more requests than connections."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.faults.load import App, Load, client_of, connections, create_until_made, running_app, stored_ids
from tests.support.app import ALEX
from tests.support.stores import Stores, running_stores
from twins.settings import Settings

PERSONA = {"summary": "Alex helps."}


@pytest.fixture(scope="module")
def own_stores() -> Iterator[Stores]:
    """Stores of this module alone, since they are hurt."""
    with running_stores() as running:
        yield running


@pytest.fixture
def app(own_stores: Stores, environment: dict[str, str], tmp_path: Path) -> Iterator[App]:
    with running_app(own_stores, environment, tmp_path / "app.log") as running:
        yield running


async def test_a_killed_app_makes_each_twin_once(own_stores: Stores, app: App) -> None:
    async with client_of(app, "killed") as client:
        keys = [f"key-{n}" for n in range(200)]
        first = [asyncio.create_task(create_until_made(client, key)) for key in keys]
        while len(await stored_ids(own_stores, "killed")) < 50:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(app.kill)
        await asyncio.to_thread(app.start)
        made = set(await asyncio.gather(*first))
        again = {await create_until_made(client, key) for key in keys}

    assert len(made) == 200
    assert again == made == await stored_ids(own_stores, "killed")


async def test_a_thousand_requests_at_once_are_all_answered_by_the_connections_of_the_pool(
    own_stores: Stores, app: App, settings: Settings
) -> None:
    async with client_of(app, "thousand") as client:
        path = (await client.post("/api/v1/twins", json=ALEX)).headers["location"]
        answers = await asyncio.gather(*(client.get(f"{path}/decision") for _ in range(1000)))
        seen = await connections(own_stores)

    assert {answer.status_code for answer in answers} <= {200, 503}
    assert sum(answer.status_code == 200 for answer in answers) > 900
    assert seen <= settings.postgres_pool_max


async def test_a_request_that_waits_too_long_for_a_connection_is_told_when_to_come_back(
    own_stores: Stores, app: App
) -> None:
    blocker = await asyncpg.connect(own_stores.postgres.owner_dsn)
    async with client_of(app, "blocked") as client:
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE twins IN ACCESS EXCLUSIVE MODE")
            started = time.monotonic()
            answers = await asyncio.gather(*(client.get("/api/v1/twins") for _ in range(30)))
            took = time.monotonic() - started
        assert (await client.get("/api/v1/twins")).status_code == 200
    await blocker.close()

    assert {answer.status_code for answer in answers} == {503}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    assert took < 6


@pytest.mark.parametrize("how", ["stop", "kill", "pause"])
async def test_postgresql_goes_away_and_comes_back(own_stores: Stores, app: App, how: str) -> None:
    owner = f"postgres-{how}"
    made: set[str] = set()

    async with client_of(app, owner) as client:

        async def create() -> httpx.Response:
            answer = await client.post("/api/v1/twins", json=ALEX)
            if answer.status_code == 201:
                made.add(answer.json()["id"])
            return answer

        async with Load(create) as load:
            await load.until(201, within=5)
            await asyncio.to_thread(getattr(own_stores.postgres, how))
            await load.until(503, within=5)
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/ready")).status_code == 503
            await asyncio.to_thread(own_stores.postgres.resume if how == "pause" else own_stores.postgres.start)
            recovered = await load.until(201, within=5)
        assert (await client.get("/ready")).status_code == 200

    assert set(load.statuses) <= {201, 503}
    assert load.slowest < 8
    assert recovered < 5
    assert made <= await stored_ids(own_stores, owner)
    assert await connections(own_stores) <= 10


@pytest.mark.parametrize("how", ["stop", "kill", "pause"])
async def test_mongodb_goes_away_and_comes_back_while_twins_go_on(own_stores: Stores, app: App, how: str) -> None:
    async with client_of(app, f"mongo-{how}") as client:
        path = (await client.post("/api/v1/twins", json=ALEX)).headers["location"]

        async def put() -> httpx.Response:
            return await client.put(f"{path}/persona", json=PERSONA)

        async def get() -> httpx.Response:
            return await client.get(path)

        async with Load(put, workers=4) as personas, Load(get, workers=2) as twins:
            await personas.until(200, within=5)
            await asyncio.to_thread(getattr(own_stores.mongod, how))
            await personas.until(503, within=5)
            ready = await client.get("/ready")
            await asyncio.to_thread(own_stores.mongod.resume if how == "pause" else own_stores.mongod.start)
            await personas.until(200, within=10 if how != "pause" else 5)

        versions = (await client.get(f"{path}/persona")).json()["version"]

    assert ready.status_code == 503
    assert set(twins.statuses) == {200}
    assert twins.slowest < 2
    assert set(personas.statuses) <= {200, 503}
    assert versions >= personas.statuses[200]


async def test_the_gate_goes_on_while_old_versions_cannot_be_restored(own_stores: Stores, app: App) -> None:
    async with client_of(app, "restoring") as client:
        path = (await client.post("/api/v1/twins", json=ALEX)).headers["location"]
        assert (await client.put(f"{path}/persona", json=PERSONA)).status_code == 200
        await asyncio.to_thread(own_stores.mongod.pause)
        # More than there are connections to PostgreSQL.
        restores = [asyncio.create_task(client.post(f"{path}/persona/versions/1/restore")) for _ in range(12)]
        await asyncio.sleep(0.2)
        started = time.monotonic()
        decisions = await asyncio.gather(*(client.get(f"{path}/decision") for _ in range(5)))
        took = time.monotonic() - started
        refused = await asyncio.gather(*restores)
        await asyncio.to_thread(own_stores.mongod.resume)

    assert {answer.status_code for answer in decisions} == {200}
    assert took < 1
    assert {answer.status_code for answer in refused} == {503}
