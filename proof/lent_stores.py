"""A pytest plugin: tests use the stores that `proof.mutation` has started, emptied, instead of their own.

Where it has started none, only tests run that need none.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from devstack.mongod import Mongod
from devstack.postgres import DATABASE, SUPERUSER, Postgres
from tests.support import stores

_LENT = os.environ.get("LENT_STORES")


def _stores() -> stores.Stores:
    folder, postgres, mongod = json.loads(_LENT or "")
    return stores.Stores(
        Postgres(Path(folder) / "postgres", postgres, durable=False), Mongod(Path(folder) / "mongod", mongod)
    )


@contextmanager
def _lent() -> Iterator[stores.Stores]:
    yield _stores()


stores.running_stores = _lent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what there are no stores for."""
    if _LENT is None:
        items[:] = [item for item in items if "stores" not in getattr(item, "fixturenames", ())]


def pytest_sessionstart() -> None:
    """Take away what earlier tests have left: they use the same accounts."""
    if _LENT is not None:
        asyncio.run(_empty())


async def _empty() -> None:
    connection = await asyncpg.connect(_stores().postgres.dsn_of(SUPERUSER, DATABASE))
    await connection.execute("SET session_replication_role = replica")  # the ledger cannot be emptied otherwise
    tables = "SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables WHERE schemaname = 'public'"
    found = await connection.fetchval(f"{tables} AND tablename <> 'alembic_version'")
    await connection.execute(f"TRUNCATE {found}")
    await connection.close()
