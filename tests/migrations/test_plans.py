"""Plans stay quick: those made on small tables while these grow, and those made where one twin has most rows."""

import asyncio

import asyncpg

from devstack.postgres import SERVING, SUPERUSER
from tests.migrations.test_carry_over import AFTER, Database, client_on, database
from tests.support.app import Client, make_twin
from tests.support.consent import grant, renew, verify, withdraw
from twins.settings import Settings

__all__ = ["database"]
# `restore_state` has one row, and no index.
READ_WHOLE = """
    SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE seq_tup_read > 0 AND relname <> 'restore_state'
"""
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = $1"


async def end_of_sessions(superuser: asyncpg.Connection) -> None:
    """Wait for the end of all sessions that served: until then none tells what it has read."""
    while await superuser.fetchval(SESSIONS, SERVING):
        await asyncio.sleep(0.05)


async def acts(owner: Client, paula: Client, number: int, mine: str, hers: str) -> None:
    """Give, renew and withdraw on one twin; refuse, and open the refusal, on the other."""
    for _ in range(number):
        renewed = await renew(owner, await grant(owner, mine, "voice"))
        await withdraw(owner, renewed)
        refused = await paula.post(f"{hers}/refusals", json={"purposes": ["face"]})
        assert refused.status_code == 201, refused.text
        opened = await paula.delete(f"{hers}/refusals/{refused.json()['id']}")
        assert opened.status_code == 204, opened.text


async def test_sessions_that_planned_on_small_tables_read_none_of_them_whole(
    database: Database, settings: Settings
) -> None:
    await database.migrate("upgrade", AFTER)
    async with client_on(database, settings, "owner") as owner, client_on(database, settings, "paula") as paula:
        twins = [await make_twin(owner, consent=False, principals=["paula"]) for _ in range(2)]
        await acts(owner, paula, 1, *twins)
    async with database.connection(SUPERUSER) as superuser:
        await superuser.execute("VACUUM ANALYZE")
        await superuser.execute("SELECT pg_stat_reset()")
        async with client_on(database, settings, "owner") as owner, client_on(database, settings, "paula") as paula:
            await acts(owner, paula, 30, *twins)
        await end_of_sessions(superuser)
        assert await superuser.fetch(READ_WHOLE) == []
        assert await superuser.fetchval("SELECT sum(idx_scan) FROM pg_stat_user_tables") > 1000


GIVEN_AND_REVOKED = """
    DO $$
    DECLARE
        made uuid;
        one record;
    BEGIN
        FOR one IN
            SELECT id, owner FROM twins
            UNION ALL SELECT id, owner FROM (SELECT id, owner FROM twins LIMIT 1) t, generate_series(2, {many})
        LOOP
            SELECT consent_id INTO STRICT made FROM give_consent(
                one.id, one.owner, one.owner, one.owner, '\\x00', 'api', '{{a}}', '1', 'en', 'Yes.', NULL, NULL, NULL
            );
            PERFORM revoke_consent(one.id, one.owner, one.owner, made, NULL);
        END LOOP;
    END $$
"""


async def test_a_verification_reads_each_consent_of_a_twin_with_most_of_them_a_few_times(
    database: Database, settings: Settings
) -> None:
    await database.migrate("upgrade", AFTER)
    many = 2000
    async with database.owner() as connection:
        made = "INSERT INTO twins (owner, twin_name, use_case, tone) SELECT 'owner', 'a', 'b', 'c'"
        await connection.execute(f"{made} FROM generate_series(1, $1)", many)
        await connection.execute(GIVEN_AND_REVOKED.format(many=many))
        await connection.execute("ANALYZE")
        twin_id = await connection.fetchval("SELECT id FROM twins ORDER BY ledger_seq DESC LIMIT 1")
    async with database.connection(SUPERUSER) as superuser:
        await superuser.execute("SELECT pg_stat_reset()")
        async with client_on(database, settings, "owner") as owner:
            found = await verify(owner, f"/api/v1/twins/{twin_id}")
        await end_of_sessions(superuser)
        read = await superuser.fetchval("SELECT idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'consents'")
    assert (found["valid"], found["events"]) == (True, 2 * many)
    assert read < 10 * many
