"""SQL on twins. Whatever finds or locks a twin has its owner in the WHERE: a foreign twin is simply not found."""

from uuid import UUID

from shared.postgres import Connection, Record

_TWIN = """
    t.id, t.twin_name, t.use_case, t.tone, coalesce(d.reason = 'granted', false) AS consent,
    t.version, t.created_at, t.updated_at
"""
# With a limit for the planner's sake, as in the gate.
_FROM = """
    twins t LEFT JOIN LATERAL (
        SELECT reason FROM decisions WHERE twin_id = t.id AND purpose = 'general' LIMIT 1
    ) d ON true
"""


async def insert_twin(connection: Connection, owner: str, twin_name: str, use_case: str, tone: str) -> Record:
    """Insert a twin, and return its id with the head of its ledger."""
    row = await connection.fetchrow(
        """
        INSERT INTO twins (owner, twin_name, use_case, tone) VALUES ($1, $2, $3, $4)
        RETURNING id, salt, ledger_seq, ledger_hash
        """,
        owner,
        twin_name,
        use_case,
        tone,
    )
    assert row is not None  # noqa: S101 - one row was inserted
    return row


async def select_twin(connection: Connection, owner: str, twin_id: UUID) -> Record | None:
    """Return a twin of this owner."""
    return await connection.fetchrow(
        f"SELECT {_TWIN} FROM {_FROM} WHERE t.id = $1 AND t.owner = $2",  # noqa: S608 - constants of this file
        twin_id,
        owner,
    )


async def select_twins(
    connection: Connection,
    owner: str,
    *,
    before: UUID | None,
    limit: int,
    q: str | None,
    use_case: str | None,
    tone: str | None,
    consent: bool | None,
) -> list[Record]:
    """Return up to `limit` twins of this owner, newest first, older than `before`.

    Ids are UUIDv7, so their order is that of creation. The collation is named since a database's
    own may know only ASCII.
    """
    rows: list[Record] = await connection.fetch(
        f"""
        SELECT {_TWIN} FROM {_FROM}
        WHERE t.owner = $1
          AND t.id < coalesce($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
          AND ($4::text IS NULL OR position(casefold($4 COLLATE pg_unicode_fast)
                                            IN casefold(t.twin_name COLLATE pg_unicode_fast)) > 0)
          AND ($5::text IS NULL OR t.use_case = $5)
          AND ($6::text IS NULL OR t.tone = $6)
          AND ($7::boolean IS NULL OR coalesce(d.reason = 'granted', false) = $7)
        ORDER BY t.id DESC LIMIT $3
        """,  # noqa: S608 - constants of this file
        owner,
        before,
        limit,
        q,
        use_case,
        tone,
        consent,
    )
    return rows


async def update_twin(connection: Connection, twin_id: UUID, twin_name: str, use_case: str, tone: str) -> None:
    """Change a locked twin; never to an earlier time, though the transaction may have waited for the lock."""
    await connection.execute(
        """
        UPDATE twins
        SET twin_name = $2, use_case = $3, tone = $4, version = version + 1,
            updated_at = greatest(now(), updated_at)
        WHERE id = $1
        """,
        twin_id,
        twin_name,
        use_case,
        tone,
    )
