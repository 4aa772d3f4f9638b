"""Direct access to the database as its owner, for what the serving role may not do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.stores import Stores


@asynccontextmanager
async def owner_of(stores: Stores) -> AsyncIterator[asyncpg.Connection]:
    """Lend a connection of the role that owns the schema."""
    connection = await asyncpg.connect(stores.postgres.owner_dsn)
    try:
        yield connection
    finally:
        await connection.close()


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
