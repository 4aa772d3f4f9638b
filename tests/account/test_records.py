"""`GET /me/erasures`: what a person keeps of a twin that its owner has erased."""

import json
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.erasure.test_merkle import proves
from tests.support.app import Client, ClientOf, id_of, is_problem, make_twin
from tests.support.consent import HOUR, after, grant, pass_time, renew, withdraw
from tests.support.database import owner_of, superuser
from tests.support.erasure import certificate_of, dump, erase, erasure_of, finish, go_on, traces
from tests.support.stores import Stores
from twins.context import Context
from twins.erasure import service, sweep
from twins.erasure.people import sweep as people

RECORDS = "/api/v1/me/erasures"


@pytest.fixture
def sub() -> str:
    return f"paula-{uuid4()}"


@pytest.fixture
def paula(client_of: ClientOf, sub: str) -> Client:
    return client_of(sub)


async def records(client: Client, **query: Any) -> list[dict[str, Any]]:
    """Follow the list to its end."""
    found: list[dict[str, Any]] = []
    params = dict(query)
    while True:
        answer = await client.get(RECORDS, params=params)
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        assert (answer.json()["next_cursor"] is None) == ("link" not in answer.headers)
        if answer.json()["next_cursor"] is None:
            return found
        params["cursor"] = answer.json()["next_cursor"]


async def test_who_gave_nothing_and_strangers_have_no_record(
    alice: Client, bob: Client, anyone: Client, sub: str, context: Context
) -> None:
    path = await make_twin(alice, consent=False, principals=[sub])
    await grant(alice, path, "voice", principal=sub)
    await finish(context, await erase(alice, path))

    assert await records(bob) == await records(alice) == []
    assert is_problem(await anyone.get(RECORDS), 401, "unauthorized")
    for query in ("limit=0", "cursor=x", "state=given"):
        assert is_problem(await bob.get(f"{RECORDS}?{query}"), 422, "validation-failed")


async def test_each_person_keeps_the_state_and_the_proof(
    alice: Client, paula: Client, sub: str, client_of: ClientOf, context: Context, stores: Stores
) -> None:
    path = await make_twin(alice)
    expired = await grant(alice, path, "film", principal=sub, expires_at=after(HOUR))
    async with superuser(stores) as connection:
        await pass_time(connection, 2 * HOUR, path)
    replaced = await grant(alice, path, "voice", principal=sub, expires_at=after(HOUR))
    given = await renew(alice, replaced)
    withdrawn = await withdraw(alice, await grant(alice, path, "dance", principal=sub))
    other = await grant(alice, path, "face", principal=f"other-{sub}")
    url = await erase(alice, path)
    await go_on(context, url)
    running = await records(paula)
    assert {(it["completed_at"], it["ledger"], it["certificate"]) for it in running} == {(None, None, None)}
    await finish(context, url)
    found = await records(paula)

    assert [(it["consent_id"], it["state"]) for it in found] == [
        (withdrawn["id"], "withdrawn"),
        (given["id"], "given"),
        (replaced["id"], "replaced"),
        (expired["id"], "expired"),
    ]
    erasure = await erasure_of(alice, url)
    certificate = await certificate_of(paula, found[0])
    for it in found:
        assert (it["twin_id"], it["erasure_id"]) == (str(id_of(path)), erasure["id"])
        assert (it["erased_at"], it["completed_at"]) == (erasure["requested_at"], erasure["completed_at"])
        assert it["certificate"] == erasure["certificate"]
        assert [{name: it["ledger"][name] for name in ("twin_id", "seq", "head")}] == certificate["ledgers"]
        assert (it["ledger"]["index"], it["ledger"]["proof"]) == (0, [])
    assert found[1]["given_at"] == given["given_at"]
    assert [it["consent_id"] for it in await records(client_of(f"other-{sub}"))] == [other["id"]]
    assert await records(alice) == []  # they have the erasure
    assert {"what": "records_of_people", "with": "service", "until": None} in certificate["stays"]
    # The name is gone.
    assert traces(await dump(stores), sub) == []
    assert (await paula.get("/api/v1/me/consents")).json()["items"] == []


async def test_the_state_is_that_of_the_erasure_whenever_its_job_runs(
    alice: Client, paula: Client, sub: str, context: Context, stores: Stores
) -> None:
    path = await make_twin(alice, consent=False)
    await grant(alice, path, "voice", principal=sub, expires_at=after(HOUR))
    url = await erase(alice, path)
    async with superuser(stores) as connection:  # the job comes late
        for table, columns in (("consents", "given_at expires_at"), ("twins", "erased_at")):
            key = "id" if table == "twins" else "twin_id"
            for column in columns.split():
                await connection.execute(
                    f"UPDATE {table} SET {column} = {column} - interval '2 hours' WHERE {key} = $1", id_of(path)
                )
    await finish(context, url)
    assert [it["state"] for it in await records(paula)] == ["given"]


async def test_of_an_erased_account_each_entry_has_its_proof_in_the_tree(
    client_of: ClientOf, paula: Client, sub: str, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "PIECE", 4)
    monkeypatch.setattr(service, "_PIECES", 2)
    alice = client_of(f"alice-{uuid4()}")
    paths = [await make_twin(alice, consent=False) for _ in range(11)]
    given = [await grant(alice, path, "voice", principal=sub) for path in paths[::-1]]
    url = (await alice.delete("/api/v1/me")).headers["location"]
    await finish(context, url)
    for limit in (1, 3, 100):
        found = await records(paula, limit=limit)
        assert [it["consent_id"] for it in found] == [it["id"] for it in given[::-1]]
        certificate = await certificate_of(paula, found[0])
        assert {it["certificate"] for it in found} == {found[0]["certificate"]}
        root, size = bytes.fromhex(certificate["tree"]["root"]), certificate["tree"]["leaves"]
        for it in found:
            leaf = {name: it["ledger"][name] for name in ("twin_id", "seq", "head")}
            entry = json.dumps(leaf, sort_keys=True, separators=(",", ":")).encode()
            steps = [bytes.fromhex(step) for step in it["ledger"]["proof"]]
            assert proves(entry, it["ledger"]["index"], size, steps, root)
        assert [it["ledger"]["twin_id"] for it in found] == [it["twin_id"] for it in found]
    (entries,) = [(await alice.get(f"{url}/ledgers")).json()["items"]]
    assert sorted((it["ledger"] for it in found), key=lambda it: it["index"]) == entries


async def test_a_job_that_is_killed_in_the_middle_goes_on(
    alice: Client, paula: Client, sub: str, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "_CONSENTS", 2)
    path = await make_twin(alice, consent=False)
    given = [await grant(alice, path, f"purpose-{n}", principal=sub) for n in range(7)]
    url = await erase(alice, path)
    monkeypatch.setattr(sweep, "_WORK", -1)
    seen = []
    for _ in range(3):
        await go_on_once(context, url)
        seen.append(len(await records(paula)))
    assert seen[0] < seen[1] < seen[2] < 7
    monkeypatch.undo()
    await finish(context, url)
    assert [it["consent_id"] for it in await records(paula)] == [it["id"] for it in given[::-1]]


async def go_on_once(context: Context, url: str) -> None:
    await sweep.sweep(context, id_of(url))


# --- Their own DELETE /me ------------------------------------------------------------------------------------


async def test_erasing_ones_account_removes_the_records_also_where_there_is_nothing_else(
    alice: Client, paula: Client, sub: str, context: Context, stores: Stores
) -> None:
    path = await make_twin(alice, consent=False)
    await grant(alice, path, "voice", principal=sub)
    other = await make_twin(alice, consent=False)
    kept = await grant(alice, other, "voice", principal=f"other-{sub}")
    for it in (path, other):
        await finish(context, await erase(alice, it))
    answer = await paula.delete("/api/v1/me")
    assert answer.status_code == 202
    assert await records(paula) == []  # at once
    await finish(context, answer.headers["location"])
    certificate = await certificate_of(paula, await erasure_of(paula, answer.headers["location"]))
    assert (certificate["removed"]["records"], certificate["remaining"]["records"]) == (1, 0)
    digest = context.account_digest(sub)
    async with owner_of(stores) as connection:
        assert await connection.fetchval("SELECT count(*) FROM erased_consents WHERE digest = $1", digest) == 0
        assert await connection.fetchval("SELECT state FROM erased_consents WHERE consent_id = $1::uuid", kept["id"])
    assert (await paula.delete("/api/v1/me")).status_code == 204
    # Whoever comes back has what came later, and nothing from before.
    again = await make_twin(alice, consent=False, principals=[sub])
    consent = await grant(paula, again, "voice")
    await finish(context, await erase(alice, again))
    assert [it["consent_id"] for it in await records(paula)] == [consent["id"]]
    assert (await paula.delete("/api/v1/me")).status_code == 202


async def test_no_record_is_made_for_who_is_erased_by_then(
    alice: Client, paula: Client, sub: str, context: Context, stores: Stores
) -> None:
    path = await make_twin(alice, consent=False)
    await grant(alice, path, "voice", principal=sub)
    url = await erase(alice, path)
    mine = (await paula.delete("/api/v1/me")).headers["location"]
    await finish(context, url)
    await finish(context, mine)
    assert await records(paula) == []
    async with owner_of(stores) as connection:
        count = "SELECT count(*) FROM erased_consents WHERE twin_id = $1"
        assert await connection.fetchval(count, id_of(path)) == 0


async def test_the_serving_role_makes_and_changes_no_record(
    alice: Client, paula: Client, sub: str, context: Context
) -> None:
    path, live = [await make_twin(alice, consent=False) for _ in range(2)]
    consent = await grant(alice, live, "voice", principal=sub)
    await grant(alice, path, "voice", principal=sub)
    url = await erase(alice, path)
    await finish(context, url)
    before = await records(paula)
    async with context.postgres.connection() as connection:
        for statement in (
            "UPDATE erased_consents SET state = 'withdrawn'",
            "DELETE FROM erased_consents",
            "INSERT INTO erased_consents SELECT * FROM erased_consents",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        # Of a twin that is not erased, or of another erasure, there is none.
        arguments = [id_of(live)], [consent["id"]], [context.account_digest(sub)]
        record = "SELECT record_consents($1, $2::uuid[], $3::uuid[], $4)"
        assert await connection.fetchval(record, id_of(url), *arguments) == 0
        assert await connection.fetchval("SELECT forget_records($1, 100)", id_of(url)) == 0
    assert await records(paula) == before
