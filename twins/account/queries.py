"""SQL of accounts: mostly counts, over the views of the resources that hold the rows."""

from shared.stores.postgres import Connection, Record, fetch_one


async def select_account(connection: Connection, owner: str | None, person: str) -> Record:
    """Count the stored data of an owner, and what a person gave to others."""
    sql = """
        WITH mine AS (SELECT id, persona_version FROM live_twins WHERE owner = $1)
        SELECT (SELECT count(*) FROM mine) AS twins,
               (SELECT coalesce(sum(persona_version), 0)::bigint FROM mine) AS persona_versions,
               (SELECT count(*) FROM consents c JOIN mine ON mine.id = c.twin_id) AS consents,
               (SELECT coalesce(sum(h.seq), 0)::bigint FROM ledger_heads h JOIN mine ON mine.id = h.twin_id)
                    AS ledger_events,
               (SELECT count(*) FROM idempotency_keys k JOIN mine ON mine.id = k.twin_id) AS idempotency_answers,
               (SELECT count(*) FROM consents c JOIN live_twins t ON t.id = c.twin_id
                WHERE c.principal = $2 AND t.owner <> $2 AND NOT EXISTS (
                    SELECT FROM erased_accounts e WHERE e.account = $2 AND e.erased_at >= c.given_at
                )) AS consents_given
    """
    return await fetch_one(connection, sql, owner, person)
