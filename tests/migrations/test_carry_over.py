"""What older releases stored is carried over: a boolean becomes a consent, and an answer what it was about."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from devstack.postgres import OWNER, SERVING, SUPERUSER
from migrations.postgres import migrate
from shared.digests import Digests
from tests.support.app import ALEX, Client, id_of, is_problem, token
from tests.support.consent import NOTICE, grant, ledger, reason, renew, verify
from tests.support.stores import Stores
from twins.app import create_app
from twins.settings import Settings

BEFORE, AFTER = "20261124_1", "head"
BODIES = "20261128_4"
"""The last revision whose stored answers had bodies."""
LINES = "20261128_5"
"""The last revision whose consents had their withdrawals in themselves."""
NOES = "20261128_6"
"""The last revision that did not know who acted."""


@dataclass
class Database:
    """A database of its own on the session's server."""

    stores: Stores
    name: str

    async def migrate(self, direction: str, revision: str) -> None:
        dsn = self.stores.postgres.dsn_of(OWNER, self.name)
        await asyncio.to_thread(migrate, dsn, direction, revision)

    @asynccontextmanager
    async def connection(self, role: str) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.stores.postgres.dsn_of(role, self.name))
        try:
            yield connection
        finally:
            await connection.close()

    def owner(self) -> AbstractAsyncContextManager[asyncpg.Connection]:
        return self.connection(OWNER)


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
    app = create_app(settings.model_copy(update={"postgres_dsn": SecretStr(dsn), "mongodb_database": database.name}))
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
            salt = await connection.fetchval("SELECT salt FROM salts WHERE twin_id = $1", id_of(agreed))
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
        salts = await connection.fetchval("SELECT count(DISTINCT salt) FROM salts")

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


async def test_stored_answers_become_what_they_were_about_and_none_makes_anything_again(
    database: Database, settings: Settings
) -> None:
    await database.migrate("upgrade", AFTER)
    kept, gone = [{"Idempotency-Key": f"make-{n}"} for n in range(2)]
    notice = {"version": "1", "language": "en", "text": "Yes."}
    async with client_on(database, settings, "owner") as client:
        path, erased = [
            (await client.post("/api/v1/twins", json=ALEX, headers=key)).headers["location"] for key in (kept, gone)
        ]
        for twin in (path, erased):
            await client.put(f"{twin}/persona", json={"summary": "One."})
        requests = [("/api/v1/twins", ALEX, kept), ("/api/v1/twins", ALEX, gone)] + [
            request
            for twin in (path, erased)
            for request in (
                (f"{twin}/consents", {"purposes": ["voice"], "notice": notice}, {"Idempotency-Key": f"give:{twin}"}),
                (f"{twin}/persona/versions/1/restore", None, {"Idempotency-Key": f"restore:{twin}"}),
            )
        ]
        first = [await client.post(url, json=body, headers=key) for url, body, key in requests]
        assert {answer.status_code for answer in first} == {201}
        assert (await client.delete(erased)).status_code == 204

    # The way down has no answers left to give back: each is one that was emptied.
    await database.migrate("downgrade", BODIES)
    async with database.owner() as connection:
        rows = await connection.fetch("SELECT headers, body FROM idempotency_keys")
        assert [tuple(row) for row in rows] == [("{}", None)] * len(requests)
        # As the release before stored them; those about an erased twin were emptied.
        for answer in first:
            location = answer.headers["location"]
            if not location.startswith(erased):
                await connection.execute(
                    "UPDATE idempotency_keys SET headers = $2, body = $3 WHERE key_hash = $1",
                    key_hash_of(settings, "owner", answer.request.headers["idempotency-key"]),
                    json.dumps({"Location": location}),
                    answer.text,
                )

    await database.migrate("upgrade", AFTER)
    async with client_on(database, settings, "owner") as client:
        for (url, body, key), answer in zip(requests, first, strict=True):
            again = await client.post(url, json=body, headers=key)
            if answer.headers["location"].startswith(erased):
                assert is_problem(again, 410, "answer-erased"), url
            else:
                now = await client.get(answer.headers["location"])
                assert (again.status_code, again.content) == (201, now.content), url
                assert again.headers["location"] == answer.headers["location"]


def key_hash_of(settings: Settings, sub: str, key: str) -> bytes:
    return Digests(settings.digest_key.get_secret_value()).digest("idempotency", f"{sub}\n{key}".encode())


async def test_while_an_instance_serves_the_schema_does_not_change_and_its_sessions_are_named(
    database: Database,
) -> None:
    await database.migrate("upgrade", LINES)
    serving = await asyncpg.connect(database.stores.postgres.dsn_of(SERVING, database.name))
    try:
        with pytest.raises(SystemExit, match=rf"Stop all instances first.* {serving.get_server_pid()} \({SERVING}\)"):
            await database.migrate("upgrade", AFTER)
    finally:
        await serving.close()
    await database.migrate("upgrade", AFTER)


# --- Consents become what no release could say before -------------------------------------------------


async def consented(
    database: Database,
    twin: str,
    principal: str,
    purposes: list[str],
    *,
    withdrawn: str | None = None,
    renews: UUID | None = None,
) -> UUID:
    """Insert a consent, its states and its events as the release before wrote them, and return its id."""
    async with database.owner() as connection:
        twin_id, lineage = id_of(twin), renews
        row = await connection.fetchrow(
            """
            INSERT INTO consents (id, twin_id, lineage, renews, principal, method, purposes, notice_version,
                                  notice_language, notice_text, notice_sha256, given_at, withdrawn_at, revoked)
            SELECT id, $1, coalesce($2, id), $2, $3, 'api', $4, '1', 'en', 'Yes.', sha256('Yes.'), now(),
                   CASE WHEN $5::text IS NOT NULL THEN now() END, coalesce($5 = 'owner', false)
            FROM (SELECT uuidv7() AS id) made RETURNING id
            """,
            *(twin_id, lineage, principal, purposes, withdrawn),
        )
        await connection.execute("UPDATE consents SET replaced_by = $2 WHERE id = $1", renews, row["id"])
        await connection.execute(
            """
            INSERT INTO consent_states (twin_id, purpose, consent_id) SELECT $1, unnest($2::text[]), $3
            ON CONFLICT (twin_id, purpose) DO UPDATE SET consent_id = EXCLUDED.consent_id
            """,
            *(twin_id, purposes, row["id"]),
        )
        await append(connection, twin_id, "renewed" if renews else "given", principal, row["id"])
        if withdrawn:
            await append(connection, twin_id, "withdrawn", principal, row["id"])
    consent_id: UUID = row["id"]
    return consent_id


async def append(connection: asyncpg.Connection, twin_id: UUID, kind: str, actor: str, consent_id: UUID) -> None:
    head = await connection.fetchrow("SELECT salt, ledger_seq, ledger_hash FROM twins WHERE id = $1", twin_id)
    consent = await connection.fetchrow(
        "SELECT purposes, renews, given_at, withdrawn_at FROM consents WHERE id = $1", consent_id
    )
    terms = {
        "expires_at": None,
        "method": "api",
        "not_before": None,
        "notice_language": "en",
        "notice_sha256": hashlib.sha256(b"Yes.").hexdigest(),
        "notice_version": "1",
        "principal": actor,
        "purposes": consent["purposes"],
    }
    event = {
        "actor": sealed(head["salt"], actor),
        "at": consent["withdrawn_at" if kind == "withdrawn" else "given_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "consent_id": str(consent_id),
        "prev_hash": head["ledger_hash"].hex(),
        "seq": head["ledger_seq"] + 1,
        "twin_id": str(twin_id),
        "type": kind,
        "v": 1,
    }
    if kind == "renewed":
        event["renews"] = str(consent["renews"])
    if kind != "withdrawn":
        event["terms"] = sealed(head["salt"], canonical(terms))
    text = canonical(event)
    digest = hashlib.sha256(text.encode()).digest()
    await connection.execute("INSERT INTO consent_events VALUES ($1, $2, $3, $4)", twin_id, event["seq"], text, digest)
    await connection.execute(
        "UPDATE twins SET ledger_seq = $2, ledger_hash = $3 WHERE id = $1", twin_id, event["seq"], digest
    )


def canonical(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sealed(salt: bytes, text: str) -> str:
    return hmac.digest(salt, text.encode(), "sha256").hex()


async def test_a_purpose_that_a_person_ever_withdrew_is_locked_whatever_came_later(
    database: Database, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    await database.migrate("upgrade", LINES)
    async with database.owner() as connection:
        ids = await connection.fetch(
            "INSERT INTO twins (owner, twin_name, use_case, tone) "
            "SELECT 'owner', 'Alex', 'support', 'warm' FROM generate_series(1, 4) RETURNING id"
        )
    regranted, renewed, revoked, own = [f"/api/v1/twins/{row['id']}" for row in ids]
    await consented(database, regranted, "paula", ["voice", "face"], withdrawn="principal")
    await consented(database, regranted, "peter", ["voice"])
    first = await consented(database, renewed, "paula", ["voice"])
    await consented(database, renewed, "paula", ["voice"], renews=first)
    await consented(database, revoked, "paula", ["voice"], withdrawn="owner")
    await consented(database, revoked, "paula", ["voice"])
    await consented(database, own, "owner", ["voice"], withdrawn="principal")
    await consented(database, own, "owner", ["voice"])
    with caplog.at_level("WARNING"):
        await database.migrate("upgrade", AFTER)

    assert "Locked after earlier withdrawals: 1; grants that this closes: 1" in caplog.text
    async with client_on(database, settings, "owner") as owner, client_on(database, settings, "paula") as paula:
        assert [await reason(owner, regranted, purpose) for purpose in ("voice", "face", "other")] == [
            "refused",
            "refused",
            "no_consent",
        ]
        for path in (renewed, revoked, own):
            assert await reason(owner, path, "voice") == "granted"
            assert (await owner.get(f"{path}/refusals")).json()["items"] == []
        for path in (regranted, renewed, revoked, own):
            assert (await verify(owner, path))["reason"] is None, path
        states = [item["state"] for item in (await owner.get(f"{renewed}/consents")).json()["items"]]
        assert states == ["given", "replaced"]
        body = {"purposes": ["new"], "notice": {"version": "1", "language": "en", "text": "Yes."}}
        assert is_problem(await owner.post(f"{regranted}/consents", json=body), 409, "person-must-consent")
        (refusal,) = (await paula.get(f"{regranted}/refusals")).json()["items"]
        assert refusal["purposes"] == ["face", "voice"]

    with pytest.raises(SystemExit, match="1 standing refusals"):
        await database.migrate("downgrade", LINES)
    await database.migrate("upgrade", AFTER)  # the revisions after the one that refuses are undone
    async with client_on(database, settings, "paula") as paula:
        assert (await paula.delete(f"{regranted}/refusals/{refusal['id']}")).status_code == 204

    await database.migrate("downgrade", LINES)
    async with database.owner() as connection:
        rows = await connection.fetch(
            "SELECT principal, withdrawn_at IS NOT NULL AS withdrawn, revoked, replaced_by IS NOT NULL AS replaced, "
            "notice_text FROM consents ORDER BY id"
        )
    assert [tuple(row) for row in rows] == [
        ("paula", True, False, False, "Yes."),
        ("peter", True, False, False, "Yes."),
        ("paula", False, False, True, "Yes."),
        ("paula", False, False, False, "Yes."),
        ("paula", True, True, False, "Yes."),
        ("paula", False, False, False, "Yes."),
        ("owner", True, False, False, "Yes."),
        ("owner", False, False, False, "Yes."),
    ]
    await database.migrate("upgrade", AFTER)
    async with client_on(database, settings, "owner") as owner:
        assert await reason(owner, regranted, "voice") == "refused"  # the withdrawal locks it again
        assert (await verify(owner, regranted))["valid"] is True


GIVE = "SELECT consent_id FROM give_consent($1, $2, $3, $4, '', 'api', $5, '1', 'en', 'Yes.', NULL, NULL, NULL)"


async def test_who_acted_is_told_by_the_events_and_of_nobody_else(database: Database, settings: Settings) -> None:
    await database.migrate("upgrade", NOES)
    acme = "https://issuer.example\norg_id\nacme"
    async with database.owner() as connection:

        async def twin(owner: str) -> Any:
            sql = "INSERT INTO twins (owner, twin_name, use_case, tone) VALUES ($1, 'a', 'b', 'c') RETURNING id"
            return await connection.fetchval(sql, owner)

        async def give(twin_id: UUID, owner: str, actor: str, person: str, purpose: str) -> Any:
            return await connection.fetchval(GIVE, twin_id, owner, actor, person, [purpose])

        alices, acmes = await twin("alice"), await twin(acme)
        consents = [
            (await give(alices, "alice", "alice", "alice", "own"), "alice", "alice"),
            (await give(alices, "alice", "alice", "paula", "for-paula"), "alice", "alice"),
            (await give(alices, "alice", "alice", "paula", "ended"), "alice", None),
            (await give(acmes, acme, "bob", "paula", "by-a-member"), None, None),
            (await give(acmes, acme, "bob", "bob", "his-own"), "bob", None),
            (await give(alices, "alice", "alice", "erased", "gone"), None, None),
            (await give(alices, "paula", "paula", "paula", "hers"), "paula", "paula"),
        ]
        end = "SELECT FROM revoke_consent($1, $2, $3, $4, NULL)"
        for twin_id, owner, actor, (consent, *_) in (
            (alices, "alice", "alice", consents[0]),
            (alices, "alice", "alice", consents[1]),
            (acmes, acme, "bob", consents[3]),
        ):
            await connection.execute(end, twin_id, owner, actor, consent)
        say = "SELECT FROM say_no($1, $2, $3, $4, NULL, $5)"
        await connection.execute(say, alices, None, "operator", True, consents[2][0])
        await connection.execute(say, alices, None, "paula", False, consents[6][0])
        await connection.execute("DELETE FROM salts WHERE lineage = $1", consents[5][0])
    for _ in range(2):
        await database.migrate("upgrade", AFTER)
        async with database.owner() as connection:
            given = dict(await connection.fetch("SELECT id, actor FROM consents"))
            ended = dict(await connection.fetch("SELECT lineage, actor FROM withdrawals"))
        assert [given[consent] for consent, *_ in consents] == [actor for _, actor, _ in consents]
        assert [ended.get(consent) for consent, *_ in consents] == [actor for *_, actor in consents]
        async with client_on(database, settings, "alice") as alice:
            assert (await verify(alice, f"/api/v1/twins/{alices}"))["reason"] is None
        await database.migrate("downgrade", NOES)


async def test_pseudonyms_of_erased_people_become_random_for_each_line_of_renewals_and_no_account_can_have_one(
    database: Database,
) -> None:
    await database.migrate("upgrade", "20261128_4")
    async with database.owner() as connection:
        twin_id = await connection.fetchval(
            "INSERT INTO twins (owner, twin_name, use_case, tone) VALUES ('owner', 'a', 'b', 'c') RETURNING id"
        )
        lines = [uuid4() for _ in range(3)]
        for n, (line, principal) in enumerate(
            [(lines[0], "erased:0123456789abcdef")] * 2
            + [(lines[1], "erased:0123456789abcdef"), (lines[2], "erased:by hand")]
        ):
            consent_id = uuid4()
            await connection.execute(
                """
                INSERT INTO consents (id, twin_id, lineage, principal, method, purposes, notice_version,
                    notice_language, notice_text, notice_sha256, given_at)
                VALUES ($1, $2, $3, $4, 'api', '{x}', '1', 'en', 'Yes.', sha256('Yes.'), now())
                """,
                *(consent_id, twin_id, line, principal),
            )
            event = json.dumps({"type": "given", "consent_id": str(consent_id), "at": "2026-01-01T00:00:00.000000Z"})
            await connection.execute(
                "INSERT INTO consent_events VALUES ($1, $2, $3, sha256(convert_to($3, 'UTF8')))", twin_id, n + 1, event
            )
    await database.migrate("upgrade", AFTER)
    async with database.owner() as connection:
        rows = await connection.fetch("SELECT lineage, principal FROM consents ORDER BY lineage")
        named = await connection.fetch("SELECT account FROM named_accounts")
    names = {line: {row["principal"] for row in rows if row["lineage"] == line} for line in lines}
    (first,), (second,), (other,) = names.values()

    assert first.startswith("\x01erased:")
    assert second.startswith("\x01erased:")
    assert first != second
    assert other == "erased:by hand"
    assert [row["account"] for row in named] == [other]
    await database.migrate("downgrade", "20261128_4")
    async with database.owner() as connection:
        stored = {row["principal"] for row in await connection.fetch("SELECT principal FROM consents")}
    assert stored == {first.removeprefix("\x01"), second.removeprefix("\x01"), other}


KEYS = "20261128_7"
"""The last revision whose versions had keys without their twin."""


async def test_every_answer_is_the_same_before_and_after_the_keys_have_the_twin(
    database: Database, settings: Settings
) -> None:
    await database.migrate("upgrade", AFTER)
    reads = (
        "",
        "/consents",
        "/refusals",
        "/decision",
        "/decision?purpose=voice",
        "/ledger",
        "/persona",
        "/persona/versions",
    )

    async def answers() -> list[Any]:
        async with client_on(database, settings, "olga") as olga:
            found = [(await olga.get(path + read)).json() for read in reads]
            assert (await verify(olga, path))["valid"] is True
        for decision in found[3:5]:
            del decision["evaluated_at"]
        return found

    async with client_on(database, settings, "olga") as olga:
        made = await olga.post("/api/v1/twins", json=ALEX | {"principals": ["paula"]})
        path = f"/api/v1/twins/{made.json()['id']}"
        assert (await olga.put(f"{path}/persona", json={"summary": "One."})).status_code == 200
        erased = await olga.post("/api/v1/twins", json=ALEX)
        assert (await olga.delete(f"/api/v1/twins/{erased.json()['id']}")).status_code == 204
    async with client_on(database, settings, "paula") as paula:
        given = await paula.post(f"{path}/consents", json={"purposes": ["voice", "face"], "notice": NOTICE})
        assert given.status_code == 201
        refused = await paula.post(f"{path}/refusals", json={"purposes": ["voice"]})
        assert refused.status_code == 201
    before = await answers()
    await database.migrate("downgrade", KEYS)
    async with database.owner() as connection:
        reasons = await connection.fetch(
            "SELECT d.reason FROM twins t, unnest(ARRAY['general', 'voice', 'face', 'more']) p, "
            "decision_of(t.id, t.stop_seq, p) d WHERE t.id = $1",
            id_of(path),
        )
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(
                "INSERT INTO persona_versions (twin_id, version, document_id) "
                "SELECT t.id, 9, v.document_id FROM twins t, persona_versions v WHERE t.id <> v.twin_id"
            )
    assert [row["reason"] for row in reasons] == ["granted", "refused", "granted", "no_consent"]
    await database.migrate("upgrade", AFTER)

    assert await answers() == before
    assert [decision["reason"] for decision in before[3:5]] == ["granted", "refused"]


JOURNAL = "20261128_9"
"""The last revision that did not know whose word a consent is."""


async def test_consents_from_before_are_recorded_and_assurance_survives_the_way_down_and_up(
    database: Database, settings: Settings
) -> None:
    await database.migrate("upgrade", JOURNAL)
    async with database.owner() as connection:
        twin_id = await connection.fetchval(
            "INSERT INTO twins (owner, twin_name, use_case, tone, principals) "
            "VALUES ('olga', 'a', 'b', 'c', '{paula}') RETURNING id"
        )
        for actor, person, purpose in (("olga", "quentin", "old"), ("paula", "paula", "own")):
            await connection.fetchval(GIVE, twin_id, actor, actor, person, [purpose])
        texts = [row["event"] for row in await connection.fetch("SELECT event FROM consent_events ORDER BY seq")]
    path = f"/api/v1/twins/{twin_id}"

    async def seen() -> list[Any]:
        async with client_on(database, settings, "olga") as olga:
            consents = (await olga.get(f"{path}/consents")).json()["items"]
            decisions = [
                (await olga.get(f"{path}/decision", params={"purpose": purpose})).json()
                for purpose in ("old", "own", "new")
            ]
            entries = await ledger(olga, path)
            assert (await verify(olga, path))["reason"] is None
        found = [(one["reason"], one["assurance"]) for one in decisions]
        return [consents, found, entries]

    await database.migrate("upgrade", AFTER)
    assert (await seen())[1] == [("granted", "recorded"), ("granted", "recorded"), ("no_consent", None)]
    async with client_on(database, settings, "paula") as paula:
        given = await paula.post(f"{path}/consents", json={"purposes": ["new"], "notice": NOTICE})
        assert given.status_code == 201
    before = await seen()
    assert before[1][2] == ("granted", "token")
    await database.migrate("downgrade", JOURNAL)
    async with database.owner() as connection:
        rows = await connection.fetch("SELECT event FROM consent_events ORDER BY seq")
        again = await connection.fetchval(GIVE, twin_id, "paula", "paula", "paula", ["down"])
    assert [row["event"] for row in rows][:2] == texts
    assert again is not None
    await database.migrate("upgrade", AFTER)
    consents, found, entries = await seen()
    assert (consents[1:], found, entries[:-1]) == (before[0], before[1], before[2])
    assert consents[0]["assurance"] == "recorded"


@pytest.mark.parametrize(
    ("terms", "what"),
    [
        ({"modalities": ["text"]}, "1 consents with terms of the second edition"),
        ({"principal": {"label": "Alex"}}, "1 consents with terms of the second edition"),
        (None, "1 consents that a person's own took the place of"),
    ],
)
async def test_the_schema_before_cannot_say_what_is_new(
    database: Database, settings: Settings, terms: dict[str, Any] | None, what: str
) -> None:
    await database.migrate("upgrade", AFTER)
    body = {"purposes": ["voice"], "notice": NOTICE}
    async with client_on(database, settings, "olga") as olga, client_on(database, settings, "paula") as paula:
        path = (await olga.post("/api/v1/twins", json=ALEX | {"principals": ["paula"]})).headers["location"]
        assert (await olga.post(f"{path}/consents", json=body | (terms or {}))).status_code == 201
        if terms is None:
            assert (await paula.post(f"{path}/consents", json=body)).status_code == 201
    with pytest.raises(SystemExit, match=what):
        await database.migrate("downgrade", JOURNAL)
    async with client_on(database, settings, "olga") as olga:
        assert (await verify(olga, path))["reason"] is None


async def test_the_schema_before_cannot_say_that_a_renewal_left_out_a_purpose(
    database: Database, settings: Settings
) -> None:
    await database.migrate("upgrade", AFTER)
    async with client_on(database, settings, "olga") as olga:
        path = (await olga.post("/api/v1/twins", json=ALEX)).headers["location"]
        consent = await grant(olga, path, "voice", "face")
        await renew(olga, consent, purposes=["voice"])
    with pytest.raises(SystemExit, match="1 purposes that a renewal left out"):
        await database.migrate("downgrade", JOURNAL)
