"""PostgreSQL is lost under load and restored from an older dump: what the journal has is there again."""

import asyncio
import time

from tests.resilience.harness.limits import LOAD_SECONDS, LONG
from tests.resilience.harness.scenario import Scenario, scenario
from tests.support.restore import UNCONFIRMED, Backups
from tests.support.stores import Stores

TWINS = 400 if LONG else 60
LOST = {"DIGEST_KEY": "a-digest-key-only-for-the-tests-of-32-bytes", "ERASURE_SECOND_SWEEP": "0.2"}


async def say_no(s: Scenario, twins: list[str], said: dict[str, str]) -> None:
    """Switch twins off, refuse, and erase in turns; note what was acknowledged."""
    for number, twin in enumerate(twins):
        path = f"/api/v1/twins/{twin}"
        if number % 3 == 0:
            answer = await s.clients.send("PATCH", path, "owner", json={"consent": False})
        elif number % 3 == 1:
            answer = await s.clients.send("POST", f"{path}/refusals", "person")
        else:
            answer = await s.clients.send("DELETE", path, "owner")
        if answer is not None and answer.status_code < 300:
            said[twin] = ("withdrawn", "refused", "gone")[number % 3]


async def reasons(s: Scenario, twins: list[str]) -> dict[str, str]:
    found = {}
    for twin in twins:
        answer = None
        while answer is None or answer.status_code == 503:
            answer = await s.clients.send("GET", f"/api/v1/twins/{twin}/decision", "owner")
        found[twin] = "gone" if answer.status_code == 404 else answer.json()["reason"]
    return found


async def test_a_restore_loses_no_journalled_no(stores: Stores) -> None:
    backups = Backups(stores)
    async with scenario("PostgreSQL restored from a dump, noes under load", stores, environment=LOST) as s:
        clients, (app,) = s.clients, s.apps
        twins = [await clients.create("owner", f"twin-{number}") for number in range(TWINS)]
        for twin in twins:
            names = {"principals": [clients.subject("person")]}
            answer = await clients.send("PATCH", f"/api/v1/twins/{twin}", "owner", json=names)
            assert answer is not None
            assert answer.status_code == 200
        said: dict[str, str] = {}
        before, later, untouched = twins[: TWINS // 3], twins[TWINS // 3 : -TWINS // 3], twins[-TWINS // 3 :]
        await say_no(s, before, said)
        dump = await backups.dump()
        await asyncio.gather(*(say_no(s, later[n::4], said) for n in range(4)), asyncio.sleep(LOAD_SECONDS))
        assert len(said) == len(before) + len(later)
        # The last entries may be on their way; then the process and the database are lost.
        for _ in range(100):
            if len(backups.journal()) >= len(said):
                break
            await asyncio.sleep(0.1)
        await app.kill()
        await backups.restore(dump)
        done = backups.restored()
        assert done.returncode == 0, done.stderr
        started = time.monotonic()
        await app.start()
        while UNCONFIRMED in (now := await reasons(s, twins)).values():
            for twin, reason in now.items():
                assert reason in (UNCONFIRMED, said.get(twin, "granted"))
            await asyncio.sleep(0.05)
        s.figures |= {"twins": TWINS, "noes": len(said), "opened_s": round(time.monotonic() - started, 1)}
        for twin, reason in now.items():
            assert reason == said.get(twin, "granted"), twin
            if reason != "gone":
                answer = await clients.until(200, "GET", f"/api/v1/twins/{twin}/ledger/verification", "owner")
                assert answer.json()["valid"]
        assert set(now.values()) >= {"withdrawn", "refused", "gone", "granted"}
        assert all(now[twin] == "granted" for twin in untouched)
        del clients.twins["owner"]  # audited above: their ledgers have more than their first event
