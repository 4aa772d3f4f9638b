"""Erasure: gone at once, swept twice from both stores, certified with what was there."""

import asyncio
import hashlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from devstack.functions_host import Worker
from shared.stores import outbox
from tests.hostile.operations import operations, possessions
from tests.support.app import ALEX, MISSING, Client, ClientOf, id_of, is_problem, make_twin
from tests.support.consent import NOTICE, grant, ledger, location, renew, withdraw
from tests.support.database import superuser
from tests.support.erasure import certificate_of, documents_of, dump, erase, erasure_of, finish, go_on, removed, traces
from tests.support.stores import Stores
from twins.context import Context
from twins.erasure import certificate as certificates
from twins.erasure import queries, sweep
from twins.erasure.models import KIND
from twins.persona import documents
from twins.persona import sweep as persona
from twins.persona.models import Persona
from twins.twin import service as twins

PERSONA = {"summary": "Sells bicycles.", "extensions": {"$a": {".b": 1}}}


async def with_persona(client: Client, versions: int = 1, **changes: Any) -> str:
    path = await make_twin(client, **changes)
    for n in range(versions):
        assert (await client.put(f"{path}/persona", json=PERSONA | {"greeting": f"Version {n}."})).status_code == 200
    return path


# --- Gone at once -----------------------------------------------------------------------------------


async def test_an_erased_twin_is_gone_for_everybody_on_every_route(alice: Client, client_of: ClientOf) -> None:
    ids = {"refusal_id": MISSING} | await possessions(alice)
    path = f"/api/v1/twins/{ids['twin_id']}"
    assert (await alice.patch(path, json={"principals": ["paula"]})).status_code == 200
    others = [client_of("paula"), client_of("gateway", "twins:decide")]
    consent = await grant(others[0], path, "voice")
    await erase(alice, path)
    routes = [operation for operation in operations() if "twin_id" in operation.ids]

    assert len(routes) >= 20
    for operation in routes:
        for client in (alice, *others):
            answer = await client.send(operation.request(client, ids | {"consent_id": consent["id"]}))
            if client is alice and (operation.method, operation.path) == ("DELETE", "/api/v1/twins/{twin_id}"):
                assert answer.status_code == 204
                continue
            assert is_problem(answer, 404, "not-found"), operation
    assert (await alice.get("/api/v1/twins")).json()["items"] == []


async def test_an_erasure_is_known_only_to_who_asked_for_it(alice: Client, bob: Client, anyone: Client) -> None:
    url = await erase(alice, await make_twin(alice))

    assert (await alice.get(url)).status_code == 200
    assert is_problem(await bob.get(url), 404, "not-found")
    assert is_problem(await alice.get(f"/api/v1/erasures/{MISSING}"), 404, "not-found")
    assert is_problem(await anyone.get(url), 401, "unauthorized")


async def test_a_refused_deletion_erases_nothing(alice: Client, bob: Client, stores: Stores) -> None:
    path = await with_persona(alice)
    before = await alice.get(f"{path}/persona")
    stale = await alice.delete(path, headers={"If-Match": '"stale"'})
    assert is_problem(stale, 412, "precondition-failed")
    assert is_problem(await bob.delete(path), 404, "not-found")

    assert (await alice.get(f"{path}/persona")).json() == before.json()
    assert len(documents_of(stores, twin_id=id_of(path))["personas"]) == 1


async def test_of_deletions_at_once_one_erases(alice: Client, context: Context) -> None:
    path = await with_persona(alice)
    answers = await asyncio.gather(*(alice.delete(path) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {204}
    (url,) = {answer.headers["location"] for answer in answers}
    await finish(context, url)

    erasure = await erasure_of(alice, url)
    assert erasure["removed"] == removed(twins=1, persona_versions=1, persona_documents=1, consents=1)


# --- The job and its certificate ----------------------------------------------------------------------


async def test_a_certificate_counts_what_was_removed_and_proves_the_ledger(alice: Client, context: Context) -> None:
    key = {"Idempotency-Key": "make"}
    made = await alice.post("/api/v1/twins", json=ALEX, headers=key)
    path = made.headers["location"]
    for n in range(3):
        await alice.put(f"{path}/persona", json=PERSONA | {"greeting": f"Version {n}."})
    await alice.post(f"{path}/persona/versions/1/restore", headers={"Idempotency-Key": "restore"})
    await documents.insert_document(context.mongo, id_of(path), Persona(summary="No version refers to it."))
    await withdraw(alice, await renew(alice, await grant(alice, path, "voice", principal="paula")))
    entries = await ledger(alice, path)
    url = await erase(alice, path)

    running = await erasure_of(alice, url)
    assert (running["state"], running["completed_at"], running["certificate"]) == ("running", None, None)
    await finish(context, url)
    erasure = await erasure_of(alice, url)
    expected = removed(twins=1, persona_versions=4, persona_documents=5, consents=3)
    assert (erasure["state"], erasure["twins"], erasure["removed"]) == ("complete", 1, expected)
    assert erasure["requested_at"] < erasure["completed_at"]

    certificate = await certificate_of(alice, erasure)
    assert certificate["erasure_id"] == erasure["id"] == str(id_of(url))
    assert certificate["removed"] == expected
    assert certificate["remaining"] == removed()
    for name in ("requested_at", "completed_at"):
        assert certificate[name].rstrip("0Z") == erasure[name].rstrip("0Z")
    (head,) = certificate["ledgers"]
    assert (head["twin_id"], head["seq"]) == (str(id_of(path)), len(entries) + 1)
    events = certificate["events"]
    assert events[:-1] == [entry["event"] for entry in entries]
    assert (events[-1]["type"], events[-1]["erasure_id"]) == ("erased", erasure["id"])
    previous = "0" * 64
    for event in events:
        assert event["prev_hash"] == previous
        previous = hashlib.sha256(json.dumps(event, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert previous == head["head"]


async def test_what_is_left_of_a_twin_is_a_ledger_without_its_salt(
    alice: Client, context: Context, stores: Stores
) -> None:
    path = await with_persona(alice)
    await finish(context, await erase(alice, path))
    async with superuser(stores) as connection:
        twin = await connection.fetchrow("SELECT * FROM twins WHERE id = $1", id_of(path))
        rows = await connection.fetch("SELECT * FROM consent_events WHERE twin_id = $1 ORDER BY seq", id_of(path))
        salts = await connection.fetchval("SELECT count(*) FROM salts WHERE twin_id = $1", id_of(path))

    assert twin is not None
    assert {twin[name] for name in ("owner", "twin_name", "use_case", "tone")} == {None}
    assert (twin["principals"], salts) == ([], 0)
    head = bytes(32)
    for n, row in enumerate(rows, start=1):
        event = json.loads(row["event"])
        assert (row["seq"], event["seq"], event["prev_hash"]) == (n, n, head.hex())
        head = hashlib.sha256(row["event"].encode()).digest()
        assert row["hash"] == head
    assert (len(rows), head) == (twin["ledger_seq"], twin["ledger_hash"])


async def test_a_ledger_too_long_for_a_certificate_is_in_it_by_its_head(
    alice: Client, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "MAX_EVENTS", 2)
    short, long = await make_twin(alice), await make_twin(alice)
    await grant(alice, long, "voice")
    found = []
    for path in (short, long):
        url = await erase(alice, path)
        await finish(context, url)
        found.append(await certificate_of(alice, await erasure_of(alice, url)))

    assert [len(certificate["events"] or ()) for certificate in found] == [2, 0]
    assert found[1]["events"] is None
    assert found[1]["ledgers"][0]["seq"] == 3


async def test_the_second_sweep_takes_what_a_racing_write_left_and_counts_it(
    alice: Client, context: Context, stores: Stores
) -> None:
    path = await with_persona(alice)
    url = await erase(alice, path)
    await go_on(context, url)
    assert documents_of(stores, twin_id=id_of(path))["personas"] == []
    assert (await erasure_of(alice, url))["state"] == "running"
    await documents.insert_document(context.mongo, id_of(path), Persona(summary="Late."))
    await finish(context, url)

    assert (await erasure_of(alice, url))["removed"]["persona_documents"] == 2
    assert documents_of(stores, twin_id=id_of(path))["personas"] == []


async def test_the_second_sweep_waits_as_long_as_it_is_set_to(alice: Client, context: Context) -> None:
    url = await erase(alice, await make_twin(alice))
    await go_on(context, url)
    async with context.postgres.connection() as connection:
        wait = await connection.fetchval(
            "SELECT extract(epoch FROM run_at - now())::float FROM outbox WHERE subject = $1", id_of(url)
        )
    assert 0 < wait <= context.settings.erasure_second_sweep

    await asyncio.sleep(wait)
    await outbox.drain(context.postgres, sweep.handlers(context), subject=id_of(url))
    assert (await erasure_of(alice, url))["state"] == "complete"


async def test_nothing_is_certified_while_something_is_left(
    alice: Client, context: Context, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await with_persona(alice)
    url = await erase(alice, path)
    await go_on(context, url)
    remaining = twins.remaining
    late = [Persona(summary=f"Late {n}.") for n in range(2)]

    async def count_and_write(connection: Any, twin_ids: Sequence[UUID]) -> Any:
        if late:  # a write that falls between the sweep and the proof
            await documents.insert_document(context.mongo, id_of(path), late.pop())
        return await remaining(connection, twin_ids)

    monkeypatch.setattr(twins, "remaining", count_and_write)
    for _ in range(2):
        await go_on(context, url)
        assert (await erasure_of(alice, url))["state"] == "running"
        async with context.postgres.connection() as connection:
            error = await connection.fetchval("SELECT last_error FROM outbox WHERE subject = $1", id_of(url))
        assert error == "RemainsError"
    await finish(context, url)

    assert (await erasure_of(alice, url))["removed"]["persona_documents"] == 3
    assert documents_of(stores, twin_id=id_of(path))["personas"] == []


async def test_a_sweep_too_long_for_one_run_goes_on_in_the_next(
    alice: Client, context: Context, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await with_persona(alice, versions=5)
    monkeypatch.setattr(persona, "_BATCH", 2)
    url = await erase(alice, path)
    monkeypatch.setattr(sweep, "_WORK", 0.0)
    await finish(context, url)

    erasure = await erasure_of(alice, url)
    assert erasure["removed"] == removed(twins=1, persona_versions=5, persona_documents=5, consents=1)
    assert documents_of(stores, twin_id=id_of(path))["personas"] == []


# --- Nothing is left, and nothing else is touched -------------------------------------------------------


async def test_a_dump_of_both_stores_has_no_trace_of_an_erased_twin(
    client_of: ClientOf, context: Context, stores: Stores
) -> None:
    owner = client_of(f"owner-kunigunde-{uuid4()}")
    body = {"twin_name": "Waldemar-Ünïq", "use_case": "zither lessons", "tone": "operatic", "consent": True}
    made = await owner.post("/api/v1/twins", json=body, headers={"Idempotency-Key": "make"})
    path = made.headers["location"]
    notice = {"version": "xylo-3", "language": "en", "text": "Waldemar may yodel for me."}
    terms = {"purposes": ["yodelling"], "principal": "principal-leopold", "method": "by-carrier-pigeon"}
    given = await owner.post(f"{path}/consents", json=terms | {"notice": notice}, headers={"Idempotency-Key": "give"})
    renewed = f"{location(given.json())}/renew"
    assert (await owner.post(renewed, headers={"Idempotency-Key": "renew"})).status_code == 201
    zeppelins = {
        "summary": "Sells zeppelins at dusk.",
        "greeting": "Ahoy, aeronaut!",
        "traits": ["buoyant"],
        "facts": [{"text": "Helium is dear.", "source": "Book of Gases"}],
        "examples": [{"user": "Up?", "twin": "Always upwards."}],
        "extensions": {"$hangar": {"berth": "number-nine"}},
    }
    for content in (zeppelins, {"summary": "Another."}):
        assert (await owner.put(f"{path}/persona", json=content)).status_code == 200
    await owner.post(f"{path}/persona/versions/1/restore", headers={"Idempotency-Key": "restore"})
    words = (
        *("kunigunde", "waldemar", "zither", "operatic", "xylo-3", "yodel", "leopold", "carrier-pigeon"),
        *("zeppelin", "aeronaut", "buoyant", "helium", "book of gases", "always upwards", "hangar", "number-nine"),
    )
    before = await dump(stores)
    assert {word for _, word in traces(before, *words)} == set(words)
    # A key keeps an id, and nothing of what it made.
    assert "idempotency_keys" not in {name for name, _ in traces(before, *words)}

    url = await erase(owner, path)
    # The twin has lost its names when the answer is there; the job removes what belonged to it.
    at_once = await dump(stores)
    assert {name for name, _ in traces(at_once, *words)} & {"twins", "consent_events", "erasures", "outbox"} == set()
    await finish(context, url)
    assert traces(await dump(stores), *words) == []
    certificate = await certificate_of(owner, await erasure_of(owner, url))
    assert traces({"certificate": [json.dumps(certificate)]}, *words) == []


async def test_the_answer_to_a_repeated_request_is_that_it_was_erased(alice: Client, context: Context) -> None:
    keys = [{"Idempotency-Key": name} for name in ("make", "give", "restore")]
    made = await alice.post("/api/v1/twins", json=ALEX, headers=keys[0])
    path = made.headers["location"]
    await alice.put(f"{path}/persona", json=PERSONA)
    requests = [
        ("/api/v1/twins", ALEX, keys[0]),
        (f"{path}/consents", {"purposes": ["voice"], "notice": NOTICE}, keys[1]),
        (f"{path}/persona/versions/1/restore", None, keys[2]),
    ]
    for url, body, key in requests[1:]:
        assert (await alice.post(url, json=body, headers=key)).status_code == 201
    await finish(context, await erase(alice, path))

    for url, body, key in requests:
        gone = await alice.post(url, json=body, headers=key)
        assert is_problem(gone, 410, "answer-erased"), url
        assert gone.json()["detail"] == "What this request made has been erased."
    other = await alice.post("/api/v1/twins", json=ALEX | {"tone": "x"}, headers=keys[0])
    assert is_problem(other, 422, "idempotency-key-reused")
    assert (await alice.get("/api/v1/twins")).json()["items"] == []


async def test_nothing_of_another_twin_is_touched(alice: Client, bob: Client, context: Context, stores: Stores) -> None:
    path = await with_persona(alice, versions=2)
    kept = [await with_persona(client, versions=2) for client in (alice, bob)]
    for client, other in zip((alice, bob), kept, strict=True):
        await grant(client, other, "voice", principal="paula")

    async def rows() -> list[Any]:
        found: list[Any] = []
        async with superuser(stores) as connection:
            for table in ("twins", "consents", "consent_states", "consent_events", "persona_versions"):
                column = "id" if table == "twins" else "twin_id"
                found += await connection.fetch(
                    f"SELECT t::text FROM {table} t WHERE {column} = ANY($1) ORDER BY 1", [id_of(p) for p in kept]
                )
        return found + [documents_of(stores, twin_id=id_of(other)) for other in kept]

    before = await rows()
    await finish(context, await erase(alice, path))

    assert await rows() == before


# --- Races ------------------------------------------------------------------------------------------


async def test_persona_writes_that_race_an_erasure_leave_nothing(
    alice: Client, context: Context, stores: Stores
) -> None:
    chance = random.Random(5)
    for _ in range(10):
        path = await with_persona(alice, versions=2)

        async def write(method: str, below: str, body: object, path: str = path) -> int:
            await asyncio.sleep(chance.random() * 0.02)
            return (await alice.request(method, f"{path}/persona{below}", json=body)).status_code

        async def delete(path: str = path) -> str:
            await asyncio.sleep(0.008)
            return await erase(alice, path)

        url, *statuses = await asyncio.gather(
            delete(),
            *(write("PUT", "", PERSONA) for _ in range(4)),
            *(write("PATCH", "", {"summary": "Patched."}) for _ in range(3)),
            *(write("POST", "/versions/1/restore", None) for _ in range(3)),
        )
        assert set(statuses) <= {200, 201, 404, 409}, statuses
        await finish(context, str(url))
        erasure = await erasure_of(alice, str(url))
        made = 2 + sum(status in (200, 201) for status in statuses)
        assert erasure["removed"]["persona_versions"] == made
        assert made <= erasure["removed"]["persona_documents"] <= 12
        assert documents_of(stores, twin_id=id_of(path))["personas"] == []


async def test_consent_changes_that_race_an_erasure_leave_a_ledger_that_ends_with_it(
    alice: Client, context: Context
) -> None:
    for n in range(6):
        path = await make_twin(alice, consent=False)
        consent = await grant(alice, path, "voice")
        answers = asyncio.gather(
            *(alice.post(f"{location(consent)}/renew") for _ in range(2)),
            *(alice.post(f"{location(consent)}/withdraw") for _ in range(2)),
            *(alice.patch(path, json={"consent": bool(k % 2)}) for k in range(4)),
        )
        await asyncio.sleep(n * 0.002)
        url = await erase(alice, path)
        assert {answer.status_code for answer in await answers} <= {200, 201, 404, 409}
        await finish(context, url)
        certificate = await certificate_of(alice, await erasure_of(alice, url))

        assert certificate["remaining"] == removed()
        assert [event["type"] for event in certificate["events"]].index("erased") == len(certificate["events"]) - 1


@pytest.fixture
async def timer() -> AsyncIterator[Worker]:
    """The function app, for its timer."""
    worker = Worker()
    await worker.start()
    yield worker
    await worker.stop()


async def test_twenty_drains_and_the_timer_at_once_run_each_sweep_once(
    alice: Client, context: Context, timer: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps: Counter[UUID] = Counter()
    run = sweep.sweep

    async def counted(ctx: Context, erasure_id: UUID) -> float | None:
        sweeps[erasure_id] += 1
        return await run(ctx, erasure_id)

    urls = [await erase(alice, await with_persona(alice)) for _ in range(10)]
    for url in urls:
        await go_on(context, url)
    erasure_ids = [id_of(url) for url in urls]
    monkeypatch.setattr(sweep, "sweep", counted)
    async with context.postgres.connection() as connection:
        await connection.execute("UPDATE outbox SET run_at = now() WHERE subject = ANY($1)", erasure_ids)
    handlers = sweep.handlers(context)
    await asyncio.gather(
        *(outbox.drain(context.postgres, handlers) for _ in range(20)), *(timer.fire("drain") for _ in range(3))
    )

    assert {sweeps[erasure_id] for erasure_id in erasure_ids} == {1}
    for url in urls:
        erasure = await erasure_of(alice, url)
        assert erasure["state"] == "complete"
        assert erasure["removed"] == removed(twins=1, persona_versions=1, persona_documents=1, consents=1)


async def test_the_timer_ends_an_erasure(alice: Client, context: Context, timer: Worker) -> None:
    path = await with_persona(alice)
    url = await erase(alice, path)
    assert (await erasure_of(alice, url))["removed"]["persona_documents"] == 0
    for _ in range(2):
        async with context.postgres.connection() as connection:
            await connection.execute("UPDATE outbox SET run_at = now() WHERE subject = $1", id_of(url))
        await timer.fire("drain")

    erasure = await erasure_of(alice, url)
    assert (erasure["state"], erasure["removed"]["persona_documents"]) == ("complete", 1)


async def test_two_runs_of_one_sweep_at_once_count_once_and_certify_once(
    alice: Client, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As when a run outlives its lease and another takes the job over.
    path = await with_persona(alice, versions=5)
    url = await erase(alice, path)
    await go_on(context, url)
    for n in range(3):
        await documents.insert_document(context.mongo, id_of(path), Persona(summary=f"Late {n}."))
    signed: list[str] = []
    complete, arrived, second = queries.complete, iter(range(6)), asyncio.Event()

    async def noted(connection: Any, erasure_id: UUID, certificate: str, at: datetime) -> None:
        if next(arrived) == 1:
            second.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(second.wait(), 20)
        await complete(connection, erasure_id, certificate, at)
        signed.append(certificate)

    monkeypatch.setattr(queries, "complete", noted)
    await asyncio.gather(*(sweep.sweep(context, id_of(url)) for _ in range(6)))
    await finish(context, url)
    erasure = await erasure_of(alice, url)

    assert len(set(signed)) > 1  # ECDSA never signs twice alike
    assert erasure["certificate"] == signed[0]
    assert erasure["removed"]["persona_documents"] == 8


# --- Documents that no version refers to ------------------------------------------------------------------


async def test_an_hour_old_document_without_a_version_is_removed_and_no_other(
    alice: Client, context: Context, stores: Stores
) -> None:
    path = await with_persona(alice, versions=2)
    ids = {
        minutes: (await documents.insert_document(context.mongo, id_of(path), Persona(summary="Nobody's."))).document_id
        for minutes in (1, 59, 61, 1000)
    }
    async with context.mongo.collection("personas") as collection:
        for document_id, minutes in {document_id: minutes for minutes, document_id in ids.items()}.items():
            await collection.update_one({"_id": document_id}, [aged(minutes)])
        # Versions stay, however old they are.
        await collection.update_many({"twin_id": id_of(path), "_id": {"$nin": list(ids.values())}}, [aged(5000)])
    await look_at_all_since(context, 2000 * 60)
    assert await persona.sweep_orphans(context) == 2

    left = {document["_id"] for document in documents_of(stores, twin_id=id_of(path))["personas"]}
    assert left & set(ids.values()) == {ids[1], ids[59]}
    assert len(left) == 4
    assert (await alice.get(f"{path}/persona/versions/1")).status_code == 200


def aged(minutes: int) -> dict[str, Any]:
    return {"$set": {"created_at": {"$dateSubtract": {"startDate": "$$NOW", "unit": "minute", "amount": minutes}}}}


async def look_at_all_since(context: Context, minutes: int) -> None:
    async with context.postgres.connection() as connection:
        await connection.execute("UPDATE sweeps SET swept_until = now() - make_interval(mins => $1)", minutes)


async def test_documents_are_swept_in_batches_to_the_end_and_once(
    alice: Client, context: Context, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await with_persona(alice, versions=3)
    for _ in range(4):
        await documents.insert_document(context.mongo, id_of(path), Persona(summary="Nobody's."))
    async with context.mongo.collection("personas") as collection:
        found = await collection.find({"twin_id": id_of(path)}).sort("_id", 1).to_list(None)
        for n, document in enumerate(found):
            await collection.update_one({"_id": document["_id"]}, [aged(100 + n)])
    monkeypatch.setattr(persona, "_BATCH", 2)
    await look_at_all_since(context, 110)
    counts = [await persona.sweep_orphans(context) for _ in range(20)]

    assert counts == [4] + [0] * 19
    assert len(documents_of(stores, twin_id=id_of(path))["personas"]) == 3


async def test_documents_of_an_erasure_that_runs_are_left_for_it_to_count(
    alice: Client, context: Context, stores: Stores
) -> None:
    path = await with_persona(alice, versions=3)
    url = await erase(alice, path)
    async with context.mongo.collection("personas") as collection:
        await collection.update_many({"twin_id": id_of(path)}, [aged(100)])
    await look_at_all_since(context, 110)
    assert await persona.sweep_orphans(context) == 0
    await finish(context, url)

    erasure = await erasure_of(alice, url)
    assert erasure["removed"] == removed(twins=1, persona_versions=3, persona_documents=3, consents=1)
    assert documents_of(stores, twin_id=id_of(path))["personas"] == []


async def test_sweepers_at_once_do_not_wait_for_one_another(alice: Client, context: Context) -> None:
    path = await make_twin(alice)
    stored = await documents.insert_document(context.mongo, id_of(path), Persona(summary="Nobody's."))
    async with context.mongo.collection("personas") as collection:
        await collection.update_one({"_id": stored.document_id}, [aged(90)])
    await look_at_all_since(context, 95)
    counts = await asyncio.gather(*(persona.sweep_orphans(context) for _ in range(5)))
    assert sum(counts) == 1

    async with context.postgres.transaction() as connection:
        await connection.execute("SELECT FROM sweeps FOR UPDATE")
        assert await persona.sweep_orphans(context) == 0


async def test_a_job_of_an_erasure_that_is_not_there_ends(context: Context) -> None:
    subject = uuid4()
    async with context.postgres.connection() as connection:
        await outbox.enqueue(connection, KIND, subject)

    assert await outbox.drain(context.postgres, sweep.handlers(context), subject=subject) == 1
    assert await outbox.drain(context.postgres, sweep.handlers(context), subject=subject) == 0
