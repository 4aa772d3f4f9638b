"""`/health` and `/ready`, for load balancers and web tests."""

import asyncio
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from shared.api import operation_id
from shared.context import Ctx
from shared.docs import problems
from shared.errors import Unavailable

router = APIRouter(tags=["health"], generate_unique_id_function=operation_id)

READY_WITHIN = 2.0
"""Seconds for both stores to answer."""


class Health(BaseModel):
    """The process runs."""

    status: Literal["healthy"] = "healthy"


class Readiness(BaseModel):
    """Both stores answer."""

    status: Literal["ready"] = "ready"


@router.get("/health")
@router.head("/health", include_in_schema=False)
async def health() -> Health:
    """Tell that the process runs; touches nothing else."""
    return Health()


@router.get("/ready", responses=problems(Unavailable))
@router.head("/ready", include_in_schema=False)
async def ready(ctx: Ctx) -> Readiness:
    """Tell whether PostgreSQL and MongoDB both answer within 2 seconds."""
    try:
        async with asyncio.timeout(READY_WITHIN), asyncio.TaskGroup() as group:
            group.create_task(ctx.postgres.ping())
            group.create_task(ctx.mongo.ping())
    except (TimeoutError, ExceptionGroup):
        raise Unavailable("A store does not answer.") from None
    return Readiness()
