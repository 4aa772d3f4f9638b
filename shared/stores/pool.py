"""`Pool`: asyncpg's pool behind connections that are kept between requests, and turns where they are few."""

import asyncio
import contextlib
from contextvars import Context
from typing import Any

_RETRY = 0.1
"""Seconds between attempts to open a connection: each failure delays the users of open connections."""
_LOOK = 1.0
"""Seconds between two looks for connections that no request has used in between."""


class Pool:
    """Keeps connections between two requests.

    asyncpg takes each back in a task of its own, and that was a seventh of a read's time. What was kept last is used
    first; what has not been used for a second goes back, and asyncpg closes it in its time.
    """

    def __init__(self, pool: Any, lost: tuple[type[BaseException], ...]) -> None:
        """`lost` are the errors of a connection that has ended, or does not open."""
        self._pool, self._lost = pool, lost
        self._turn = asyncio.Lock()
        self._given_back = asyncio.Event()
        self._retry_at = 0.0
        self._acquiring = 0
        """Requests that wait for asyncpg; none while a connection is kept."""
        self._kept: list[Any] = []
        self._unused = 0
        """So many, of those kept first, have not been used since the last look."""
        self._looking: asyncio.Task[None] | None = None

    def get_size(self) -> int:
        """Return the number of open connections."""
        size: int = self._pool.get_size()
        return size

    def terminate(self) -> None:
        """Close every connection at once."""
        if self._looking is not None:
            self._looking.cancel()
        self._pool.terminate()

    async def acquire(self) -> Any:
        """Return a connection; where no new one opens, wait for an open one."""
        while self._kept:
            connection = self._kept.pop()
            self._unused = min(self._unused, len(self._kept))
            if self._is_open(connection):
                return connection
            await self._pool.release(connection)
        self._acquiring += 1
        try:
            return await self._acquire()
        finally:
            self._acquiring -= 1

    def _is_open(self, connection: Any) -> bool:
        try:
            return not connection.is_closed()
        except self._lost:  # it has been closed, and asyncpg has it back
            return False

    async def release(self, connection: Any, *, is_clean: bool) -> None:
        """Take back a connection that no request uses; one that is not clean may have a transaction."""
        if is_clean and not self._acquiring:
            self._kept.append(connection)
            if self._looking is None or self._looking.done():
                # In a context of its own: it belongs to no request.
                self._looking = asyncio.get_running_loop().create_task(self._look(), context=Context())
        else:
            await self._pool.release(connection)
            self._given_back.set()

    async def _look(self) -> None:
        while self._kept:
            self._unused = len(self._kept)
            await asyncio.sleep(_LOOK)
            unused, self._kept = self._kept[: self._unused], self._kept[self._unused :]
            for connection in unused:
                await self._pool.release(connection)

    async def _acquire(self) -> Any:
        """Return a connection of asyncpg's.

        It fails at once when it cannot open another: the server has no place for it, or there is no token to
        sign in with. So requests share the open connections, and take turns: otherwise a request that releases
        a connection and asks again is always first, and others exceed their limit.
        """
        clock = asyncio.get_running_loop().time
        if not self._turn.locked() or clock() >= self._retry_at:
            self._retry_at = clock() + _RETRY
            if connection := await self._take():
                return connection
        async with self._turn:
            while True:
                self._given_back.clear()
                if not self._pool.get_idle_size():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._given_back.wait(), _RETRY)
                if connection := await self._take():
                    return connection

    async def _take(self) -> Any:
        """Acquire a connection; return None where no new one opens but others are open."""
        try:
            return await self._pool.acquire()
        except self._lost:
            if self._pool.get_size() == 0:
                raise
            return None
