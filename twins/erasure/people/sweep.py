"""The steps of an erasure that are about people."""

import time
from collections.abc import Sequence
from uuid import UUID

from shared.stores.postgres import Record
from twins.consent.lists import service as consents
from twins.context import Context
from twins.erasure import queries as erasures
from twins.erasure.people import queries

_BATCH = 100
_CONSENTS = 1000
_FIRST = UUID(int=0)


async def record(ctx: Context, erasure: Record, batch: Sequence[UUID], until: float) -> bool:
    """Keep for people what they agreed to on these twins, before it is removed; return False where time is up.

    Not for the owner, who finds the erasure itself.
    """
    owner = None
    async with ctx.postgres.connection() as connection:
        last = await queries.select_last_record(connection, batch)
    place = (_FIRST, _FIRST) if last is None else (last["twin_id"], last["consent_id"])
    while True:
        async with ctx.postgres.connection() as connection:
            rows = await consents.people_of(connection, batch, place, owner, _CONSENTS)
            digests = {person: ctx.account_digest(person) for person in {row["principal"] for row in rows}}
            owners = (person for person in digests if ctx.erasure_digest(person) == erasure["owner_digest"])
            owner = next(owners, owner)
            found = [
                (row["twin_id"], row["id"], digests[row["principal"]]) for row in rows if row["principal"] != owner
            ]
            if found:
                await queries.record_consents(connection, erasure["id"], found)
        if len(rows) < _CONSENTS:
            return True
        place = rows[-1]["twin_id"], rows[-1]["id"]
        if time.monotonic() > until:
            return False


async def forget(ctx: Context, erasure: Record, until: float) -> bool:
    """End what the account agreed to for others, and remove its name there; return False where time is up."""
    erasure_id = erasure["id"]
    while True:
        async with ctx.postgres.connection() as connection:
            rows = await erasures.select_naming_twins(connection, erasure_id, _BATCH)
        if not rows:
            return await forget_records(ctx, erasure_id, until)
        for twin_id, consent_ids in rows:
            async with ctx.postgres.transaction() as connection:
                number = await erasures.forget_person(connection, twin_id, erasure_id, consent_ids)
                await erasures.add_removed(connection, erasure_id, {"names": number})
            if time.monotonic() > until:
                return False


async def forget_records(ctx: Context, erasure_id: UUID, until: float) -> bool:
    """Remove what the account kept of twins that others have erased; return False where time is up."""
    while True:
        async with ctx.postgres.transaction() as connection:
            number = await queries.forget_records(connection, erasure_id, _CONSENTS)
            await erasures.add_removed(connection, erasure_id, {"records": number})
        if number < _CONSENTS:
            return True
        if time.monotonic() > until:
            return False
