"""SQL on persona versions: PostgreSQL decides which document is which version, and whose."""

from datetime import datetime
from uuid import UUID

from shared.postgres import Connection, Record

# With a limit for the planner's sake, as in the gate.
_DECISION = """
    LATERAL (SELECT reason FROM decisions WHERE twin_id = t.id AND purpose = 'general' LIMIT 1) d ON true
"""


async def select_head(connection: Connection, owner: str, twin_id: UUID) -> Record | None:
    """Return the number of a twin's latest persona version (0: none yet), and the gate's reason."""
    return await connection.fetchrow(
        f"""
        SELECT t.persona_version, coalesce(d.reason, 'no_consent') AS reason
        FROM twins t LEFT JOIN {_DECISION}
        WHERE t.id = $1 AND t.owner = $2
        """,  # noqa: S608 - a constant of this file
        twin_id,
        owner,
    )


async def select_version(connection: Connection, owner: str, twin_id: UUID, version: int | None) -> Record | None:
    """Return a twin of this owner with one version of its persona, the latest where `version` is None.

    `document_id` is null where there is no such version.
    """
    return await connection.fetchrow(
        f"""
        SELECT t.twin_name, t.use_case, t.tone, t.persona_version, coalesce(d.reason, 'no_consent') AS reason,
               v.version, v.document_id, v.created_at
        FROM twins t
        LEFT JOIN {_DECISION}
        LEFT JOIN persona_versions v ON v.twin_id = t.id AND v.version = coalesce($3, t.persona_version)
        WHERE t.id = $1 AND t.owner = $2
        """,  # noqa: S608 - a constant of this file
        twin_id,
        owner,
        version,
    )


async def insert_version(connection: Connection, twin_id: UUID, document_id: UUID) -> Record:
    """Make a document the next version of the persona of a locked twin.

    By the clock of the statement: the transaction has waited for the lock, and began before the one it waited for.
    """
    row = await connection.fetchrow(
        """
        WITH head AS (
            UPDATE twins SET persona_version = persona_version + 1 WHERE id = $1 RETURNING persona_version
        )
        INSERT INTO persona_versions (twin_id, version, document_id, created_at)
        SELECT $1, persona_version, $2, statement_timestamp() FROM head
        RETURNING version, created_at
        """,
        twin_id,
        document_id,
    )
    assert row is not None  # noqa: S101 - the twin is locked by this transaction
    return row


async def select_versions(
    connection: Connection, owner: str, twin_id: UUID, before: int | None, limit: int
) -> list[Record]:
    """Return up to `limit` versions older than `before`, newest first."""
    rows: list[Record] = await connection.fetch(
        """
        SELECT v.version, v.created_at
        FROM persona_versions v JOIN twins t ON t.id = v.twin_id
        WHERE v.twin_id = $1 AND t.owner = $2 AND v.version < coalesce($3, v.version + 1)
        ORDER BY v.version DESC LIMIT $4
        """,
        twin_id,
        owner,
        before,
        limit,
    )
    return rows


async def lock_sweep(connection: Connection) -> Record | None:
    """Return up to when documents have been swept and the clock, unless somebody else sweeps now."""
    return await connection.fetchrow(
        "SELECT swept_until, now() AS now FROM sweeps WHERE name = 'personas' FOR UPDATE SKIP LOCKED"
    )


async def select_kept(connection: Connection, document_ids: list[UUID], twin_ids: list[UUID]) -> set[UUID]:
    """Return those of the documents, each of its twin, that are versions, or that an erasure is to count and remove."""
    rows = await connection.fetch(
        """
        SELECT asked.document_id FROM unnest($1::uuid[], $2::uuid[]) AS asked (document_id, twin_id)
        WHERE EXISTS (SELECT FROM persona_versions v WHERE v.document_id = asked.document_id)
           OR EXISTS (SELECT FROM erased_twins t JOIN erasures e ON e.id = t.erasure_id
                      WHERE t.twin_id = asked.twin_id AND e.completed_at IS NULL)
        """,
        document_ids,
        twin_ids,
    )
    return {row["document_id"] for row in rows}


async def update_sweep(connection: Connection, until: datetime) -> None:
    """Note that documents made before `until` have been swept."""
    await connection.execute("UPDATE sweeps SET swept_until = $1 WHERE name = 'personas'", until)
