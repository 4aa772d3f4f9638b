"""SQL of restores. Functions of the database close the gate, repeat what is lost, and open the gate again."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from shared.stores.postgres import Connection, Record, fetch_one


async def select_restore(connection: Connection) -> Record:
    """Return the last closing of the gate, up to when ledgers were compared, and the number of twins left closed."""
    sql = """
        SELECT epoch, ended_at IS NULL AS is_running, ended_at IS NULL AND journal IS NULL AS is_waiting, compared_to,
               (SELECT count(*) FROM unconfirmed_twins) AS unconfirmed
        FROM restores ORDER BY epoch DESC LIMIT 1
    """
    return await fetch_one(connection, sql)


async def lost_of(
    connection: Connection,
    subjects: Sequence[UUID],
    seqs: Sequence[int],
    digests: Sequence[bytes],
    erasures: Sequence[UUID | None],
) -> set[bytes]:
    """Return which of these entries of the journal the ledgers lack, and nobody has noticed yet."""
    rows = await connection.fetch("SELECT hash FROM lost_of($1, $2, $3, $4) AS hash", subjects, seqs, digests, erasures)
    return {row["hash"] for row in rows}


async def close_gate(connection: Connection) -> int | None:
    """Close the gate for every twin, and return the number of the closing, or None where it is closed already."""
    epoch: int | None = await connection.fetchval("SELECT close_gate()")
    return epoch


async def update_compared(connection: Connection, epoch: int, at: datetime) -> None:
    """Note up to when the ledgers have everything that was journalled."""
    sql = (
        "UPDATE restores SET compared_to = greatest(compared_to, $2), seen_to = greatest(seen_to, $2) WHERE epoch = $1"
    )
    await connection.execute(f"{sql} AND (compared_to < $2 OR seen_to IS NULL OR seen_to < $2)", epoch, at)


async def lease(connection: Connection, seconds: float) -> Record | None:
    """Take the running restore whose journal an operator has named, unless another process has it."""
    sql = """
        UPDATE restores SET leased_until = now() + make_interval(secs => $1)
        WHERE epoch = (
            SELECT epoch FROM restores WHERE ended_at IS NULL AND journal IS NOT NULL AND leased_until <= now()
            FOR UPDATE SKIP LOCKED
        )
        RETURNING epoch, after, are_accounts_erased, leased_until, now() - closed_at AS age
    """
    return await connection.fetchrow(sql, seconds)


async def release(connection: Connection, epoch: int, until: datetime, after: UUID, confirmed: int) -> None:
    """Note the progress of a leased restore, and free it."""
    sql = """
        UPDATE restores SET after = $3, confirmed = confirmed + $4, leased_until = now()
        WHERE epoch = $1 AND leased_until = $2
    """
    await connection.execute(sql, epoch, until, after, confirmed)


async def end(connection: Connection, epoch: int) -> None:
    """Note that each twin is confirmed, or listed."""
    await connection.execute("UPDATE restores SET ended_at = now() WHERE epoch = $1 AND ended_at IS NULL", epoch)


async def select_lost_accounts(connection: Connection) -> list[Record]:
    """Return the erasures of accounts that wait to be repeated."""
    sql = """
        SELECT subject, hash, entry FROM lost_events
        WHERE replayed_at IS NULL AND entry->>'type' = 'account_erased' ORDER BY at
    """
    return await connection.fetch(sql)


async def select_accounts(connection: Connection, after: str, limit: int) -> list[str]:
    """Return up to `limit` accounts that own a twin or are named on one, behind this one, in order."""
    rows = await connection.fetch("SELECT account FROM accounts_after($1, $2) AS account", after, limit)
    return [row["account"] for row in rows]


async def select_accounts_on(connection: Connection, twin_id: UUID) -> list[str]:
    """Return the accounts that a twin names."""
    return [row["account"] for row in await connection.fetch("SELECT account FROM accounts_on($1) AS account", twin_id)]


async def repeat_account(connection: Connection, subject: UUID, digest: bytes, account: str | None) -> None:
    """Erase an account again; where nothing is left of it, only its digest is kept again."""
    await connection.execute("SELECT repeat_account($1, $2, $3)", subject, digest, account)


async def accounts_are_erased(connection: Connection, epoch: int) -> None:
    """Note that every lost erasure of an account is repeated."""
    await connection.execute("UPDATE restores SET are_accounts_erased = true WHERE epoch = $1", epoch)


async def select_twins(connection: Connection, epoch: int, after: UUID, limit: int) -> Record:
    """Return those of the next `limit` twins that are not confirmed, and the `last` of all; None at the end."""
    sql = """
        SELECT (array_agg(id ORDER BY id DESC))[1] AS last, coalesce(
            array_agg(id ORDER BY id) FILTER (WHERE epoch < $1 AND erased_at IS NULL), '{}'
        ) AS twin_ids
        FROM restorable_twins($2, $3)
    """
    return await fetch_one(connection, sql, epoch, after, limit)


async def select_lost(connection: Connection, twin_id: UUID) -> list[Record]:
    """Return the events that a twin has lost and that wait to be repeated, oldest first."""
    sql = "SELECT hash, entry FROM lost_events WHERE subject = $1 AND replayed_at IS NULL ORDER BY at, seq"
    return await connection.fetch(sql, twin_id)


async def repeat_event(connection: Connection, twin_id: UUID, digest: bytes, opener: str | None) -> str | None:
    """Repeat a lost event of a twin, and return what came of it."""
    outcome: str | None = await connection.fetchval("SELECT repeat_event($1, $2, $3)", twin_id, digest, opener)
    return outcome


async def confirm(connection: Connection, twin_id: UUID, epoch: int) -> bool:
    """Open the gate for a twin, and return whether that may be."""
    is_open: bool = await connection.fetchval("SELECT confirm_twin($1, $2)", twin_id, epoch)
    return is_open


async def upsert_unconfirmed(connection: Connection, twin_id: UUID, reason: str) -> bool:
    """List a twin that stays closed, and return whether it is new there."""
    sql = """
        INSERT INTO unconfirmed_twins AS u (twin_id, reason) VALUES ($1, $2)
        ON CONFLICT (twin_id) DO UPDATE SET tried_at = now(), reason = EXCLUDED.reason
        RETURNING u.found_at = u.tried_at AS is_new
    """
    is_new: bool = await connection.fetchval(sql, twin_id, reason)
    return is_new


async def select_unconfirmed(connection: Connection, pause: float, limit: int) -> list[UUID]:
    """Return some twins that have been closed for `pause` seconds since the last look at them."""
    sql = """
        SELECT twin_id FROM unconfirmed_twins WHERE tried_at <= now() - make_interval(secs => $1)
        ORDER BY tried_at LIMIT $2
    """
    return [row["twin_id"] for row in await connection.fetch(sql, pause, limit)]


async def forget_lost(connection: Connection, before: datetime) -> None:
    """Forget some repeated events from before a moment."""
    await connection.execute("SELECT forget_lost($1)", before)
