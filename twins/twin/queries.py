"""SQL on twins. Each query that finds a twin has the owner in its WHERE: it never finds another owner's twin."""

from collections.abc import Sequence
from uuid import UUID

from shared.stores.postgres import Connection, Record
from twins.twin.models import Filters

_TWIN = """
    t.id, t.twin_name, t.use_case, t.tone, t.principals, t.version, t.created_at, t.updated_at,
    reason_of(t.is_unconfirmed, t.stop_seq, d.seq, d.ended, d.standing) = 'granted' AS consent
"""
_FROM = """
    live_twins t LEFT JOIN LATERAL (
        SELECT * FROM decisions WHERE twin_id = t.id AND purpose = 'general' LIMIT 1
    ) d ON true
"""
_FIRST = "'00000000-0000-0000-0000-000000000000'::uuid"
_LAST = "'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid"
# The database's own collation may know only ASCII.
_FILTERS = """
    ($4::text IS NULL OR position(casefold($4 COLLATE pg_unicode_fast)
                                  IN casefold(t.twin_name COLLATE pg_unicode_fast)) > 0)
    AND ($5::text IS NULL OR t.use_case = $5)
    AND ($6::text IS NULL OR t.tone = $6)
    AND ($7::boolean IS NULL OR (reason_of(t.is_unconfirmed, t.stop_seq, d.seq, d.ended, d.standing) = 'granted') = $7)
"""
_PATTERN = r"'%' || regexp_replace(casefold($4 COLLATE pg_unicode_fast), '([\\%_])', '\\\1', 'g') || '%'"


async def insert_twin(
    connection: Connection, owner: str, twin_name: str, use_case: str, tone: str, principals: list[str], most: int
) -> UUID | None:
    """Insert a twin, and return its id, or None where the owner has `most`."""
    sql = """
        INSERT INTO twins (owner, twin_name, use_case, tone, principals)
        SELECT $1::text, $2::text, $3::text, $4::text, $5::text[]
        WHERE stores_at_most($1, $6::bigint - 1, NULL, NULL) RETURNING id
    """
    twin_id: UUID | None = await connection.fetchval(sql, owner, twin_name, use_case, tone, principals, most)
    return twin_id


async def select_twin(connection: Connection, owner: str, twin_id: UUID) -> Record | None:
    """Return a twin of this owner."""
    sql = f"""
        SELECT {_TWIN} FROM live_twins t LEFT JOIN LATERAL (
            SELECT * FROM decisions WHERE twin_id = $2 AND purpose = (SELECT 'general') LIMIT 1
        ) d ON true
        WHERE t.id = $2 AND t.owner = $1
    """  # noqa: S608 - a constant of this file
    return await connection.fetchrow(sql, owner, twin_id)


async def select_twins(
    connection: Connection, owner: str, before: UUID | None, limit: int, filters: Filters, most: int
) -> tuple[list[Record], UUID | None]:
    """Return up to `limit` twins of this owner, newest first, older than `before`.

    With filters at most `most` twins are looked at; returns also the last of these, or None where none is left.
    Ids (UUIDv7) sort by creation.
    """
    sql = f"""
        SELECT {_TWIN}, w.until
        FROM (SELECT CASE WHEN $8 THEN (
            SELECT o.id FROM live_twins o WHERE o.owner = $1 AND o.id < coalesce($2, {_LAST})
            ORDER BY o.id DESC OFFSET $9::bigint - 1 LIMIT 1
        ) END AS until) w
        LEFT JOIN LATERAL (
            SELECT t.*, d.seq, d.ended, d.standing FROM {_FROM}
            WHERE t.owner = $1 AND t.id < coalesce($2, {_LAST}) AND t.id >= coalesce(w.until, {_FIRST}) AND {_FILTERS}
            ORDER BY t.id DESC LIMIT $3
        ) t ON true
        CROSS JOIN LATERAL (SELECT t.seq, t.ended, t.standing) d
        ORDER BY t.id DESC
    """  # noqa: S608 - constants of this file
    is_filtered = any(value is not None for value in filters)
    rows = await connection.fetch(sql, owner, before, limit, *filters, is_filtered, most)
    return [row for row in rows if row["id"] is not None], rows[0]["until"]


async def select_twins_named(
    connection: Connection, owner: str, before: UUID, limit: int, filters: Filters, most: int
) -> list[Record] | None:
    """Return up to `limit` twins of this owner, newest first, by the index of names.

    Returns None where more than `most` twins have the name: the index has them in no order.
    """
    sql = f"""
        WITH named AS MATERIALIZED (
            SELECT id FROM twins_named($1, {_PATTERN}, $2, $8::bigint + 1) AS id
        )
        SELECT {_TWIN}, (SELECT count(*) FROM named) > $8 AS are_many
        FROM (VALUES (true)) one LEFT JOIN LATERAL (
            SELECT t.*, d.seq, d.ended, d.standing FROM named JOIN {_FROM} ON t.id = named.id
            WHERE t.owner = $1 AND {_FILTERS} AND (SELECT count(*) FROM named) <= $8
            ORDER BY t.id DESC LIMIT $3
        ) t ON true
        CROSS JOIN LATERAL (SELECT t.seq, t.ended, t.standing) d
        ORDER BY t.id DESC
    """  # noqa: S608 - constants of this file
    rows = await connection.fetch(sql, owner, before, limit, *filters, most)
    return None if rows[0]["are_many"] else [row for row in rows if row["id"] is not None]


async def update_twin(
    connection: Connection, twin_id: UUID, twin_name: str, use_case: str, tone: str, principals: list[str]
) -> None:
    """Change a locked twin; its time never goes back, though the transaction may have waited for the lock."""
    sql = """
        UPDATE twins SET twin_name = $2, use_case = $3, tone = $4, principals = $5, version = version + 1,
                         updated_at = greatest(now(), updated_at)
        WHERE id = $1
    """
    await connection.execute(sql, twin_id, twin_name, use_case, tone, principals)


async def remaining(connection: Connection, twin_ids: Sequence[UUID]) -> dict[str, int]:
    """Count the twins among these that still have personal data."""
    sql = """
        SELECT count(*) FROM twins WHERE id = ANY($1) AND num_nonnulls(owner, twin_name, use_case, tone) > 0
    """
    return {"twins": await connection.fetchval(sql, twin_ids)}
