"""PostgreSQL migrations: Alembic over asyncpg."""

import asyncio
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

_LOCK = 0x7477_696E_73
"""The advisory lock that makes two migrations at once run one after the other."""
_UNLIMITED = dict.fromkeys(
    ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout", "transaction_timeout"), "0"
)
"""A migration takes as long as it takes, whatever the server or its role says: one role may serve and migrate."""


def migrate(dsn: str, direction: str, revision: str) -> None:
    """Run Alembic's `upgrade` or `downgrade` to `revision`, alone."""
    asyncio.run(_migrate(dsn, direction, revision))


async def _migrate(dsn: str, direction: str, revision: str) -> None:
    # Not an SQLAlchemy URL: a libpq URL has options, such as sslmode, that it would not understand.
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(dsn, server_settings=_UNLIMITED),
        poolclass=NullPool,
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
