"""Direct access to the database, for what the serving role may not do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from devstack.postgres import DATABASE, SUPERUSER
from tests.support.stores import Stores


@asynccontextmanager
async def owner_of(stores: Stores) -> AsyncIterator[asyncpg.Connection]:
    """Lend a connection of the role that owns the schema."""
    connection = await asyncpg.connect(stores.postgres.owner_dsn)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def superuser(stores: Stores, database: str = DATABASE) -> AsyncIterator[asyncpg.Connection]:
    """Lend a connection that no privilege stops."""
    connection = await asyncpg.connect(stores.postgres.dsn_of(SUPERUSER, database))
    try:
        yield connection
    finally:
        await connection.close()


_GUARDS = {
    "consent_events": ("consent_events_hash", "hash = sha256(convert_to(event, 'UTF8'))"),
    "notices": ("notices_sha256", "sha256 = sha256(convert_to(notice, 'UTF8'))"),
}


@asynccontextmanager
async def tampering(stores: Stores) -> AsyncIterator[asyncpg.Connection]:
    """Lend a superuser's connection, with no trigger, foreign key or check of a digest in its way."""
    async with superuser(stores) as connection:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("ALTER TABLE consent_events DISABLE TRIGGER USER")
        for table, (name, _) in _GUARDS.items():
            await connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        try:
            yield connection
        finally:
            for table, (name, check) in _GUARDS.items():
                await connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({check}) NOT VALID")
            for trigger in ("consent_events_append_only", "consent_events_keep", "consent_events_journal"):
                await connection.execute(f"ALTER TABLE consent_events ENABLE ALWAYS TRIGGER {trigger}")
            # The journal knows better: without this the next comparison would close the gate for every test.
            await connection.execute("UPDATE restores SET compared_to = '9999-01-01Z'")


@asynccontextmanager
async def refused_name(stores: Stores, name: str) -> AsyncIterator[None]:
    """Make the database refuse one name, by an error whose text would show the whole row."""
    async with owner_of(stores) as connection:
        await connection.execute(
            f"ALTER TABLE twins ADD CONSTRAINT twins_refused_name CHECK (twin_name <> '{name}') NOT VALID"
        )
        try:
            yield
        finally:
            await connection.execute("ALTER TABLE twins DROP CONSTRAINT twins_refused_name")
