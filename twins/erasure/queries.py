"""SQL of erasure. Functions of the database make twins and names disappear; the ledger's skeleton stays."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from shared.stores.postgres import Connection, Record, fetch_one

_ERASURE = """
    e.id, e.requested_at, e.completed_at, e.certificate,
    e.removed || jsonb_build_object('persona_documents',
        (SELECT count(*) FROM erased_documents d WHERE d.erasure_id = e.id)) AS removed
"""


async def insert_erasure(connection: Connection, owner_digest: bytes) -> UUID:
    """Begin an erasure of twins, and return its id."""
    sql = "INSERT INTO erasures (owner_digest) VALUES ($1) RETURNING id"
    erasure_id: UUID = await connection.fetchval(sql, owner_digest)
    return erasure_id


async def erase_twins(
    connection: Connection, erasure_id: UUID, owner: str, actor: str, twin_ids: Sequence[UUID]
) -> None:
    """Make twins of this owner disappear at once, and count them."""
    number = await connection.fetchval("SELECT erase_twins($1, $2, $3, $4)", erasure_id, owner, actor, twin_ids)
    await add_removed(connection, erasure_id, {"twins": number})


async def erase_account(connection: Connection, account: str, actor: str, digest: bytes, owner_digest: bytes) -> Record:
    """Make an account erased, if there is anything of it since its last erasure.

    Returns the `erasure_id` of the new or the last erasure, or None, and whether it `is_new` and `is_complete`.
    """
    sql = "SELECT erasure_id, is_new, is_complete FROM erase_account($1, $2, $3, $4)"
    return await fetch_one(connection, sql, account, actor, digest, owner_digest)


async def erase_account_twins(connection: Connection, erasure_id: UUID, limit: int) -> int:
    """Make up to `limit` twins of an erased account disappear for good, and return their number."""
    number: int = await connection.fetchval("SELECT erase_account_twins($1, $2)", erasure_id, limit)
    return number


async def select_naming_twins(connection: Connection, erasure_id: UUID, limit: int) -> list[Record]:
    """Return some twins that name the account of an erasure, each with up to `limit` of the consents it gave there."""
    return await connection.fetch("SELECT twin_id, consents FROM naming_twins($1, $2)", erasure_id, limit)


async def forget_person(connection: Connection, twin_id: UUID, erasure_id: UUID, consent_ids: Sequence[UUID]) -> int:
    """End these consents of an erased account, remove its name from the twin, and return the number of consents."""
    sql = "SELECT forget_person($1, $2, $3)"
    number: int = await connection.fetchval(sql, twin_id, erasure_id, consent_ids)
    return number


async def vacuum_salts(connection: Connection) -> None:
    """Give back the space of destroyed salts."""
    await connection.execute("VACUUM (TRUNCATE false) salts")


async def left_of_account(connection: Connection, erasure_id: UUID) -> Record:
    """Return whether twins of an erased account, or twins that name it, are left: 0 where none is."""
    return await fetch_one(connection, "SELECT twins, names FROM left_of_account($1)", erasure_id)


async def add_removed(connection: Connection, erasure_id: UUID, removed: Mapping[str, int]) -> None:
    """Add numbers of removed rows to those of an erasure."""
    sql = """
        UPDATE erasures e SET removed = e.removed || (
            SELECT jsonb_object_agg(key, coalesce((e.removed->>key)::bigint, 0) + value::bigint)
            FROM jsonb_each_text($2)
        )
        WHERE e.id = $1
    """
    await connection.execute(sql, erasure_id, json.dumps(removed))


async def select_progress(connection: Connection, erasure_id: UUID) -> Record | None:
    """Return the step of an erasure, the last twin that it has done, and whether it is that of an account."""
    sql = """
        SELECT id, step, after, owner_digest,
               EXISTS (SELECT FROM erased_accounts a WHERE a.erasure_id = e.id) AS is_account
        FROM erasures e WHERE id = $1
    """
    return await connection.fetchrow(sql, erasure_id)


async def select_erasure(
    connection: Connection, erasure_id: UUID, owner_digests: Sequence[bytes] | None
) -> Record | None:
    """Return an erasure of one of these owners; `owner_digests` is None for the job."""
    sql = f"""
        SELECT {_ERASURE}, EXISTS (SELECT FROM erased_accounts a WHERE a.erasure_id = e.id) AS is_account
        FROM erasures e WHERE e.id = $1 AND ($2::bytea[] IS NULL OR e.owner_digest = ANY ($2))
    """  # noqa: S608 - a constant of this file
    return await connection.fetchrow(sql, erasure_id, owner_digests)


async def select_erasures(
    connection: Connection, owner_digests: Sequence[bytes], before: UUID | None, limit: int
) -> list[Record]:
    """Return up to `limit` erasures of these owners older than `before`, newest first."""
    sql = f"""
        SELECT {_ERASURE} FROM unnest($1::bytea[]) AS mine CROSS JOIN LATERAL (
            SELECT * FROM erasures
            WHERE owner_digest = mine AND id < coalesce($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
            ORDER BY id DESC LIMIT $3
        ) e
        ORDER BY e.id DESC LIMIT $3
    """  # noqa: S608 - a constant of this file
    return await connection.fetch(sql, owner_digests, before, limit)


async def select_erasure_of(connection: Connection, twin_id: UUID, owner_digest: bytes) -> UUID | None:
    """Return the id of the erasure by which this owner erased a twin."""
    sql = """
        SELECT e.id FROM twin_erasures t JOIN erasures e ON e.id = t.erasure_id
        WHERE t.twin_id = $1 AND e.owner_digest = $2 ORDER BY e.id LIMIT 1
    """
    erasure_id: UUID | None = await connection.fetchval(sql, twin_id, owner_digest)
    return erasure_id


async def select_erased_twins(connection: Connection, erasure_id: UUID, after: UUID, limit: int) -> list[UUID]:
    """Return up to `limit` twins of an erasure behind `after`, in order of their ids."""
    sql = "SELECT twin_id FROM erased_twins WHERE erasure_id = $1 AND twin_id > $2 ORDER BY twin_id LIMIT $3"
    return [row["twin_id"] for row in await connection.fetch(sql, erasure_id, after, limit)]


async def insert_erased_documents(connection: Connection, erasure_id: UUID, document_ids: list[UUID]) -> None:
    """Record documents before their deletion."""
    sql = """
        INSERT INTO erased_documents (document_id, erasure_id) SELECT unnest($2::uuid[]), $1
        ON CONFLICT (document_id) DO NOTHING
    """
    await connection.execute(sql, erasure_id, document_ids)


async def update_after(connection: Connection, erasure_id: UUID, step: str, after: UUID) -> None:
    """Note the last twin that a step has done; a run that is behind moves nothing back."""
    sql = "UPDATE erasures SET after = $3 WHERE id = $1 AND step = $2 AND after < $3"
    await connection.execute(sql, erasure_id, step, after)


async def update_step(connection: Connection, erasure_id: UUID, step: str, following: str) -> None:
    """Note that a step is done, and begin the following one."""
    sql = """
        UPDATE erasures SET step = $3, after = '00000000-0000-0000-0000-000000000000' WHERE id = $1 AND step = $2
    """
    await connection.execute(sql, erasure_id, step, following)


async def insert_erased_ledgers(
    connection: Connection,
    erasure_id: UUID,
    piece: int,
    after: UUID,
    last: UUID,
    leaves: int,
    root: bytes,
    keeps: list[str],
) -> None:
    """Note the root over a piece of the leaves: those behind `after`, and up to `last`, and what stays of them."""
    sql = """
        INSERT INTO erased_ledgers (erasure_id, piece, after, last, leaves, root, keeps)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (erasure_id, piece) DO NOTHING
    """
    await connection.execute(sql, erasure_id, piece, after, last, leaves, root, keeps)


async def select_erased_ledgers(connection: Connection, erasure_id: UUID) -> list[Record]:
    """Return the pieces of the leaves of an erasure, in order."""
    sql = "SELECT piece, after, last, leaves, root, keeps FROM erased_ledgers WHERE erasure_id = $1 ORDER BY piece"
    return await connection.fetch(sql, erasure_id)


async def complete(connection: Connection, erasure_id: UUID, certificate: str, at: datetime) -> None:
    """Finish an erasure, once, and forget the name of its account."""
    await connection.execute("SELECT complete_erasure($1, $2, $3)", erasure_id, certificate, at)


async def now(connection: Connection) -> datetime:
    """Return the time of the database's clock."""
    moment: datetime = await connection.fetchval("SELECT statement_timestamp()")
    return moment
