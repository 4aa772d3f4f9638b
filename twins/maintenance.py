"""What goes on without a request: the timer on Azure Functions, a background task elsewhere."""

import logging

from opentelemetry import metrics

from shared import idempotency, outbox
from shared.context import Context
from shared.errors import Problem
from twins.erasure import service as erasure
from twins.persona import service as persona

logger = logging.getLogger(__name__)

_meter = metrics.get_meter("twins")
_age = _meter.create_gauge("twins.outbox.age", "s", "How long the oldest job that is due has waited.")
_dead = _meter.create_gauge("twins.outbox.dead", description="Jobs that wait for a person.")


async def run(ctx: Context) -> None:
    """Drain the outbox, remove unreferenced documents and forget old answers; never raises a `Problem`.

    Any number of processes may run it at once.
    """
    try:
        await outbox.drain(ctx.postgres, erasure.handlers(ctx))
        await persona.sweep_orphans(ctx)
        await idempotency.forget(ctx.postgres)
        backlog = await outbox.backlog(ctx.postgres)
    except Problem:
        logger.warning("Maintenance waits for a store")
        return
    _age.set(backlog.age)
    _dead.set(backlog.dead)
