"""`Lane`: threads of their own for work that is bound by the CPU, so that it holds up nothing but its own kind."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from shared.http.problems import Unavailable

# The event loop waits for the interpreter this long, after each call that released it, while a thread computes.
# Beside a busy thread the loop's p99 was shorter with this than with the default of 5 ms in each run; by how much, runs
# disagree.
sys.setswitchinterval(0.0005)


class Lane:
    """A few threads for one kind of work, and the seconds that a request waits for it, queueing included."""

    def __init__(self, name: str, *, threads: int, within: float) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._turns = asyncio.Semaphore(threads)
        self._within = within

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Let in as many at once as there are threads, for work that reads much; raises `Unavailable`."""
        try:
            async with asyncio.timeout(self._within):
                await self._turns.acquire()
        except TimeoutError:
            raise _too_much() from None
        try:
            yield
        finally:
            self._turns.release()

    async def run[**P, T](self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns; raises `Unavailable` after the deadline.

        Work that has not begun by then never begins. Work that has begun goes on, so it has to be bounded by itself.
        """
        future = asyncio.wrap_future(self._executor.submit(work, *args, **kwargs))
        try:
            async with asyncio.timeout(self._within):
                return await future
        except TimeoutError:
            raise _too_much() from None


def _too_much() -> Unavailable:
    return Unavailable("There is too much of this work at the moment.")
