"""The work without a request: a timer runs it on Azure Functions, and a background task elsewhere."""

import logging

from opentelemetry import metrics

from shared.http import idempotency
from shared.http.problems import Problem
from shared.stores import outbox
from twins import resources
from twins.context import Context
from twins.journal import service as journal
from twins.ledger import sweep as ledgers
from twins.persona import sweep as persona
from twins.restore import sweep as restore

logger = logging.getLogger(__name__)

_meter = metrics.get_meter("twins")
_age = _meter.create_gauge("twins.outbox.age", "s", "How long the oldest job that is due has waited.")
_due = _meter.create_gauge("twins.outbox.due", description="Jobs that are due.")
_dead = _meter.create_gauge("twins.outbox.dead", description="Jobs that wait for a person.")

_WORK = 40.0
"""Seconds after which a round begins no further job: the timer has other work too, and comes every minute."""


async def run(ctx: Context) -> None:
    """Compare the journal, drain the outbox, remove what is unreferenced or old, and verify; never raises a `Problem`.

    Any number of processes may do this work at the same time.
    """
    await _watch(ctx)
    try:
        await outbox.drain(ctx.postgres, resources.jobs(ctx), seconds=_WORK)
        await persona.sweep_orphans(ctx)
        await idempotency.forget(ctx.postgres)
        backlog = await outbox.backlog(ctx.postgres)
        await ledgers.go_on(ctx)
        await journal.forget(ctx)
        await restore.forget(ctx)
    except Problem:
        logger.warning("Maintenance waits for a store")
        return
    _age.set(backlog.age)
    _due.set(backlog.due)
    _dead.set(backlog.dead)


async def _watch(ctx: Context) -> None:
    """Notice a restore, and make it good: before all other work, and whatever that meets."""
    try:
        await restore.compare(ctx)
    except Problem:
        logger.warning("The comparison with the journal waits for a store")
    try:
        await restore.go_on(ctx)
    except Problem:
        logger.warning("The restore waits for a store")
