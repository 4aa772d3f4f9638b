"""Threads of their own for work that is bound by the CPU."""

import asyncio
import threading

import pytest

from shared.http.problems import Unavailable
from shared.lane import Lane


async def test_work_beyond_the_deadline_is_unavailable_and_what_waits_never_begins() -> None:
    lane = Lane("test", threads=1, within=0.05)
    go_on, begun = threading.Event(), threading.Event()

    slow = asyncio.create_task(lane.run(go_on.wait, 10))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await lane.run(begun.set)
    with pytest.raises(Unavailable):
        await slow
    go_on.set()

    assert await lane.run(threading.current_thread) is not threading.current_thread()
    assert not begun.is_set()


async def test_a_turn_that_does_not_come_by_the_deadline_is_unavailable() -> None:
    lane = Lane("test", threads=1, within=0.05)
    async with lane.turn():
        with pytest.raises(Unavailable):
            async with lane.turn():
                pass
    async with lane.turn():
        assert await lane.run(sum, [1, 2]) == 3


async def test_a_full_lane_holds_up_no_other() -> None:
    go_on = threading.Event()
    full, other = (Lane("test", threads=1, within=10) for _ in range(2))

    slow = [asyncio.create_task(full.run(go_on.wait, 10)) for _ in range(50)]
    await asyncio.sleep(0)
    assert await other.run(sum, [1, 2]) == 3
    assert await asyncio.to_thread(sum, [1, 2]) == 3
    go_on.set()
    assert await asyncio.gather(*slow) == [True] * 50


async def test_an_error_of_the_work_is_passed_on() -> None:
    with pytest.raises(ZeroDivisionError):
        await Lane("test", threads=1, within=10).run(divmod, 1, 0)
