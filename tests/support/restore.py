"""Backups of both stores, and their restore, as an operator makes them."""

import asyncio
import os
import subprocess
import sys
from typing import Any
from uuid import uuid4

from pymongo import MongoClient

from devstack.local import ROOT
from devstack.postgres import DATABASE, OWNER, SUPERUSER, binaries
from tests.support.app import Client, ClientOf
from tests.support.database import superuser
from tests.support.stores import Stores
from twins import maintenance
from twins.context import Context

_COLLECTIONS = ("journal", "personas")

UNCONFIRMED = "unconfirmed_after_restore"


class People:
    """The accounts of one test."""

    def __init__(self, client_of: ClientOf) -> None:
        self._client_of = client_of
        self._run = uuid4().hex[:8]

    def name(self, who: str) -> str:
        return f"{who}-{self._run}"

    def __call__(self, who: str, scope: str | None = None) -> Client:
        return self._client_of(self.name(who), scope)


async def refuse(client: Client, path: str, *purposes: str) -> dict[str, Any]:
    answer = await client.post(f"{path}/refusals", json={"purposes": purposes} if purposes else None)
    assert answer.status_code in (200, 201), answer.text
    refusal: dict[str, Any] = answer.json()
    return refusal


async def standing(client: Client, path: str) -> list[tuple[list[str] | None, str]]:
    """Return the purposes and ids of the refusals that an account sees."""
    answer = await client.get(f"{path}/refusals")
    assert answer.status_code == 200, answer.text
    return [(item["purposes"] and sorted(item["purposes"]), item["id"]) for item in answer.json()["items"]]


class Backups:
    """Dumps of PostgreSQL, and copies of MongoDB's collections."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores

    async def dump(self) -> str:
        """Dump PostgreSQL by its own program, and return the path of the dump."""
        path = str(self.stores.postgres.folder / f"{uuid4().hex}.dump")
        await self._run("pg_dump", "--format=custom", f"--file={path}", self._dsn(DATABASE))
        return path

    async def restore(self, path: str) -> None:
        """Restore PostgreSQL to a dump, while the application serves and loses its sessions."""
        async with superuser(self.stores, "postgres") as connection:
            await connection.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
            await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER} CONNECTION LIMIT 0")
            await self._run("pg_restore", f"--dbname={self._dsn(DATABASE)}", path)
            await connection.execute(f"ALTER DATABASE {DATABASE} CONNECTION LIMIT -1")

    def copy_documents(self) -> dict[str, list[dict[str, Any]]]:
        """Return everything that MongoDB has."""
        with self._client() as client:
            return {name: list(client[DATABASE][name].find()) for name in _COLLECTIONS}

    def restore_documents(self, copy: dict[str, list[dict[str, Any]]], database: str = DATABASE) -> None:
        """Bring MongoDB to an earlier copy, or another database of it."""
        with self._client() as client:
            for name, documents in copy.items():
                client[database][name].delete_many({})
                if documents:
                    client[database][name].insert_many(documents)

    def journal(self, **wanted: object) -> list[dict[str, Any]]:
        """Return the entries of the journal, oldest first."""
        with self._client() as client:
            return list(client[DATABASE]["journal"].find(wanted).sort("at", 1))

    def restored(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m migrations restored`, as the operator."""
        stores = self.stores
        return subprocess.run(
            [sys.executable, "-m", "migrations", "restored", *arguments],
            cwd=ROOT,
            env=os.environ | stores.environment | {"MIGRATIONS_POSTGRES_DSN": stores.postgres.owner_dsn} | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def _dsn(self, database: str) -> str:
        return self.stores.postgres.dsn_of(SUPERUSER, database)

    def _client(self) -> "MongoClient[dict[str, Any]]":
        return MongoClient(self.stores.mongod.uri, uuidRepresentation="standard")

    async def _run(self, program: str, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            str(binaries() / program), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()


async def go_on(context: Context) -> None:
    """Do what the timer does, once, as another instance."""
    await maintenance.run(context)


async def made_good(context: Context) -> None:
    """Do what the timer does until each twin is open, or is listed as closed."""
    sql = "SELECT count(*) FROM live_twins t WHERE is_unconfirmed AND id NOT IN (SELECT twin_id FROM unconfirmed_twins)"
    async with asyncio.timeout(60):
        while True:
            await go_on(context)
            async with context.postgres.connection() as connection:
                if not await connection.fetchval(sql):
                    return
            await asyncio.sleep(0.1)


async def closed(context: Context) -> dict[str, str]:
    """Return the twins that a restore has left closed, and why."""
    async with context.postgres.connection() as connection:
        rows = await connection.fetch("SELECT twin_id, reason FROM unconfirmed_twins")
    return {str(row["twin_id"]): row["reason"] for row in rows}


async def outcomes(context: Context) -> dict[str, list[tuple[str, str | None]]]:
    """Return what came of each lost event, by its subject, oldest first."""
    async with context.postgres.connection() as connection:
        rows = await connection.fetch(
            "SELECT subject, entry->>'type' AS kind, outcome FROM lost_events ORDER BY at, seq"
        )
    found: dict[str, list[tuple[str, str | None]]] = {}
    for row in rows:
        found.setdefault(str(row["subject"]), []).append((row["kind"], row["outcome"]))
    return found
