"""Every no, and every opening of one, is written to the journal: at once where that is quick, else by the outbox.

The database notes what is to be written, in the transaction of the event (revision 20261128_9): no path forgets it.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from shared.http.problems import Problem
from shared.stores.outbox import Handler
from shared.stores.postgres import Record
from twins.context import Context
from twins.journal import documents, queries

logger = logging.getLogger(__name__)

KIND = "journal"
"""The kind of job that writes what a request could not."""

WAIT = 0.2
"""Seconds for which an answer waits for the journal."""
_MOST = 16
"""Attempts at once: beyond that MongoDB is away or slow, and the outbox writes all the same."""
_BATCH = 100

_attempts: set[asyncio.Task[None]] = set()

find_after, moment = documents.find_after, documents.moment


def handlers(ctx: Context) -> Mapping[str, Handler]:
    """Return the outbox's handler of the journal."""
    return {KIND: partial(write, ctx)}


async def attempt(ctx: Context, subject: UUID) -> None:
    """Write to the journal what has just been committed for a twin; wait `WAIT` seconds for it at most.

    An attempt that takes longer goes on, and ends with the limits of its stores: a request that is cancelled in the
    middle would cost its connection.
    """
    if len(_attempts) >= _MOST:
        return
    task = asyncio.create_task(_attempt(ctx, subject))
    _attempts.add(task)
    task.add_done_callback(_attempts.discard)
    await asyncio.wait({task}, timeout=WAIT)


async def attempt_account(ctx: Context, account: str) -> None:
    """Write to the journal that an account has just been erased, as `attempt` does."""
    await attempt(ctx, UUID(bytes=ctx.account_digest(account)[:16]))


async def _attempt(ctx: Context, subject: UUID) -> None:
    try:
        await write(ctx, subject)
    except Problem:
        logger.warning("The journal waits for a store")
    except Exception as error:  # noqa: BLE001 - the job tries again, and nobody awaits this task
        logger.warning("The journal waits", extra={"error": type(error).__name__})


async def write(ctx: Context, subject: UUID) -> None:
    """Write everything of a subject that waits for the journal; two at once do no harm."""
    while True:
        async with ctx.postgres.connection() as connection:
            rows = await queries.select_entries(connection, subject, _BATCH)
        if not rows:
            return
        entries = [_entry(ctx, subject, row) for row in rows]
        await documents.add(ctx.mongo, entries)
        async with ctx.postgres.connection() as connection:
            await queries.forget_entries(connection, subject, [row["hash"] for row in rows])
        if len(rows) < _BATCH:
            return


async def forget(ctx: Context) -> None:
    """Remove some entries that are older than every backup."""
    before = datetime.now(UTC) - timedelta(days=ctx.settings.journal_retention_days)
    await documents.remove_before(ctx.mongo, before, 1000)


def _entry(ctx: Context, subject: UUID, row: Record) -> documents.Entry:
    entry = {name: value for name, value in json.loads(row["entry"]).items() if value is not None}
    if "lock_id" in entry:
        entry["purposes"] = entry.get("purposes")  # null: everything
        entry["opener_kind"] = row["opener_kind"] or "none"
        if row["opener"] is not None:
            entry["opener"] = ctx.account_digest(row["opener"]).hex()
    return documents.entry_of(subject, row["hash"], row["seq"], row["at"], entry, row["origin"])
