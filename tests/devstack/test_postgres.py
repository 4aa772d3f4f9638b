import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from devstack.postgres import Postgres
from devstack.process import LOCALHOST, StackError, free_port
from tests.support.stores import store_folder

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes the system user")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server for this module to hurt, its data in an awkward place: closed to others, with a space."""
    with store_folder() as folder:
        closed = folder / "closed to others"
        closed.mkdir(mode=0o700)
        with Postgres(closed / "it's postgres", durable=False) as server:
            yield server


async def execute(dsn: str, *statements: str) -> object:
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        for statement in statements:
            value = await connection.fetchval(statement, timeout=2)
    finally:
        connection.terminate()
    return value


async def test_text_is_compared_by_unicode_code_point_and_folded_beyond_ascii(postgres: Postgres) -> None:
    assert await execute(postgres.dsn, "SELECT 'É' ILIKE 'é' AND 'Z' < 'a'") is True
    assert await execute(postgres.dsn, "SHOW server_encoding") == "UTF8"


async def test_a_wrong_password_is_refused(postgres: Postgres) -> None:
    password = (postgres.folder / "password").read_text()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await execute(postgres.dsn.replace(password, "wrong"), "SELECT 1")


async def test_the_password_file_is_closed_to_others(postgres: Postgres) -> None:
    assert (postgres.folder / "password").stat().st_mode & 0o777 == 0o600


async def test_the_serving_role_makes_no_tables_and_the_owner_makes_tables_and_roles(
    postgres: Postgres,
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await execute(postgres.dsn, "CREATE TABLE refused ()")
    await execute(postgres.owner_dsn, "CREATE TABLE allowed ()", "DROP TABLE allowed")
    await execute(postgres.owner_dsn, "CREATE ROLE a_group NOLOGIN", "DROP ROLE a_group")


@pytest.mark.parametrize("end", [Postgres.stop, Postgres.kill])
async def test_data_and_port_survive_the_end_of_the_server(postgres: Postgres, end: object) -> None:
    port = postgres.port
    await execute(postgres.owner_dsn, "CREATE TABLE kept AS SELECT 42 AS value")
    family = [psutil.Process(postgres.pid), *psutil.Process(postgres.pid).children(recursive=True)]
    assert callable(end)

    end(postgres)
    assert not any(process.is_running() for process in family)
    with pytest.raises(ConnectionRefusedError):
        await execute(postgres.dsn_of("postgres"), "SELECT 1")

    postgres.start()
    assert postgres.port == port
    assert await execute(postgres.owner_dsn, "SELECT value FROM kept") == 42
    await execute(postgres.owner_dsn, "DROP TABLE kept")


async def test_a_server_that_was_killed_from_outside_starts_again(postgres: Postgres) -> None:
    os.kill(postgres.pid, signal.SIGKILL)
    postgres.stop()
    postgres.start()
    assert await execute(postgres.dsn, "SELECT 1") == 1


async def test_a_paused_server_answers_nothing_and_goes_on_when_resumed(postgres: Postgres) -> None:
    connection = await asyncpg.connect(postgres.dsn)
    try:
        postgres.pause()
        answer = asyncio.ensure_future(connection.fetchval("SELECT 1"))
        await asyncio.sleep(0.3)
        assert not answer.done()
        with pytest.raises(TimeoutError):
            await asyncpg.connect(postgres.dsn, timeout=0.3)
        postgres.resume()
        assert await answer == 1
    finally:
        postgres.resume()
        await connection.close()


async def test_a_paused_server_stops_in_order(postgres: Postgres) -> None:
    postgres.pause()
    postgres.stop()
    assert "database system is shut down" in postgres.log.read_text()
    postgres.start()


async def test_a_server_left_by_a_killed_run_is_stopped_first(postgres: Postgres) -> None:
    stale = psutil.Process(postgres.pid)
    await execute(postgres.owner_dsn, "CREATE TABLE earlier ()")
    with Postgres(postgres.folder, postgres.port, durable=False) as later:
        assert later.port == postgres.port
        assert later.pid != stale.pid
        await execute(later.owner_dsn, "DROP TABLE earlier")
    postgres.stop()
    assert not stale.is_running()
    postgres.start()


def test_a_pid_file_that_names_a_stranger_is_not_believed(postgres: Postgres) -> None:
    postgres.stop()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (postgres.data / "postmaster.pid").write_text(f"{stranger.pid}\n")
        postgres.start()
        assert stranger.poll() is None
        stranger.kill()
    assert psutil.pid_exists(postgres.pid)


async def test_a_port_that_another_program_took_is_given_up(postgres: Postgres) -> None:
    postgres.stop()
    with socket.create_server((LOCALHOST, postgres.port)):
        postgres.start()
    assert await execute(postgres.dsn, "SELECT 1") == 1


async def test_a_server_that_cannot_start_shows_the_end_of_its_log(postgres: Postgres) -> None:
    postgres.stop()
    settings = postgres.data / "postgresql.auto.conf"
    before = settings.read_text()
    settings.write_text("no_such_setting = 1\n")
    with pytest.raises(StackError, match=r"(?s)postgres ended with 1.*no_such_setting"):
        postgres.start()
    settings.write_text(before)
    postgres.start()


def test_an_interrupted_first_start_is_redone() -> None:
    with store_folder() as folder:
        (folder / "data.unfinished").mkdir()
        (folder / "data.unfinished" / "PG_VERSION").write_text("18")
        with Postgres(folder, durable=False) as server:
            assert psutil.pid_exists(server.pid)


@as_root
def test_the_server_never_runs_as_root(postgres: Postgres) -> None:
    assert psutil.Process(postgres.pid).username() == "nobody"


@as_root
def test_a_folder_that_the_system_user_cannot_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)  # no setpriv
    with store_folder() as folder:
        closed = folder / "closed"
        closed.mkdir(mode=0o700)
        with pytest.raises(StackError, match=r"'nobody' cannot reach .*/closed"):
            Postgres(closed / "postgres").start()


def test_ports_are_outside_the_range_of_outgoing_connections() -> None:
    range_file = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(range_file.read_text().split()[0]) if range_file.exists() else 49_152
    assert free_port() < lowest
