"""SQL on what waits for the journal. Triggers of the database add it, in the transaction of the event."""

from collections.abc import Sequence
from uuid import UUID

from shared.stores.postgres import Connection, Record


async def select_entries(connection: Connection, subject: UUID, limit: int) -> list[Record]:
    """Return up to `limit` entries of a subject, with the account that can open what they say, if there is one.

    `origin` is the entry that an event repeats after a restore.
    """
    sql = """
        SELECT e.hash, e.seq, e.at, e.entry, l.opener_kind, l.opener, r.hash AS origin
        FROM journal_entries e
        LEFT JOIN ledger_locks l ON l.twin_id = $1 AND l.id = (e.entry->>'lock_id')::uuid
        LEFT JOIN repeated_events r ON r.subject = e.subject AND r.as_seq = e.seq
        WHERE e.subject = $1 ORDER BY e.seq LIMIT $2
    """
    return await connection.fetch(sql, subject, limit)


async def forget_entries(connection: Connection, subject: UUID, digests: Sequence[bytes]) -> None:
    """Forget entries that are in the journal, and the jobs of a subject that has no others."""
    await connection.execute("SELECT forget_entries($1, $2)", subject, digests)
