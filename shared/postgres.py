"""The PostgreSQL pool: opened once, lazily; its failures become 503; the only asyncpg site."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import asyncpg

from shared.errors import Unavailable
from shared.settings import Settings

logger = logging.getLogger(__name__)

type Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
type Record = asyncpg.Record

CheckViolationError = asyncpg.CheckViolationError

_LOST = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,  # "connection is closed", "pool is closing"
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement cancelled
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.InternalClientError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby that has not been promoted yet
)


_RETRY = 0.1
"""Seconds until it is tried again to open a connection: each failure takes time from the connections there are."""


async def _no_reset(connection: Connection) -> None:
    """Skip asyncpg's reset query, one round trip a request: no session state is ever set.

    asyncpg still rolls back an open transaction by itself.
    """


class Password(Protocol):
    """Gives out the password of a new connection, and waits for it or not; raises `Unavailable`."""

    async def __call__(self, *, wait: bool) -> str:
        """Return it."""


class Postgres:
    """A pool of connections to one database.

    Nothing is opened before the first use: Azure Functions starts an ASGI lifespan once for each
    concurrent first request and never ends it, so a pool cannot live there.
    """

    def __init__(self, settings: Settings, password: Password | None = None) -> None:
        self._settings = settings
        self._password = password
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._given_back = asyncio.Event()
        self._retry_at = 0.0
        self._endings: set[asyncio.Task[None]] = set()

    async def _open(self) -> "asyncpg.Pool[asyncpg.Record]":
        async with self._opening:
            if self._pool is None:
                settings = self._settings
                options: dict[str, Any] = {} if self._password is None else {"password": self._sign_in}
                self._pool = await asyncpg.create_pool(
                    settings.postgres_dsn.get_secret_value(),
                    min_size=settings.postgres_pool_min,
                    max_size=settings.postgres_pool_max,
                    max_inactive_connection_lifetime=settings.postgres_pool_idle,
                    timeout=settings.postgres_connect_timeout,
                    command_timeout=settings.postgres_command_timeout,
                    statement_cache_size=settings.postgres_statement_cache,
                    reset=_no_reset,
                    **options,
                )
            return self._pool

    async def _sign_in(self) -> str:
        assert self._password is not None  # noqa: S101 - the pool has this only where there is one
        # Whoever could have a live connection soon does not wait for a token.
        return await self._password(wait=self._pool is None or self._pool.get_size() == 0)

    async def _acquire(self, pool: "asyncpg.Pool[asyncpg.Record]") -> Connection:
        """Wait for a connection; where none can be opened, for one of those that are open and busy.

        asyncpg fails at once when it may open another and cannot: the server has no place for more, or
        nobody gives out a token to sign in with. Requests go on with the connections there are, and take
        turns: else who gives one back and asks again is always first, and others wait past their limit.
        """
        clock = asyncio.get_running_loop().time
        if not self._turn.locked() or clock() >= self._retry_at:
            self._retry_at = clock() + _RETRY
            if connection := await self._take(pool):
                return connection
        async with self._turn:
            while True:
                self._given_back.clear()
                if not pool.get_idle_size():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._given_back.wait(), _RETRY)
                if connection := await self._take(pool):
                    return connection

    @staticmethod
    async def _take(pool: "asyncpg.Pool[asyncpg.Record]") -> Connection | None:
        """Acquire a connection; return None where another cannot be opened but some are open."""
        try:
            return await pool.acquire()
        except (*_LOST, Unavailable):
            if pool.get_size() == 0:
                raise
            return None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection; each statement on it commits by itself.

        Raises:
            Unavailable: no connection became free in time, or the server does not answer.
        """
        try:
            async with asyncio.timeout(self._settings.postgres_acquire_timeout):
                pool = self._pool or await self._open()
                connection = await self._acquire(pool)
        except _LOST as error:
            raise self._unavailable(error) from error
        is_lost = False
        try:
            yield connection
        except _LOST as error:
            is_lost = True
            raise self._unavailable(error) from error
        except asyncio.CancelledError:
            is_lost = True
            raise
        finally:
            if is_lost:
                # In the background: a server that hangs would hang whoever waits for this.
                ending = asyncio.create_task(self._end(connection))
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)
            else:
                await pool.release(connection)
                self._given_back.set()

    async def _end(self, connection: Connection) -> None:
        """Have the server cancel what still runs, and end the session.

        A session that is only dropped goes on waiting, for a lock say, and keeps one of the
        server's few places; the next request would open another.
        """
        with contextlib.suppress(*_LOST):  # InterfaceError: the pool has noticed and taken it back
            await connection.close(timeout=self._settings.postgres_command_timeout)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection inside a READ COMMITTED transaction, committed at the end of the block.

        Raises:
            Unavailable: as `connection`; the transaction may or may not have been committed.
        """
        async with self.connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                yield connection
            except (*_LOST, asyncio.CancelledError):
                raise  # a server that hangs would hang the rollback too; the session ends here
            except BaseException:
                await transaction.rollback()
                raise
            await transaction.commit()

    async def ping(self) -> None:
        """Run `SELECT 1`; raises `Unavailable` where that does not work."""
        async with self.connection() as connection:
            await connection.execute("SELECT 1")

    async def close(self) -> None:
        """Close every connection; the next use opens a new pool."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    @staticmethod
    def _unavailable(error: BaseException) -> Unavailable:
        # asyncpg's texts can carry row values, so only the class is logged.
        logger.warning("PostgreSQL is unavailable", extra={"error": type(error).__name__})
        return Unavailable("The database does not answer in time.")
