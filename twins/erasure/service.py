"""Erasure: gone at once for everybody, then swept from both stores, then certified."""

import asyncio
import json
import logging
import time
from datetime import datetime
from itertools import batched
from typing import Any
from uuid import UUID

from shared import outbox
from shared.auth import CurrentUser
from shared.context import Context
from shared.errors import NotFound, Problem
from shared.postgres import Connection, Record
from twins.consent import service as consent
from twins.consent.ledger import timestamp
from twins.erasure import queries
from twins.erasure.models import Account, Erasure
from twins.persona import service as persona

logger = logging.getLogger(__name__)

KIND = "erasure"
TYPE = "erasure-certificate+jwt"

INLINE = 1.0
"""Seconds that a request waits for the first sweep; the timer takes what is left."""
_WORK = 5.0
"""Seconds after which a sweep lets go of its job, well before the lease ends."""
_BATCH = 200
_SKELETON = 150
"""Events that a certificate carries; of longer ledgers only the heads. JOSE libraries refuse more than 128 kB."""


class RemainsError(Exception):
    """A store still holds something of an erased twin; the job runs again."""


async def begin(ctx: Context, connection: Connection, user: CurrentUser, twin_ids: list[UUID]) -> UUID:
    """Erase twins that the caller's transaction has locked, and return the erasure's id."""
    erasure_id = await queries.insert_erasure(connection, _digest(ctx, user))
    await _erase(connection, user, erasure_id, twin_ids)
    await outbox.enqueue(connection, KIND, erasure_id)
    return erasure_id


async def _erase(connection: Connection, user: CurrentUser, erasure_id: UUID, twin_ids: list[UUID]) -> None:
    await consent.close(connection, twin_ids, user, erasure_id)
    await queries.erase_twins(connection, erasure_id, twin_ids)


async def begin_account(ctx: Context, user: CurrentUser) -> UUID:
    """Erase everything of an account, and return the erasure's id.

    What the account agreed to for twins of others is withdrawn, and its name taken out of it: first,
    since an erasure that has begun will be certified. Its twins are gone in one transaction: a job that
    saw only some of them could be done before the others are added.
    """
    while await consent.leave(ctx, user, _BATCH) == _BATCH:
        pass
    async with ctx.postgres.transaction() as connection:
        twin_ids = await queries.lock_twins(connection, user.sub, _BATCH)
        erasure_id = await begin(ctx, connection, user, twin_ids)
        while len(twin_ids) == _BATCH:
            twin_ids = await queries.lock_twins(connection, user.sub, _BATCH)
            await _erase(connection, user, erasure_id, twin_ids)
    return erasure_id


async def attempt(ctx: Context, erasure_id: UUID) -> None:
    """Try the first sweep at once, for as long as a request can wait."""
    try:
        async with asyncio.timeout(INLINE):
            await outbox.drain(ctx.postgres, handlers(ctx), subject=erasure_id)
    except (Problem, TimeoutError):
        logger.info("Erasure goes on in the background")


def handlers(ctx: Context) -> dict[str, outbox.Handler]:
    """Return what the outbox does for an erasure."""

    async def run(erasure_id: UUID) -> float | None:
        return await sweep(ctx, erasure_id)

    return {KIND: run}


async def sweep(ctx: Context, erasure_id: UUID) -> float | None:
    """Remove the documents of an erasure's twins; after the second sweep, certify.

    The second runs when every request that was under way at the first has ended: a document that
    such a request still wrote is found then. Returns in how many seconds to run again, or None.
    """
    until = time.monotonic() + _WORK
    async with ctx.postgres.connection() as connection:
        erasure = await queries.select_erasure(connection, erasure_id, None)
        twins = await queries.select_erased_twins(connection, erasure_id)
    if erasure is None or erasure["completed_at"] is not None:
        return None
    for batch in batched((row["id"] for row in twins), _BATCH, strict=False):
        while document_ids := await persona.find_documents(ctx, batch):
            # Noted before they are deleted: a crash in between loses no count.
            async with ctx.postgres.connection() as connection:
                await queries.insert_erased_documents(connection, erasure_id, document_ids)
            await persona.delete_documents(ctx, document_ids)
            if time.monotonic() > until:
                return 0.0
    async with ctx.postgres.connection() as connection:
        if erasure["sweeps"] == 0:
            await queries.update_sweeps(connection, erasure_id)
            return ctx.settings.erasure_second_sweep
        certificate, at = await _certify(ctx, connection, erasure_id, twins)
        await queries.complete(connection, erasure_id, certificate, at)
    logger.info("Erasure complete", extra={"erasure_id": str(erasure_id)})
    return None


async def _certify(ctx: Context, connection: Connection, erasure_id: UUID, twins: list[Record]) -> tuple[str, datetime]:
    """Prove that nothing is left, and sign what was there; raises `RemainsError`."""
    erasure = await queries.select_erasure(connection, erasure_id, None)
    assert erasure is not None  # noqa: S101 - erasures are never deleted
    remaining = dict(await queries.count_remaining(connection, erasure_id))
    at = remaining.pop("at")
    remaining["persona_documents"] = 0
    for batch in batched((row["id"] for row in twins), _BATCH, strict=False):
        remaining["persona_documents"] += len(await persona.find_documents(ctx, batch))
    if any(remaining.values()):
        raise RemainsError(", ".join(name for name, count in remaining.items() if count))
    skeletons = await queries.select_skeletons(connection, erasure_id, _SKELETON + 1)
    payload: dict[str, Any] = {
        "iat": int(at.timestamp()),
        "erasure_id": str(erasure_id),
        "requested_at": timestamp(erasure["requested_at"]),
        "completed_at": timestamp(at),
        "removed": json.loads(erasure["removed"]),
        "remaining": remaining,
        "ledgers": [
            {"twin_id": str(row["id"]), "seq": row["ledger_seq"], "head": row["ledger_hash"].hex()} for row in twins
        ],
        "events": [json.loads(row["event"]) for row in skeletons] if len(skeletons) <= _SKELETON else None,
    }
    return await ctx.signer.sign(payload, TYPE), at


async def get(ctx: Context, user: CurrentUser, erasure_id: UUID) -> Erasure:
    """Return the progress of an erasure that this account asked for; raises `NotFound`."""
    async with ctx.postgres.connection() as connection:
        row = await queries.select_erasure(connection, erasure_id, _digest(ctx, user))
    if row is None:
        raise NotFound("There is no such erasure.")
    return Erasure(
        id=row["id"],
        state="running" if row["completed_at"] is None else "complete",
        requested_at=row["requested_at"],
        completed_at=row["completed_at"],
        twins=row["twins"],
        removed=json.loads(row["removed"]),
        certificate=row["certificate"],
    )


async def account(ctx: Context, user: CurrentUser) -> Account:
    """Return what is stored of an account."""
    async with ctx.postgres.connection() as connection:
        counts = await queries.select_account(connection, user.sub)
    return Account(sub=user.sub, **counts)


def _digest(ctx: Context, user: CurrentUser) -> bytes:
    """Return the keyed digest that an erasure knows its owner by, when the owner's name is gone."""
    return ctx.digests.digest("erasure", user.sub.encode())
