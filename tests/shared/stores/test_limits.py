"""Limits end what exceeds them, and nothing else."""

import asyncio
import math

import pytest

from shared.stores import limits
from shared.stores.limits import Lent, Limit, Limits


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often."""
    monkeypatch.setattr(limits, "_EVERY", 0.01)


async def part(of: Limits, seconds: float, takes: float) -> BaseException | None:
    """Do something for a time, under a limit, and return what ended it."""
    limit = of.begin(seconds)
    try:
        await asyncio.sleep(takes)
    except BaseException as error:  # noqa: BLE001 - it is what the test is about
        return of.end(limit, error)
    return of.end(limit, None)


async def begun() -> tuple[asyncio.Task[BaseException | None], Limit]:
    """Begin something under a limit."""
    of = Limits()
    running = asyncio.create_task(part(of, 0.02, 10))
    await asyncio.sleep(0)
    (limit,) = of._running
    return running, limit


async def test_what_exceeds_its_limit_is_ended_and_the_task_goes_on() -> None:
    ended = await part(Limits(), 0.02, 10)
    assert isinstance(ended, TimeoutError)
    await asyncio.sleep(0)  # would raise in a task that is still cancelled


async def test_what_ends_in_time_is_left_alone() -> None:
    of = Limits()
    assert await part(of, 0.05, 0.01) is None
    await asyncio.sleep(0.1)
    error = ValueError()
    assert of.end(of.begin(1), error) is error


async def test_each_of_many_has_its_own_limit() -> None:
    of = Limits()
    ended = await asyncio.gather(part(of, 0.02, 0.2), part(of, 10, 0.2), part(of, 0.02, 0.2))
    assert [type(error) for error in ended] == [TimeoutError, type(None), TimeoutError]


async def test_a_task_that_another_cancels_too_stays_cancelled() -> None:
    running, limit = await begun()
    limit.look(math.inf)
    running.cancel()
    assert isinstance(await running, asyncio.CancelledError)
    assert running.cancelling() == 1


async def test_one_that_is_looked_at_twice_is_cancelled_once() -> None:
    running, limit = await begun()
    limit.look(math.inf)
    limit.look(math.inf)
    assert isinstance(await running, TimeoutError)
    assert running.cancelling() == 0


async def test_there_is_no_timer_where_nothing_runs() -> None:
    of = Limits()
    await part(of, 1, 0)
    assert of._loop is asyncio.get_running_loop()
    await asyncio.sleep(0.05)
    assert of._loop is None


def test_a_loop_that_has_ended_takes_no_limit_with_it() -> None:
    of = Limits()
    assert asyncio.run(part(of, 1, 0)) is None
    assert isinstance(asyncio.run(part(of, 0.02, 10)), TimeoutError)


async def test_a_statement_has_its_own_limit_and_what_is_between_two_has_none() -> None:
    class Connection:
        async def fetch(self, seconds: float) -> str:
            await asyncio.sleep(seconds)
            return "rows"

    of = Limits()
    limit = of.begin(10)
    lent = Lent(None, Connection(), [], limit, 0.05)
    for _ in range(3):
        assert await lent.fetch(0.03) == "rows"
    await asyncio.sleep(0.1)
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await lent.fetch(10)
    assert isinstance(of.end(limit, cancelled.value), TimeoutError)
