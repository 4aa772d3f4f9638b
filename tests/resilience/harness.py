"""The application in processes of its own, load that never gives up, and the audit that ends each fault.

A test is one `scenario(…)` block: it starts the application, lets the test hurt whatever it wants,
and then audits: what was acknowledged is what is stored, over HTTP and by SQL; every ledger verifies;
every connection is given back; nobody was answered 500; no process logged an error.

Environment: `PROFILE` is `short` (the default) or `full`.
"""

import asyncio
import copy
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import httpx
import psutil
from pymongo import MongoClient

from devstack.local import ROOT
from devstack.postgres import SERVING
from devstack.process import LOCALHOST, free_port
from infra.new_secrets import receipt_key
from tests import log_search
from tests.conftest import ALEX, SECRET, is_problem, token
from tests.database import owner_of
from tests.figures import record
from tests.serving import MONGO_MONITORS, THREADS
from tests.stores import Stores

type Work = Callable[[int], Awaitable[object]]
"""One of many like it, told its number."""

LONG = os.environ.get("PROFILE") == "full"
SEED = 20_261_124
LOAD_SECONDS = 10.0 if LONG else 0.7
"""How long load runs before, and again after, a fault."""
RECOVERY = 5.0
"""Seconds within which everything works once a store is back."""
ANSWERED = 5.0
"""Seconds within which every request is answered while a store is not there."""
ANSWERED_HUNG = 6.5
"""The same while it hangs: up to 2 s for a connection and 3 s for a statement, and some for the machine."""
STARTED = 15.0
STOPPED = 15.0
PATIENCE = 60.0
"""Seconds that a client goes on sending one request again."""
PAUSE = 0.05
POOL_MAX = 10
MONGO_POOL_MAX = 20
ASYNCPG_ABANDONS = "unexpected connection_lost() call"
"""What asyncio says of a future that asyncpg makes before it connects, and forgets where it is cancelled
in the very turn of the event loop in which TCP has connected; the connection itself is closed."""
NOT_CREATED = '"message": "Twin creation failed"'
"""What the application says, as an error, of a creation that a store has kept from being done; of one that
fails by itself there is also an unhandled exception."""
_SAMPLE = 10

OUTSIDE = ("POSTGRES_DSN", "MIGRATIONS_POSTGRES_DSN", "MONGODB_URI", "ERASURE_SECOND_SWEEP")
"""Set by other tests for their own stores."""
SETTINGS = {
    "JWT_SECRETS": SECRET,
    "DIGEST_KEY": "a-digest-key-only-for-the-tests-of-32-bytes",
    "RECEIPT_KEYS": receipt_key(),
    "POSTGRES_POOL_MAX": str(POOL_MAX),
    "MONGODB_POOL_MAX": str(MONGO_POOL_MAX),
}


class App:
    """One process that serves the application; restarts keep its port and go on with its log."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://{LOCALHOST}:{self.port}"
        self._log = folder / f"app-{self.port}.log"
        self._environment = {k: v for k, v in os.environ.items() if k not in OUTSIDE} | SETTINGS | dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> psutil.Process:
        """The running process, to look into."""
        assert self._process is not None, "the application is not running"
        return psutil.Process(self._process.pid)

    @property
    def store_ports(self) -> set[int | None]:
        """Where it looks for its stores, which may be a proxy."""
        return {urlsplit(self._environment[name]).port for name in ("POSTGRES_DSN", "MONGODB_URI")}

    @property
    def log(self) -> str:
        """All that its processes wrote."""
        return self._log.read_text(errors="replace")

    def complaints(self) -> list[str]:
        """Return the lines that no fault of a store excuses: errors, and tracebacks of anything."""
        return [
            line
            for line in self.log.splitlines()
            if ("Traceback" in line or '"level": "ERROR"' in line)
            and not any(excused in line for excused in (ASYNCPG_ABANDONS, NOT_CREATED))
        ]

    async def start(self) -> None:
        """Start it and wait until `/health` answers."""
        self._process = self._spawn()
        async with httpx.AsyncClient() as client:
            deadline = time.monotonic() + STARTED
            while time.monotonic() < deadline and self._process.poll() is None:
                try:
                    assert (await client.get(f"{self.url}/health")).status_code == 200
                except httpx.TransportError:
                    await asyncio.sleep(0.02)
                else:
                    return
        raise AssertionError(f"the application does not start:\n{self.log[-2000:]}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "devstack.serve", "app", str(self.port)],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.PIPE,  # open for as long as it is to serve
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def stop(self) -> float:
        """Stop it in order, and return how many seconds that took."""
        assert self._process is not None
        started = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        await self._ended()
        return time.monotonic() - started

    async def kill(self) -> None:
        """End it at once with SIGKILL; harmless when it is not running."""
        if self._process is not None:
            self._process.kill()
            await self._ended()

    async def _ended(self) -> None:
        assert self._process is not None
        await asyncio.to_thread(self._process.wait, STOPPED)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process = None

    def connections(self) -> int:
        """Count its connections to the stores, those that the other side has closed included."""
        ports = self.store_ports
        return sum(bool(end.raddr) and end.raddr.port in ports for end in self.process.net_connections("tcp"))


@dataclass
class Tally:
    """What clients have seen."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """How often each status, and each way to get no answer, by name."""
    slowest: float = 0.0
    """Seconds that the slowest answer took."""

    @property
    def requests(self) -> int:
        """How many were sent."""
        return self.outcomes.total()


class Clients:
    """Clients of one or more processes, which notice everything and remember what was promised."""

    def __init__(self, apps: list[App]) -> None:
        self.tally = Tally()
        self._watchers: list[tuple[Tally, Callable[[str], bool]]] = [(self.tally, lambda _: True)]
        self.twins: dict[str, dict[str, str]] = {}
        """By owner and idempotency key: the id that was acknowledged."""
        self.personas: dict[tuple[str, str], dict[int, str]] = {}
        """By owner and twin: the summary of each version that was acknowledged."""
        self._apps = apps
        self._run = uuid4().hex[:8]
        self._headers: dict[str, dict[str, str]] = {}
        # Several, since each looks through all its connections for every request. They drop an unused
        # connection before the server does (after 5 s), which may be just when a request goes out.
        self._https = [
            httpx.AsyncClient(limits=httpx.Limits(max_connections=None, keepalive_expiry=2), timeout=30, verify=False)
            for _ in range(10)
        ]
        self._https_in_turn = itertools.cycle(self._https)

    def subject(self, owner: str) -> str:
        """Return the account behind `owner`, which is another in each scenario."""
        return f"{owner}-{self._run}"

    async def close(self) -> None:
        """Close the connections."""
        for http in self._https:
            await http.aclose()

    @contextmanager
    def watched(self, counts: Callable[[str], bool] = lambda _: True) -> Iterator[Tally]:
        """Count what is sent in the block, to paths that `counts`, by itself besides the whole."""
        watcher = Tally(), counts
        self._watchers.append(watcher)
        try:
            yield watcher[0]
        finally:
            self._watchers.remove(watcher)

    async def send(
        self, method: str, path: str, owner: str | None = None, app: int = 0, **options: Any
    ) -> httpx.Response | None:
        """Send one request once; None where there was no whole answer.

        Whatever is not success must be a whole problem, and a 503 must say when to come again.
        """
        headers = {**options.pop("headers", {})}
        if owner is not None:
            if owner not in self._headers:
                self._headers[owner] = {"Authorization": f"Bearer {token(self.subject(owner))}"}
            headers = self._headers[owner] | headers
        tallies = [tally for tally, counts in self._watchers if counts(path)]
        started = time.monotonic()
        answer: httpx.Response | None = None
        try:
            http = next(self._https_in_turn)
            answer = await http.request(method, f"{self._apps[app].url}{path}", headers=headers, **options)
            outcome = str(answer.status_code)
        except httpx.TransportError as error:
            outcome = type(error).__name__
        for tally in tallies:
            tally.outcomes[outcome] += 1
            tally.slowest = max(tally.slowest, time.monotonic() - started)
        if answer is None:
            return None
        assert answer.status_code != 500, answer.text
        if answer.is_error:
            is_problem(answer, answer.status_code, "")
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) > 0
        return answer

    async def until(
        self, wanted: int, method: str, path: str, owner: str | None = None, app: int = 0, **options: Any
    ) -> httpx.Response:
        """Send a request again, to each process in turn, until its answer has the `wanted` status."""
        deadline = time.monotonic() + PATIENCE
        answer: httpx.Response | None = None
        while time.monotonic() < deadline:
            answer = await self.send(method, path, owner, app, **options)
            if answer is not None and answer.status_code == wanted:
                return answer
            # 409: the request before this one is still on its way through another process.
            assert answer is None or answer.status_code in (409, 503), answer.text
            app = (app + 1) % len(self._apps)
            await asyncio.sleep(PAUSE)
        raise AssertionError(f"{method} {path} is not {wanted} after {PATIENCE:.0f} s: {answer and answer.text}")

    async def try_create(self, owner: str, key: str) -> httpx.Response | None:
        """Ask once for the twin of an idempotency key, and remember it where it is acknowledged."""
        answer = await self.send("POST", "/api/v1/twins", owner, **_creation(key))
        if answer is not None and answer.status_code == 201:
            self._acknowledge(owner, key, answer)
        return answer

    async def create_all(self, owner: str, keys: Iterable[str], at_once: int = 20) -> None:
        """Ask for a twin of each idempotency key, some at once, until all are acknowledged."""
        waiting = iter(keys)

        async def client() -> None:
            for key in waiting:
                await self.create(owner, key)

        await asyncio.gather(*(client() for _ in range(at_once)))

    async def create(self, owner: str, key: str, app: int = 0) -> str:
        """Ask for the twin of an idempotency key until it is acknowledged, and return its id."""
        answer = await self.until(201, "POST", "/api/v1/twins", owner, app, **_creation(key))
        return self._acknowledge(owner, key, answer)

    def _acknowledge(self, owner: str, key: str, answer: httpx.Response) -> str:
        twin_id: str = answer.json()["id"]
        assert self.twins.setdefault(owner, {}).setdefault(key, twin_id) == twin_id, f"{key} has made two twins"
        return twin_id

    async def put_persona(self, owner: str, twin_id: str, summary: str) -> httpx.Response | None:
        """Write a persona once, and remember the version where it is acknowledged."""
        answer = await self.send("PUT", f"/api/v1/twins/{twin_id}/persona", owner, json={"summary": summary})
        if answer is not None and answer.status_code == 200:
            versions = self.personas.setdefault((owner, twin_id), {})
            version = answer.json()["version"]
            assert version not in versions, f"version {version} was given out twice"
            versions[version] = summary
        return answer

    @asynccontextmanager
    async def load(self, *work: Work) -> AsyncIterator[None]:
        """Do each `work(n)` for n = 0, 1, … at once, until the end of the block and the end of what runs then."""
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

    def creators(self, count: int, owner: str = "owner") -> list[Work]:
        """Return `count` clients for `load` that each make one twin after another and read it."""

        def creator(number: int) -> Work:
            app = number % len(self._apps)
            name = f"{owner}-{number % 3}"

            async def work(n: int) -> None:
                twin_id = await self.create(name, f"{number}-{n}", app)
                await self.until(200, "GET", f"/api/v1/twins/{twin_id}", name, app)
                await asyncio.sleep(PAUSE)

            return work

        return [creator(number) for number in range(count)]

    def persona_writers(self, owner: str, twin_ids: Iterable[str]) -> list[Work]:
        """Return a client for `load` for each twin that writes one version of its persona after another."""

        def writer(twin_id: str) -> Work:
            async def work(n: int) -> None:
                await self.put_persona(owner, twin_id, f"Persona {n} of {twin_id}.")
                await asyncio.sleep(PAUSE)

            return work

        return [writer(twin_id) for twin_id in twin_ids]


def _creation(key: str) -> dict[str, Any]:
    return {"json": ALEX | {"twin_name": f"Twin {key}"}, "headers": {"Idempotency-Key": key}}


@dataclass
class Scenario:
    """The processes, their clients, and what the record of this fault will say."""

    stores: Stores
    apps: list[App]
    clients: Clients
    figures: dict[str, Any] = field(default_factory=dict)

    async def recovered(self, method: str, path: str, owner: str | None = None, what: str = "fault") -> None:
        """Wait until a request works in every process, which must be soon, and note how long that took."""
        started = time.monotonic()
        for app in range(len(self.apps)):
            while True:
                answer = await self.clients.send(method, path, owner, app)
                if answer is not None and answer.status_code == 200:
                    break
                await asyncio.sleep(PAUSE)
        taken = time.monotonic() - started
        recovered: dict[str, float] = self.figures.setdefault("recovered_s", {})
        recovered[what] = round(max(taken, recovered.get(what, 0.0)), 2)
        assert taken < RECOVERY

    async def is_alive(self) -> None:
        """`/health` answers at once, in every process."""
        await self._answers("/health", 200, 2.0)

    async def is_not_ready(self) -> None:
        """`/ready` says so within its two seconds, in every process, which is alive all the same."""
        await self.is_alive()
        await self._answers("/ready", 503, 3.0)

    async def _answers(self, path: str, status: int, within: float) -> None:
        for app in range(len(self.apps)):
            started = time.monotonic()
            answer = await self.clients.send("GET", path, app=app)
            assert answer is not None
            assert answer.status_code == status
            taken = time.monotonic() - started
            assert taken < within, f"{path} took {taken:.1f} s"

    async def audit(self) -> None:
        """Compare what was acknowledged with what is stored, and look for what was not given back."""
        for owner, acknowledged in self.clients.twins.items():
            ids = sorted(acknowledged.values())
            assert len(set(ids)) == len(ids), "two keys have one twin"
            assert sorted(await self._listed("/api/v1/twins", owner, "id")) == ids
            async with owner_of(self.stores) as connection:
                rows = await connection.fetch("SELECT id FROM twins WHERE owner = $1", self.clients.subject(owner))
            assert sorted(str(row["id"]) for row in rows) == ids
            sample = random.Random(SEED).sample(ids, min(_SAMPLE, len(ids)))
            for verified in await self._get_all(
                [f"/api/v1/twins/{twin_id}/ledger/verification" for twin_id in sample], owner
            ):
                assert (verified["valid"], verified["events"]) == (True, 1)
        for (owner, twin_id), acknowledged_versions in self.clients.personas.items():
            await self._audit_persona(owner, twin_id, acknowledged_versions)
        if self.clients.personas:
            await self._audit_documents()
        await self.gives_back()

    async def gives_back(self) -> None:
        """Hold no more connections than the pools may have, in the processes and in PostgreSQL."""
        await eventually(self.sessions, POOL_MAX * len(self.apps))
        for app in self.apps:
            assert app.connections() <= POOL_MAX + MONGO_POOL_MAX + MONGO_MONITORS
            assert app.process.num_threads() <= THREADS

    async def sessions(self) -> int:
        """Count the sessions of the serving role in PostgreSQL."""
        async with superuser_of(self.stores) as connection:
            count: int = await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", SERVING)
            return count

    async def _audit_persona(self, owner: str, twin_id: str, acknowledged: Mapping[int, str]) -> None:
        path = f"/api/v1/twins/{twin_id}/persona/versions"
        versions = sorted(await self._listed(path, owner, "version"))
        assert versions == list(range(1, len(versions) + 1)), "a version is missing"
        assert set(acknowledged) <= set(versions)
        for stored in await self._get_all([f"{path}/{version}" for version in versions], owner):
            assert stored["summary"] == acknowledged.get(stored["version"], stored["summary"])

    async def _audit_documents(self) -> None:
        """Every version has its document, and when the sweep has passed there is no other."""

        def documents(*, age: bool = False) -> set[UUID]:
            with MongoClient[dict[str, Any]](self.stores.mongod.uri, uuidRepresentation="standard") as client:
                collection = client["twins"]["personas"]
                if age:
                    earlier = {"$dateSubtract": {"startDate": "$created_at", "unit": "hour", "amount": 2}}
                    collection.update_many({}, [{"$set": {"created_at": earlier}}])
                return {found["_id"] for found in collection.find({}, {"_id": 1})}

        async with owner_of(self.stores) as connection:
            versions = {row[0] for row in await connection.fetch("SELECT document_id FROM persona_versions")}
            found = await asyncio.to_thread(documents, age=True)
            assert versions <= found, "a version has no document"
            self.figures["orphans_swept"] = len(found - versions)
            await connection.execute("UPDATE sweeps SET swept_until = '2000-01-01Z'")

        async def orphans() -> int:
            return len(await asyncio.to_thread(documents) - versions)

        await eventually(orphans, 0, within=PATIENCE)  # some hundreds every two seconds
        assert await asyncio.to_thread(documents) == versions

    async def _listed(self, path: str, owner: str, member: str) -> list[Any]:
        found: list[Any] = []
        cursor: str | None = ""
        while cursor is not None:
            page = await self._get(f"{path}?limit=100" + (f"&cursor={cursor}" if cursor else ""), owner)
            found += [item[member] for item in page["items"]]
            cursor = page["next_cursor"]
        return found

    async def _get_all(self, paths: Iterable[str], owner: str) -> list[dict[str, Any]]:
        at_once = asyncio.Semaphore(POOL_MAX)

        async def get(path: str) -> dict[str, Any]:
            async with at_once:
                return await self._get(path, owner)

        return await asyncio.gather(*map(get, paths))

    async def _get(self, path: str, owner: str) -> dict[str, Any]:
        answer = await self.clients.send("GET", path, owner)
        assert answer is not None
        assert answer.status_code == 200, answer.text
        got: dict[str, Any] = answer.json()
        return got


@asynccontextmanager
async def superuser_of(stores: Stores) -> AsyncIterator[asyncpg.Connection]:
    """Lend a connection that no limit of the server refuses."""
    connection = await asyncpg.connect(stores.postgres.dsn_of("postgres"))
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def scenario(
    name: str, stores: Stores, *, apps: int = 1, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Scenario]:
    """Run the application for a block that hurts it or its stores, then audit, stop it and record the figures.

    The block must leave every process and both stores running.
    """
    with tempfile.TemporaryDirectory(prefix="twins-") as folder:
        running = [App(Path(folder), stores.environment | dict(environment or {})) for _ in range(apps)]
        clients = Clients(running)
        current = Scenario(stores, running, clients)
        started = time.monotonic()
        try:
            for app in running:
                await app.start()
            yield current
            seen = copy.deepcopy(clients.tally)  # the audit's own requests are no part of it
            await current.audit()
            current.figures["stopped_s"] = round(max([await app.stop() for app in running]), 2)
            await eventually(current.sessions, 0)
        finally:
            for app in running:
                await app.kill()
            await clients.close()
        for app in running:
            log_search.keep(app.log)
            assert not app.complaints(), app.complaints()[:3]
    record(
        "resilience",
        {
            "scenario": name,
            "profile": "full" if LONG else "short",
            "seconds": round(time.monotonic() - started, 1),
            "requests": seen.requests,
            "outcomes": dict(sorted(seen.outcomes.items())),
            "slowest_s": round(seen.slowest, 2),
            "twins": sum(map(len, clients.twins.values())),
            "persona_versions": sum(map(len, clients.personas.values())),
            **current.figures,
        },
    )


async def eventually(count: Callable[[], Awaitable[int]], most: int, within: float = 10.0) -> None:
    """Wait until a count is at most `most`: a server notices after a moment that a client has gone."""
    deadline = time.monotonic() + within
    while (now := await count()) > most:
        assert time.monotonic() < deadline, f"still {now}, more than {most}"
        await asyncio.sleep(0.1)
