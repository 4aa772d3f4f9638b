"""What tests of erasure have in common: putting the clock forward, certificates, and dumps of both stores."""

import json
from typing import Any

import asyncpg
from jose import jws as jose_jws
from joserfc import jws
from joserfc.jwk import KeySet
from pymongo import MongoClient

from shared.stores import outbox
from tests.support.app import Client, id_of
from tests.support.database import superuser
from tests.support.stores import Stores
from twins.context import Context
from twins.erasure import sweep


async def erase(client: Client, path: str) -> str:
    """Delete a twin, and return the path of its erasure."""
    deleted = await client.delete(path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    return str(deleted.headers["location"])


async def finish(context: Context, path: str) -> None:
    """Do what the timer does for an erasure, with the clock put forward, until its job is done."""
    for _ in range(30):
        if not await go_on(context, path):
            return
    raise AssertionError("the erasure does not end")


async def go_on(context: Context, path: str) -> bool:
    """Run the job of an erasure until it waits, with the clock put forward, and return whether there was one."""
    async with context.postgres.connection() as connection:
        due = await connection.execute("UPDATE outbox SET run_at = now() WHERE subject = $1", id_of(path))
    await outbox.drain(context.postgres, sweep.handlers(context), subject=id_of(path))
    return bool(due != "UPDATE 0")


async def erasure_of(client: Client, path: str) -> dict[str, Any]:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    erasure: dict[str, Any] = answer.json()
    return erasure


async def certificate_of(client: Client, erasure: dict[str, Any]) -> dict[str, Any]:
    """Verify a certificate from the published keys alone, by two libraries, and return what it says."""
    keys = (await client.get("/.well-known/jwks.json")).json()
    found = jws.deserialize_compact(erasure["certificate"], KeySet.import_key_set(keys), algorithms=["ES256"])
    assert found.headers()["typ"] == "erasure-certificate+jwt"
    payload: dict[str, Any] = json.loads(found.payload)
    assert json.loads(jose_jws.verify(erasure["certificate"], keys, ["ES256"])) == payload
    assert len(erasure["certificate"]) < 64_000
    return payload


class Counts(dict[str, int]):
    """Counts by name, of which one that is 0 equals one that is not there: each resource adds its own.

    Where anything is expected, the number of rows that belong to consents is not looked at.
    """

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, dict):
            return False
        ignored = {"consent_details"} if any(self.values()) and "consent_details" not in self else set[str]()
        return {k: v for k, v in self.items() if v} == {k: v for k, v in other.items() if v and k not in ignored}


def removed(**counts: int) -> Counts:
    """Return the counts of an erasure, 0 where none is given."""
    return Counts(counts)


async def dump(stores: Stores) -> dict[str, list[str]]:
    """Return every row and document there is, as text, by table and collection."""
    found: dict[str, list[str]] = {}
    async with superuser(stores) as connection:
        for table in await tables(connection):
            rows = await connection.fetch(f'SELECT t::text AS text, to_json(t)::text AS json FROM "{table}" t')
            found[table] = [text for row in rows for text in (row["text"], row["json"])]
    for name, documents in documents_of(stores).items():
        found[name] = [str(document) for document in documents]
    return found


async def tables(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
    return [row["tablename"] for row in rows]


def documents_of(stores: Stores, **wanted: object) -> dict[str, list[dict[str, Any]]]:
    """Return the documents of each collection, or those that are as `wanted`."""
    with MongoClient[dict[str, Any]](stores.mongod.uri, uuidRepresentation="standard") as client:
        database = client["twins"]
        return {name: list(database[name].find(wanted)) for name in database.list_collection_names()}


def traces(found: dict[str, list[str]], *words: str) -> list[tuple[str, str]]:
    """Return in which tables which of the words still stand, in letters or as bytes, in any case."""
    tables = {name: "\n".join(texts).lower() for name, texts in found.items()}
    return [
        (name, word)
        for name, text in tables.items()
        for word in words
        if word.lower() in text or word.encode().hex() in text
    ]
