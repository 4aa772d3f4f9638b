"""Time limits that cost next to nothing: most of what has one ends long before it."""

import asyncio
import math
import time
from typing import Any

_EVERY = 0.1
"""Seconds between two looks at what runs, and so the most by which a limit is exceeded."""


class Limit:
    """The time at which a part of a task is cancelled; it may change until the part has ended."""

    __slots__ = ("_before", "_is_over", "_task", "until")

    def __init__(self, task: "asyncio.Task[Any]", seconds: float) -> None:
        self._task, self._before, self._is_over = task, task.cancelling(), False
        self.until = time.monotonic() + seconds

    def look(self, now: float) -> None:
        """Cancel the task if this time has come."""
        if now >= self.until and not self._is_over:
            self._is_over = True
            self._task.cancel()

    def end(self, error: BaseException | None) -> BaseException | None:
        """Return what ended the part: `TimeoutError` if it was this limit, and nobody has cancelled the task too."""
        if self._is_over and self._task.uncancel() <= self._before and isinstance(error, asyncio.CancelledError):
            return TimeoutError()
        return error


class Limits:
    """Limits with one timer for all.

    With `asyncio.timeout` and those of asyncpg there was one for each wait, in a heap: a twentieth of a PATCH's time.
    """

    def __init__(self) -> None:
        self._running: set[Limit] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        """The one that has the timer."""

    def begin(self, seconds: float) -> Limit:
        """Return a limit of the running task, to which `end` belongs."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - coroutines run in tasks
        limit = Limit(task, seconds)
        self._running.add(limit)
        if self._loop is not (loop := task.get_loop()):
            self._loop = loop
            loop.call_later(_EVERY, self._look)
        return limit

    def end(self, limit: Limit, error: BaseException | None) -> BaseException | None:
        """End a limit, and return what ended its part of the task, as `Limit.end`."""
        self._running.discard(limit)
        return limit.end(error)

    def _look(self) -> None:
        now, loop, self._loop = time.monotonic(), asyncio.get_running_loop(), None
        for limit in self._running:
            limit.look(now)
        if self._running:
            self._loop = loop
            loop.call_later(_EVERY, self._look)


def _limited(name: str) -> Any:
    async def run(lent: "Lent", *arguments: Any) -> Any:
        limit = lent.limit
        limit.until = time.monotonic() + lent.seconds
        try:
            return await getattr(lent.connection, name)(*arguments)
        finally:
            limit.until = math.inf

    return run


class Lent:
    """A connection of a pool for a block: each of its statements has a limit, in seconds."""

    __slots__ = ("connection", "limit", "places", "pool", "seconds")

    def __init__(
        self, pool: Any, connection: Any, places: list[asyncio.Semaphore], limit: Limit, seconds: float
    ) -> None:
        self.pool, self.connection, self.places, self.limit, self.seconds = pool, connection, places, limit, seconds
        limit.until = math.inf  # that of the wait for it

    fetch, fetchrow, fetchval = _limited("fetch"), _limited("fetchrow"), _limited("fetchval")
    execute, executemany = _limited("execute"), _limited("executemany")
