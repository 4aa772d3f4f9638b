"""A process that is frozen in the middle of a transaction, with a lock that others wait for."""

import asyncio
import signal
import sys
import time
from typing import Any

import asyncpg
import httpx

from devstack.local import ROOT
from devstack.postgres import DATABASE, SUPERUSER
from tests.resilience.harness.limits import PAUSE
from tests.resilience.harness.scenario import Scenario, scenario
from tests.support.app import ALEX
from tests.support.stores import Stores

FREED = 8.0
"""Seconds after which nothing waits for a frozen process any more."""
FREEZING = 30.0
"""Seconds in which a process is caught at the moment looked for."""
AT_ONCE = 4

READER = """
import asyncio, sys, asyncpg

async def main():
    connection = await asyncpg.connect(sys.argv[1])
    async with connection.transaction():
        await connection.execute("SELECT FROM twins WHERE id = $1 FOR NO KEY UPDATE", sys.argv[2])
        print("locked", flush=True)
        while True:
            await connection.fetch("SELECT repeat(md5(n::text), 30000) FROM generate_series(1, 100) n")

asyncio.run(main())
"""
"""Locks a twin, then reads answers of 96 MB: more than the buffers of a connection hold."""


async def is_locked(superuser: asyncpg.Connection, twin_id: str) -> bool:
    """Tell whether somebody has the lock of a twin."""
    try:
        await superuser.execute("SELECT FROM twins WHERE id = $1 FOR NO KEY UPDATE NOWAIT", twin_id)
    except asyncpg.LockNotAvailableError:
        return True
    return False


async def freeze_with_the_lock(
    s: Scenario, superuser: asyncpg.Connection, twin_id: str
) -> tuple[float, list[asyncio.Task[httpx.Response | None]]]:
    """Freeze the first process while it changes a twin; return when, and its requests, which wait for answers."""
    frozen = s.apps[0].process
    while True:
        changes = [
            asyncio.create_task(s.clients.send("PATCH", f"/api/v1/twins/{twin_id}", "owner", json={"tone": f"{n}"}))
            for n in range(AT_ONCE)
        ]
        await asyncio.sleep(0.005)
        frozen.suspend()
        frozen_at = time.monotonic()
        await asyncio.sleep(0.1)  # what it has sent is done
        if await is_locked(superuser, twin_id):
            return frozen_at, changes
        frozen.resume()
        await asyncio.gather(*changes)


async def test_a_process_frozen_with_the_lock_of_a_twin_stops_no_withdrawal(stores: Stores) -> None:
    async with scenario("app frozen in the middle of a transaction", stores, apps=2) as s:
        clients = s.clients
        made = await clients.until(201, "POST", "/api/v1/twins", "owner", json=ALEX)
        twin = f"/api/v1/twins/{made.json()['id']}"
        gate = f"{twin}/decision"
        consent = (await clients.until(200, "GET", gate, "owner")).json()
        assert consent["decision"] is True
        superuser = await asyncpg.connect(stores.postgres.dsn_of(SUPERUSER, DATABASE))
        frozen_at, changes = await freeze_with_the_lock(s, superuser, made.json()["id"])
        try:
            withdraw = f"{twin}/consents/{consent['consent_id']}/withdraw"
            async with asyncio.timeout(FREED):
                while (answer := await clients.send("POST", withdraw, "owner", app=1)) is None or answer.is_error:
                    await asyncio.sleep(PAUSE)
            s.figures["withdrawn_after_s"] = round(time.monotonic() - frozen_at, 2)
            assert await decision(s, gate, app=1) == (False, "withdrawn")
        finally:
            s.apps[0].process.resume()
        statuses = {answer.status_code for answer in await asyncio.gather(*changes) if answer}
        assert 503 in statuses
        assert statuses <= {200, 503}
        await s.recovered("GET", gate, "owner")
        assert await decision(s, gate, app=0) == (False, "withdrawn")
        answers = [await clients.send("PATCH", twin, "owner", json={"tone": "thawed"}) for _ in range(2 * AT_ONCE)]
        assert [answer and answer.status_code for answer in answers] == [200] * len(answers)
        await superuser.close()


async def decision(s: Scenario, gate: str, app: int) -> tuple[Any, ...]:
    """Ask one process, once, and return what it decides and why."""
    answer = await s.clients.send("GET", gate, "owner", app)
    assert answer is not None
    assert answer.status_code == 200
    return answer.json()["decision"], answer.json()["reason"]


async def freeze_amid_an_answer(superuser: asyncpg.Connection, reader: asyncio.subprocess.Process) -> None:
    """Freeze the reader while its server waits to write to it, not between two answers."""
    async with asyncio.timeout(FREEZING):
        while True:
            reader.send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.5)  # what the connection's buffers hold is written
            if await superuser.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT repeat%' AND wait_event = 'ClientWrite'"
            ):
                return
            reader.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.05)


async def test_a_reader_frozen_in_the_middle_of_a_long_answer_loses_its_lock(stores: Stores) -> None:
    superuser = await asyncpg.connect(stores.postgres.dsn_of(SUPERUSER, DATABASE))
    twin_id = str(
        await superuser.fetchval(
            """
            INSERT INTO twins (owner, twin_name, use_case, tone) VALUES ('reader', 'Alex', 'support', 'warm')
            RETURNING id
            """
        )
    )
    reader = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", READER, stores.postgres.dsn, twin_id), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert reader.stdout is not None
        assert await reader.stdout.readline() == b"locked\n"
        await freeze_amid_an_answer(superuser, reader)
        async with asyncio.timeout(FREED):
            while await is_locked(superuser, twin_id):
                await asyncio.sleep(PAUSE)
    finally:
        reader.kill()
        await reader.wait()
    await superuser.close()
