"""Who may serve, and how: login roles that hold what serving needs, and the settings of their sessions."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

SERVING_ROLE = "twins_serving"
"""A role nobody signs in as; it holds what serving needs, and login roles are members of it."""

LIMITS = {
    # Below POSTGRES_COMMAND_TIMEOUT, so that the log tells a wait for a lock from a slow statement.
    "lock_timeout": 2_500,
    # Above it: the server acts where the client no longer can.
    "statement_timeout": 3_500,
    "idle_in_transaction_session_timeout": 4_000,
    # Below the outbox's LEASE: a process that takes over a job waits for no lock of the one before.
    "transaction_timeout": 10_000,
    # A statement whose client has gone is ended within this time.
    "client_connection_check_interval": 1_000,
    # A frozen client that was reading a long answer: while the server waits to write, no other limit acts.
    "tcp_user_timeout": 4_000,
    # A machine that has gone without a word keeps its places for a minute at the most, POSTGRES_POOL_IDLE.
    "tcp_keepalives_idle": 30,
    "tcp_keepalives_interval": 10,
    "tcp_keepalives_count": 3,
}
"""What the server ends by itself: milliseconds, but for keepalives seconds and a number.

A frozen client (a stopped process, a paused machine) takes no lock later than `statement_timeout` after it
froze, and holds none for longer than `idle_in_transaction_session_timeout` after that.
"""

SETTINGS = LIMITS | {
    # A session keeps its plans. One made while a table had hardly any rows reads that table whole until its next
    # ANALYZE: at 250 revocations a second each took 4 ms after a minute, and not 0.6.
    "enable_seqscan": "off",
}
"""What `grant` sets on a login role."""


async def grant(dsn: str, login: str, *, entra: bool = False) -> None:
    """Let the login role `login` serve: make it a member of `SERVING_ROLE`, and set `SETTINGS` on it.

    `entra`: in Azure, make the role of that Microsoft Entra identity first where there is none.
    They hold for sessions that begin afterwards.

    Raises:
        asyncpg.InsufficientPrivilegeError: whose DSN it is has no CREATEROLE, or no ADMIN option on the role.
    """
    if entra:
        # No CREATE ROLE can do this, and the function exists in this database only.
        async with connect(dsn, database="postgres") as connection:
            await connection.execute(
                """
                SELECT pgaadauth_create_principal($1, false, false)
                WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)
                """,
                login,
            )
    async with connect(dsn) as connection, connection.transaction():
        role: str = await connection.fetchval("SELECT format('%I', $1::text)", login)
        await connection.execute(f"GRANT {SERVING_ROLE} TO {role}")
        for name, value in SETTINGS.items():
            await connection.execute(f"ALTER ROLE {role} SET {name} = {value}")


@asynccontextmanager
async def connect(dsn: str, **options: str) -> AsyncIterator[asyncpg.Connection]:
    """Lend a connection."""
    connection = await asyncpg.connect(dsn, **options)
    try:
        yield connection
    finally:
        await connection.close()
