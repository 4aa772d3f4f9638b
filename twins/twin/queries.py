"""SQL on twins. Each query that finds a twin has the owner in its WHERE: it never finds another owner's twin."""

from collections.abc import Sequence
from uuid import UUID

from shared.stores.postgres import Connection, Record, fetch_one
from twins import gate
from twins.external import ExternalId
from twins.twin.models import Filters

_TWIN = """
    t.id, t.twin_name, t.use_case, t.tone, t.principals, t.version, t.created_at, t.updated_at,
    (SELECT json_agg(json_build_object('type', x.type, 'id', x.id) ORDER BY x.place)
     FROM attached_ids x WHERE x.twin_id = t.id) AS external_ids
"""
_FROM = f"live_twins t {gate.state('t.id')}"
_FIRST = "'00000000-0000-0000-0000-000000000000'::uuid"
_LAST = "'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid"
# The database's own collation may know only ASCII.
_FILTERS = """
    ($4::text IS NULL OR position(casefold($4 COLLATE pg_unicode_fast)
                                  IN casefold(t.twin_name COLLATE pg_unicode_fast)) > 0)
    AND ($5::text IS NULL OR t.use_case = $5)
    AND ($6::text IS NULL OR t.tone = $6)
"""
_IS_GRANTED = f"({gate.general('$9')} = 'granted')"
_FILTERS += f"AND ($7::boolean IS NULL OR {_IS_GRANTED} = $7)"
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


async def attach_ids(
    connection: Connection, twin_id: UUID, owner: str, digests: list[bytes], external_ids: Sequence[ExternalId]
) -> Record:
    """Make these the external ids of a twin; the digests are the keyed ones of the owner's ids.

    Returns whether that `is_changed`, or the `problem` that forbids it and the `place` of its id, from 1.
    """
    sql = "SELECT problem, place, is_changed FROM attach_ids($1, $2, $3, $4, $5)"
    types, names = [external.type for external in external_ids], [external.id for external in external_ids]
    return await fetch_one(connection, sql, twin_id, owner, digests, types, names)


async def select_twin(connection: Connection, owner: str, twin_id: UUID, lowest: int) -> Record | None:
    """Return a twin of this owner, and whether it may be used by a yes of the assurance `lowest` at least."""
    sql = f"""
        SELECT {_TWIN}, {gate.general("$3")} = 'granted' AS consent
        FROM live_twins t {gate.state("$2", "(SELECT 'general')")}
        WHERE t.id = $2 AND t.owner = $1
    """  # noqa: S608 - constants
    return await connection.fetchrow(sql, owner, twin_id, lowest)


async def select_twins(
    connection: Connection, owner: str, lowest: int, filters: Filters, most: int, before: UUID | None, limit: int
) -> tuple[list[Record], UUID | None]:
    """Return up to `limit` twins of this owner, newest first, older than `before`.

    With filters at most `most` twins are looked at; returns also the last of these, or None where none is left.
    Ids (UUIDv7) sort by creation.
    """
    sql = f"""
        SELECT t.*, w.until
        FROM (SELECT CASE WHEN $8 THEN (
            SELECT o.id FROM live_twins o WHERE o.owner = $1 AND o.id < coalesce($2, {_LAST})
            ORDER BY o.id DESC OFFSET $10::bigint - 1 LIMIT 1
        ) END AS until) w
        LEFT JOIN LATERAL (
            SELECT {_TWIN}, {_IS_GRANTED} AS consent FROM {_FROM}
            WHERE t.owner = $1 AND t.id < coalesce($2, {_LAST}) AND t.id >= coalesce(w.until, {_FIRST}) AND {_FILTERS}
            ORDER BY t.id DESC LIMIT $3
        ) t ON true
        ORDER BY t.id DESC
    """  # noqa: S608 - constants of this file
    is_filtered = any(value is not None for value in filters)
    rows = await connection.fetch(sql, owner, before, limit, *filters[:4], is_filtered, lowest, most)
    return [row for row in rows if row["id"] is not None], rows[0]["until"]


async def select_twins_called(
    connection: Connection, owner: str, lowest: int, filters: Filters, digest: bytes, limit: int
) -> list[Record]:
    """Return the twin of this owner that has the external id behind a digest, if there is one."""
    sql = f"""
        SELECT {_TWIN}, {_IS_GRANTED} AS consent FROM {_FROM}
        WHERE t.owner = $1 AND t.id < coalesce($2, {_LAST}) AND {_FILTERS}
          AND t.id = (SELECT x.twin_id FROM attached_ids x WHERE x.digest = $8)
        LIMIT $3
    """  # noqa: S608 - constants of this file
    return await connection.fetch(sql, owner, None, limit, *filters[:4], digest, lowest)


async def select_twins_named(
    connection: Connection, owner: str, lowest: int, filters: Filters, most: int, before: UUID, limit: int
) -> list[Record] | None:
    """Return up to `limit` twins of this owner, newest first, by the index of names.

    Returns None where more than `most` twins have the name: the index has them in no order.
    """
    sql = f"""
        WITH named AS MATERIALIZED (
            SELECT id FROM twins_named($1, {_PATTERN}, $2, $8::bigint + 1) AS id
        )
        SELECT t.*, (SELECT count(*) FROM named) > $8 AS are_many
        FROM (VALUES (true)) one LEFT JOIN LATERAL (
            SELECT {_TWIN}, {_IS_GRANTED} AS consent FROM named JOIN {_FROM} ON t.id = named.id
            WHERE t.owner = $1 AND {_FILTERS} AND (SELECT count(*) FROM named) <= $8
            ORDER BY t.id DESC LIMIT $3
        ) t ON true
        ORDER BY t.id DESC
    """  # noqa: S608 - constants of this file
    rows = await connection.fetch(sql, owner, before, limit, *filters[:4], most, lowest)
    return None if rows[0]["are_many"] else [row for row in rows if row["id"] is not None]


async def update_twin(
    connection: Connection, twin_id: UUID, twin_name: str, use_case: str, tone: str, principals: list[str]
) -> Record:
    """Change a locked twin, and return the columns that change.

    Its time never goes back, though the transaction may have waited for the lock.
    """
    sql = """
        UPDATE twins SET twin_name = $2, use_case = $3, tone = $4, principals = $5, version = version + 1,
                         updated_at = greatest(now(), updated_at)
        WHERE id = $1
        RETURNING twin_name, use_case, tone, principals, version, updated_at
    """
    return await fetch_one(connection, sql, twin_id, twin_name, use_case, tone, principals)


async def erase(connection: Connection, twin_ids: Sequence[UUID]) -> dict[str, int]:
    """Remove the external ids of these erased twins: all else went when the twins disappeared."""
    return {"external_ids": await connection.fetchval("SELECT remove_external_ids($1)", twin_ids)}


async def remaining(connection: Connection, twin_ids: Sequence[UUID]) -> dict[str, int]:
    """Count the twins among these that still have personal data, and their external ids."""
    sql = """
        SELECT (SELECT count(*) FROM twins
                WHERE id = ANY($1) AND num_nonnulls(owner, twin_name, use_case, tone) > 0) AS twins,
               (SELECT count(*) FROM external_ids WHERE twin_id = ANY($1) AND type IS NOT NULL) AS external_ids
    """
    return dict(await fetch_one(connection, sql, twin_ids))
