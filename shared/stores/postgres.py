"""The PostgreSQL pool, opened at the first use; its failures become 503. Only this module imports asyncpg."""

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Any, Protocol

import asyncpg

from shared.http.problems import Unavailable
from shared.settings import Settings
from shared.stores.limits import Lent, Limits
from shared.stores.pool import Pool

logger = logging.getLogger(__name__)

type Record = asyncpg.Record

CheckViolationError = asyncpg.CheckViolationError

_LOST = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,  # "connection is closed", "pool is closing"
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement cancelled
    asyncpg.LockNotAvailableError,  # a limit of the login role; limits that end the session are connection errors
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.InternalClientError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby that has not been promoted yet
)


class Connection(Protocol):
    """The methods of a connection that queries use."""

    fetch: Callable[..., Awaitable[list[Record]]]
    fetchrow: Callable[..., Awaitable[Record | None]]
    fetchval: Callable[..., Awaitable[Any]]
    execute: Callable[..., Awaitable[str]]
    executemany: Callable[..., Awaitable[None]]


async def fetch_one(connection: Connection, query: str, *args: Any) -> Record:
    """Return the row of a statement that always returns one."""
    return (await connection.fetch(query, *args))[0]


async def _no_reset(connection: object) -> None:
    """Skip asyncpg's reset query, a round trip per request: sessions have no state, and asyncpg still rolls back."""


def affected(status: str) -> int:
    """Return the number of rows in a command's completion tag, such as `UPDATE 3`."""
    return int(status.rpartition(" ")[2])


def constraint_of(error: BaseException) -> str | None:
    """Return the name of the constraint that refused a row; one of a shard has the shard's number behind it."""
    name: str | None = getattr(error, "constraint_name", None)
    return name and re.sub(r"_\d{6,}$", "", name)


class Priority(Enum):
    """How many of a pool's connections a kind of work may hold; what is left is for the kinds above it."""

    COMMON = auto()
    """All but POSTGRES_POOL_RESERVED."""
    HIGH = auto()
    """All but half of POSTGRES_POOL_RESERVED."""
    HIGHEST = auto()
    """All: for work that is always short, since nothing is left for other work of this kind."""


def _release(places: list[asyncio.Semaphore]) -> None:
    for place in places:
        place.release()


class _Lending:
    """A connection for a block: twice as fast as a generator that `contextlib` makes one of, for each request."""

    __slots__ = ("_in_transaction", "_lent", "_postgres", "_priority")

    def __init__(self, postgres: "Postgres", priority: Priority, *, in_transaction: bool) -> None:
        self._postgres, self._priority, self._in_transaction = postgres, priority, in_transaction

    async def __aenter__(self) -> Connection:
        lent = self._lent = await self._postgres.lend(self._priority)
        if self._in_transaction:
            await self._run("BEGIN")
        return lent

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # After these, a server that hangs would hang the rollback too; the session ends instead.
        if self._in_transaction and not isinstance(error, (*_LOST, asyncio.CancelledError)):
            await self._run("COMMIT" if error is None else "ROLLBACK")
        await self._postgres.take_back(self._lent, error)

    async def _run(self, statement: str) -> None:
        try:
            await self._lent.execute(statement)
        except BaseException as error:
            await self._postgres.take_back(self._lent, error)
            raise


type Password = Callable[..., Awaitable[str]]
"""Returns the password of a new connection; raises `Unavailable`, with `wait=False` at once."""


class Postgres:
    """A pool of connections to one database.

    The first use opens it: Azure Functions starts an ASGI lifespan once for each concurrent first
    request and never ends it, so the pool cannot belong to the lifespan.
    """

    def __init__(self, settings: Settings, password: Password | None = None) -> None:
        self._settings = settings
        self._limits = Limits()
        self._password = password
        self._pool: Pool | None = None
        self._opening = asyncio.Lock()
        self._endings: set[asyncio.Task[None]] = set()
        most, reserved = settings.postgres_pool_max, settings.postgres_pool_reserved
        high = asyncio.Semaphore(most - reserved // 2)
        # In this order: what waits for the first holds no place of the second.
        self._places: dict[Priority, tuple[asyncio.Semaphore, ...]] = {
            Priority.COMMON: (asyncio.Semaphore(most - reserved), high),
            Priority.HIGH: (high,),
            Priority.HIGHEST: (),
        }

    async def _open(self) -> Pool:
        async with self._opening:
            if self._pool is None:
                settings = self._settings
                pool = await asyncpg.create_pool(
                    settings.postgres_dsn.get_secret_value(),
                    min_size=settings.postgres_pool_min,
                    max_size=settings.postgres_pool_max,
                    max_inactive_connection_lifetime=settings.postgres_pool_idle,
                    timeout=settings.postgres_connect_timeout,
                    statement_cache_size=settings.postgres_statement_cache,
                    reset=_no_reset,
                    password=None if self._password is None else self._sign_in,
                )
                self._pool = Pool(pool, (*_LOST, Unavailable))
            return self._pool

    async def _sign_in(self) -> str:
        assert self._password is not None  # noqa: S101 - the pool has this only where there is one
        # A request that can soon get an open connection does not wait for a token.
        return await self._password(wait=self._pool is None or self._pool.get_size() == 0)

    def connection(self, priority: Priority = Priority.COMMON) -> _Lending:
        """Lend a connection, for the block, on which each statement commits by itself; raises `Unavailable`."""
        return _Lending(self, priority, in_transaction=False)

    def transaction(self, priority: Priority = Priority.COMMON) -> _Lending:
        """Lend one in a READ COMMITTED transaction; `Unavailable` leaves open whether it was committed."""
        return _Lending(self, priority, in_transaction=True)

    async def lend(self, priority: Priority) -> Lent:
        """Lend a connection until `take_back`, for `_Lending` only."""
        held: list[asyncio.Semaphore] = []
        limit = self._limits.begin(self._settings.postgres_acquire_timeout)
        try:
            for places in self._places[priority]:
                await places.acquire()
                held.append(places)
            pool = self._pool or await self._open()
            connection = await pool.acquire()
        except BaseException as error:
            _release(held)
            ended = self._limits.end(limit, error)
            if isinstance(ended, _LOST):
                raise self._unavailable(ended) from error
            raise
        return Lent(pool, connection, held, limit, self._settings.postgres_command_timeout)

    async def take_back(self, lent: Lent, error: BaseException | None) -> None:
        """Take a connection back after an error or none; raises `Unavailable`."""
        error = self._limits.end(lent.limit, error)
        if isinstance(error, (*_LOST, asyncio.CancelledError)):
            # In the background: a server that hangs would hang this request too.
            ending = asyncio.create_task(self._end(lent.connection))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            # Until then it is one of the pool's.
            ending.add_done_callback(lambda _: _release(lent.places))
            if isinstance(error, _LOST):
                raise self._unavailable(error) from error
            return
        try:
            await lent.pool.release(lent.connection, is_clean=error is None)
        finally:
            _release(lent.places)

    async def _end(self, connection: Any) -> None:
        """Cancel the running statement, and end the session.

        A session without a client goes on waiting, for a lock say, and keeps one of the server's few
        places; the next request would open another.
        """
        with contextlib.suppress(*_LOST):  # InterfaceError: the pool has already taken it back
            await connection.close(timeout=self._settings.postgres_command_timeout)

    async def ping(self) -> None:
        """Run `SELECT 1`; raises `Unavailable`."""
        async with self.connection() as connection:
            await connection.execute("SELECT 1")

    async def close(self) -> None:
        """Close every connection; the next use opens a new pool."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    @staticmethod
    def _unavailable(error: BaseException) -> Unavailable:
        # asyncpg's texts can contain row values, so only the class is logged.
        logger.warning("PostgreSQL is unavailable", extra={"error": type(error).__name__})
        return Unavailable("The database does not answer in time.")
