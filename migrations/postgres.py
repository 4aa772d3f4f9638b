"""PostgreSQL migrations: Alembic over asyncpg."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

SERVING_ROLE = "twins_serving"
"""A role nobody signs in as; it holds what serving needs, and login roles are members of it."""

_LOCK = 0x7477_696E_73
"""The advisory lock that makes two migrations at once run one after the other."""


def migrate(dsn: str, direction: str, revision: str) -> None:
    """Run Alembic's `upgrade` or `downgrade` to `revision`, alone."""
    asyncio.run(_migrate(dsn, direction, revision))


async def _migrate(dsn: str, direction: str, revision: str) -> None:
    # Not an SQLAlchemy URL: a libpq URL has options, such as sslmode, that it would not understand.
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(dsn), poolclass=NullPool
    )
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    run = {"upgrade": command.upgrade, "downgrade": command.downgrade}[direction]
    try:
        async with engine.connect() as connection:
            await _lock(connection)
            await connection.run_sync(lambda sync: (config.attributes.update(connection=sync), run(config, revision)))
            await connection.commit()
    finally:
        await engine.dispose()


async def _lock(connection: AsyncConnection) -> None:
    """Wait for the lock; it is of the session, since a transaction lasts one migration only."""
    await connection.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK})")
    await connection.commit()


async def grant(dsn: str, login: str, *, entra: bool = False) -> None:
    """Let the login role `login` serve: make it a member of `SERVING_ROLE`.

    `entra`: in Azure, make the role of that Microsoft Entra identity first where there is none.
    """
    if entra:
        # No CREATE ROLE can do this, and the function exists in this database only.
        async with _connect(dsn, database="postgres") as connection:
            await connection.execute(
                """
                SELECT pgaadauth_create_principal($1, false, false)
                WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)
                """,
                login,
            )
    async with _connect(dsn) as connection:
        statement = await connection.fetchval(
            "SELECT format('GRANT %I TO %I', $1::text, $2::text)", SERVING_ROLE, login
        )
        await connection.execute(statement)


@asynccontextmanager
async def _connect(dsn: str, **options: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn, **options)
    try:
        yield connection
    finally:
        await connection.close()
