"""One scenario: the application runs, a test hurts it, the audit follows, and its figures are recorded."""

import asyncio
import copy
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devstack.postgres import SERVING
from shared.http.second_process import CONNECTIONS
from tests.resilience.harness.app import App
from tests.resilience.harness.audit import audit_documents, audit_personas, audit_twins
from tests.resilience.harness.clients import Clients
from tests.resilience.harness.limits import LONG, MONGO_POOL_MAX, PAUSE, POOL_MAX, RECOVERY, eventually
from tests.support import log_search
from tests.support.database import superuser
from tests.support.figures import record
from tests.support.serving import MONGO_MONITORS, THREADS
from tests.support.stores import Stores


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
        await audit_twins(self.stores, self.clients)
        await audit_personas(self.clients)
        if self.clients.personas:
            self.figures["orphans_swept"] = await audit_documents(self.stores)
        await self.gives_back()

    async def gives_back(self) -> None:
        """Hold no more connections than the pools may have, in the processes and in PostgreSQL."""
        await eventually(self.sessions, (POOL_MAX + CONNECTIONS) * len(self.apps))
        for app in self.apps:
            assert app.connections() <= POOL_MAX + MONGO_POOL_MAX + MONGO_MONITORS
            assert app.process.num_threads() <= THREADS

    async def sessions(self) -> int:
        """Count the sessions of the serving role in PostgreSQL."""
        async with superuser(self.stores) as connection:
            count: int = await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", SERVING)
            return count


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
