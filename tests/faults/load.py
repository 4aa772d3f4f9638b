"""The app as a process of its own, a client that repeats what was not answered, and the audit at the end."""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

import asyncpg
import httpx

from devstack.local import ROOT
from devstack.process import LOCALHOST, free_port
from tests.support import log_search
from tests.support.app import ALEX, token
from tests.support.stores import Stores


class App:
    """`devstack.serve` on these stores: to use, to kill and to start again on the same port."""

    def __init__(self, stores: Stores, environment: dict[str, str], log: Path) -> None:
        self.port = free_port()
        self.url = f"http://{LOCALHOST}:{self.port}"
        self._environment = os.environ | environment | stores.environment
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "devstack.serve", "app", str(self.port)],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.PIPE,
                stderr=log,
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                if httpx.get(f"{self.url}/health").is_success:
                    return
            except httpx.TransportError:
                assert time.monotonic() < deadline, "the app does not start"
                time.sleep(0.05)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._wait()

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._wait()

    def _wait(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.wait(15)
        self._process.stdin.close()


@contextmanager
def running_app(stores: Stores, environment: dict[str, str], log: Path) -> Iterator[App]:
    app = App(stores, environment, log)
    app.start()
    try:
        yield app
    finally:
        app.stop()
    written = log.read_text()
    log_search.keep(written)
    assert "Traceback" not in written, written[-3000:]
    assert "Unhandled exception" not in written, written[-3000:]


@asynccontextmanager
async def client_of(app: App, sub: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=app.url,
        headers={"Authorization": f"Bearer {token(sub)}"},
        timeout=20,
        limits=httpx.Limits(max_connections=None),
    ) as client:
        yield client


class Load:
    """Workers that send one kind of request until they are stopped, and what was answered."""

    def __init__(self, send: Callable[[], Awaitable[httpx.Response]], workers: int = 8) -> None:
        self._send, self._workers = send, workers
        self.statuses: Counter[int] = Counter()
        self.slowest = 0.0
        self.answers: list[tuple[float, httpx.Response]] = []
        self._stopped = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._workers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped.set()
        await asyncio.gather(*self._tasks)
        assert 500 not in self.statuses

    async def _work(self) -> None:
        while not self._stopped.is_set():
            started = time.monotonic()
            answer = await self._send()
            self.slowest = max(self.slowest, time.monotonic() - started)
            self.statuses[answer.status_code] += 1
            self.answers.append((time.monotonic(), answer))
            if answer.status_code == 503:
                assert answer.headers["content-type"] == "application/problem+json"
                assert int(answer.headers["retry-after"]) > 0
                await asyncio.sleep(0.05)

    async def until(self, status: int, within: float) -> float:
        """Wait for an answer with `status` that is given from now on; return the seconds that took."""
        started = time.monotonic()
        while not any(at >= started and answer.status_code == status for at, answer in self.answers[-200:]):
            assert time.monotonic() - started < within, f"no {status} within {within} s: {self.statuses}"
            await asyncio.sleep(0.02)
        return time.monotonic() - started


async def create_until_made(client: httpx.AsyncClient, key: str, **changes: Any) -> str:
    """Send a creation with its key again and again until it is answered, and return the twin's id."""
    for _ in range(200):
        try:
            answer = await client.post("/api/v1/twins", json=ALEX | changes, headers={"Idempotency-Key": key})
        except httpx.TransportError:
            await asyncio.sleep(0.05)
            continue
        if answer.status_code == 201:
            return str(answer.json()["id"])
        assert answer.status_code in (409, 503), answer.text
        await asyncio.sleep(0.05)
    raise AssertionError("never made")


async def stored_ids(stores: Stores, owner: str) -> set[str]:
    connection = await asyncpg.connect(stores.postgres.owner_dsn)
    try:
        return {str(row["id"]) for row in await connection.fetch("SELECT id FROM twins WHERE owner = $1", owner)}
    finally:
        await connection.close()


async def connections(stores: Stores) -> int:
    """Count the connections that the serving role has."""
    connection = await asyncpg.connect(stores.postgres.owner_dsn)
    try:
        found: int = await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE usename = 'twins_app'")
        return found
    finally:
        await connection.close()
