"""A network between the application and its stores that is slow, cuts connections, or swallows everything."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from devstack.process import LOCALHOST
from tests.resilience.harness.limits import ANSWERED, ANSWERED_HUNG, LOAD_SECONDS, LONG, PATIENCE, SEED
from tests.resilience.harness.load import creators, load, persona_writers
from tests.resilience.harness.proxy import Proxy
from tests.resilience.harness.scenario import scenario
from tests.support.stores import Stores

POSTGRES_CUT = 300, 12_000
"""Bytes: from the middle of signing in to some twenty answers."""
MONGODB_CUT = 100, 3_000
CUTS = 200 if LONG else 15


@dataclass(frozen=True)
class Network:
    """What lies before each store."""

    postgres: Proxy
    mongod: Proxy
    environment: dict[str, str]


@asynccontextmanager
async def network(stores: Stores) -> AsyncIterator[Network]:
    postgres, mongod = Proxy(stores.postgres.port, SEED), Proxy(stores.mongod.port, SEED)
    async with postgres.running(), mongod.running():
        environment = {
            "POSTGRES_DSN": stores.postgres.dsn.replace(f":{stores.postgres.port}/", f":{postgres.port}/"),
            # Direct: else the driver would ask the server where it is, and go around the proxy.
            "MONGODB_URI": f"mongodb://{LOCALHOST}:{mongod.port}/?directConnection=true",
        }
        yield Network(postgres, mongod, environment)


async def until_cut(proxy: Proxy) -> None:
    """Wait until it has cut connections often enough, and let it cut no more."""
    async with asyncio.timeout(PATIENCE):
        while proxy.cuts < CUTS:
            await asyncio.sleep(0.01)
    proxy.cut_within = None


async def test_a_slow_network_only_makes_it_slow(stores: Stores) -> None:
    async with network(stores) as net, scenario("slow network", stores, environment=net.environment) as s:
        clients = s.clients
        twins = [await clients.create("author", f"twin-{n}") for n in range(2)]
        for proxy in (net.postgres, net.mongod):
            proxy.delay_up, proxy.delay_down = 0.02, 0.03
        async with load(*creators(clients, 4), *persona_writers(clients, "author", twins)):
            await asyncio.sleep(LOAD_SECONDS + 1)
        for proxy in (net.postgres, net.mongod):
            proxy.delay_up = proxy.delay_down = 0.0
        assert set(clients.tally.outcomes) == {"200", "201"}


async def test_answers_of_postgresql_cut_in_the_middle_make_each_twin_once(stores: Stores) -> None:
    async with network(stores) as net, scenario("PostgreSQL: answers cut", stores, environment=net.environment) as s:
        clients = s.clients
        await clients.create("owner", "before")
        net.postgres.cut_within = POSTGRES_CUT
        async with load(*creators(clients, 8)):
            await until_cut(net.postgres)
            await s.recovered("GET", "/ready")
        s.figures["cuts"] = net.postgres.cuts
        assert set(clients.tally.outcomes) <= {"200", "201", "409", "503"}


async def test_answers_of_mongodb_cut_in_the_middle_lose_no_version(stores: Stores) -> None:
    async with network(stores) as net, scenario("MongoDB: answers cut", stores, environment=net.environment) as s:
        clients = s.clients
        twins = [await clients.create("author", f"twin-{n}") for n in range(6)]
        net.mongod.cut_within = MONGODB_CUT
        async with load(*persona_writers(clients, "author", twins)):
            await until_cut(net.mongod)
            await s.recovered("GET", "/ready")
        s.figures["cuts"] = net.mongod.cuts
        assert set(clients.tally.outcomes) <= {"200", "201", "503"}


async def test_a_black_hole_before_postgresql_is_503_in_time(stores: Stores) -> None:
    async with network(stores) as net, scenario("PostgreSQL: black hole", stores, environment=net.environment) as s:
        clients = s.clients
        path = f"/api/v1/twins/{await clients.create('witness', 'before')}"
        async with load(*creators(clients, 8)):
            await asyncio.sleep(LOAD_SECONDS)
            with clients.watched() as outage:
                net.postgres.open_hole()
                await asyncio.gather(s.is_not_ready(), *(clients.send("GET", path, "witness") for _ in range(20)))
            assert outage.outcomes["503"] >= 20
            assert outage.slowest < ANSWERED_HUNG
            net.postgres.close_hole()
            await s.recovered("GET", path, "witness")
            await s.recovered("GET", "/ready")


async def test_a_black_hole_before_mongodb_leaves_twins_alone(stores: Stores) -> None:
    async with network(stores) as net, scenario("MongoDB: black hole", stores, environment=net.environment) as s:
        clients = s.clients
        twins = [await clients.create("author", f"twin-{n}") for n in range(4)]
        path = f"/api/v1/twins/{twins[0]}/persona"
        async with load(*persona_writers(clients, "author", twins)):
            await asyncio.sleep(LOAD_SECONDS)
            net.mongod.open_hole()
            with (
                clients.watched(lambda path: "/persona" in path) as personas,
                clients.watched(lambda path: path.startswith("/api/") and "/persona" not in path) as others,
            ):
                async with load(*creators(clients, 4)):
                    await asyncio.gather(s.is_not_ready(), *(clients.send("GET", path, "author") for _ in range(8)))
            assert personas.outcomes["503"] >= 8
            assert personas.slowest < ANSWERED_HUNG
            assert set(others.outcomes) == {"200", "201"}
            assert others.slowest < ANSWERED / 2
            net.mongod.close_hole()
            await s.recovered("GET", "/ready")
            await s.recovered("GET", path, "author")


async def test_a_pool_that_opens_into_a_black_hole_answers_every_first_request_in_time(stores: Stores) -> None:
    async with network(stores) as net:
        net.postgres.open_hole()
        environment = net.environment | {"POSTGRES_POOL_MIN": "2"}
        async with scenario("PostgreSQL: black hole at the first request", stores, environment=environment) as s:
            started = time.monotonic()
            answers = await asyncio.gather(*(s.clients.try_create("owner", f"key-{n}") for n in range(10)))
            assert [answer and answer.status_code for answer in answers] == [503] * 10
            assert time.monotonic() - started < ANSWERED
            net.postgres.close_hole()
            await s.recovered("GET", "/ready")
            await s.clients.create_all("owner", [f"key-{n}" for n in range(10)])
