"""A store that is stopped, killed or hangs under load, and comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest

from devstack.process import Server
from tests.resilience.harness.limits import ANSWERED, ANSWERED_HUNG, LOAD_SECONDS
from tests.resilience.harness.load import creators, load, persona_writers
from tests.resilience.harness.scenario import scenario
from tests.support.stores import Stores

type Fault = Literal["stop", "kill", "pause"]
FAULTS: tuple[Fault, ...] = ("stop", "kill", "pause")


@asynccontextmanager
async def away(server: Server, fault: Fault) -> AsyncIterator[None]:
    """Hurt a store for the time of the block."""
    await asyncio.to_thread(getattr(server, fault))
    try:
        yield
    finally:
        await asyncio.to_thread(server.resume if fault == "pause" else server.start)


def answered(fault: Fault) -> float:
    return ANSWERED_HUNG if fault == "pause" else ANSWERED


async def test_postgresql_goes_away_under_load_and_no_acknowledged_twin_is_lost(stores: Stores) -> None:
    async with scenario("PostgreSQL stopped, killed, paused under load", stores) as s:
        clients = s.clients
        path = f"/api/v1/twins/{await clients.create('witness', 'before')}"
        async with load(*creators(clients, 8)):
            for fault in FAULTS:
                await asyncio.sleep(LOAD_SECONDS)
                with clients.watched() as outage:
                    async with away(stores.postgres, fault):
                        with clients.watched(lambda sent: sent == path) as refused:
                            reads = (clients.send("GET", path, "witness") for _ in range(20))
                            await asyncio.gather(s.is_not_ready(), *reads)
                        assert refused.outcomes == {"503": 20}
                    await s.recovered("GET", path, "witness", what=fault)
                assert outage.slowest < answered(fault), fault
                await s.recovered("GET", "/ready", what=fault)
            await asyncio.sleep(LOAD_SECONDS)
        assert set(clients.tally.outcomes) <= {"200", "201", "409", "503"}


async def test_mongodb_goes_away_under_load_while_twins_go_on(stores: Stores) -> None:
    async with scenario("MongoDB stopped, killed, paused under load", stores) as s:
        clients = s.clients
        twins = [await clients.create("author", f"twin-{n}") for n in range(8)]
        path = f"/api/v1/twins/{twins[0]}/persona"
        async with load(*persona_writers(clients, "author", twins), *creators(clients, 2)):
            for fault in FAULTS:
                await asyncio.sleep(LOAD_SECONDS)
                with clients.watched(is_of_persona) as personas, clients.watched(is_of_twin) as others:
                    async with away(stores.mongod, fault):
                        with clients.watched(lambda sent: sent == path) as refused:
                            reads = (clients.send("GET", path, "author") for _ in range(8))
                            await asyncio.gather(s.is_not_ready(), *reads)
                        assert refused.outcomes["503"] >= 8
                    await s.recovered("GET", "/ready", what=fault)
                    await s.recovered("GET", path, "author", what=fault)
                assert set(personas.outcomes) <= {"200", "503"}
                assert personas.slowest < ANSWERED_HUNG
                assert set(others.outcomes) == {"200", "201"}
                assert others.slowest < ANSWERED / 2
            await asyncio.sleep(LOAD_SECONDS)


@pytest.mark.parametrize("store", ["postgres", "mongod"])
async def test_a_process_can_be_stopped_while_a_store_hangs(stores: Stores, store: str) -> None:
    server: Server = getattr(stores, store)
    async with scenario(f"app stopped while {store} hangs", stores) as s:
        clients, (app,) = s.clients, s.apps
        twin = await clients.create("author", "twin")
        await clients.put_persona("author", twin, "Persona.")
        async with away(server, "pause"):
            waiting = [asyncio.create_task(clients.put_persona("author", twin, "Another.")) for _ in range(4)]
            await asyncio.sleep(0.5)
            s.figures["stopped_while_hanging_s"] = round(await app.stop(), 2)
            await asyncio.gather(*waiting)
        assert set(clients.tally.outcomes) <= {"200", "201", "503"}, "a request under way was not answered"
        await app.start()


def is_of_persona(path: str) -> bool:
    return "/persona" in path


def is_of_twin(path: str) -> bool:
    return path.startswith("/api/") and not is_of_persona(path)
