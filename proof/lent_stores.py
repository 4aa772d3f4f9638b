"""A pytest plugin: tests use the stores that `proof.mutation` has started, emptied, instead of their own."""

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from devstack.mongod import Mongod
from devstack.postgres import DATABASE, SUPERUSER, Postgres
from tests import stores

_folder, _postgres, _mongod = json.loads(os.environ["LENT_STORES"])
_STORES = stores.Stores(
    Postgres(Path(_folder) / "postgres", _postgres, durable=False), Mongod(Path(_folder) / "mongod", _mongod)
)


@contextmanager
def _lent() -> Iterator[stores.Stores]:
    yield _STORES


stores.running_stores = _lent


def pytest_sessionstart() -> None:
    """Take away what earlier tests have left: they use the same accounts."""
    asyncio.run(_empty())


async def _empty() -> None:
    connection = await asyncpg.connect(_STORES.postgres.dsn_of(SUPERUSER, DATABASE))
    await connection.execute("SET session_replication_role = replica")  # the ledger cannot be emptied otherwise
    tables = "SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables WHERE schemaname = 'public'"
    found = await connection.fetchval(f"{tables} AND tablename <> 'alembic_version'")
    await connection.execute(f"TRUNCATE {found}")
    await connection.close()
