"""The boolean of twins made before there was a ledger becomes a consent, and back."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from devstack.postgres import OWNER, SERVING, SUPERUSER
from migrations.postgres import migrate
from shared.settings import Settings
from tests.conftest import Client, token
from tests.consent.steps import ledger, reason, verify
from tests.stores import Stores
from twins.app import create_app

BEFORE, AFTER = "20261124_1", "20261124_2"


@dataclass
class Database:
    """A database of its own on the session's server."""

    stores: Stores
    name: str

    async def migrate(self, direction: str, revision: str) -> None:
        dsn = self.stores.postgres.dsn_of(OWNER, self.name)
        await asyncio.to_thread(migrate, dsn, direction, revision)

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.stores.postgres.dsn_of(OWNER, self.name))
        try:
            yield connection
        finally:
            await connection.close()


@pytest.fixture
async def database(stores: Stores) -> AsyncIterator[Database]:
    name = f"carry_over_{uuid4().hex}"
    connection = await asyncpg.connect(stores.postgres.dsn_of(SUPERUSER, "postgres"))
    await connection.execute(f"CREATE DATABASE {name} OWNER {OWNER}")
    made = Database(stores, name)
    await made.migrate("upgrade", BEFORE)
    yield made
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@asynccontextmanager
async def client_on(database: Database, settings: Settings, sub: str) -> AsyncIterator[Client]:
    dsn = database.stores.postgres.dsn_of(SERVING, database.name)
    app = create_app(settings.model_copy(update={"postgres_dsn": SecretStr(dsn)}))
    headers = {"Authorization": f"Bearer {token(sub)}"}
    async with Client(transport=httpx.ASGITransport(app), base_url="http://twins.test", headers=headers) as client:
        yield client
    await app.close()


MADE_AT = datetime(2025, 3, 4, 5, 6, 7, 890123, UTC)


async def insert(database: Database, owner: str, *, consent: bool, count: int = 1) -> list[str]:
    """Insert twins as the first release made them, and return their paths."""
    async with database.owner() as connection:
        rows = await connection.fetch(
            """
            INSERT INTO twins (owner, twin_name, use_case, tone, consent, created_at)
            SELECT $1, 'Alex', 'support', 'warm', $2, $3 FROM generate_series(1, $4::int) RETURNING id
            """,
            owner,
            consent,
            MADE_AT,
            count,
        )
    return [f"/api/v1/twins/{row['id']}" for row in rows]


async def booleans(database: Database) -> dict[str, bool]:
    async with database.owner() as connection:
        rows = await connection.fetch("SELECT id, consent FROM twins")
    return {f"/api/v1/twins/{row['id']}": row["consent"] for row in rows}


async def test_a_boolean_becomes_the_record_that_making_the_twin_would_have_left(
    database: Database, settings: Settings
) -> None:
    owner = 'Zoë "the owner" \\ 🚲'
    (agreed,), (silent,) = [await insert(database, owner, consent=consent) for consent in (True, False)]
    await database.migrate("upgrade", AFTER)
    async with client_on(database, settings, owner) as client:
        assert (await client.get(agreed)).json()["consent"] is True
        assert (await client.get(silent)).json()["consent"] is False
        assert [await reason(client, path) for path in (agreed, silent)] == ["granted", "no_consent"]
        for path, events in ((agreed, 1), (silent, 0)):
            verification = await verify(client, path)
            assert (verification["valid"], verification["events"]) == (True, events)
        (consent,) = (await client.get(f"{agreed}/consents")).json()["items"]
        (entry,) = await ledger(client, agreed)
        assert (await client.get(f"{silent}/consents")).json()["items"] == []

        assert (consent["purposes"], consent["principal"], consent["method"]) == (["general"], owner, "carried-over")
        assert (consent["state"], consent["not_before"], consent["expires_at"]) == ("given", None, None)
        assert datetime.fromisoformat(consent["given_at"]) == MADE_AT
        event = entry["event"]
        assert (event["type"], event["at"], event["consent_id"]) == (
            "given",
            "2025-03-04T05:06:07.890123Z",
            consent["id"],
        )
        async with database.owner() as connection:
            salt = await connection.fetchval("SELECT salt FROM twins WHERE id = $1", agreed.rpartition("/")[2])
        assert event["actor"] == hmac.digest(salt, owner.encode(), "sha256").hex()
        assert event["terms"] == hmac.digest(salt, terms_of(consent).encode(), "sha256").hex()

        # From here on it lives like any other.
        assert (await client.patch(agreed, json={"consent": False})).json()["consent"] is False
        assert (await client.patch(silent, json={"consent": True})).json()["consent"] is True
        assert (await client.get(f"{agreed}/consents/{consent['id']}/receipt")).status_code == 200
        assert [(await verify(client, path))["valid"] for path in (agreed, silent)] == [True, True]
        deleted = await client.delete(agreed)
        assert deleted.status_code == 204


def terms_of(consent: dict[str, Any]) -> str:
    notice = consent["notice"]
    assert notice["sha256"] == hashlib.sha256(notice["text"].encode()).hexdigest()
    terms = {
        "expires_at": None,
        "method": consent["method"],
        "not_before": None,
        "notice_language": notice["language"],
        "notice_sha256": notice["sha256"],
        "notice_version": notice["version"],
        "principal": consent["principal"],
        "purposes": consent["purposes"],
    }
    return json.dumps(terms, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


async def test_more_twins_than_one_batch_are_carried_over(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = await insert(database, "many", consent=True, count=1003)
    await database.migrate("upgrade", AFTER)
    async with database.owner() as connection:
        counts = [await connection.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES]
        salts = await connection.fetchval("SELECT count(DISTINCT salt) FROM twins")

    assert counts == [1003] * len(TABLES)
    assert salts == 1003
    async with client_on(database, settings, "many") as client:
        for path in (paths[0], paths[999], paths[1000], paths[-1]):
            assert (await verify(client, path))["valid"] is True
            assert await reason(client, path) == "granted"


TABLES = ("consents", "consent_states", "consent_events")


async def test_down_again_restores_the_booleans_and_up_again_carries_them_over_anew(
    database: Database, settings: Settings
) -> None:
    (kept, withdrawn, erased), (silent, agreed, voice) = [
        await insert(database, "owner", consent=consent, count=3) for consent in (True, False)
    ]
    before = await booleans(database)
    await database.migrate("upgrade", AFTER)
    await database.migrate("downgrade", BEFORE)
    assert await booleans(database) == before

    await database.migrate("upgrade", AFTER)
    notice = {"version": "1", "language": "en", "text": "Yes."}
    async with client_on(database, settings, "owner") as client:
        await client.patch(withdrawn, json={"consent": False})
        await client.patch(agreed, json={"consent": True})
        voiced = await client.post(f"{voice}/consents", json={"purposes": ["voice"], "notice": notice})
        assert voiced.status_code == 201
        assert (await client.delete(erased)).status_code == 204
    await database.migrate("downgrade", BEFORE)
    assert await booleans(database) == {kept: True, withdrawn: False, silent: False, agreed: True, voice: False}
    async with database.owner() as connection:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {row["tablename"] for row in tables} == {"alembic_version", "twins", "persona_versions", "idempotency_keys"}

    await database.migrate("upgrade", AFTER)
    async with client_on(database, settings, "owner") as client:
        for path, live in ((kept, True), (withdrawn, False), (silent, False), (agreed, True), (voice, False)):
            assert (await client.get(path)).json()["consent"] is live
            verification = await verify(client, path)
            assert (verification["valid"], verification["events"]) == (True, int(live))
