"""The disk under PostgreSQL's data fills up while twins are made."""

import asyncio
import contextlib
import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from devstack.mongod import Mongod
from devstack.postgres import SERVING, Postgres
from tests.resilience.harness.limits import ANSWERED, LOAD_SECONDS
from tests.resilience.harness.load import creators, load
from tests.resilience.harness.scenario import Scenario, scenario
from tests.support.database import superuser
from tests.support.stores import Stores, store_folder

DISK_MIB = 128
"""The new database and its write-ahead log take about half of it."""
BLOCK = bytes(65_536)


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    """A file system of its own, small and in memory."""
    with store_folder() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=0711", "twins-disk", str(folder)]
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(
                f"a disk that can be filled has to be mounted, and that is not allowed: {mounted.stderr.strip()}"
            )
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def stores(disk: Path) -> Iterator[Stores]:
    with store_folder() as folder, Postgres(disk, durable=False) as postgres, Mongod(folder) as mongod:
        stores = Stores(postgres, mongod)
        stores.migrations("upgrade")
        stores.migrations("grant", SERVING)
        yield stores


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """Leave not one block of the disk free."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(BLOCK)
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                    break
        yield
    finally:
        ballast.unlink()


async def refused(s: Scenario) -> None:
    """Wait until a creation is refused, as it has to be once a table would have to grow."""
    with s.clients.watched() as tally:
        async with asyncio.timeout(30):
            while not tally.outcomes["503"]:
                await asyncio.sleep(0.02)


async def test_a_full_disk_is_503_and_no_acknowledged_twin_is_lost(stores: Stores, disk: Path) -> None:
    async with scenario("PostgreSQL: disk full", stores) as s:
        clients = s.clients
        path = f"/api/v1/twins/{await clients.create('witness', 'before')}"
        async with load(*creators(clients, 8)):
            await asyncio.sleep(LOAD_SECONDS)
            with full(disk):
                await refused(s)
                assert (await clients.until(200, "GET", path, "witness")).json()["twin_name"] == "Twin before"
                await s.is_alive()
            await s.recovered("GET", "/ready")
            await clients.create("witness", "after")
        assert set(clients.tally.outcomes) <= {"200", "201", "409", "503"}
        assert clients.tally.slowest < ANSWERED


async def test_a_log_that_cannot_grow_takes_the_server_down_and_no_acknowledged_twin_with_it(
    stores: Stores, disk: Path
) -> None:
    async with scenario("PostgreSQL: no room for the write-ahead log", stores) as s:
        clients = s.clients
        async with load(*creators(clients, 8)):
            await asyncio.sleep(LOAD_SECONDS)
            async with superuser(stores) as connection:
                with full(disk):
                    # Whoever is the first to need a new segment takes the server down; it may be this very call.
                    with contextlib.suppress(asyncpg.PostgresError):
                        await connection.execute("SELECT pg_switch_wal()")
                    await refused(s)
                    await server_ends(stores.postgres)
                    await s.is_not_ready()
            await asyncio.to_thread(stores.postgres.kill)
            await asyncio.to_thread(stores.postgres.start)
            await s.recovered("GET", "/ready")
            await clients.create("witness", "after")
        assert set(clients.tally.outcomes) <= {"200", "201", "409", "503"}
        assert clients.tally.slowest < ANSWERED


async def server_ends(server: Postgres) -> None:
    """Wait until PostgreSQL gives up: it cannot recover on a full disk either."""
    process = psutil.Process(server.pid)
    async with asyncio.timeout(30):
        while process.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)
