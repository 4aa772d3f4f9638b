"""The application on real stores, as plain ASGI and through the Azure Functions worker library."""

import itertools
import json
import os
from collections.abc import AsyncIterator, Iterator

import httpx
import hypothesis
import pytest

from infra.new_secrets import receipt_key
from tests.support import log_search
from tests.support.app import FRONTS, SECRET, Client, ClientOf, front, token
from tests.support.database import superuser
from tests.support.stores import Stores, running_stores
from twins.app import create_app
from twins.context import Context
from twins.settings import Settings, load

# How long an example takes says more about what else the machine does than about the code.
hypothesis.settings.register_profile("twins", deadline=None)
hypothesis.settings.load_profile("twins")


CONTROLLER = {
    "name": "Example Ltd",
    "address": "1 Example Street, Dublin",
    "contact": "privacy@example.com",
    "storage_locations": ["IE", "US-VA"],
    "retention_period": "P10Y",
    "jurisdiction": "IE",
    "withdrawal_method": "https://example.com/withdraw",
}


@pytest.fixture(scope="session")
def stores() -> Iterator[Stores]:
    with running_stores() as running:
        yield running


@pytest.fixture(scope="session")
def environment(stores: Stores) -> Iterator[dict[str, str]]:
    """What the application reads, set for the whole session: function_app.py reads it when imported."""
    values = stores.environment | {
        "JWT_SECRETS": SECRET,
        "DIGEST_KEY": "a-digest-key-only-for-the-tests-of-32-bytes",
        "RECEIPT_KEYS": receipt_key(),
        "ERASURE_SECOND_SWEEP": "0.2",
        "CONTROLLER": json.dumps(CONTROLLER),
        # Many tests send hundreds at once; those of the bounds set others.
        "ACCOUNT_REQUESTS": "1000",
        "ACCOUNT_CONCURRENCY": "1000",
        "ACCOUNT_DECISIONS": "1000",
        "ACCOUNT_NOES": "1000",
        # A process for each application that a test makes; those of the second process turn it on.
        "SECOND_PROCESS": "false",
        "LOG_LEVEL": "DEBUG",
        "LOG_NAMES": "false",
    }
    log_search.hide("secret", values["DIGEST_KEY"], json.loads(values["RECEIPT_KEYS"])["d"])
    before = dict(os.environ)
    os.environ.update(values)
    yield values
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def settings(environment: dict[str, str]) -> Settings:
    return load()


@pytest.fixture(scope="module")
async def drained(environment: dict[str, str], stores: Stores) -> dict[str, str]:
    """The environment of a service whose jobs a test waits for: hundreds of earlier tests would come before."""
    async with superuser(stores) as connection:
        await connection.execute("DELETE FROM outbox")
    return environment


@pytest.fixture(scope="session", params=FRONTS)
async def transport(
    request: pytest.FixtureRequest, environment: dict[str, str]
) -> AsyncIterator[httpx.AsyncBaseTransport]:
    """The application behind each of its two fronts."""
    async with front(request.param) as opened:
        yield opened


@pytest.fixture(scope="session")
async def context(settings: Settings) -> AsyncIterator[Context]:
    """An application's context, for tests that look behind HTTP."""
    app = create_app(settings)
    yield app.state.context
    await app.close()


_numbers = itertools.count()


@pytest.fixture
def client_of(transport: httpx.AsyncBaseTransport) -> ClientOf:
    def client(sub: str, scope: str | None = None) -> Client:
        headers = {"Authorization": f"Bearer {token(sub, scope=scope)}"}
        hooks = {"request": [log_search.hide_names]}
        return Client(transport=transport, base_url="http://twins.test", headers=headers, event_hooks=hooks)

    return client


@pytest.fixture
def anyone(transport: httpx.AsyncBaseTransport) -> Client:
    """A client without a token."""
    return Client(transport=transport, base_url="http://twins.test")


@pytest.fixture
def alice(client_of: ClientOf) -> Client:
    """A new owner, who has nothing yet."""
    return client_of(f"alice-{next(_numbers)}")


@pytest.fixture
def bob(client_of: ClientOf) -> Client:
    """Another new owner."""
    return client_of(f"bob-{next(_numbers)}")
