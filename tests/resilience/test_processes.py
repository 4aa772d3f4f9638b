"""Faults of the application's own processes, and more load than its pool can carry."""

import asyncio
import time

from bench import neighbour
from tests.resilience.harness.app import SETTINGS
from tests.resilience.harness.limits import ANSWERED_HUNG, LOAD_SECONDS, LONG, PAUSE, POOL_MAX, eventually
from tests.resilience.harness.load import creators, load
from tests.resilience.harness.scenario import scenario
from tests.support.app import token
from tests.support.database import superuser
from tests.support.stores import Stores
from twins.settings import Settings

LEEWAY = int(Settings.model_fields["jwt_nbf_leeway"].default)
CREATES = 200
CLIENTS = 20
CROWD = 1000


async def test_a_process_killed_during_creates_makes_each_twin_once(stores: Stores) -> None:
    async with scenario("app killed during 200 creates", stores) as s:
        clients, (app,) = s.clients, s.apps
        keys = [f"key-{n}" for n in range(CREATES)]
        waiting = iter(keys)

        async def client() -> None:
            for key in waiting:
                if await clients.try_create("owner", key) is None:
                    return  # killed

        running = [asyncio.create_task(client()) for _ in range(CLIENTS)]
        while len(clients.twins.get("owner", ())) < CREATES // 4:
            await asyncio.sleep(0.005)
        await app.kill()
        await asyncio.gather(*running)
        before_restart = len(clients.twins["owner"])
        assert before_restart < CREATES - CLIENTS, "it was killed too late to have hurt"

        await app.start()
        await s.recovered("GET", "/ready")
        await clients.create_all("owner", keys)
        s.figures["acknowledged_before_kill"] = before_restart
        assert len(set(clients.twins["owner"].values())) == CREATES


async def test_a_thousand_requests_at_once_share_ten_connections(stores: Stores) -> None:
    async with scenario("1,000 requests at once, pool of 10", stores) as s:
        clients = s.clients
        gate = f"/api/v1/twins/{await clients.create('crowd', 'before')}/decision"
        keys = [f"key-{n}" for n in range(CROWD // 5)]
        with clients.watched() as tally:
            await asyncio.gather(
                *(clients.try_create("crowd", key) for key in keys),
                *(clients.send("GET", gate, "crowd") for _ in range(CROWD - len(keys))),
            )
        assert tally.requests == CROWD
        assert set(tally.outcomes) <= {"200", "201", "503"}
        assert tally.outcomes["503"] < CROWD / 2
        assert await s.sessions() <= POOL_MAX
        await clients.create_all("crowd", keys)


async def test_one_accounts_worst_costs_another_no_answer_of_the_gate(stores: Stores) -> None:
    bounds = {name: str(Settings.model_fields[name.lower()].default) for name in SETTINGS if name.startswith("ACCOUNT")}
    async with scenario("one account's worst beside another's gate", stores, environment=bounds) as s:
        gate = f"/api/v1/twins/{await s.clients.create('quiet', 'before')}/decision"
        loud = s.apps[0].url, token(neighbour.LOUD)
        work = await asyncio.to_thread(neighbour.prepare, *loud, stores.postgres.owner_dsn, 1000)

        async def p99() -> float:
            times, until = [], time.monotonic() + 4 * LOAD_SECONDS
            while time.monotonic() < until:
                asked_at = time.perf_counter()
                answer = await s.clients.send("GET", gate, "quiet")
                times.append(time.perf_counter() - asked_at)
                assert answer is not None
                assert answer.status_code == 200
            return round(sorted(times)[len(times) * 99 // 100] * 1000, 1)

        s.figures["gate_p99_ms"] = {"idle": await p99()}
        with neighbour.beside(*loud, work) as answers:
            s.figures["gate_p99_ms"]["beside"] = await p99()
        for kind, seen in answers.items():
            assert seen[200] + seen[201] + seen[422] > 0, f"no {kind} was answered"
        assert sum(seen[429] for seen in answers.values()) > 0


async def test_waiting_past_the_limit_is_503_and_leaves_no_session_behind(stores: Stores) -> None:
    waves = 10 if LONG else 2
    async with scenario("pool exhausted by a lock", stores) as s:
        clients = s.clients
        await clients.create("owner", "before")
        async with superuser(stores) as holder, holder.transaction():
            await holder.execute("LOCK TABLE twins IN ACCESS EXCLUSIVE MODE")
            for wave in range(waves):
                with clients.watched() as tally:
                    requests = (clients.try_create("owner", f"{wave}-{n}") for n in range(3 * POOL_MAX))
                    await asyncio.gather(*requests, s.is_alive())
                assert tally.outcomes == {"200": 1, "503": 3 * POOL_MAX}
                assert tally.slowest < ANSWERED_HUNG
            # What was given up is cancelled in PostgreSQL too: else every wave would leave ten
            # sessions there that wait for the lock.
            await eventually(s.sessions, POOL_MAX)
        await s.recovered("GET", "/api/v1/twins", "owner")
        for wave in range(waves):
            await clients.create_all("owner", [f"{wave}-{n}" for n in range(3 * POOL_MAX)])


async def test_a_rolling_restart_of_two_processes_loses_no_request(stores: Stores) -> None:
    async with scenario("rolling restart of two processes", stores, apps=2) as s:
        clients = s.clients
        async with load(*creators(clients, CLIENTS // 2)):
            for _ in range(5 if LONG else 1):
                for app in s.apps:
                    await asyncio.sleep(LOAD_SECONDS)
                    await app.stop()
                    await app.start()
        assert set(clients.tally.outcomes) - {"200", "201", "409"} <= {
            "ConnectError",
            "RemoteProtocolError",
            "ReadError",
        }


async def test_a_token_is_good_exactly_as_long_as_it_says_whatever_the_clocks(stores: Stores) -> None:
    async with scenario("clock skew in tokens", stores) as s:
        clients = s.clients
        now = int(time.time())
        starts, ends, over = now + 1, now + 2, now + 4
        cases = {
            # The issuer's clock is ahead by more than is let pass: its tokens are not good yet, then are.
            "ahead": (token("skewed", nbf=starts + LEEWAY), range(starts, over)),
            # It is behind: its tokens run out early, also where the outcome is remembered.
            "behind": (token("skewed", exp=ends), range(now, ends)),
            "both": (token("skewed", nbf=starts + LEEWAY, exp=ends), range(starts, ends)),
            "made tomorrow": (token("skewed", iat=now + 86_400), range(now, over)),
            "long gone": (token("skewed", exp=1), range(0)),
            "far future": (token("skewed", exp=now + 86_400), range(now, over)),
        }
        seen: set[tuple[str, int]] = set()
        while (second := int(time.time())) < over:
            for name, (bearer, good) in cases.items():
                headers = {"Authorization": f"Bearer {bearer}"}
                answer = await clients.send("GET", "/api/v1/twins", headers=headers)
                assert answer is not None
                if int(time.time()) == second:  # else it may have been judged in the next one
                    assert answer.status_code == (200 if second in good else 401), (name, second - now)
                    seen.add((name, answer.status_code))
            await asyncio.sleep(PAUSE)
        both = {"ahead", "behind", "both"}
        assert seen == {(name, status) for name in both for status in (200, 401)} | {
            ("made tomorrow", 200),
            ("far future", 200),
            ("long gone", 401),
        }
