"""The job of an erasure: in steps, each in batches, with its progress in the database.

A run ends after a few seconds and goes on in the next; a run that was killed, or two at once, do no harm: each batch
is a transaction that finds what is left to do, and counts what it did.
"""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from uuid import UUID

from shared.stores import outbox
from shared.stores.postgres import Connection, Record
from twins.context import Context
from twins.erasure import certificate, merkle, queries
from twins.erasure.models import KIND
from twins.erasure.people import queries as records
from twins.erasure.people import sweep as people
from twins.ledger import service as ledger
from twins.persona import sweep as persona

logger = logging.getLogger(__name__)

PIECE = 1024
"""Leaves in a piece of the tree, a power of two: a proof reads one piece, and the roots of all."""
_WORK = 5.0
"""Seconds after which a run releases its job, well before the lease ends."""
_BATCH = 100
_FIRST = UUID(int=0)


class RemainsError(Exception):
    """A store still has data of an erased twin or account; the job runs again."""


def handlers(ctx: Context) -> dict[str, outbox.Handler]:
    """Return the outbox's handler of erasures."""
    return {KIND: partial(sweep, ctx)}


async def sweep(ctx: Context, erasure_id: UUID) -> float | None:
    """Go on with an erasure, and return the seconds until the next run, or None at the end.

    The proof waits for the end of every request that was running when the documents were removed, and
    removes what such a request wrote.
    """
    until = time.monotonic() + _WORK
    while True:
        async with ctx.postgres.connection() as connection:
            erasure = await queries.select_progress(connection, erasure_id)
        if erasure is None or erasure["step"] == "complete":
            return None
        step = erasure["step"]
        if step == "proof":
            if await _prove(ctx, erasure, until):
                await _certify(ctx, erasure_id)
                return None
            return 0.0
        if not await _STEPS[step](ctx, erasure, until):
            return 0.0
        following = "person" if step == "rows" and erasure["is_account"] else _FOLLOWING[step]
        async with ctx.postgres.connection() as connection:
            await queries.update_step(connection, erasure_id, step, following)
        if following == "proof":
            return ctx.settings.erasure_second_sweep


async def _erase_twins(ctx: Context, erasure: Record, until: float) -> bool:
    """Make the twins of an account disappear for good; return False where time is up."""
    erasure_id = erasure["id"]
    while True:
        async with ctx.postgres.transaction() as connection:
            if await queries.erase_account_twins(connection, erasure_id, _BATCH) == 0:
                return True
        if time.monotonic() > until:
            return False


async def _remove_rows(ctx: Context, erasure: Record, until: float) -> bool:
    after = erasure["after"]
    while batch := await _batch(ctx, erasure["id"], after, _BATCH):
        if not await people.record(ctx, erasure, batch, until):
            return False
        while await _remove(ctx, erasure["id"], batch):
            if time.monotonic() > until:
                return False
        after = batch[-1]
        async with ctx.postgres.connection() as connection:
            await queries.update_after(connection, erasure["id"], "rows", after)
    return True


async def _remove(ctx: Context, erasure_id: UUID, twin_ids: Sequence[UUID]) -> bool:
    """Remove some rows of these twins, and return whether there were any."""
    async with ctx.postgres.transaction() as connection:
        removed: Counter[str] = Counter()
        for holder in ctx.holders:
            removed.update(await holder.erase(connection, twin_ids))
        if any(removed.values()):
            await queries.add_removed(connection, erasure_id, removed)
    return any(removed.values())


async def _remove_documents(ctx: Context, erasure: Record, until: float) -> bool:
    after = erasure["after"]
    while batch := await _batch(ctx, erasure["id"], after, _BATCH):
        if not await _delete_documents(ctx, erasure["id"], batch, until):
            return False
        after = batch[-1]
        async with ctx.postgres.connection() as connection:
            await queries.update_after(connection, erasure["id"], "documents", after)
    return True


_STEPS = {
    "twins": _erase_twins,
    "rows": _remove_rows,
    "person": people.forget,
    "documents": _remove_documents,
}
"""What a step does; False where time is up."""
_FOLLOWING = {"twins": "rows", "rows": "documents", "person": "documents", "documents": "proof"}


async def _delete_documents(ctx: Context, erasure_id: UUID, twin_ids: Sequence[UUID], until: float) -> bool:
    """Remove the documents of these twins; return False where time is up."""
    while document_ids := await persona.find_documents(ctx, twin_ids):
        # Recorded before the deletion: a crash in between loses no count.
        async with ctx.postgres.connection() as connection:
            await queries.insert_erased_documents(connection, erasure_id, document_ids)
        await persona.delete_documents(ctx.mongo, twin_ids, document_ids)
        if time.monotonic() > until:
            return False
    return True


async def _prove(ctx: Context, erasure: Record, until: float) -> bool:
    """Check that nothing is left of any twin, piece by piece, and note the pieces' roots.

    Raises `RemainsError`.
    """
    erasure_id = erasure["id"]
    # An owner who erased a twin at the same time may have left a record since.
    if erasure["is_account"] and not await people.forget_records(ctx, erasure_id, until):
        return False
    async with ctx.postgres.connection() as connection:
        pieces = await queries.select_erased_ledgers(connection, erasure_id)
    number, after = len(pieces), pieces[-1]["last"] if pieces else _FIRST
    while batch := await _batch(ctx, erasure_id, after, PIECE):
        if not await _delete_documents(ctx, erasure_id, batch, until):
            return False
        async with ctx.postgres.connection() as connection:
            remaining = await _remaining(ctx, connection, batch)
        remaining["persona_documents"] = len(await persona.find_documents(ctx, batch))
        _check(remaining)
        async with ctx.postgres.connection() as connection:
            root = merkle.root([certificate.leaf(head) for head in await ledger.heads(connection, batch)])
            keeps = await records.select_keeps(connection, batch)
            piece = number, after, batch[-1], len(batch), root, keeps
            await queries.insert_erased_ledgers(connection, erasure_id, *piece)
        number, after = number + 1, batch[-1]
        if time.monotonic() > until:
            return False
    return True


async def _certify(ctx: Context, erasure_id: UUID) -> None:
    """Sign the certificate; raises `RemainsError`."""
    async with ctx.postgres.connection() as connection:
        # Now that every transaction has ended that could still have seen them.
        await queries.vacuum_salts(connection)
        erasure = await queries.select_erasure(connection, erasure_id, None)
        assert erasure is not None  # noqa: S101 - erasures are never deleted
        pieces = await queries.select_erased_ledgers(connection, erasure_id)
        at = await queries.now(connection)
        remaining = await _remaining(ctx, connection, [])
        if erasure["is_account"]:
            left = await queries.left_of_account(connection, erasure_id)
            remaining.update(twins=left["twins"], names=left["names"])
            remaining["records"] = await records.left_records(connection, erasure_id)
        _check(remaining)
        if erasure["is_account"] or len(pieces) != 1 or pieces[0]["leaves"] != 1:
            ledgers = certificate.of_many(pieces)
        else:
            twin_ids = [pieces[0]["last"]]
            (head,) = await ledger.heads(connection, twin_ids)
            events = await ledger.events_of_many(connection, twin_ids, certificate.MAX_EVENTS + 1)
            ledgers = certificate.of_twin(head, events)
        days = ctx.settings.backup_retention_days, ctx.settings.journal_retention_days
        backups, journal = (timedelta(days=number) for number in days)
        keeps = sorted({what for piece in pieces for what in piece["keeps"]})
        kept = certificate.Kept(backups, journal, keeps)
        signed = await ctx.signer.sign(certificate.payload(erasure, remaining, ledgers, at, kept), certificate.TYPE)
        await queries.complete(connection, erasure_id, signed, at)
    logger.info("Erasure complete", extra={"erasure_id": str(erasure_id)})


async def _batch(ctx: Context, erasure_id: UUID, after: UUID, limit: int) -> list[UUID]:
    async with ctx.postgres.connection() as connection:
        return await queries.select_erased_twins(connection, erasure_id, after, limit)


async def _remaining(ctx: Context, connection: Connection, twin_ids: Sequence[UUID]) -> Counter[str]:
    remaining = Counter[str](persona_documents=0)
    for holder in ctx.holders:
        remaining.update(await holder.remaining(connection, twin_ids))
    return remaining


def _check(remaining: Counter[str]) -> None:
    if any(remaining.values()):
        raise RemainsError(", ".join(name for name, count in remaining.items() if count))
