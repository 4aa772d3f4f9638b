"""What one client can use up, measured on the process itself: memory, threads and connections stay bounded.

The first of each test's requests are not measured: pools, prepared statements, full caches and modules
that are imported when first needed stay, and are no cost of those that follow.
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from secrets import token_urlsafe
from statistics import median
from urllib.parse import quote

import aiohttp
import psutil
import pytest

from devstack.process import LOCALHOST
from shared.auth import _CACHE_SIZE
from shared.key_sets import COOLDOWN
from tests.support.app import ALEX, MISSING, token
from tests.support.database import owner_of
from tests.support.figures import record
from tests.support.issuer_server import IssuerServer, Signing, encoded
from tests.support.serving import MONGO_MONITORS, THREADS, Service, serving
from tests.support.stores import Stores
from twins.settings import Settings

MEMORY_MB = 30
HEALTH_S = 1.0
"""Seconds within which `/health` answers, whatever else is asked for."""
AT_ONCE = 20
PIECES = 512
"""Of 64 KiB: enough not to end before the answer, which is late by what the sockets of both sides hold."""
TWINS = 5_000
PAGE = 100
SLOWER = 2.0
"""How many times the time of the first page the last may take."""

type Send = Callable[[int], Awaitable[int]]
"""Sends the n-th request, and returns the status of its answer."""

_subs = (f"greedy-{n}" for n in itertools.count())


@pytest.fixture(scope="module")
def service(environment: dict[str, str]) -> Iterator[Service]:
    with serving(environment) as running:
        yield running
        assert running.is_sound(), running.written[-2000:]


@pytest.fixture
async def http(service: Service) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {token(next(_subs))}"}
    async with aiohttp.ClientSession(
        service.url, headers=headers, connector=aiohttp.TCPConnector(limit=AT_ONCE)
    ) as session:
        yield session


@pytest.fixture
async def cost(service: Service, settings: Settings) -> "Cost":
    return Cost(service, settings.postgres_pool_max + settings.mongodb_pool_max + MONGO_MONITORS)


class Cost:
    """Judges what requests cost the process."""

    def __init__(self, service: Service, to_stores: int) -> None:
        self._service = service
        self._process = psutil.Process(service.pid)
        # Of its clients, those too that it has not noticed to be gone; who asks for its health; the listener.
        self._most = to_stores + 3 * AT_ONCE + 2
        self._slowest = 0.0
        self._connections = 0
        self._threads = 0

    async def of(self, what: str, count: int, send: Send, *, first: int = 0, bound_mb: int = MEMORY_MB) -> set[int]:
        """Send so many requests after the `first` ones, and return the statuses of their answers."""
        first = first or count // 10
        async with self._watch():
            statuses = await _flood(range(first), send)
            before = self._process.memory_info().rss
            started = time.perf_counter()
            statuses += await _flood(range(first, first + count), send)
            seconds = time.perf_counter() - started
        grown = (self._process.memory_info().rss - before) / 2**20
        record(
            "exhaustion",
            {
                "what": what,
                "requests": statuses.total(),
                "answered": ", ".join(f"{status}: {times:,}" for status, times in sorted(statuses.items())),
                "per_second": round(count / seconds),
                "rss_growth_mb": round(grown, 1),
                "bound_mb": bound_mb,
                "health_slowest_ms": round(self._slowest * 1000),
                "connections": self._connections,
                "connections_bound": self._most,
                "threads": self._threads,
            },
        )
        assert max(statuses) < 500, statuses
        assert grown <= bound_mb
        assert 0 < self._slowest <= HEALTH_S
        assert 0 < self._connections <= self._most
        assert 0 < self._threads <= THREADS
        return set(statuses)

    @contextlib.asynccontextmanager
    async def _watch(self) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(self._service.url) as http:

            async def look() -> None:
                while True:
                    started = time.perf_counter()
                    async with http.get("/health") as answer:
                        assert answer.status == 200
                    self._slowest = max(self._slowest, time.perf_counter() - started)
                    open_now = sum(end.status != psutil.CONN_TIME_WAIT for end in self._process.net_connections("tcp"))
                    self._connections = max(self._connections, open_now)
                    self._threads = max(self._threads, self._process.num_threads())
                    await asyncio.sleep(0.05)

            watching = asyncio.create_task(look())
            try:
                yield
            finally:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching


async def _flood(numbers: Iterable[int], send: Send) -> Counter[int]:
    waiting = iter(numbers)
    statuses: Counter[int] = Counter()

    async def client() -> None:
        for n in waiting:
            statuses[await send(n)] += 1

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return statuses


async def test_many_idempotency_keys(cost: Cost, http: aiohttp.ClientSession) -> None:
    async def create(n: int) -> int:
        async with http.post("/api/v1/twins", json=ALEX, headers={"Idempotency-Key": f"key-{n}"}) as answer:
            return answer.status

    assert await cost.of("idempotency keys, all different", 2_000, create) == {201}


async def test_many_tokens(cost: Cost, http: aiohttp.ClientSession) -> None:
    sub = next(_subs)

    async def ask(n: int) -> int:
        headers = {"Authorization": f"Bearer {token(sub, jti=str(n), padding='x' * 5_800)}"}
        async with http.get(f"/api/v1/erasures/{MISSING}", headers=headers) as answer:
            return answer.status

    what = "valid tokens of 8 kB, all different, once those that are remembered are as many as may be"
    assert await cost.of(what, 3_000, ask, first=_CACHE_SIZE, bound_mb=10) == {404}


async def test_made_up_key_ids_of_an_identity_provider(environment: dict[str, str], settings: Settings) -> None:
    key = Signing("published")
    async with IssuerServer() as issuer:
        issuer.keys = [key.jwk()]
        with serving(environment | {"AUTH_ISSUERS": json.dumps([issuer.entry()])}) as service:
            cost = Cost(service, settings.postgres_pool_max + settings.mongodb_pool_max + MONGO_MONITORS)
            async with aiohttp.ClientSession(service.url, connector=aiohttp.TCPConnector(limit=AT_ONCE + 1)) as http:
                claims = encoded(issuer.claims("nobody"))
                valid = {"Authorization": f"Bearer {key.sign(issuer.claims('somebody'))}"}
                answered: Counter[int] = Counter()

                async def ask(_: int) -> int:  # long ids: were all of them kept, that would be more than the bound
                    header = encoded({"alg": "RS256", "kid": token_urlsafe(3_200), "typ": "JWT"})
                    made_up = {"Authorization": f"Bearer {header}.{claims}.{claims}"}
                    async with http.get("/api/v1/me", headers=made_up) as answer:
                        return answer.status

                async def go_on() -> None:
                    while True:
                        async with http.get("/api/v1/me", headers=valid) as answer:
                            answered[answer.status] += 1

                begun = time.monotonic()
                going_on = asyncio.create_task(go_on())
                what = "tokens with key ids that nobody published, all different"
                assert await cost.of(what, 9_000, ask, first=1_000) == {401}
                going_on.cancel()
                fetches, seconds = issuer.asked["/keys"], time.monotonic() - begun
    record(
        "exhaustion",
        {
            "what": "fetches of an identity provider's keys meanwhile",
            "requests": answered.total(),
            "answered": ", ".join(f"{status}: {times:,}" for status, times in sorted(answered.items())),
            "fetches": fetches,
        },
    )
    assert answered.keys() == {200}
    assert answered.total() > 100
    assert fetches <= 2 + seconds // COOLDOWN  # at most 3 within a minute


async def test_huge_filters(cost: Cost, http: aiohttp.ClientSession) -> None:
    async def find(n: int) -> int:
        name = ("q", "use_case", "tone", "cursor")[n % 4]
        value = quote(f"{n:05}".ljust(10_000 if name == "cursor" else 1_000, "é"))
        async with http.get(f"/api/v1/twins?{name}={value}") as answer:
            return answer.status

    assert await cost.of("filters of 1,000 characters, all different", 1_000, find) == {422}


async def test_bodies_that_say_they_are_too_large(cost: Cost, service: Service) -> None:
    body = b" " * (2**20 + 1)
    framing = f"Content-Length: {len(body)}"
    bearer = token(next(_subs))

    async def upload(_: int) -> int:
        status, _ = await _upload(service, bearer, framing, iter([body]))
        return status

    assert await cost.of("bodies of 1 MiB and a byte", 300, upload) == {413}


async def test_bodies_that_do_not_end(cost: Cost, service: Service) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    bearer = token(next(_subs))
    taken = []

    async def upload(_: int) -> int:
        status, sent = await _upload(service, bearer, "Transfer-Encoding: chunked", itertools.repeat(chunk, PIECES))
        taken.append(sent)
        return status

    assert await cost.of("chunked bodies without an end", 200, upload) == {413}
    assert min(taken) > 2**20
    assert max(taken) < PIECES * len(chunk)


async def _upload(service: Service, bearer: str, framing: str, pieces: Iterator[bytes]) -> tuple[int, int]:
    """Send a body until it is answered or ends; return the status and how many bytes were sent."""
    reader, writer = await asyncio.open_connection(LOCALHOST, service.port)
    # The route that takes the most.
    head = [f"PUT /api/v1/twins/{MISSING}/persona HTTP/1.1", "Host: twins.test", "Content-Type: application/json"]
    head += [f"Authorization: Bearer {bearer}", framing]
    writer.write("\r\n".join([*head, "", ""]).encode())
    answer = asyncio.create_task(reader.readline())
    sent = 0
    for piece in pieces:
        if answer.done():
            break
        writer.write(piece)
        await writer.drain()
        sent += len(piece)
        await asyncio.sleep(0)  # `drain` does not wait while there is room, and others want to read
    status = int((await asyncio.wait_for(answer, 5)).split()[1])
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return status, sent


async def test_searches_through_all_that_an_owner_has(cost: Cost, http: aiohttp.ClientSession, stores: Stores) -> None:
    await _fill(http, stores)

    async def find(n: int) -> int:
        async with http.get(f"/api/v1/twins?q={f'{n:05}'.ljust(100, 'x')}") as answer:
            return answer.status

    assert await cost.of(f"searches of 100 characters among {TWINS:,} twins, all different", 200, find) == {200}


async def test_the_deepest_page_is_as_near_as_the_first(http: aiohttp.ClientSession, stores: Stores) -> None:
    await _fill(http, stores)
    first = f"/api/v1/twins?limit={PAGE}"

    async def page(path: str) -> tuple[int, str | None]:
        async with http.get(path) as answer:
            assert answer.status == 200
            found = await answer.json()
            return len(found["items"]), found["next_cursor"]

    deepest, seen = first, 0
    while True:
        items, cursor = await page(deepest)
        seen += items
        if cursor is None:
            break
        deepest = f"{first}&cursor={cursor}"
    assert (seen, items) == (TWINS, PAGE)

    times: dict[str, list[float]] = {first: [], deepest: []}
    for _ in range(40):
        for path, taken in times.items():
            started = time.perf_counter()
            await page(path)
            taken.append(time.perf_counter() - started)
    first_ms, deepest_ms = (1000 * median(taken) for taken in times.values())
    record(
        "exhaustion",
        {
            "what": f"the last of {TWINS // PAGE} pages against the first",
            "requests": sum(map(len, times.values())),
            "first_page_ms": round(first_ms, 2),
            "last_page_ms": round(deepest_ms, 2),
            "ratio": round(deepest_ms / first_ms, 2),
            "ratio_bound": SLOWER,
        },
    )
    assert deepest_ms <= SLOWER * first_ms


async def _fill(http: aiohttp.ClientSession, stores: Stores) -> None:
    """Give the client many twins."""
    async with http.get("/api/v1/me") as answer:
        owner = (await answer.json())["sub"]
    async with owner_of(stores) as connection:
        await connection.execute(
            """
            INSERT INTO twins (owner, twin_name, use_case, tone)
            SELECT $1, 'Twin ' || n, 'support', 'warm' FROM generate_series(1, $2::int) n
            """,
            owner,
            TWINS,
        )
        await connection.execute("ANALYZE twins")  # as autovacuum does within a minute
