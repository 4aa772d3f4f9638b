"""Documents without a version: of erased twins, and of requests that a crash ended."""

import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from twins.context import Context
from twins.persona import documents, queries

delete_documents = documents.delete_documents

logger = logging.getLogger(__name__)

ORPHAN_AGE = timedelta(hours=1)
"""The age from which a document without a version stays without: no request takes so long."""
_BATCH = 500
_WORK = 5.0
"""Seconds that one round of the sweep may take: the timer has other work too."""


async def find_documents(ctx: Context, twin_ids: Sequence[UUID]) -> list[UUID]:
    """Return the ids of up to 500 documents of these twins."""
    return await documents.find_ids(ctx.mongo, twin_ids, _BATCH)


async def sweep_orphans(ctx: Context) -> int:
    """Remove documents that never became versions because of a crash, and return their number.

    The sweep reads each document once, at the age of an hour, and ends after a few seconds.
    """
    give_up_at = time.monotonic() + _WORK
    removed, more = 0, True
    while more and time.monotonic() < give_up_at:
        count, more = await _sweep_some(ctx)
        removed += count
    if removed:
        logger.info("Unreferenced documents removed", extra={"count": removed})
    return removed


async def _sweep_some(ctx: Context) -> tuple[int, bool]:
    """Return the number of removed documents, and whether others may be left."""
    async with ctx.postgres.transaction() as connection:
        sweep = await queries.lock_sweep(connection)
        if sweep is None:
            return 0, False
        since, until = sweep["swept_until"], sweep["now"] - ORPHAN_AGE
        found = await documents.find_made(ctx.mongo, since, until, _BATCH)
        document_ids, twin_ids = [made.document_id for made in found], [made.twin_id for made in found]
        kept = await queries.select_kept(connection, document_ids, twin_ids)
        orphans = {made.document_id: made.twin_id for made in found if made.document_id not in kept}
        if orphans:
            await documents.delete_documents(ctx.mongo, orphans.values(), list(orphans))
        # From the last document's millisecond, since others of that millisecond may not have fitted in.
        swept_until = found[-1].created_at if len(found) == _BATCH else until
        await queries.update_sweep(connection, swept_until)
    return len(orphans), since < swept_until < until
