"""SQL of what people keep of erased twins: functions of the database write it."""

from collections.abc import Sequence
from uuid import UUID

from shared.stores.postgres import Connection, Record


async def select_last_record(connection: Connection, twin_ids: Sequence[UUID]) -> Record | None:
    """Return the last consent of these twins, in order of both ids, that is recorded for its person."""
    sql = """
        SELECT twin_id, consent_id FROM erased_consents WHERE twin_id = ANY ($1)
        ORDER BY twin_id DESC, consent_id DESC LIMIT 1
    """
    return await connection.fetchrow(sql, twin_ids)


async def record_consents(
    connection: Connection, erasure_id: UUID, consents: Sequence[tuple[UUID, UUID, bytes]]
) -> None:
    """Record consents, each with its erased twin, for the person behind the digest."""
    columns = [[row[number] for row in consents] for number in range(3)]
    await connection.execute("SELECT record_consents($1, $2, $3, $4)", erasure_id, *columns)


async def forget_records(connection: Connection, erasure_id: UUID, limit: int) -> int:
    """Remove up to `limit` of the records of an erased account, and return their number."""
    number: int = await connection.fetchval("SELECT forget_records($1, $2)", erasure_id, limit)
    return number


async def left_records(connection: Connection, erasure_id: UUID) -> int:
    """Return whether records of an erased account are left: 0 where none is."""
    number: int = await connection.fetchval("SELECT left_records($1)", erasure_id)
    return number


async def select_keeps(connection: Connection, twin_ids: Sequence[UUID]) -> list[str]:
    """Return what stays of these erased twins beside what stays of each, as certificates call it."""
    sql = """
        SELECT array_remove(ARRAY[
            CASE WHEN EXISTS (SELECT FROM kept_ids WHERE twin_id = ANY ($1)) THEN 'external_id_digests' END,
            CASE WHEN EXISTS (SELECT FROM erased_consents WHERE twin_id = ANY ($1)) THEN 'records_of_people' END
        ], NULL)
    """
    keeps: list[str] = await connection.fetchval(sql, twin_ids)
    return keeps


async def select_kept_consents(connection: Connection, digest: bytes, before: UUID | None, limit: int) -> list[Record]:
    """Return up to `limit` records of a person older than `before`, newest first, with their erasures."""
    sql = """
        SELECT k.consent_id, k.twin_id, k.state, k.given_at, k.erasure_id, e.requested_at AS erased_at, e.completed_at,
               e.certificate
        FROM kept_consents k JOIN erasures e ON e.id = k.erasure_id
        WHERE k.digest = $1 AND k.consent_id < coalesce($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
        ORDER BY k.consent_id DESC LIMIT $3
    """
    return await connection.fetch(sql, digest, before, limit)
