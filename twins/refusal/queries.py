"""SQL on locks, which the database's functions write together with the event of the ledger."""

from uuid import UUID

from shared.stores.postgres import Connection, Record, fetch_one

_REFUSAL = """
    l.id, l.twin_id, l.purposes, l.exceptions, l.refused_at,
    CASE l.opener_kind WHEN 'none' THEN 'nobody' ELSE l.opener_kind END AS by
"""
_FIRST = "'00000000-0000-0000-0000-000000000000'::uuid"


async def say_no(
    connection: Connection,
    owner: str | None,
    sub: str,
    client: str | None,
    twin_id: UUID,
    purposes: list[str] | None,
    consent_id: UUID | None = None,
    *,
    is_operator: bool,
) -> Record:
    """Lock purposes of a twin.

    Returns the `lock_id`, whether it `is_made` or `is_changed`, or the `problem` that forbids it.

    `owner` is the account for which `sub` acts, by the software `client`. `purposes` is None for everything, or with
    `consent_id` for all purposes of this consent's line of renewals.
    """
    sql = "SELECT problem, lock_id, is_made, is_changed FROM say_no($1, $2, $3, $4, $5, $6, $7)"
    return await fetch_one(connection, sql, twin_id, owner, sub, is_operator, purposes, consent_id, client)


async def open_lock(
    connection: Connection, sub: str, client: str | None, twin_id: UUID, refusal_id: UUID, *, is_operator: bool
) -> Record:
    """Open a lock of this account, or of the operators; return whether it `is_changed`, or the `problem`."""
    sql = "SELECT problem, is_changed FROM open_lock($1, $2, $3, $4, $5)"
    return await fetch_one(connection, sql, twin_id, refusal_id, sub, is_operator, client)


async def select_lock(connection: Connection, twin_id: UUID, refusal_id: UUID) -> Record:
    """Return a standing lock."""
    sql = f"SELECT {_REFUSAL} FROM standing_locks l WHERE l.twin_id = $1 AND l.id = $2"  # noqa: S608 - a constant
    return await fetch_one(connection, sql, twin_id, refusal_id)


async def select_locks(
    connection: Connection,
    owner: str | None,
    sub: str,
    twin_id: UUID,
    after: UUID | None,
    limit: int,
    *,
    is_operator: bool,
) -> list[Record]:
    """Return up to `limit` standing locks younger than `after`: to the owner and operators all, else one's own.

    Of one's own there is one at the most, and it is found by its opener: others may have many on the twin.
    """
    sql = f"""
        SELECT f.* FROM live_twins t CROSS JOIN LATERAL (
            SELECT {_REFUSAL} FROM standing_locks l WHERE l.twin_id = t.id AND l.id > coalesce($4, {_FIRST})
            ORDER BY l.id LIMIT $5
        ) f
        WHERE t.id = $3 AND (t.owner = $1 OR $6)
        UNION ALL
        SELECT {_REFUSAL} FROM locks k
        JOIN live_twins t ON t.id = k.twin_id
        JOIN standing_locks l ON l.twin_id = k.twin_id AND l.id = k.id AND l.opener = $2
        WHERE k.twin_id = $3 AND k.opener_kind = 'account' AND k.opener = $2 AND k.opened_at IS NULL
          AND k.id > coalesce($4, {_FIRST}) AND (t.owner = $1 OR $6) IS NOT TRUE
    """  # noqa: S608 - constants of this file
    return await connection.fetch(sql, owner, sub, twin_id, after, limit, is_operator)


async def select_lock_of(
    connection: Connection, owner: str | None, sub: str, twin_id: UUID, refusal_id: UUID, *, is_operator: bool
) -> Record | None:
    """Return a standing lock: to the owner and operators any, else one's own."""
    sql = f"""
        SELECT {_REFUSAL} FROM standing_locks l JOIN live_twins t ON t.id = l.twin_id
        WHERE l.twin_id = $3 AND l.id = $4 AND (t.owner = $1 OR $5 OR l.opener = $2)
    """  # noqa: S608 - a constant of this file
    return await connection.fetchrow(sql, owner, sub, twin_id, refusal_id, is_operator)


async def select_locks_over(connection: Connection, twin_id: UUID, purposes: list[str], limit: int) -> list[Record]:
    """Return up to `limit` standing locks over any of these purposes."""
    sql = f"""
        SELECT {_REFUSAL} FROM standing_locks l
        WHERE l.twin_id = $1 AND (l.purposes && $2 OR l.purposes IS NULL AND NOT $2 <@ l.exceptions)
        ORDER BY l.id LIMIT $3
    """  # noqa: S608 - constants of this file
    return await connection.fetch(sql, twin_id, purposes, limit)


async def may_refuse(connection: Connection, owner: str | None, sub: str, twin_id: UUID, *, is_operator: bool) -> bool:
    """Return whether this account may see refusals of a twin: named on it, its owner, or an operator."""
    sql = """
        SELECT EXISTS (
            SELECT FROM live_twins t WHERE t.id = $3 AND (t.owner = $1 OR $4 OR EXISTS (
                SELECT FROM named_people n WHERE n.twin_id = $3 AND n.account = $2
            ))
        )
    """
    found: bool = await connection.fetchval(sql, owner, sub, twin_id, is_operator)
    return found
