"""The pool: tokens as passwords, and what happens when no new connection can be opened."""

import asyncio
import importlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

import asyncpg
import pytest
from azure.core.credentials import AccessToken

from devstack.postgres import SUPERUSER
from devstack.postgres import Postgres as Server
from shared.azure.identity import EntraToken
from shared.http.problems import Unavailable
from shared.stores.postgres import Connection, Postgres, Priority, constraint_of
from tests.support.database import owner_of
from tests.support.stores import Stores
from twins.settings import Settings


class Endpoint:
    """A token endpoint whose tokens are the server's password, so that signing in is real."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.lifetime = 3600.0
        self.delay = 0.0
        self.down = False
        self.calls = 0

    def __call__(self) -> Any:
        return self

    async def get_token(self, *_: str, **__: object) -> AccessToken:
        self.calls += 1
        await asyncio.sleep(self.delay)
        if self.down:
            raise OSError("the endpoint is down")
        return AccessToken(self.password, int(time.time() + self.lifetime))

    async def close(self) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...


@pytest.fixture
def endpoint(stores: Stores) -> Endpoint:
    return Endpoint(stores.postgres.dsn.partition("twins_app:")[2].partition("@")[0])


@pytest.fixture
async def postgres(settings: Settings, stores: Stores, endpoint: Endpoint) -> AsyncIterator[Postgres]:
    """A pool of four whose password is a token; its DSN has none."""
    importlib.import_module("azure.identity.aio")  # else at the first read, and within its half second
    server: Server = stores.postgres
    entra = settings.model_copy(
        update={
            "postgres_dsn": type(settings.postgres_dsn)(f"postgresql://twins_app@127.0.0.1:{server.port}/twins"),
            "postgres_pool_max": 4,
            "postgres_pool_reserved": 0,
            "postgres_acquire_timeout": 1.0,
        }
    )
    pool = Postgres(entra, EntraToken(entra, credential=endpoint, timeout=0.5, pause=0.05))
    yield pool
    await pool.close()


async def use(postgres: Postgres, seconds: float = 0.0, priority: Priority = Priority.COMMON) -> str:
    async with postgres.connection(priority) as connection:
        user: str = await connection.fetchval("SELECT current_user FROM pg_sleep($1)", seconds)
        return user


async def test_a_connection_signs_in_with_a_token(postgres: Postgres, endpoint: Endpoint) -> None:
    assert await asyncio.gather(*(use(postgres, 0.05) for _ in range(4))) == ["twins_app"] * 4
    assert endpoint.calls == 1


async def test_without_a_token_a_new_connection_is_refused_within_its_limit(
    postgres: Postgres, endpoint: Endpoint
) -> None:
    endpoint.down = True
    started = time.monotonic()
    with pytest.raises(Unavailable):
        await use(postgres)

    assert time.monotonic() - started < 1.5


async def test_a_slow_endpoint_does_not_hold_a_request_past_its_limit(postgres: Postgres, endpoint: Endpoint) -> None:
    endpoint.delay = 5.0
    started = time.monotonic()
    with pytest.raises(Unavailable):
        await use(postgres)

    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize("fault", ["down", "slow"])
async def test_no_request_fails_while_there_is_a_live_connection(
    postgres: Postgres, endpoint: Endpoint, fault: str
) -> None:
    endpoint.lifetime = 1.0
    await use(postgres)  # one connection of the four that the load would have
    await asyncio.sleep(1.0)  # the token has run out
    endpoint.down, endpoint.delay = fault == "down", 5.0 if fault == "slow" else 0.0

    deadline = time.monotonic() + 1.0
    answered = 0

    async def load() -> None:
        nonlocal answered
        while time.monotonic() < deadline:
            assert await use(postgres, 0.001) == "twins_app"
            answered += 1

    await asyncio.gather(*(load() for _ in range(8)))
    assert answered >= 8  # each of them, and none of them failed


async def test_it_recovers_by_itself(postgres: Postgres, endpoint: Endpoint) -> None:
    endpoint.down = True
    with pytest.raises(Unavailable):
        await use(postgres)
    endpoint.down = False
    await asyncio.sleep(0.2)

    assert await use(postgres) == "twins_app"


type Use = Callable[[Connection, Stores], Awaitable[object]]
"""How a request outstays a limit of the server."""


async def is_idle(connection: Connection, _: Stores) -> None:
    await connection.execute("SELECT 1")
    await asyncio.sleep(0.3)


async def is_idle_and_goes_on(connection: Connection, stores: Stores) -> None:
    await is_idle(connection, stores)
    await connection.execute("SELECT 1")


async def is_frozen(connection: Connection, _: Stores) -> None:
    await connection.execute("SELECT 1")
    time.sleep(0.3)  # noqa: ASYNC251 - nothing of this process runs, so it does not see the session end
    await connection.execute("SELECT 1")


async def is_frozen_and_fails(connection: Connection, _: Stores) -> None:
    await connection.execute("SELECT 1")
    time.sleep(0.3)  # noqa: ASYNC251
    raise ValueError


async def is_slow(connection: Connection, _: Stores) -> None:
    await connection.execute("SELECT pg_sleep(1)")


async def is_busy(connection: Connection, _: Stores) -> None:
    while True:
        await connection.execute("SELECT pg_sleep(0.05)")


async def waits_for_a_lock(connection: Connection, stores: Stores) -> None:
    async with owner_of(stores) as holder, holder.transaction():
        await holder.execute("SELECT pg_advisory_xact_lock(7)")
        await connection.execute("SELECT pg_advisory_xact_lock(7)")


async def use_in_a_transaction(pool: Postgres, stores: Stores, use: Use) -> None:
    async with pool.transaction() as connection:
        await use(connection, stores)


_ENDED_WHILE_FROZEN = "ConnectionDoesNotExistError", "InternalClientError"
"""asyncpg raises the second if it reads the server's last message before it has sent the statement."""


@pytest.mark.parametrize(
    ("limit", "use", "errors"),
    [
        ("idle_in_transaction_session_timeout", is_idle, ("InterfaceError",)),
        ("idle_in_transaction_session_timeout", is_idle_and_goes_on, ("InterfaceError",)),
        ("idle_in_transaction_session_timeout", is_frozen, _ENDED_WHILE_FROZEN),
        ("idle_in_transaction_session_timeout", is_frozen_and_fails, _ENDED_WHILE_FROZEN),
        ("transaction_timeout", is_busy, ("ConnectionDoesNotExistError",)),
        ("transaction_timeout", is_idle, ("InterfaceError",)),
        ("lock_timeout", waits_for_a_lock, ("LockNotAvailableError",)),
        ("statement_timeout", is_slow, ("QueryCanceledError",)),
    ],
)
async def test_a_limit_of_the_server_is_503_and_the_next_request_gets_another_session(
    settings: Settings, stores: Stores, caplog: pytest.LogCaptureFixture, limit: str, use: Use, errors: tuple[str, ...]
) -> None:
    dsn = type(settings.postgres_dsn)(f"{stores.postgres.dsn}?{limit}=150")  # before the role's own
    pool = Postgres(
        settings.model_copy(update={"postgres_dsn": dsn, "postgres_pool_max": 1, "postgres_pool_reserved": 0})
    )
    try:
        async with pool.connection() as connection:
            before = await connection.fetchval("SELECT pg_backend_pid()")
        with pytest.raises(Unavailable):
            await use_in_a_transaction(pool, stores, use)
        async with pool.transaction() as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") != before
    finally:
        await pool.close()

    [logged] = [record.__dict__["error"] for record in caplog.records if "error" in record.__dict__]
    assert logged in errors


async def test_a_session_that_ends_while_nobody_uses_it_is_not_handed_to_the_next_request(
    settings: Settings, stores: Stores
) -> None:
    pool = Postgres(settings.model_copy(update={"postgres_pool_max": 1, "postgres_pool_reserved": 0}))
    try:
        async with pool.connection() as connection:
            before = await connection.fetchval("SELECT pg_backend_pid()")
        superuser = await asyncpg.connect(stores.postgres.dsn_of(SUPERUSER))
        assert await superuser.fetchval("SELECT pg_terminate_backend($1, 5000)", before)  # returns when it is gone
        await superuser.close()
        async with pool.connection() as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") != before
    finally:
        await pool.close()


async def sessions(stores: Stores, *pids: int) -> set[int]:
    """Return those of these sessions that the server still has."""
    superuser = await asyncpg.connect(stores.postgres.dsn_of(SUPERUSER))
    try:
        rows = await superuser.fetch("SELECT pid FROM pg_stat_activity WHERE pid = ANY($1)", pids)
    finally:
        await superuser.close()
    return {row["pid"] for row in rows}


async def pid_of(pool: Postgres, seconds: float = 0.0) -> int:
    async with pool.connection() as connection:
        pid: int = await connection.fetchval("SELECT pg_backend_pid() FROM pg_sleep($1)", seconds)
        return pid


async def test_a_session_that_no_request_needs_ends_beside_one_that_is_used(settings: Settings, stores: Stores) -> None:
    pool = Postgres(settings.model_copy(update={"postgres_pool_min": 0, "postgres_pool_idle": 0.2}))
    try:
        pids = await asyncio.gather(*(pid_of(pool, 0.2) for _ in range(3)))
        used = set()
        deadline = time.monotonic() + 10.0
        while len(await sessions(stores, *pids)) > 1 and time.monotonic() < deadline:
            used.add(await pid_of(pool))
            await asyncio.sleep(0.05)

        assert len(used) == 1
        assert await sessions(stores, *pids) == used
        while await sessions(stores, *used) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert await sessions(stores, *used) == set()
        assert await pid_of(pool) not in pids
    finally:
        await pool.close()


async def test_a_transaction_that_a_block_leaves_open_is_not_handed_to_the_next_request(settings: Settings) -> None:
    pool = Postgres(settings.model_copy(update={"postgres_pool_max": 1, "postgres_pool_reserved": 0}))

    async def leave_open() -> None:
        async with pool.connection() as connection:
            await connection.execute("BEGIN; SET LOCAL work_mem = '77MB'")
            raise LookupError

    try:
        with pytest.raises(LookupError):
            await leave_open()
        async with pool.connection() as connection:
            assert await connection.fetchval("SHOW work_mem") != "77MB"
    finally:
        await pool.close()


async def test_a_connection_that_is_in_use_when_the_pool_closes_serves_no_other_request(settings: Settings) -> None:
    pool = Postgres(settings.model_copy(update={"postgres_pool_max": 1, "postgres_pool_reserved": 0}))
    try:
        async with pool.connection():
            await pool.close()
        assert await pid_of(pool)
    finally:
        await pool.close()


@pytest.fixture
async def reserved(settings: Settings) -> AsyncIterator[Postgres]:
    """A pool of five: three for common work, one more for high work, and one for the highest alone."""
    update = {"postgres_pool_max": 5, "postgres_pool_reserved": 2, "postgres_acquire_timeout": 0.4}
    pool = Postgres(settings.model_copy(update=update))
    yield pool
    await pool.close()


async def test_each_priority_leaves_connections_for_those_above(reserved: Postgres) -> None:
    common = [asyncio.create_task(use(reserved, 2.0)) for _ in range(3)]
    await asyncio.sleep(0.2)
    with pytest.raises(Unavailable):
        await use(reserved)
    high = asyncio.create_task(use(reserved, 2.0, Priority.HIGH))
    await asyncio.sleep(0.05)
    with pytest.raises(Unavailable):
        await use(reserved, 0.0, Priority.HIGH)
    assert await use(reserved, 0.0, Priority.HIGHEST) == "twins_app"

    assert await asyncio.gather(*common, high) == ["twins_app"] * 4
    assert set(await asyncio.gather(*(use(reserved) for _ in range(20)))) == {"twins_app"}


async def test_a_request_that_is_refused_or_cancelled_gives_its_place_back(reserved: Postgres) -> None:
    async def wait_for(seconds: float) -> None:
        with pytest.raises(Unavailable):
            await use(reserved, seconds)

    slow = [asyncio.create_task(use(reserved, 0.9)) for _ in range(3)]
    await asyncio.gather(*(wait_for(0) for _ in range(20)))
    await asyncio.gather(*slow)
    gone = [asyncio.create_task(use(reserved, 5)) for _ in range(6)]
    await asyncio.sleep(0.2)
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    await asyncio.sleep(0.2)

    assert await asyncio.gather(*(use(reserved, 0.05) for _ in range(3))) == ["twins_app"] * 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("things_name_length", "things_name_length"),
        ("things_name_length_102008", "things_name_length"),
        ("things_2_key", "things_2_key"),
        ("things_key_2", "things_key_2"),
        (None, None),
    ],
)
def test_a_constraint_is_known_by_its_name_on_a_shard_too(name: str | None, expected: str | None) -> None:
    refused = asyncpg.CheckViolationError("refused")
    refused.constraint_name = name

    assert constraint_of(refused) == expected
    assert constraint_of(OSError("lost")) is None
