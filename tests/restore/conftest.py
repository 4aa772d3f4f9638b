"""Stores that only these tests have, since they lose them, and the application on them, as a process of its own."""

import os
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tests.resilience.harness.app import SETTINGS
from tests.support.app import FRONTS, Client, ClientOf, token
from tests.support.restore import Backups, People
from tests.support.serving import serving
from tests.support.stores import Stores, running_stores
from twins.app import create_app
from twins.context import Context


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    with running_stores() as running:
        yield running


@pytest.fixture(scope="module")
def backups(stores: Stores) -> Backups:
    return Backups(stores)


@pytest.fixture(scope="module")
def own(stores: Stores) -> dict[str, str]:
    """The environment of an application on these stores."""
    return stores.environment | SETTINGS | {"ERASURE_SECOND_SWEEP": "0.2", "LOG_NAMES": "false"}


@pytest.fixture(scope="module", params=FRONTS)
def url(request: pytest.FixtureRequest, own: dict[str, str]) -> Iterator[str]:
    """The application behind each of its two fronts, without its timer: that could open the gate before a test asks."""
    with serving(own, {"asgi": "idle", "functions": "functions"}[request.param]) as service:
        yield service.url


@pytest.fixture(scope="module")
async def context(own: dict[str, str]) -> AsyncIterator[Context]:
    """A second instance's context: what it does is what the timer does."""
    before = dict(os.environ)
    os.environ.update(own)
    app = create_app()
    os.environ.clear()
    os.environ.update(before)
    yield app.state.context
    await app.close()


@pytest.fixture
async def client_of(url: str) -> AsyncIterator[ClientOf]:
    opened: list[Client] = []

    def client(sub: str, scope: str | None = None) -> Client:
        headers = {"Authorization": f"Bearer {token(sub, scope=scope)}"}
        opened.append(httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=20))
        return opened[-1]

    yield client
    for one in opened:
        await one.aclose()


@pytest.fixture
def people(client_of: ClientOf) -> People:
    return People(client_of)
