"""A pytest plugin: tests use the stores that `proof.mutation` has started, emptied, instead of their own.

Where it has started none, only tests run that need none.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pymongo import MongoClient

from devstack.mongod import Mongod
from devstack.postgres import DATABASE, OWNER, SUPERUSER, Postgres
from tests.support import stores

_LENT = os.environ.get("LENT_STORES")
_MIGRATED = f"{DATABASE}_migrated"


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
    """Put what the migrations made in the place of both databases: not even a superuser may empty the ledger."""
    lent = _stores()
    connection = await asyncpg.connect(lent.postgres.dsn_of(SUPERUSER, "postgres"))
    try:
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", _MIGRATED):
            await connection.execute(f"ALTER DATABASE {DATABASE} RENAME TO {_MIGRATED}")
        await connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        await connection.execute(f"CREATE DATABASE {DATABASE} TEMPLATE {_MIGRATED} OWNER {OWNER}")
    finally:
        await connection.close()
    with MongoClient[dict[str, Any]](lent.mongod.uri) as client:
        for name in client[DATABASE].list_collection_names():
            client[DATABASE][name].delete_many({})
