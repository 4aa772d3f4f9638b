"""The gate and every no have connections that nothing else takes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest

from shared.stores.postgres import Priority
from tests.support.app import Client, make_twin, token
from tests.support.consent import grant, location, reason
from twins.app import create_app
from twins.context import Context
from twins.settings import Settings

COMMON, RESERVED = 2, 4


@pytest.fixture
async def small(settings: Settings) -> AsyncIterator[tuple[Context, Client]]:
    """An application with few connections."""
    update = {
        "postgres_pool_max": COMMON + RESERVED,
        "postgres_pool_reserved": RESERVED,
        "postgres_acquire_timeout": 0.3,
    }
    app = create_app(settings.model_copy(update=update))
    headers = {"Authorization": f"Bearer {token('small')}"}
    async with Client(transport=httpx.ASGITransport(app), base_url="http://twins.test", headers=headers) as client:
        yield app.state.context, client
    await app.close()


async def hold(context: Context, stack: AsyncExitStack, priority: Priority, count: int) -> None:
    for _ in range(count):
        connection = await stack.enter_async_context(context.postgres.connection(priority))
        await connection.execute("SELECT 1")


async def test_every_no_and_the_gate_are_answered_while_common_work_holds_all_its_connections(
    small: tuple[Context, Client],
) -> None:
    context, client = small
    paths = [await make_twin(client, principals=["small"]) for _ in range(5)]
    consent = await grant(client, paths[0], "voice")
    async with AsyncExitStack() as stack:
        await hold(context, stack, Priority.COMMON, COMMON)

        assert (await client.get(paths[0])).status_code == 503
        assert (await client.patch(paths[0], json={"tone": "warm"})).status_code == 503
        assert (await client.patch(paths[0], json={"consent": True})).status_code == 503
        assert await reason(client, paths[0]) == "granted"
        assert (await client.post(f"{location(consent)}/withdraw")).status_code == 200
        assert (await client.post(f"{paths[1]}/refusals")).status_code == 201
        assert (await client.patch(paths[2], json={"consent": False})).status_code == 200
        assert (await client.delete(paths[3])).status_code == 204
        assert (await client.delete("/api/v1/me")).status_code == 202
        answer = await client.post("/api/v1/decisions", json={"items": [{"twin_id": paths[4].rpartition("/")[2]}]})
        assert answer.json()["items"][0]["reason"] == "not_found"


async def test_the_gate_is_answered_while_noes_wait_for_locks(small: tuple[Context, Client]) -> None:
    context, client = small
    path = await make_twin(client)
    async with AsyncExitStack() as stack:
        await hold(context, stack, Priority.COMMON, COMMON)
        await hold(context, stack, Priority.HIGH, RESERVED // 2)

        assert (await client.post(f"{path}/refusals")).status_code == 503
        for _ in range(5):
            asked = await asyncio.gather(*(client.get(f"{path}/decision") for _ in range(10)))
            assert {answer.status_code for answer in asked} == {200}
