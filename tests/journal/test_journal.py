"""Every no, and every opening, is an entry of the journal when it is answered, and names nobody."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from pymongo import MongoClient

from migrations import mongo as schema
from shared.stores import outbox
from shared.stores.mongo import Mongo
from tests.support.app import Client, ClientOf, id_of, make_twin
from tests.support.consent import HOUR, after, grant, ledger, location, reason, renew, withdraw
from tests.support.database import owner_of
from tests.support.erasure import documents_of, erase
from tests.support.stores import Stores
from twins import resources
from twins.context import Context
from twins.journal import documents, service
from twins.settings import Settings


@pytest.fixture
def sub() -> str:
    return f"paula-{uuid4()}"


@pytest.fixture
def paula(client_of: ClientOf, sub: str) -> Client:
    return client_of(sub)


@pytest.fixture
def operator(client_of: ClientOf) -> Client:
    return client_of(f"operator-{uuid4()}", "twins:stop")


def entries(stores: Stores, path: str) -> list[dict[str, Any]]:
    return sorted(documents_of(stores, subject=id_of(path))["journal"], key=lambda entry: entry["seq"])


def said(stores: Stores, path: str) -> list[tuple[str, str | None, list[str] | None]]:
    """Return the type, the side and the purposes of each entry of a twin."""
    found = [entry["entry"] for entry in entries(stores, path)]
    return [(e["type"], e.get("by"), e.get("purposes") and sorted(e["purposes"])) for e in found]


async def refuse(client: Client, path: str, *purposes: str) -> str:
    answer = await client.post(f"{path}/refusals", json={"purposes": purposes} if purposes else None)
    assert answer.status_code in (200, 201), answer.text
    return f"{path}/refusals/{answer.json()['id']}"


async def test_each_kind_of_no_is_an_entry_with_its_purposes(
    alice: Client, paula: Client, operator: Client, sub: str, stores: Stores
) -> None:
    path = await make_twin(alice, principals=[sub])
    assert entries(stores, path) == []  # a yes is none
    assert (await alice.patch(path, json={"consent": False})).status_code == 200
    both = await grant(paula, path, "voice", "face")
    answer = await paula.post(f"{location(both)}/withdraw", json={"purposes": ["face"]})
    assert answer.status_code == 200
    refusal = await refuse(paula, path, "text")
    await refuse(paula, path, "text", "dance")  # wider
    await grant(paula, path, "text")  # opens what it grants
    await refuse(operator, path, "song")
    await refuse(paula, path)
    await grant(paula, path, "opera")  # an exception
    await refuse(paula, path, "opera")  # no longer
    assert (await paula.delete(refusal)).status_code == 204

    assert said(stores, path) == [
        ("withdrawn", "owner", ["general"]),
        ("withdrawn", "person", ["face"]),
        ("refused", "person", ["text"]),
        ("refused", "person", ["dance", "text"]),
        ("opened", "person", ["text"]),
        ("refused", "operator", ["song"]),
        ("refused", "person", None),
        ("opened", "person", ["opera"]),
        ("refused", "person", ["opera"]),
        ("opened", "person", None),
    ]
    events = {entry["event"]["seq"]: entry["hash"] for entry in await ledger(alice, path)}
    assert {entry["seq"]: entry["_id"].hex() for entry in entries(stores, path)}.items() <= events.items()
    openers = {(e["entry"].get("opener_kind"), "opener" in e["entry"]) for e in entries(stores, path)}
    assert openers == {(None, False), ("account", True), ("operator", False)}
    assert sub not in json.dumps(entries(stores, path), default=str)


@pytest.mark.parametrize(
    ("before", "later", "is_narrower"),
    [
        ({}, {"expires_at": 2}, True),
        ({"expires_at": 5}, {"expires_at": 2}, True),
        ({"expires_at": 5}, {}, False),
        ({"expires_at": 5}, {"expires_at": 9}, False),
        ({"expires_at": 5}, {"expires_at": None}, False),
        ({}, {}, False),
    ],
)
async def test_a_renewal_is_an_entry_where_it_narrows(
    alice: Client, stores: Stores, before: dict[str, int], later: dict[str, int | None], is_narrower: bool
) -> None:
    def terms(hours: dict[str, Any]) -> dict[str, str | None]:
        return {name: None if number is None else after(number * HOUR) for name, number in hours.items()}

    path = await make_twin(alice, consent=False)
    await renew(alice, await grant(alice, path, "voice", **terms(before)), **terms(later))
    assert said(stores, path) == ([("renewed", None, ["voice"])] if is_narrower else [])


async def test_erasures_are_entries_and_those_of_accounts_have_digests_alone(
    alice: Client, paula: Client, sub: str, stores: Stores, context: Context
) -> None:
    path = await make_twin(alice, principals=[sub])
    await grant(paula, path, "voice")
    erasure = await erase(alice, path)
    (entry,) = entries(stores, path)
    assert (entry["entry"]["type"], entry["entry"]["erasure_id"]) == ("erased", str(id_of(erasure)))
    own = await make_twin(paula)
    answer = await paula.delete("/api/v1/me")
    assert answer.status_code == 202
    digest = context.account_digest(sub)
    (entry,) = [e for e in documents_of(stores)["journal"] if e["entry"].get("digest") == digest.hex()]
    assert entry["entry"].keys() == {"type", "erasure_id", "digest", "owner_digest"}
    assert entry["subject"].bytes == digest[:16]
    assert entries(stores, own) == []  # with its account


async def test_an_account_erased_before_its_entry_is_written_is_not_in_it(
    alice: Client, paula: Client, sub: str, stores: Stores, context: Context
) -> None:
    path = await make_twin(alice, principals=[sub])
    async with context.postgres.connection() as connection:
        await connection.execute("SELECT say_no($1, NULL, $2, false, '{voice}', NULL)", id_of(path), sub)
    answer = await paula.delete("/api/v1/me")
    for _ in range(20):
        await outbox.drain(context.postgres, resources.jobs(context), subject=id_of(answer.headers["location"]))
        async with owner_of(stores) as connection:
            await connection.execute("UPDATE outbox SET run_at = now()")
            if not await connection.fetchval("SELECT count(*) FROM named_accounts WHERE account = $1", sub):
                break
    await service.write(context, id_of(path))
    kinds = [(entry["entry"]["type"], entry["entry"]["opener_kind"]) for entry in entries(stores, path)]
    assert kinds == [("refused", "none")]


@pytest.fixture
async def mongod_away(stores: Stores) -> AsyncIterator[None]:
    """MongoDB hangs."""
    await asyncio.to_thread(stores.mongod.pause)
    yield
    await asyncio.to_thread(stores.mongod.resume)


async def test_a_no_waits_for_a_journal_that_hangs_for_two_tenths_of_a_second(
    alice: Client, stores: Stores, context: Context
) -> None:
    path = await make_twin(alice)
    (consent,) = (await alice.get(f"{path}/consents")).json()["items"]
    await asyncio.to_thread(stores.mongod.pause)
    try:
        started = time.monotonic()
        await withdraw(alice, consent)
        taken = time.monotonic() - started
        assert await reason(alice, path) == "withdrawn"
    finally:
        await asyncio.to_thread(stores.mongod.resume)
    assert 0.19 < taken < 0.2 + 0.25
    for _ in range(100):
        async with owner_of(stores) as connection:
            await connection.execute("UPDATE outbox SET run_at = now() WHERE kind = 'journal'")
        await outbox.drain(context.postgres, resources.jobs(context), subject=id_of(path))
        if entries(stores, path):
            break
        await asyncio.sleep(0.1)
    assert said(stores, path) == [("withdrawn", "owner", ["general"])]
    async with owner_of(stores) as connection:
        assert not await connection.fetchval("SELECT count(*) FROM journal_entries WHERE subject = $1", id_of(path))
        assert not await connection.fetchval("SELECT count(*) FROM outbox WHERE subject = $1", id_of(path))


@pytest.mark.usefixtures("mongod_away")
async def test_many_noes_wait_no_longer_while_the_journal_hangs(alice: Client) -> None:
    paths = [await make_twin(alice) for _ in range(40)]
    started = time.monotonic()
    answers = await asyncio.gather(*(alice.patch(path, json={"consent": False}) for path in paths))
    assert {answer.status_code for answer in answers} == {200}
    assert time.monotonic() - started < 3


async def test_a_second_write_changes_nothing(alice: Client, stores: Stores, context: Context) -> None:
    path = await make_twin(alice)
    (consent,) = (await alice.get(f"{path}/consents")).json()["items"]
    await withdraw(alice, consent)
    await service.write(context, id_of(path))  # the attempt after the answer may have been too slow
    before = entries(stores, path)
    async with owner_of(stores) as connection:
        await connection.execute(
            """
            INSERT INTO journal_entries
            SELECT twin_id, hash, seq, now(), '{"type": "withdrawn"}' FROM consent_events WHERE twin_id = $1 AND seq = 2
            """,
            id_of(path),
        )
    await asyncio.gather(*(service.write(context, id_of(path)) for _ in range(3)))
    assert entries(stores, path) == before
    assert len(before) == 1


async def test_entries_go_at_their_age_and_not_before(stores: Stores, context: Context) -> None:
    days = context.settings.journal_retention_days
    now = datetime.now(UTC)
    subject = uuid4()
    from twins.journal import documents

    made = [
        documents.entry_of(
            subject, bytes([age]) * 32, 1, now - timedelta(days=days + age - 1, hours=1), {"type": "x"}, None
        )
        for age in (0, 1)
    ]
    await documents.add(context.mongo, made)
    await service.forget(context)
    left = documents_of(stores, subject=subject)["journal"]
    assert [entry["_id"] for entry in left] == [bytes(32)]


@pytest.mark.parametrize(
    ("before", "later", "purposes"),
    [
        ({}, {"modalities": ["text"]}, ["face", "voice"]),
        ({"modalities": ["text", "voice"]}, {"modalities": ["text"]}, ["face", "voice"]),
        ({}, {"territories": ["DE"]}, ["face", "voice"]),
        ({}, {"recipients": [{"type": "org", "id": "studio"}]}, ["face", "voice"]),
        ({"territories": ["DE"]}, {"territories": ["DE", "FR"]}, None),
        ({"recipients": [{"type": "org", "id": "studio"}]}, {"recipients": None}, None),
        ({}, {"purposes": ["voice"]}, ["face"]),
        ({}, {"jurisdiction": "DE"}, None),
    ],
)
async def test_a_renewal_that_limits_or_leaves_out_is_an_entry(
    alice: Client, stores: Stores, before: dict[str, Any], later: dict[str, Any], purposes: list[str] | None
) -> None:
    path = await make_twin(alice, consent=False)
    await renew(alice, await grant(alice, path, "voice", "face", **before), **later)

    assert said(stores, path) == ([] if purposes is None else [("renewed", None, purposes)])


async def test_what_a_persons_own_yes_takes_is_an_entry(alice: Client, paula: Client, sub: str, stores: Stores) -> None:
    path = await make_twin(alice, consent=False, principals=[sub])
    await grant(alice, path, "voice", "face", principal={"label": "Alex"})
    await grant(alice, path, "text")
    await grant(paula, path, "voice", "text", modalities=["text"])

    assert said(stores, path) == [("replaced", "person", ["voice"]), ("replaced", "person", ["text"])]


async def test_a_page_reads_no_more_than_it_has(stores: Stores, settings: Settings) -> None:
    """So a comparison after a restore costs what was journalled since, and not its square."""
    name = f"pages_{uuid4().hex[:8]}"
    schema.ensure(stores.mongod.uri, name)
    mongo = Mongo(settings.model_copy(update={"mongodb_database": name}))
    client: MongoClient[dict[str, Any]] = MongoClient(stores.mongod.uri, uuidRepresentation="standard")
    try:
        database, start = client[name], datetime(2026, 1, 1, tzinfo=UTC)
        made = [
            documents.entry_of(
                uuid4(), uuid4().bytes, 1, start + timedelta(seconds=number // 3), {"type": "refused"}, None
            )
            for number in range(1000)
        ]
        database["journal"].insert_many(made)
        database.command("profile", 2)
        found, at, digest = [], documents.moment(start - timedelta(seconds=1)), b""
        while page := await documents.find_after(mongo, at, digest, 100):
            found += page
            at, digest = page[-1]["at"], page[-1]["_id"]
        looked = [row.get("docsExamined", 0) for row in database["system.profile"].find({"ns": f"{name}.journal"})]
        assert [entry["_id"] for entry in found] == [
            entry["_id"] for entry in sorted(made, key=lambda entry: (entry["at"], entry["_id"]))
        ]
        assert max(looked) <= 110
    finally:
        await mongo.close()
        client.drop_database(name)
        client.close()
