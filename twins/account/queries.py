"""SQL of accounts: mostly counts, over the views of the resources that hold the rows."""

from shared.stores.postgres import Connection, Record, fetch_one


async def select_account(connection: Connection, owner: str | None, person: str, most: int) -> Record:
    """Count the stored data of an owner, and what a person gave to others, up to `most` of each.

    `scanned` is the number of consents of the person that were looked at.
    """
    sql = """
        WITH mine AS MATERIALIZED (
            SELECT id, persona_version FROM live_twins WHERE owner = $1 ORDER BY id DESC LIMIT $3
        ), given AS MATERIALIZED (
            SELECT twin_id, given_at FROM consents WHERE principal = $2 ORDER BY id DESC LIMIT $3
        )
        SELECT (SELECT count(*) FROM mine) AS twins,
               (SELECT coalesce(sum(persona_version), 0)::bigint FROM mine) AS persona_versions,
               (SELECT count(*) FROM (SELECT 1 FROM mine CROSS JOIN LATERAL (
                    SELECT 1 FROM consents c WHERE c.twin_id = mine.id LIMIT $3
                ) c LIMIT $3) f) AS consents,
               (SELECT coalesce(sum(h.seq), 0)::bigint FROM mine CROSS JOIN LATERAL (
                    SELECT seq FROM ledger_heads h WHERE h.twin_id = mine.id LIMIT 1
                ) h) AS ledger_events,
               (SELECT count(*) FROM (SELECT 1 FROM mine CROSS JOIN LATERAL (
                    SELECT 1 FROM idempotency_keys k WHERE k.twin_id = mine.id LIMIT $3
                ) k LIMIT $3) f) AS idempotency_answers,
               (SELECT count(*) FROM given g CROSS JOIN LATERAL (
                    SELECT 1 FROM live_twins t WHERE t.id = g.twin_id AND t.owner <> $2 LIMIT 1
                ) t WHERE NOT EXISTS (
                    SELECT FROM erased_accounts e WHERE e.account = $2 AND e.erased_at >= g.given_at
                )) AS consents_given,
               (SELECT count(*) FROM given) AS scanned
    """
    return await fetch_one(connection, sql, owner, person, most)
