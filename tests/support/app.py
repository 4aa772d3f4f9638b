"""The application as tests speak to it: tokens, clients, and the requests that most tests make."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
from jose import jwt

from devstack.functions_host import Worker, WorkerTransport
from tests.support import log_search
from twins.app import create_app

SECRET = "a-secret-only-for-the-tests-of-32-bytes-and-more"
ALEX = {"twin_name": "Alex", "use_case": "customer support", "tone": "professional", "consent": True}
MISSING = "00000000-0000-7000-8000-000000000000"
"""An id that nothing has."""

FRONTS = ("asgi", "functions")

Client = httpx.AsyncClient
ClientOf = Callable[..., Client]
"""`client_of(sub, scope="")`: a client that sends that account's token."""


@asynccontextmanager
async def front(kind: str) -> AsyncIterator[httpx.AsyncBaseTransport]:
    """Start the application of the environment behind one of its fronts."""
    if kind == "asgi":
        app = create_app()
        yield httpx.ASGITransport(app)
        await app.close()
    else:
        worker = Worker()
        await worker.start()
        yield WorkerTransport(worker)
        await worker.stop()


def token(sub: Any, *, key: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """Sign a token that is valid for an hour unless `claims` say otherwise; None drops a claim."""
    payload = {"sub": sub, "exp": int(time.time()) + 3600} | claims
    log_search.hide("account", sub)
    log_search.hide("secret", key)
    return str(jwt.encode({k: v for k, v in payload.items() if v is not None}, key, algorithm=algorithm))


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


def id_of(path: str) -> UUID:
    """Return the id that a resource's path ends with."""
    return UUID(path.rpartition("/")[2])
