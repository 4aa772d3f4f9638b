"""Load: clients that go on for as long as a block lasts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from tests.resilience.harness.clients import Clients
from tests.resilience.harness.limits import PAUSE

type Work = Callable[[int], Awaitable[object]]
"""What one client does again and again, with the number of the turn."""


@asynccontextmanager
async def load(*work: Work) -> AsyncIterator[None]:
    """Do each `work(n)` for n = 0, 1, … at once, until the block ends, and wait for what runs then."""
    over = asyncio.Event()

    async def loop(do: Work) -> None:
        n = 0
        while not over.is_set():
            await do(n)
            n += 1

    async with asyncio.TaskGroup() as group:
        for do in work:
            group.create_task(loop(do))
        try:
            yield
        finally:
            over.set()


def creators(clients: Clients, count: int) -> list[Work]:
    """Return the work of `count` clients that each make one twin after another and read it."""

    def creator(number: int) -> Work:
        app = number % len(clients.apps)
        owner = f"owner-{number % 3}"

        async def work(n: int) -> None:
            twin_id = await clients.create(owner, f"{number}-{n}", app)
            await clients.until(200, "GET", f"/api/v1/twins/{twin_id}", owner, app)
            await asyncio.sleep(PAUSE)

        return work

    return [creator(number) for number in range(count)]


def persona_writers(clients: Clients, owner: str, twin_ids: Iterable[str]) -> list[Work]:
    """Return the work of a client for each twin, which writes one version of its persona after another."""

    def writer(twin_id: str) -> Work:
        async def work(n: int) -> None:
            await clients.put_persona(owner, twin_id, f"Persona {n} of {twin_id}.")
            await asyncio.sleep(PAUSE)

        return work

    return [writer(twin_id) for twin_id in twin_ids]
