"""The verification of all ledgers, one after another, some seconds at a time."""

import logging
import time
from collections import Counter
from uuid import UUID

from opentelemetry import metrics

from shared.http.problems import Problem
from shared.lane import Lane
from twins.context import Context
from twins.ledger import queries
from twins.ledger.verification import TooLongError, verify

logger = logging.getLogger(__name__)

_meter = metrics.get_meter("twins")
_broken = _meter.create_gauge("twins.ledger.broken", description="Broken ledgers of this round or the last.")
_skipped = _meter.create_gauge("twins.ledger.skipped", description="Ledgers of this round that took too long.")
_verified = _meter.create_gauge("twins.ledger.verified", description="Ledgers that this round has verified.")
_age = _meter.create_gauge("twins.ledger.age", "s", "How long ago the last whole round ended.")

EVERY = 86_400.0
"""Seconds from the beginning of a round to that of the next, at the least."""
_WORK = 3.0
"""Seconds after which a process releases the round: the timer has other work too."""
_REST = 10.0
"""Seconds in which nobody goes on with a round, so that requests have most of the processor."""
LONGEST = 30.0
"""Seconds for one ledger, some hundred thousand events; beyond that it is skipped, and only its owner verifies it."""
_LEASE = _WORK + LONGEST + 15
_BATCH = 100
_LANE = Lane("ledgers", threads=1, within=10.0)
"""Its own: however many verifications are asked for, the round of the day goes on."""


async def go_on(ctx: Context) -> None:
    """Verify some more ledgers, unless another process does or the round of the day is done; set the metrics."""
    async with ctx.postgres.connection() as connection:
        lease = await queries.lease_round(connection, EVERY, _LEASE)
    if lease is not None:
        found: Counter[str] = Counter()
        after = await _verify_some(ctx, lease["after"], found)
        counts = found["verified"], found["skipped"], found["broken"]
        async with ctx.postgres.connection() as connection:
            await queries.update_round(connection, lease["leased_until"], after, *counts, _REST)
    async with ctx.postgres.connection() as connection:
        state = await queries.select_round(connection)
    _broken.set(state["broken"])
    _skipped.set(state["skipped"])
    _verified.set(state["verified"])
    _age.set(state["age"])


async def _verify_some(ctx: Context, after: UUID, found: Counter[str]) -> UUID | None:
    """Verify ledgers behind a twin's, and return the last of them, or None at the end."""
    until = time.monotonic() + _WORK
    while True:
        async with ctx.postgres.connection() as connection:
            twin_ids = await queries.select_ledgers(connection, after, _BATCH)
        if not twin_ids:
            return None
        for twin_id in twin_ids:
            found[await _verify(ctx, twin_id)] += 1
            if time.monotonic() > until:
                return twin_id
        after = twin_ids[-1]


async def _verify(ctx: Context, twin_id: UUID) -> str:
    """Verify one ledger, and return what it is: `verified`, `skipped` or `broken`."""
    try:
        flaw = (await verify(ctx.postgres, twin_id, _LANE, LONGEST)).flaw
        fields = {"seq": flaw.seq, "reason": flaw.reason} if flaw else None
    except TooLongError:
        logger.warning("Ledger is too long to be verified", extra={"twin_id": str(twin_id)})
        return "skipped"
    except Problem:
        raise
    except Exception as error:  # noqa: BLE001 - a ledger that cannot be read must not end the round
        fields = {"seq": 0, "reason": type(error).__name__}
    if fields is None:
        return "verified"
    logger.error("Ledger is broken", extra={"twin_id": str(twin_id)} | fields)
    return "broken"
