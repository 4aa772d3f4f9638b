"""`python -m migrations grant`: what a login role may do afterwards, and for how long."""

import asyncio
import sys
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from devstack.postgres import DATABASE, OWNER, SERVING, SUPERUSER
from migrations import __main__ as command
from migrations import roles
from shared.settings import Settings
from shared.stores.outbox import LEASE
from tests.support.stores import Stores


@pytest.fixture
async def superuser(stores: Stores) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stores.postgres.dsn_of(SUPERUSER))
    yield connection
    await connection.close()


@pytest.fixture
async def login(stores: Stores, superuser: asyncpg.Connection) -> AsyncIterator[str]:
    """A login role that the owner has made, with a name that has to be quoted, and nothing else."""
    name = f"Twins app-{uuid4().hex[:8]}"
    owner = await asyncpg.connect(stores.postgres.owner_dsn)
    password = stores.postgres.dsn.split(":")[2].partition("@")[0]
    await owner.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}'")
    await owner.close()
    yield name
    await superuser.execute(f'DROP ROLE "{name}"')


async def granted(superuser: asyncpg.Connection, login: str) -> tuple[bool, list[str] | None]:
    """Return whether it is a member, and every setting that it has."""
    row = await superuser.fetchrow(
        """
        SELECT pg_has_role(oid, $2, 'MEMBER'),
               (SELECT array_agg(setting) FROM pg_db_role_setting, unnest(setconfig) setting WHERE setrole = oid)
        FROM pg_roles WHERE rolname = $1
        """,
        login,
        roles.SERVING_ROLE,
    )
    assert row is not None
    return row[0], row[1]


async def test_each_setting_is_set_on_the_login_role_and_a_second_grant_changes_nothing(
    stores: Stores, environment: dict[str, str], superuser: asyncpg.Connection, login: str
) -> None:
    assert await granted(superuser, login) == (False, None)
    await asyncio.to_thread(stores.migrations, "grant", login)
    once = await granted(superuser, login)
    await asyncio.to_thread(stores.migrations, "grant", login)

    assert once == (True, [f"{name}={value}" for name, value in roles.SETTINGS.items()])
    assert await granted(superuser, login) == once


async def limits_of(stores: Stores, role: str, database: str = DATABASE) -> dict[str, int]:
    """Return what a session of this role begins with."""
    connection = await asyncpg.connect(stores.postgres.dsn_of(role, database).replace(" ", "%20"))
    try:
        rows = await connection.fetch("SELECT name, setting FROM pg_settings WHERE name = ANY($1)", [*roles.LIMITS])
    finally:
        await connection.close()
    return {row["name"]: int(row["setting"]) for row in rows}


async def test_sessions_of_the_serving_role_have_the_limits_and_those_of_the_owner_none(
    stores: Stores, environment: dict[str, str]
) -> None:
    of_server = await limits_of(stores, SUPERUSER)

    assert await limits_of(stores, SERVING) == roles.LIMITS
    assert await limits_of(stores, OWNER) == of_server
    assert not {name for name, value in of_server.items() if value and not name.startswith("tcp_keepalives")}


async def test_whoever_may_not_set_limits_is_told_what_is_missing_and_grants_nothing(
    stores: Stores, environment: dict[str, str], superuser: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"of_somebody_else_{uuid4().hex[:8]}"
    await superuser.execute(f"CREATE ROLE {name} LOGIN")
    try:
        monkeypatch.setattr(sys, "argv", ["migrations", "grant", name])
        monkeypatch.setenv("MIGRATIONS_POSTGRES_DSN", stores.postgres.owner_dsn)
        with pytest.raises(SystemExit, match=f'ADMIN option on role "{name}"'):
            await asyncio.to_thread(command.main)
        assert await granted(superuser, name) == (False, None)
    finally:
        await superuser.execute(f"DROP ROLE {name}")


def test_the_limits_fit_each_other_and_those_of_the_application(settings: Settings) -> None:
    limits = roles.LIMITS
    lock, statement, idle = (
        limits[name] for name in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    )

    assert lock < settings.postgres_command_timeout * 1000 < statement < idle == limits["tcp_user_timeout"]
    assert statement + idle < 8_000
    assert statement + idle < limits["transaction_timeout"] < LEASE * 1000
    keepalive = limits["tcp_keepalives_idle"] + limits["tcp_keepalives_interval"] * limits["tcp_keepalives_count"]
    assert keepalive <= settings.postgres_pool_idle
