"""A careful service by hand: Starlette, asyncpg and python-jose, with our statements.

The pool is asyncpg's default, and the token is decoded on each request. `app` logs what ours does, as JSON lines of
python-json-logger: a creation when it begins, and each write when it is done. `silent` logs nothing.
"""

import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
from jose import JWTError, jwt
from motor.motor_asyncio import AsyncIOMotorClient
from pythonjsonlogger.orjson import OrjsonFormatter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.peers import work

SECRET = os.environ["JWT_SECRETS"]

logger = logging.getLogger(__name__)

type Endpoint = Callable[[Request], Awaitable[Response]]


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    client: AsyncIOMotorClient[Any] = AsyncIOMotorClient(os.environ["MONGODB_URI"], uuidRepresentation="standard")
    app.state.personas = client[os.environ["MONGODB_DATABASE"]]["personas"]
    async with asyncpg.create_pool(os.environ["POSTGRES_DSN"]) as pool:
        app.state.pool = pool
        yield
    client.close()


def owner_of(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme != "Bearer":
        raise work.Refused(401)
    try:
        claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    except JWTError:
        raise work.Refused(401) from None
    return str(claims["sub"])


def answer(content: Any, status: int = 200, tag: str | None = None) -> Response:
    headers = None if tag is None else {"ETag": tag}
    return Response(work.as_json(content), status, headers, "application/json")


def refused(_: Request, error: Exception) -> Response:
    return Response(status_code=error.status if isinstance(error, work.Refused) else 500)


async def gate(request: Request) -> Response:
    owner, purpose = owner_of(request), request.query_params.get("purpose", "general")
    async with request.app.state.pool.acquire() as connection:
        return answer(await work.gate(connection, owner, UUID(request.path_params["twin_id"]), purpose))


async def find(request: Request) -> Response:
    owner, asked = owner_of(request), request.query_params
    async with request.app.state.pool.acquire() as connection:
        return answer(await work.find(connection, owner, int(asked.get("limit", 20)), asked.get("cursor")))


async def get(request: Request) -> Response:
    owner = owner_of(request)
    async with request.app.state.pool.acquire() as connection:
        twin, tag = await work.get(connection, owner, UUID(request.path_params["twin_id"]))
    return answer(twin, tag=tag)


async def create(request: Request) -> Response:
    owner, body = owner_of(request), await request.json()
    async with request.app.state.pool.acquire() as connection:
        twin, tag = await work.create(connection, owner, body)
    return answer(twin, 201, tag)


async def patch(request: Request) -> Response:
    owner, body = owner_of(request), await request.json()
    async with request.app.state.pool.acquire() as connection:
        twin, tag = await work.patch(connection, owner, UUID(request.path_params["twin_id"]), body)
    return answer(twin, tag=tag)


async def get_persona(request: Request) -> Response:
    owner, state = owner_of(request), request.app.state
    return answer(await work.get_persona(state.pool, state.personas, owner, UUID(request.path_params["twin_id"])))


async def put_persona(request: Request) -> Response:
    owner, state, body = owner_of(request), request.app.state, await request.json()
    twin_id = UUID(request.path_params["twin_id"])
    return answer(await work.put_persona(state.pool, state.personas, owner, twin_id, body))


def logged(endpoint: Endpoint, message: str = "Request", initiated: str | None = None) -> Endpoint:
    async def answer(request: Request) -> Response:
        started_at = time.perf_counter()
        named = {}
        if initiated:
            named = {"twin_name": (await request.json()).get("twin_name")}
            logger.info(initiated, extra=named)
        response = await endpoint(request)
        extra = named | {
            "method": request.method,
            "route": request.scope["route"].path,
            "status": response.status_code,
            "duration_ms": round((time.perf_counter() - started_at) * 1000, 2),
        }
        logger.info(message, extra=extra)
        return response

    return answer


def serve(create: Endpoint, patch: Endpoint, put_persona: Endpoint) -> Starlette:
    return Starlette(
        routes=[
            Route("/api/v1/twins", find),
            Route("/api/v1/twins", create, methods=["POST"]),
            Route("/api/v1/twins/{twin_id}", get),
            Route("/api/v1/twins/{twin_id}", patch, methods=["PATCH"]),
            Route("/api/v1/twins/{twin_id}/decision", gate),
            Route("/api/v1/twins/{twin_id}/persona", get_persona),
            Route("/api/v1/twins/{twin_id}/persona", put_persona, methods=["PUT"]),
        ],
        exception_handlers={work.Refused: refused},
        lifespan=lifespan,
    )


def app() -> Starlette:
    """Return the peer with its log."""
    handler = logging.StreamHandler()
    names = {"levelname": "level", "name": "logger"}
    handler.setFormatter(OrjsonFormatter("%(levelname)s %(name)s %(message)s", timestamp=True, rename_fields=names))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    return serve(logged(create, "Twin created", "Twin creation initiated"), logged(patch), logged(put_persona))


def silent() -> Starlette:
    """Return the peer without a log."""
    return serve(create, patch, put_persona)
