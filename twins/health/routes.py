"""`/health` and `/ready`, for load balancers and web tests."""

import asyncio
from typing import Literal

from pydantic import BaseModel

from shared.http.openapi import problems
from shared.http.problems import Unavailable
from shared.http.routing import public_router
from twins.context import Ctx

router = public_router("health")

READY_WITHIN = 2.0
"""Seconds for both stores, and the vault, to answer."""


class Health(BaseModel):
    """The process runs."""

    status: Literal["healthy"] = "healthy"


class Readiness(BaseModel):
    """Both stores answer, and there are keys for HS256 tokens where these are accepted."""

    status: Literal["ready"] = "ready"


@router.get("/health")
async def health() -> Health:
    """Show that the process runs; checks nothing else."""
    return Health()


@router.get("/ready", responses=problems(Unavailable))
async def ready(ctx: Ctx) -> Readiness:
    """Show whether PostgreSQL and MongoDB both answer within 2 seconds, and a key can verify HS256 tokens.

    Where these are not accepted, no key is needed. Identity providers are not asked: their keys outlast an outage.
    """
    try:
        async with asyncio.timeout(READY_WITHIN), asyncio.TaskGroup() as group:
            group.create_task(ctx.postgres.ping())
            group.create_task(ctx.mongo.ping())
            group.create_task(ctx.authenticator.check_secrets())
    except (TimeoutError, ExceptionGroup):
        raise Unavailable("A store does not answer, or the vault with the keys of tokens.") from None
    return Readiness()
