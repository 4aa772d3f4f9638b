"""What is planned on small tables stays quick while they grow: no statement that serves reads one whole."""

import asyncio

from devstack.postgres import SERVING, SUPERUSER
from tests.migrations.test_carry_over import AFTER, Database, client_on, database
from tests.support.app import Client, make_twin
from tests.support.consent import grant, renew, withdraw
from twins.settings import Settings

__all__ = ["database"]
# `restore_state` has one row, and no index.
READ_WHOLE = """
    SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE seq_tup_read > 0 AND relname <> 'restore_state'
"""
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = $1"


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
        # A session tells what it has read at its end.
        while await superuser.fetchval(SESSIONS, SERVING):
            await asyncio.sleep(0.05)
        assert await superuser.fetch(READ_WHOLE) == []
        assert await superuser.fetchval("SELECT sum(idx_scan) FROM pg_stat_user_tables") > 1000
