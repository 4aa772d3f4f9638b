"""One process of the application, which faults kill and restart."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from devstack.local import ROOT
from devstack.process import LOCALHOST, free_port
from infra.new_secrets import receipt_key
from tests.resilience.harness.limits import MONGO_POOL_MAX, POOL_MAX, STARTED, STOPPED
from tests.support.app import SECRET

ASYNCPG_ABANDONS = "unexpected connection_lost() call"
"""What asyncio says of a future that asyncpg makes before it connects, and forgets where it is cancelled
in the very turn of the event loop in which TCP has connected; the connection itself is closed."""
NOT_CREATED = '"message":"Twin creation failed"'
"""What the application says, as an error, of a creation that a store has kept from being done; of one that
fails by itself there is also an unhandled exception."""

OUTSIDE = ("POSTGRES_DSN", "MIGRATIONS_POSTGRES_DSN", "MONGODB_URI", "ERASURE_SECOND_SWEEP")
"""Set by other tests for their own stores."""
SETTINGS = {
    "JWT_SECRETS": SECRET,
    "DIGEST_KEY": "a-digest-key-only-for-the-tests-of-32-bytes",
    "RECEIPT_KEYS": receipt_key(),
    "POSTGRES_POOL_MAX": str(POOL_MAX),
    "MONGODB_POOL_MAX": str(MONGO_POOL_MAX),
    # Clients of one account send hundreds at once; the scenario of a loud neighbour sets others.
    "ACCOUNT_REQUESTS": "2000",
    "ACCOUNT_CONCURRENCY": "2000",
    "ACCOUNT_DECISIONS": "2000",
    "ACCOUNT_NOES": "2000",
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
            if ("Traceback" in line or '"level":"ERROR"' in line)
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
