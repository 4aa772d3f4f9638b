"""Restores: noticed by comparing the journal with the ledgers, and made good twin by twin.

Only an operator says which journal counts (`python -m migrations restored`). Until then a closed gate stays closed.
"""

import asyncio
import json
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from opentelemetry import metrics

from shared.http.problems import Problem
from shared.lane import Lane
from shared.stores.postgres import Connection, Record
from twins.context import Context
from twins.journal import service as journal
from twins.ledger.verification import TooLongError, verify
from twins.restore import queries

logger = logging.getLogger(__name__)

_meter = metrics.get_meter("twins")
_closed = _meter.create_gauge("twins.restore.closed", description="1 while a restore keeps the gate closed.")
_unconfirmed = _meter.create_gauge("twins.restore.unconfirmed", description="Twins that a restore has left closed.")

_OVERLAP = timedelta(seconds=60)
"""Older than every transaction: an event can have a time before that of another that was committed earlier.

A process compares that much again at its start, once in that time, and where PostgreSQL knows less than the process: it
was restored. Not in each round, which is every 2 s outside Azure: 5,000 noes of one minute doubled the gate's p99.
"""
_PAGE = 200
_WORK = 20.0
"""Seconds after which a process releases a restore: the timer has other work too."""
LONGEST = 30.0
"""Seconds for the verification of one twin; one that takes longer stays closed."""
_LEASE = _WORK + LONGEST + 15
_BATCH = 500
_AT_ONCE = 4
_SETTLED = timedelta(seconds=15)
"""By then no transaction runs that saw the gate open, and has made a twin that counts as one from before."""
_AGAIN = 60.0
"""Seconds until a twin that stays closed is tried again."""
_FEW = 20
_FIRST = UUID(int=0)
_LANE = Lane("restore", threads=1, within=10.0)


async def compare(ctx: Context) -> None:
    """Close the gate where the ledgers lack what the journal has: somebody has restored PostgreSQL.

    Everything is compared that was journalled since the last comparison, of which PostgreSQL knows: so a restored
    database compares everything since its backup. Says so in the log and in the metrics.
    """
    async with ctx.postgres.connection() as connection:
        state = await queries.select_restore(connection)
    is_running = state["is_running"]
    if not state["is_waiting"]:
        is_running |= await _is_behind(ctx, state["epoch"], state["compared_to"])
    _closed.set(1 if is_running else 0)
    _unconfirmed.set(state["unconfirmed"])


async def _is_behind(ctx: Context, epoch: int, compared_to: datetime) -> bool:
    compared, now = ctx.compared, time.monotonic()
    at, digest = journal.moment(compared_to - _OVERLAP), b""
    if now > compared.again_at or journal.moment(compared_to) < compared.to[0]:
        compared.again_at = now + _OVERLAP.total_seconds()
    else:
        at, digest = max((at, digest), compared.to)
    while page := await journal.find_after(ctx.mongo, at, digest, _PAGE):
        at, digest = page[-1]["at"], page[-1]["_id"]
        async with ctx.postgres.connection() as connection:
            lost = await _lost_of(connection, page)
            if lost:
                closed = await queries.close_gate(connection)
                first = next(entry for entry in page if entry["_id"] in lost)
                fields = {"twin_id": str(first["subject"]), "seq": first["seq"], "epoch": closed}
                logger.error("The ledgers are behind the journal: the gate is closed", extra=fields)
                return True
            await queries.update_compared(connection, epoch, datetime.fromisoformat(at))
        compared.to = at, digest
    return False


async def _lost_of(connection: Connection, page: list[dict[str, Any]]) -> set[bytes]:
    erasures = [
        UUID(entry["entry"]["erasure_id"]) if entry["entry"]["type"] == "account_erased" else None for entry in page
    ]
    subjects, seqs = [entry["subject"] for entry in page], [entry["seq"] for entry in page]
    return await queries.lost_of(connection, subjects, seqs, [entry["_id"] for entry in page], erasures)


async def go_on(ctx: Context) -> None:
    """Repeat what the ledgers have lost, verify them, and open the gate twin by twin, unless another process does."""
    async with ctx.postgres.connection() as connection:
        lease = await queries.lease(connection, _LEASE)
        again = [] if lease else await queries.select_unconfirmed(connection, _AGAIN, _FEW)
        epoch = lease["epoch"] if lease else (await queries.select_restore(connection))["epoch"]
    for twin_id in again:
        await _restore(ctx, epoch, twin_id)
    if lease is None:
        return
    if not lease["are_accounts_erased"]:
        await _erase_accounts(ctx, epoch)
    until, after, confirmed = time.monotonic() + _WORK, lease["after"], 0
    while time.monotonic() < until:
        async with ctx.postgres.connection() as connection:
            batch = await queries.select_twins(connection, epoch, after, _BATCH)
        if batch["last"] is None:
            after = _FIRST
            if lease["age"] > _SETTLED:
                async with ctx.postgres.connection() as connection:
                    await queries.end(connection, epoch)
                logger.warning("The restore is made good", extra={"epoch": epoch})
            break
        for first in range(0, len(batch["twin_ids"]), _AT_ONCE):
            some = batch["twin_ids"][first : first + _AT_ONCE]
            confirmed += sum(await asyncio.gather(*(_restore(ctx, epoch, twin_id) for twin_id in some)))
            if time.monotonic() > until:
                after = some[-1]
                break
        else:
            after = batch["last"]
    async with ctx.postgres.connection() as connection:
        await queries.release(connection, epoch, lease["leased_until"], after, confirmed)


async def _erase_accounts(ctx: Context, epoch: int) -> None:
    """Erase each account again of which the journal says so: it has digests, so each account is tried."""
    async with ctx.postgres.connection() as connection:
        lost = await queries.select_lost_accounts(connection)
    names: dict[str, str] = dict.fromkeys((json.loads(row["entry"])["digest"] for row in lost), "")
    after = ""
    while lost:
        async with ctx.postgres.connection() as connection:
            page = await queries.select_accounts(connection, after, _PAGE)
        for account in page:
            digest = ctx.account_digest(account).hex()
            if digest in names:
                names[digest] = account
        if len(page) < _PAGE:
            break
        after = page[-1]
    for row in lost:
        name = names[json.loads(row["entry"])["digest"]] or None
        async with ctx.postgres.transaction() as connection:
            await queries.repeat_account(connection, row["subject"], row["hash"], name)
    async with ctx.postgres.connection() as connection:
        await queries.accounts_are_erased(connection, epoch)


async def _restore(ctx: Context, epoch: int, twin_id: UUID) -> bool:
    """Make a twin good, and open the gate for it or list it; return whether it is open."""
    try:
        await _repeat(ctx, twin_id)
        flaw = (await verify(ctx.postgres, twin_id, _LANE, LONGEST)).flaw
        reason = flaw and f"the ledger is broken at {flaw.seq}: {flaw.reason}"
    except TooLongError:
        reason = "the ledger is too long to be verified in time"
    except Problem:
        raise
    except Exception as error:  # noqa: BLE001 - one twin must not keep the others closed
        reason = f"behind the journal: {type(error).__name__}"
    async with ctx.postgres.connection() as connection:
        if reason is None and await queries.confirm(connection, twin_id, epoch):
            return True
        is_new = await queries.upsert_unconfirmed(connection, twin_id, reason or "behind the journal")
    if is_new:
        logger.error("A restore leaves a twin closed", extra={"twin_id": str(twin_id), "reason": reason})
    return False


async def _repeat(ctx: Context, twin_id: UUID) -> None:
    async with ctx.postgres.connection() as connection:
        rows = await queries.select_lost(connection, twin_id)
        openers = {json.loads(row["entry"]).get("opener") for row in rows} - {None}
        accounts = await queries.select_accounts_on(connection, twin_id) if openers else []
    names = {ctx.account_digest(account).hex(): account for account in accounts}
    async with ctx.postgres.transaction() as connection:
        for row in rows:
            opener = names.get(json.loads(row["entry"]).get("opener"))
            outcome = await queries.repeat_event(connection, twin_id, row["hash"], opener)
            _note(twin_id, row, outcome)


def _note(twin_id: UUID, row: Record, outcome: str | None) -> None:
    kind = json.loads(row["entry"])["type"]
    logger.warning("A lost event", extra={"twin_id": str(twin_id), "kind": kind, "outcome": outcome})


async def forget(ctx: Context) -> None:
    """Forget some of what restores have repeated, as long ago as the journal is kept."""
    before = datetime.now(UTC) - timedelta(days=ctx.settings.journal_retention_days)
    async with ctx.postgres.connection() as connection:
        await queries.forget_lost(connection, before)
