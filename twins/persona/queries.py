"""SQL on persona versions: PostgreSQL decides on the document, the number and the owner of each version."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from shared.stores.postgres import Connection, Record, affected
from twins import gate


async def select_head(connection: Connection, owner: str, twin_id: UUID, lowest: int) -> Record | None:
    """Return the number of a twin's latest persona version (0: none yet), and the gate's reason."""
    sql = f"""
        SELECT t.persona_version, {gate.general("$3")} AS reason
        FROM live_twins t {gate.state("$2", "(SELECT 'general')")}
        WHERE t.id = $2 AND t.owner = $1
    """  # noqa: S608 - constants
    return await connection.fetchrow(sql, owner, twin_id, lowest)


async def select_version(
    connection: Connection,
    owner: str | None,
    twin_id: UUID,
    version: int | None,
    lowest: int,
    recipient: str = "",
    *,
    any_owner: bool = False,
) -> Record | None:
    """Return a twin of this owner, or of any, with one version of its persona, the latest where `version` is None.

    `document_id` is null where there is no such version; `sha256` also for versions from before the digests.
    `recipient` is the key of the caller, whom a consent has to cover where the twin is not theirs.
    """
    reason = gate.general("$5", "CASE WHEN t.owner IS DISTINCT FROM $1 THEN $6 END")
    sql = f"""
        SELECT t.twin_name, t.use_case, t.tone, t.persona_version, {reason} AS reason,
               v.version, v.document_id, v.sha256, v.created_at
        FROM live_twins t {gate.state("$2", "(SELECT 'general')")}
        LEFT JOIN persona_versions v ON v.twin_id = t.id AND v.version = coalesce($3, t.persona_version)
        WHERE t.id = $2 AND (t.owner = $1 OR $4)
    """  # noqa: S608 - constants
    return await connection.fetchrow(sql, owner, twin_id, version, any_owner, lowest, recipient)


async def insert_version(
    connection: Connection, twin_id: UUID, document_id: UUID, sha256: bytes, size: int, most: int, most_bytes: int
) -> Record | None:
    """Make a document the next version of the persona of a locked twin, or return None where its owner has no room.

    Its time is the statement's: the transaction waited for the lock, and may have begun before the lock's last holder.
    """
    sql = """
        WITH head AS (
            UPDATE twins SET persona_version = persona_version + 1, stored_bytes = stored_bytes + $4
            WHERE id = $1 AND stores_at_most(owner, NULL, $5::bigint - 1, $6::bigint - $4) RETURNING persona_version
        )
        INSERT INTO persona_versions (twin_id, version, document_id, sha256, created_at)
        SELECT $1, persona_version, $2, $3, statement_timestamp() FROM head
        RETURNING version, created_at
    """
    return await connection.fetchrow(sql, twin_id, document_id, sha256, size, most, most_bytes)


async def select_versions(
    connection: Connection, owner: str, twin_id: UUID, before: int | None, limit: int
) -> list[Record]:
    """Return up to `limit` versions older than `before`, newest first."""
    sql = """
        SELECT v.version, v.created_at FROM persona_versions v JOIN live_twins t ON t.id = v.twin_id
        WHERE v.twin_id = $2 AND t.owner = $1 AND v.version < coalesce($3, v.version + 1)
        ORDER BY v.version DESC LIMIT $4
    """
    return await connection.fetch(sql, owner, twin_id, before, limit)


async def lock_sweep(connection: Connection) -> Record | None:
    """Return the end of the last sweep and the present time, or None while another process sweeps."""
    sql = "SELECT swept_until, now() AS now FROM sweeps WHERE name = 'personas' FOR UPDATE SKIP LOCKED"
    return await connection.fetchrow(sql)


async def select_kept(connection: Connection, document_ids: list[UUID], twin_ids: list[UUID]) -> set[UUID]:
    """Return the documents, each of its twin, that are versions, or that a running erasure counts and removes."""
    sql = """
        SELECT v.document_id FROM unnest($1::uuid[], $2::uuid[]) AS asked (document_id, twin_id)
        JOIN persona_versions v ON v.twin_id = asked.twin_id AND v.document_id = asked.document_id
        UNION ALL
        SELECT asked.document_id FROM unnest($1::uuid[], $2::uuid[]) AS asked (document_id, twin_id)
        JOIN erasing_twins t ON t.twin_id = asked.twin_id
    """
    return {row["document_id"] for row in await connection.fetch(sql, document_ids, twin_ids)}


async def update_sweep(connection: Connection, until: datetime) -> None:
    """Note that documents made before `until` have been swept."""
    await connection.execute("UPDATE sweeps SET swept_until = $1 WHERE name = 'personas'", until)


async def erase(connection: Connection, twin_ids: Sequence[UUID], limit: int) -> dict[str, int]:
    """Remove up to `limit` persona versions of these twins; a sweep removes the documents later."""
    sql = """
        DELETE FROM persona_versions
        WHERE twin_id = ANY ($1) AND (twin_id, version) IN (
            SELECT twin_id, version FROM persona_versions WHERE twin_id = ANY ($1) LIMIT $2
        )
    """
    status = await connection.execute(sql, twin_ids, limit)
    return {"persona_versions": affected(status)}


async def remaining(connection: Connection, twin_ids: Sequence[UUID]) -> dict[str, int]:
    """Count the persona versions of these twins."""
    sql = "SELECT count(*) FROM persona_versions WHERE twin_id = ANY($1)"
    return {"persona_versions": await connection.fetchval(sql, twin_ids)}
