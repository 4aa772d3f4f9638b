"""SQL of erasure. What is personal goes in the first transaction; the ledger's skeleton stays."""

from datetime import datetime
from typing import Any
from uuid import UUID

from shared.postgres import Connection, Record


async def lock_twins(connection: Connection, owner: str, limit: int) -> list[UUID]:
    """Lock up to `limit` twins of this owner and return their ids."""
    rows = await connection.fetch(
        "SELECT id FROM twins WHERE owner = $1 ORDER BY id LIMIT $2 FOR NO KEY UPDATE", owner, limit
    )
    return [row["id"] for row in rows]


async def insert_erasure(connection: Connection, owner_digest: bytes) -> UUID:
    """Begin an erasure and return its id."""
    erasure_id: UUID = await connection.fetchval(
        "INSERT INTO erasures (owner_digest) VALUES ($1) RETURNING id", owner_digest
    )
    return erasure_id


async def erase_twins(connection: Connection, erasure_id: UUID, twin_ids: list[UUID]) -> None:
    """Remove everything personal of locked twins, and add to the erasure's counts what was removed.

    What is left of a twin is its id and its ledger, whose salt is gone.
    """
    await connection.execute(
        """
        WITH versions AS (DELETE FROM persona_versions WHERE twin_id = ANY($2) RETURNING 1),
        consents AS (DELETE FROM consents WHERE twin_id = ANY($2) RETURNING 1),
        answers AS (
            UPDATE idempotency_keys SET body = NULL, headers = '{}'
            WHERE twin_id = ANY($2) AND body IS NOT NULL RETURNING 1
        ),
        gone AS (
            UPDATE twins SET owner = NULL, twin_name = NULL, use_case = NULL, tone = NULL, salt = NULL,
                             erased_at = now(), version = version + 1, updated_at = now()
            WHERE id = ANY($2) RETURNING id
        ),
        noted AS (INSERT INTO erased_twins (twin_id, erasure_id) SELECT id, $1 FROM gone),
        counts AS (
            SELECT (SELECT count(*) FROM gone) AS twins, (SELECT count(*) FROM versions) AS persona_versions,
                   (SELECT count(*) FROM consents) AS consents,
                   (SELECT count(*) FROM answers) AS idempotency_answers
        )
        UPDATE erasures e SET removed = jsonb_build_object(
            'twins', counts.twins + coalesce((e.removed->>'twins')::bigint, 0),
            'persona_versions', counts.persona_versions + coalesce((e.removed->>'persona_versions')::bigint, 0),
            'consents', counts.consents + coalesce((e.removed->>'consents')::bigint, 0),
            'idempotency_answers',
            counts.idempotency_answers + coalesce((e.removed->>'idempotency_answers')::bigint, 0)
        )
        FROM counts WHERE e.id = $1
        """,
        erasure_id,
        twin_ids,
    )


async def select_erasure(connection: Connection, erasure_id: UUID, owner_digest: bytes | None) -> Record | None:
    """Return an erasure that this owner asked for; `owner_digest` is None for the job itself."""
    return await connection.fetchrow(
        """
        SELECT id, requested_at, completed_at, certificate, sweeps,
               removed || jsonb_build_object('persona_documents',
                   (SELECT count(*) FROM erased_documents d WHERE d.erasure_id = e.id)) AS removed,
               (SELECT count(*) FROM erased_twins t WHERE t.erasure_id = e.id) AS twins
        FROM erasures e WHERE id = $1 AND owner_digest = coalesce($2, owner_digest)
        """,
        erasure_id,
        owner_digest,
    )


async def select_erased_twins(connection: Connection, erasure_id: UUID) -> list[Record]:
    """Return the twins of an erasure with the ends of their ledgers."""
    rows: list[Record] = await connection.fetch(
        """
        SELECT t.id, t.ledger_seq, t.ledger_hash FROM erased_twins e JOIN twins t ON t.id = e.twin_id
        WHERE e.erasure_id = $1 ORDER BY t.id
        """,
        erasure_id,
    )
    return rows


async def select_skeletons(connection: Connection, erasure_id: UUID, limit: int) -> list[Record]:
    """Return up to `limit` events of the ledgers of an erasure's twins."""
    rows: list[Record] = await connection.fetch(
        """
        SELECT v.twin_id, v.seq, v.event, v.hash
        FROM erased_twins e JOIN consent_events v ON v.twin_id = e.twin_id
        WHERE e.erasure_id = $1 ORDER BY v.twin_id, v.seq LIMIT $2
        """,
        erasure_id,
        limit,
    )
    return rows


async def insert_erased_documents(connection: Connection, erasure_id: UUID, document_ids: list[UUID]) -> None:
    """Note documents that are about to be deleted."""
    await connection.execute(
        """
        INSERT INTO erased_documents (document_id, erasure_id) SELECT unnest($2::uuid[]), $1
        ON CONFLICT (document_id) DO NOTHING
        """,
        erasure_id,
        document_ids,
    )


async def update_sweeps(connection: Connection, erasure_id: UUID) -> None:
    """Note that the first sweep of an erasure is done."""
    await connection.execute("UPDATE erasures SET sweeps = 1 WHERE id = $1 AND sweeps = 0", erasure_id)


async def count_remaining(connection: Connection, erasure_id: UUID) -> Record:
    """Count what PostgreSQL still holds of an erasure's twins."""
    row = await connection.fetchrow(
        """
        SELECT
            (SELECT count(*) FROM twins t JOIN erased_twins e ON e.twin_id = t.id
             WHERE e.erasure_id = $1 AND num_nonnulls(t.owner, t.twin_name, t.use_case, t.tone, t.salt) > 0) AS twins,
            (SELECT count(*) FROM persona_versions v JOIN erased_twins e ON e.twin_id = v.twin_id
             WHERE e.erasure_id = $1) AS persona_versions,
            (SELECT count(*) FROM consents c JOIN erased_twins e ON e.twin_id = c.twin_id
             WHERE e.erasure_id = $1) AS consents,
            (SELECT count(*) FROM idempotency_keys k JOIN erased_twins e ON e.twin_id = k.twin_id
             WHERE e.erasure_id = $1 AND k.body IS NOT NULL) AS idempotency_answers,
            now() AS at
        """,
        erasure_id,
    )
    assert row is not None  # noqa: S101 - it has no FROM
    return row


async def complete(connection: Connection, erasure_id: UUID, certificate: str, at: datetime) -> None:
    """Finish an erasure, once."""
    await connection.execute(
        "UPDATE erasures SET certificate = $2, completed_at = $3, sweeps = 2 WHERE id = $1 AND completed_at IS NULL",
        erasure_id,
        certificate,
        at,
    )


async def select_account(connection: Connection, owner: str) -> dict[str, Any]:
    """Count what is stored of an account."""
    row = await connection.fetchrow(
        """
        WITH mine AS (SELECT id, ledger_seq FROM twins WHERE owner = $1)
        SELECT (SELECT count(*) FROM mine) AS twins,
               (SELECT count(*) FROM persona_versions v JOIN mine ON mine.id = v.twin_id) AS persona_versions,
               (SELECT count(*) FROM consents c JOIN mine ON mine.id = c.twin_id) AS consents,
               (SELECT coalesce(sum(ledger_seq), 0)::bigint FROM mine) AS ledger_events,
               (SELECT count(*) FROM idempotency_keys k JOIN mine ON mine.id = k.twin_id
                WHERE k.body IS NOT NULL) AS idempotency_answers,
               (SELECT count(*) FROM consents c JOIN twins t ON t.id = c.twin_id
                WHERE c.principal = $1 AND t.owner <> $1) AS consents_given
        """,
        owner,
    )
    assert row is not None  # noqa: S101 - it has no FROM
    return dict(row)
