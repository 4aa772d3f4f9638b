"""SQL of the ledger, to which only functions of the database append."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from shared.stores.postgres import Connection, Record, fetch_one


async def select_head(connection: Connection, owner: str, twin_id: UUID) -> Record | None:
    """Return the head of a twin's ledger."""
    sql = "SELECT seq, hash FROM ledger_heads WHERE twin_id = $2 AND owner = $1"
    return await connection.fetchrow(sql, owner, twin_id)


async def select_whole_head(connection: Connection, twin_id: UUID) -> Record:
    """Return the head of any twin's ledger, and what belongs to it: its last entry (0: none) and its consents."""
    sql = """
        SELECT seq, hash, stop_seq, spoken, is_erased,
               coalesce((SELECT max(seq) FROM consent_events e WHERE e.twin_id = h.twin_id), 0) AS last_seq,
               (SELECT count(*) FROM ledger_consents c WHERE c.twin_id = h.twin_id) AS consents
        FROM ledger_heads h WHERE twin_id = $1
    """
    return await fetch_one(connection, sql, twin_id)


async def select_heads(connection: Connection, twin_ids: Sequence[UUID]) -> list[Record]:
    """Return the heads of these twins' ledgers, erased ones included, in order of their ids."""
    sql = "SELECT twin_id, seq, hash FROM ledger_heads WHERE twin_id = ANY($1) ORDER BY twin_id"
    return await connection.fetch(sql, twin_ids)


async def select_events(connection: Connection, twin_id: UUID, after: int, limit: int) -> list[Record]:
    """Return up to `limit` events of a twin behind `after`, oldest first."""
    sql = "SELECT seq, event, hash FROM consent_events WHERE twin_id = $1 AND seq > $2 ORDER BY seq LIMIT $3"
    return await connection.fetch(sql, twin_id, after, limit)


async def is_named(connection: Connection, sub: str, twin_id: UUID) -> bool:
    """Return whether a twin that is not erased names this account."""
    sql = """
        SELECT EXISTS (
            SELECT FROM live_twins t JOIN named_people n ON n.twin_id = t.id WHERE t.id = $1 AND n.account = $2
        )
    """
    found: bool = await connection.fetchval(sql, twin_id, sub)
    return found


async def select_events_naming(
    connection: Connection, sub: str, twin_id: UUID, after: int, limit: int, most: int
) -> tuple[list[Record], int | None]:
    """Return up to `limit` events behind `after` of the consents that name this person, oldest first.

    At most `most` events are looked at; returns also the last of these, or None where none is left.
    """
    sql = """
        SELECT e.*, w.until
        FROM (SELECT (
            SELECT o.seq FROM consent_events o WHERE o.twin_id = $1 AND o.seq > $3
            ORDER BY o.seq OFFSET $5::bigint - 1 LIMIT 1
        ) AS until) w
        LEFT JOIN LATERAL (
            SELECT e.seq, e.event, e.hash FROM consent_events e
            WHERE e.twin_id = $1 AND e.seq > $3 AND (w.until IS NULL OR e.seq <= w.until) AND EXISTS (
                SELECT FROM ledger_consents c
                WHERE c.twin_id = $1 AND c.id = (e.event::json->>'consent_id')::uuid AND c.principal = $2
                  AND NOT c.is_forgotten
            )
            ORDER BY e.seq LIMIT $4
        ) e ON true
        ORDER BY e.seq
    """
    rows = await connection.fetch(sql, twin_id, sub, after, limit, most)
    return [row for row in rows if row["seq"] is not None], rows[0]["until"]


async def select_events_of_many(connection: Connection, twin_ids: Sequence[UUID], limit: int) -> list[str]:
    """Return up to `limit` events of these twins, in order of their ids."""
    sql = "SELECT event FROM consent_events WHERE twin_id = ANY($1) ORDER BY twin_id, seq LIMIT $2"
    return [row["event"] for row in await connection.fetch(sql, twin_ids, limit)]


_HEAD = "h.seq AS head_seq, h.hash AS head_hash"


async def select_salt(connection: Connection, twin_id: UUID) -> Record | None:
    """Return the twin's own salt, and the first event that it may have sealed."""
    return await connection.fetchrow("SELECT salt, since_seq FROM ledger_salts WHERE twin_id = $1", twin_id)


async def select_consents(connection: Connection, twin_id: UUID, consent_ids: Sequence[UUID]) -> list[Record]:
    """Return these consents of a twin, with the salts of their lines of renewals."""
    # One by one: for an array a generic plan, which takes each twin to have few consents, reads all that a twin has.
    sql = """
        SELECT c.* FROM unnest($2::uuid[]) AS named (id) CROSS JOIN LATERAL (
            SELECT * FROM ledger_consents WHERE twin_id = $1 AND id = named.id LIMIT 1
        ) c
    """
    return await connection.fetch(sql, twin_id, consent_ids)


async def select_purposes(connection: Connection, twin_id: UUID, after: str, limit: int) -> list[str]:
    """Return up to `limit` purposes that a twin has a state of, in order."""
    sql = "SELECT purpose FROM ledger_states WHERE twin_id = $1 AND purpose > $2 ORDER BY purpose LIMIT $3"
    return [row["purpose"] for row in await connection.fetch(sql, twin_id, after, limit)]


async def select_states(connection: Connection, twin_id: UUID, after: str, limit: int) -> list[Record]:
    """Return up to `limit` states of a twin's purposes, in order of these, with the head of this moment."""
    sql = f"""
        SELECT {_HEAD}, s.* FROM ledger_heads h JOIN ledger_states s ON s.twin_id = h.twin_id
        WHERE h.twin_id = $1 AND s.purpose > $2 ORDER BY s.purpose LIMIT $3
    """  # noqa: S608 - a constant of this file
    return await connection.fetch(sql, twin_id, after, limit)


async def select_withdrawals(
    connection: Connection, twin_id: UUID, lineage: UUID, purpose: str, limit: int
) -> list[Record]:
    """Return up to `limit` withdrawals behind this one, with the head of this moment."""
    sql = f"""
        SELECT {_HEAD}, w.* FROM ledger_heads h JOIN ledger_withdrawals w ON w.twin_id = h.twin_id
        WHERE h.twin_id = $1 AND (w.lineage, w.purpose) > ($2, $3) ORDER BY w.lineage, w.purpose LIMIT $4
    """  # noqa: S608 - a constant of this file
    return await connection.fetch(sql, twin_id, lineage, purpose, limit)


async def select_stops(connection: Connection, twin_id: UUID, after: int, limit: int) -> list[Record]:
    """Return up to `limit` refusals of everything behind an event, with the head of this moment."""
    sql = f"""
        SELECT {_HEAD}, s.* FROM ledger_heads h JOIN ledger_stops s ON s.twin_id = h.twin_id
        WHERE h.twin_id = $1 AND s.seq > $2 ORDER BY s.seq LIMIT $3
    """  # noqa: S608 - a constant of this file
    return await connection.fetch(sql, twin_id, after, limit)


async def select_locks(connection: Connection, twin_id: UUID, after: UUID, limit: int) -> list[Record]:
    """Return up to `limit` locks of a twin behind this one, opened ones included, with the head of this moment."""
    sql = f"""
        SELECT {_HEAD}, l.* FROM ledger_heads h JOIN ledger_locks l ON l.twin_id = h.twin_id
        WHERE h.twin_id = $1 AND l.id > $2 ORDER BY l.id LIMIT $3
    """  # noqa: S608 - a constant of this file
    return await connection.fetch(sql, twin_id, after, limit)


async def lease_round(connection: Connection, every: float, lease: float) -> Record | None:
    """Take the round of verification, or begin one `every` seconds; return None while another process has it."""
    sql = """
        UPDATE ledger_rounds SET
            leased_until = now() + make_interval(secs => $2),
            begun_at = CASE WHEN after IS NULL THEN moment ELSE begun_at END,
            after = coalesce(after, '00000000-0000-0000-0000-000000000000'),
            verified = CASE WHEN after IS NULL THEN 0 ELSE verified END,
            skipped = CASE WHEN after IS NULL THEN 0 ELSE skipped END,
            broken = CASE WHEN after IS NULL THEN 0 ELSE broken END
        FROM (SELECT now() AS moment) n
        WHERE one = (
            SELECT one FROM ledger_rounds
            WHERE leased_until <= now() AND (after IS NOT NULL OR begun_at <= now() - make_interval(secs => $1))
            FOR UPDATE SKIP LOCKED
        )
        RETURNING after, leased_until
    """
    return await connection.fetchrow(sql, every, lease)


async def select_ledgers(connection: Connection, after: UUID, limit: int) -> list[UUID]:
    """Return up to `limit` twins behind this one that have a ledger, erased ones included, in order of their ids."""
    sql = "SELECT twin_id FROM ledger_heads WHERE twin_id > $1 AND seq > 0 ORDER BY twin_id LIMIT $2"
    return [row["twin_id"] for row in await connection.fetch(sql, after, limit)]


async def update_round(
    connection: Connection, lease: datetime, after: UUID | None, verified: int, skipped: int, broken: int, rest: float
) -> None:
    """Note the progress of the leased round, and free it in `rest` seconds; `after` is None at its end."""
    sql = """
        UPDATE ledger_rounds SET
            after = $2::uuid, verified = verified + $3, skipped = skipped + $4, broken = broken + $5,
            last_broken = CASE WHEN $2::uuid IS NULL THEN broken + $5 ELSE last_broken END,
            ended_at = CASE WHEN $2::uuid IS NULL THEN moment ELSE ended_at END,
            leased_until = now() + make_interval(secs => $6)
        FROM (SELECT now() AS moment) n
        WHERE leased_until = $1
    """
    await connection.execute(sql, lease, after, verified, skipped, broken, rest)


async def select_round(connection: Connection) -> Record:
    """Return the progress of the verification of all ledgers, and the seconds since the end of the last round."""
    sql = """
        SELECT greatest(broken, last_broken) AS broken, skipped, verified,
               extract(epoch FROM now() - ended_at)::float AS age
        FROM ledger_rounds
    """
    return await fetch_one(connection, sql)
