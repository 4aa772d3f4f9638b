"""The ledger: read and verified without a lock. Functions of the database append to it, under the twin's."""

import logging
from uuid import UUID

from opentelemetry import metrics

from shared.auth import CurrentUser
from shared.http.paging import Pages
from shared.logging import bind
from shared.stores.postgres import Connection, Record
from twins.context import Context
from twins.ledger import queries, verification
from twins.ledger.models import LedgerEntry, LedgerPage, Verification
from twins.parent import no_twin

logger = logging.getLogger(__name__)

_transitions = metrics.get_meter("twins").create_counter("twins.consents", description="Consent events by transition.")

_SCANNED = 1000
"""The most events that one page of a person's looks at."""

heads, events_of_many = queries.select_heads, queries.select_events_of_many


def count(kind: str) -> None:
    """Count an event, `given`, `renewed`, `withdrawn`, `refused`, `opened` or `erased`, and name it in the log line."""
    # A field of the request's log line, not a line of its own: the status there also shows a rollback.
    bind(transition=kind)
    _transitions.add(1, {"transition": kind})


async def exists(connection: Connection, owner: str, twin_id: UUID) -> bool:
    """Return whether the owner has this twin, and so its ledger."""
    return await queries.select_head(connection, owner, twin_id) is not None


async def find(ctx: Context, user: CurrentUser, twin_id: UUID, pages: Pages) -> LedgerPage:
    """Return a page of a twin's ledger, oldest first; to a person that it names, of their own consents' events.

    Raises `NotFound`, or `NoOwner` where the token could name an owner, and does not.
    """
    pages = pages.within("ledger", twin_id)
    after, until = pages.start(int) or 0, None
    rows: list[Record] = []
    async with ctx.postgres.connection() as connection:
        if user.owns is not None and await exists(connection, user.owns, twin_id):
            rows = await queries.select_events(connection, twin_id, after, pages.fetch)
        elif await queries.is_named(connection, user.sub, twin_id):
            asked = user.sub, twin_id, after, pages.fetch, _SCANNED
            rows, until = await queries.select_events_naming(connection, *asked)
        elif user.owner:
            raise no_twin()
    return pages.page(LedgerPage, [LedgerEntry.of(row) for row in rows], lambda entry: entry.seq, until)


async def verify(ctx: Context, user: CurrentUser, twin_id: UUID) -> Verification:
    """Recompute a twin's whole ledger, and compare its outcome with what is stored; raises `NotFound`."""
    async with ctx.postgres.connection() as connection:
        if not await exists(connection, user.owner, twin_id):
            raise no_twin()
    found = await verification.verify(ctx.postgres, twin_id)
    if found.flaw is not None:
        logger.error("Ledger is broken", extra={"seq": found.flaw.seq, "reason": found.flaw.reason})
    return Verification(
        valid=found.flaw is None,
        events=found.seq,
        head=found.head.hex(),
        broken_at=found.flaw.seq if found.flaw else None,
        reason=found.flaw.reason if found.flaw else None,
        terms_unverifiable=found.unverifiable,
    )
