"""SQL of the gate. The view `decisions` and the function `reason_of` have the rule: what a purpose's state means now.

After a restore, which may have lost a no, the answer is no.

The limits change no answer. Without them the planner, which multiplies the frequencies of twin and purpose, expects
thousands of rows of a twin with many consents, and reads all. `(SELECT …)` around the purpose of a twin that is named
keeps its frequency from the planner: it then expects a row at most, as no twin has more states than
there are purposes. Extended statistics would not tell it so.
"""

from uuid import UUID

from shared.stores.postgres import Connection, Record


async def select_decision(
    connection: Connection, owner: str | None, twin_id: UUID, purpose: str, *, any_owner: bool
) -> Record | None:
    """Return the gate's answer for a twin of this owner, or with `any_owner` for any twin."""
    sql = """
        SELECT d.consent_id, d.expires_at,
               reason_of(t.is_unconfirmed, t.stop_seq, d.seq, d.ended, d.standing) AS reason,
               reason_of(t.is_unconfirmed, t.stop_seq, d.seq, d.ended, d.standing) = 'granted' AS decision,
               statement_timestamp() AS evaluated_at
        FROM live_twins t LEFT JOIN LATERAL (
            SELECT * FROM decisions WHERE twin_id = $2 AND purpose = (SELECT $3::text) LIMIT 1
        ) d ON true
        WHERE t.id = $2 AND (t.owner = $1 OR $4)
    """
    return await connection.fetchrow(sql, owner, twin_id, purpose, any_owner)


async def select_decisions(
    connection: Connection, owner: str | None, twin_ids: list[UUID], purposes: list[str], *, any_owner: bool
) -> list[Record]:
    """Return the gate's answers for pairs of twin and purpose, in their order."""
    sql = """
        SELECT asked.purpose, f.consent_id, f.expires_at, statement_timestamp() AS evaluated_at,
               coalesce(f.reason, 'not_found') AS reason, coalesce(f.reason = 'granted', false) AS decision
        FROM unnest($3::text[]) WITH ORDINALITY AS asked (purpose, place)
        LEFT JOIN (
            SELECT a.place, d.consent_id, d.expires_at,
                   reason_of(t.is_unconfirmed, t.stop_seq, d.seq, d.ended, d.standing) AS reason
            FROM unnest($2::uuid[], $3::text[]) WITH ORDINALITY AS a (twin_id, purpose, place)
            JOIN live_twins t ON t.id = a.twin_id AND (t.owner = $1 OR $4)
            LEFT JOIN LATERAL (
                SELECT * FROM decisions WHERE twin_id = t.id AND purpose = a.purpose LIMIT 1
            ) d ON true
        ) f ON f.place = asked.place
        ORDER BY asked.place
    """
    return await connection.fetch(sql, owner, twin_ids, purposes, any_owner)
