"""Migrations that run at once, are killed in the middle, and run while the application serves."""

import asyncio
import os
import random
import sys
from collections.abc import Iterator

import asyncpg
import pytest

from devstack.local import ROOT
from devstack.mongod import Mongod
from devstack.postgres import DATABASE, OWNER, SERVING, Postgres
from tests.resilience.harness.limits import LONG, SEED
from tests.resilience.harness.load import creators, load, persona_writers
from tests.resilience.harness.scenario import scenario
from tests.support.database import superuser
from tests.support.stores import Stores, store_folder

AT_ONCE = 6 if LONG else 2
KILLED = 10 if LONG else 1


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    """Both servers, with nothing in them."""
    with (
        store_folder() as folder,
        Postgres(folder / "postgres", durable=False) as postgres,
        Mongod(folder / "mongod") as mongod,
    ):
        yield Stores(postgres, mongod)


async def upgrade(stores: Stores, database: str = DATABASE) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "migrations", "upgrade"),
        cwd=ROOT,
        env=os.environ
        | stores.environment
        | {"MIGRATIONS_POSTGRES_DSN": stores.postgres.dsn_of(OWNER, database), "MONGODB_DATABASE": database},
        stderr=asyncio.subprocess.PIPE,
    )


async def succeed(*migrations: asyncio.subprocess.Process) -> None:
    for process in migrations:
        _, stderr = await process.communicate()
        assert process.returncode == 0, stderr.decode()[-2000:]


async def kill_in_the_middle(process: asyncio.subprocess.Process, stores: Stores, chance: random.Random) -> None:
    async with superuser(stores) as connection:
        async with asyncio.timeout(30):
            while not await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", OWNER):
                await asyncio.sleep(0.005)
    await asyncio.sleep(chance.uniform(0, 0.2))
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def schema(stores: Stores, database: str = DATABASE) -> list[str]:
    """Every column, index, constraint, trigger, view and privilege, as text."""
    connection = await asyncpg.connect(stores.postgres.dsn_of(OWNER, database))
    try:
        rows = await connection.fetch(
            """
            SELECT format('%s.%s %s', table_name, column_name, data_type) AS line
            FROM information_schema.columns WHERE table_schema = 'public'
            UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
            UNION ALL SELECT format('%s %s', conname, pg_get_constraintdef(oid))
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace
            UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
            UNION ALL SELECT format('%s %s', viewname, definition) FROM pg_views WHERE schemaname = 'public'
            UNION ALL SELECT format('%s %s %s', grantee, privilege_type, table_name)
            FROM information_schema.role_table_grants WHERE table_schema = 'public'
            UNION ALL SELECT format('revision %s', version_num) FROM alembic_version
            ORDER BY line
            """
        )
    finally:
        await connection.close()
    return [row["line"] for row in rows]


async def test_migrations_at_once_and_killed_in_the_middle_end_in_the_schema_of_an_undisturbed_one(
    stores: Stores,
) -> None:
    chance = random.Random(SEED)
    for _ in range(KILLED):
        await kill_in_the_middle(await upgrade(stores), stores, chance)
    await succeed(*[await upgrade(stores) for _ in range(AT_ONCE)])
    async with superuser(stores) as connection:
        await connection.execute(f"CREATE DATABASE undisturbed OWNER {OWNER}")
    await succeed(await upgrade(stores, "undisturbed"))

    made = await schema(stores)
    assert len(made) > 50
    assert made == await schema(stores, "undisturbed")


async def test_migrations_at_once_do_not_disturb_those_who_are_served(stores: Stores) -> None:
    await succeed(await upgrade(stores))
    await asyncio.to_thread(stores.migrations, "grant", SERVING)
    async with scenario("two migrations at once, under load", stores) as s:
        clients = s.clients
        twins = [await clients.create("author", f"twin-{n}") for n in range(2)]
        async with load(*creators(clients, 4), *persona_writers(clients, "author", twins)):
            await succeed(*[await upgrade(stores) for _ in range(AT_ONCE)])
        assert set(clients.tally.outcomes) == {"200", "201"}
