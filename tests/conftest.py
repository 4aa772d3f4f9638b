"""The application on real stores, as plain ASGI and through the Azure Functions worker library."""

import itertools
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import hypothesis
import pytest
from jose import jwt

from devstack.functions_host import Worker, WorkerTransport
from infra.new_secrets import receipt_key
from shared.context import Context
from shared.settings import Settings
from tests import log_search
from tests.log_search import (  # noqa: F401 - pytest's hooks
    pytest_configure,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
    pytest_unconfigure,
)
from tests.stores import Stores, running_stores
from twins.app import create_app

SECRET = "a-secret-only-for-the-tests-of-32-bytes-and-more"
ALEX = {"twin_name": "Alex", "use_case": "customer support", "tone": "professional", "consent": True}

# How long an example takes says more about what else the machine does than about the code.
hypothesis.settings.register_profile("twins", deadline=None)
hypothesis.settings.load_profile("twins")

Client = httpx.AsyncClient
ClientOf = Callable[..., Client]
"""`client_of(sub, scope="")`: a client that sends that account's token."""


def token(sub: Any, *, key: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """Sign a token that is valid for an hour unless `claims` say otherwise; None drops a claim."""
    payload = {"sub": sub, "exp": int(time.time()) + 3600} | claims
    log_search.hide("account", sub)
    log_search.hide("secret", key)
    return str(jwt.encode({k: v for k, v in payload.items() if v is not None}, key, algorithm=algorithm))


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
    return Settings()


@pytest.fixture(scope="session", params=["asgi", "functions"])
async def transport(
    request: pytest.FixtureRequest, environment: dict[str, str]
) -> AsyncIterator[httpx.AsyncBaseTransport]:
    """The application behind each of its two fronts."""
    if request.param == "asgi":
        app = create_app()
        yield httpx.ASGITransport(app)
        await app.close()
    else:
        worker = Worker()
        await worker.start()
        yield WorkerTransport(worker)
        await worker.stop()


@pytest.fixture(scope="session")
async def context(settings: Settings) -> AsyncIterator[Context]:
    """An application's context, for tests that look behind HTTP."""
    app = create_app(settings)
    yield app.app.state.context
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


async def make_twin(client: Client, **changes: Any) -> str:
    """Make a twin like Alex, and return its path."""
    answer = await client.post("/api/v1/twins", json=ALEX | changes)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def is_problem(answer: httpx.Response, status: int, slug: str) -> bool:
    """Check every member that a problem document has (RFC 9457), and say whether it is this one."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"].startswith("/")
    return (answer.status_code, problem["type"]) == (status, f"/problems/{slug}")
