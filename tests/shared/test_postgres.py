"""The pool: tokens as passwords, and what happens when no new connection can be opened."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Self

import pytest
from azure.core.credentials import AccessToken

from devstack.postgres import Postgres as Server
from shared.azure import EntraToken
from shared.errors import Unavailable
from shared.postgres import Postgres
from shared.settings import Settings
from tests.stores import Stores


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
    server: Server = stores.postgres
    entra = settings.model_copy(
        update={
            "postgres_dsn": type(settings.postgres_dsn)(f"postgresql://twins_app@127.0.0.1:{server.port}/twins"),
            "postgres_pool_max": 4,
            "postgres_acquire_timeout": 1.0,
        }
    )
    pool = Postgres(entra, EntraToken(entra, credential=endpoint, timeout=0.5, pause=0.05))
    yield pool
    await pool.close()


async def use(postgres: Postgres, seconds: float = 0.0) -> str:
    async with postgres.connection() as connection:
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
