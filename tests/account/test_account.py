"""`/api/v1/me`: what is stored of an account, and the erasure of all of it, by a job."""

import asyncio
import hashlib
import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.erasure.test_merkle import proves
from tests.support.app import ALEX, Client, ClientOf, id_of, is_problem, make_twin
from tests.support.consent import (
    HOUR,
    NOTICE,
    after,
    decide,
    grant,
    location,
    reason,
    renew,
    transitions,
    verify,
    withdraw,
)
from tests.support.database import owner_of, superuser
from tests.support.erasure import (
    Counts,
    certificate_of,
    documents_of,
    dump,
    erase,
    erasure_of,
    finish,
    go_on,
    removed,
    traces,
)
from tests.support.stores import Stores
from twins.account import service
from twins.context import Context
from twins.erasure import queries, sweep

ME = "/api/v1/me"
NOTHING = {
    "twins": 0,
    "persona_versions": 0,
    "consents": 0,
    "ledger_events": 0,
    "idempotency_answers": 0,
    "consents_given": 0,
}


async def counts(client: Client) -> Counts:
    answer = await client.get(ME)
    assert answer.status_code == 200, answer.text
    return Counts((name, value) for name, value in answer.json().items() if isinstance(value, int))


async def test_counts_end_at_a_bound_and_say_so(client_of: ClientOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_COUNTED", 3)
    alice, bob = client_of(f"alice-{uuid4()}"), client_of(f"bob-{uuid4()}")
    sub = (await bob.get(ME)).json()["sub"]
    key = iter(range(100))

    async def seen(client: Client) -> tuple[str, Counts]:
        return (await client.get(ME)).json()["counts"], await counts(client)

    async def make(consent: bool = True) -> str:
        headers = {"Idempotency-Key": f"key-{next(key)}"}
        answer = await alice.post("/api/v1/twins", json=ALEX | {"consent": consent}, headers=headers)
        return str(answer.headers["location"])

    paths = [await make() for _ in range(2)]
    exact = Counts(twins=2, consents=2, ledger_events=2, idempotency_answers=2)
    assert await seen(alice) == ("exact", exact)
    for _ in range(3):
        await withdraw(alice, await grant(alice, paths[0], "voice", principal=sub))
    assert await seen(alice) == ("at_least", exact | {"consents": 3, "ledger_events": 8})
    assert await seen(bob) == ("at_least", Counts(consents_given=3))
    await make(consent=False)
    newest = await make(consent=False)
    # The oldest is not looked at.
    assert await seen(alice) == (
        "at_least",
        Counts(twins=3, consents=1, ledger_events=1, idempotency_answers=3),
    )
    assert (await alice.delete(newest)).status_code == 204
    assert (await counts(alice))["consents"] == 3


async def leave(client: Client, status: int = 202) -> str:
    """Erase the account, and return the path of the erasure."""
    answer = await client.delete(ME)
    assert (answer.status_code, answer.content) == (status, b"")
    return str(answer.headers["location"])


async def full_account(client: Client, sub: str, *others: Client) -> list[str]:
    """Give an account two twins with all there is, and let it agree to a twin of each other; return the paths."""
    paths = []
    for n in range(2):
        key = {"Idempotency-Key": f"key-{n}"}
        paths.append((await client.post("/api/v1/twins", json=ALEX, headers=key)).headers["location"])
        await client.put(f"{paths[n]}/persona", json={"summary": f"Number {n}."})
        await grant(client, paths[n], "voice", principal="paula")
    for other in others:
        path = await make_twin(other, consent=False)
        await grant(other, path, principal=sub)
        paths.append(path)
    return paths


# --- The answers -------------------------------------------------------------------------------------------


async def test_an_account_without_anything_is_erased_without_a_trace(
    client_of: ClientOf, anyone: Client, stores: Stores
) -> None:
    sub = f"nobody-{uuid4()}"
    client = client_of(sub)
    stored = (await client.get(ME)).json()
    assert stored.pop("sub") == sub
    assert stored.keys() >= NOTHING.keys()
    assert {stored[name] for name in NOTHING} == {0}
    async with superuser(stores) as connection:
        before = await connection.fetchval("SELECT count(*) FROM erasures")
        for _ in range(2):
            answer = await client.delete(ME)
            assert (answer.status_code, answer.content, answer.headers.get("location")) == (204, b"", None)
        assert await connection.fetchval("SELECT count(*) FROM erasures") == before
    assert (await client.get("/api/v1/erasures")).json() == {"items": [], "next_cursor": None}
    assert is_problem(await anyone.get(ME), 401, "unauthorized")
    assert is_problem(await anyone.delete(ME), 401, "unauthorized")


async def test_the_answer_is_the_same_until_the_job_is_complete(client_of: ClientOf, context: Context) -> None:
    client = client_of(f"patient-{uuid4()}")
    await make_twin(client)
    url = await leave(client)
    assert await leave(client) == url
    await go_on(context, url)
    assert await leave(client) == url
    assert (await erasure_of(client, url))["state"] == "running"
    await finish(context, url)

    assert await leave(client, 204) == url
    erasures = (await client.get("/api/v1/erasures")).json()["items"]
    assert [f"/api/v1/erasures/{erasure['id']}" for erasure in erasures] == [url]


async def test_erasures_are_listed_in_pages_newest_first_and_only_ones_own(alice: Client, bob: Client) -> None:
    urls = [await erase(alice, await make_twin(alice)) for _ in range(3)]
    await erase(bob, await make_twin(bob))
    first = await alice.get("/api/v1/erasures", params={"limit": 2})
    following = first.headers["link"].partition(">")[0].removeprefix("<")
    rest = (await alice.get(following)).json()

    found = [f"/api/v1/erasures/{item['id']}" for item in first.json()["items"] + rest["items"]]
    assert found == urls[::-1]
    assert rest["next_cursor"] is None
    assert "certificate" not in first.json()["items"][0]


async def test_the_deletion_of_a_twin_that_one_has_erased_leads_to_its_erasure(
    alice: Client, bob: Client, context: Context
) -> None:
    single, other = await make_twin(alice), await make_twin(alice)
    first = await erase(alice, single)
    assert await erase(alice, single) == first
    second = await leave(alice)
    assert await erase(alice, other) == second  # before the job has come to it
    for url in (first, second):
        await finish(context, url)

    assert (await erase(alice, single), await erase(alice, other)) == (first, second)
    for path in (single, other):
        assert is_problem(await bob.delete(path), 404, "not-found")


async def test_what_is_stored_of_an_account_is_counted(alice: Client, client_of: ClientOf) -> None:
    sub = f"counted-{uuid4()}"
    client = client_of(sub)
    await full_account(client, sub, alice)

    found = await counts(client)
    assert found | {"idempotency_answers": 0} == NOTHING | {
        "twins": 2,
        "persona_versions": 2,
        "consents": 4,
        "ledger_events": 4,
        "consents_given": 1,
    }


# --- From the answer on ------------------------------------------------------------------------------------


async def test_from_the_answer_on_everything_is_erased_whether_or_not_the_job_has_begun(
    alice: Client, client_of: ClientOf, context: Context
) -> None:
    sub = f"gone-{uuid4()}"
    client = client_of(sub)
    first, second, other = await full_account(client, sub, alice)
    (consent,) = (await alice.get(f"{other}/consents")).json()["items"]
    listed = await make_twin(alice, consent=False, principals=[sub])
    assert (await client.post(f"{listed}/refusals", json={"purposes": ["dance"]})).status_code == 201
    gateway = client_of("gateway", "twins:decide")
    url = await leave(client)

    assert await counts(client) == NOTHING
    for answer in (await client.get("/api/v1/twins"), await client.get(f"{ME}/consents")):
        assert answer.json()["items"] == []
    for path in (first, second):
        assert is_problem(await client.get(path), 404, "not-found")
        assert is_problem(await gateway.get(f"{path}/decision"), 404, "not-found")
    assert is_problem(await client.get(location(consent)), 404, "not-found")
    assert is_problem(await client.post(f"{location(consent)}/withdraw"), 404, "not-found")
    assert is_problem(await client.get(f"{listed}/refusals"), 404, "not-found")
    assert await reason(alice, other) == "withdrawn"
    seen = (await alice.get(location(consent))).json()
    assert (seen["state"], seen["withdrawn_by"]) == ("withdrawn", "principal")
    assert is_problem(await alice.post(f"{location(consent)}/renew"), 409, "consent-ended")
    assert await transitions(alice, other) == ["given"]
    await finish(context, url)
    assert await transitions(alice, other) == ["given", "withdrawn"]


async def test_erasing_an_account_takes_its_twins_and_nothing_of_others(
    alice: Client, client_of: ClientOf, context: Context, stores: Stores
) -> None:
    sub = f"leaving-{uuid4()}"
    client = client_of(sub)
    first, second, kept = await full_account(client, sub, alice)
    hers = await counts(alice)
    url = await leave(client)
    await finish(context, url)

    erasure = await erasure_of(client, url)
    assert (erasure["state"], erasure["twins"]) == ("complete", 2)
    expected = removed(twins=2, persona_versions=2, persona_documents=2, consents=4, names=1)
    assert Counts(erasure["removed"]) | {"idempotency_answers": 0} == expected
    assert (await alice.get(kept)).status_code == 200
    assert await counts(alice) == hers | {"ledger_events": 2}
    for path in (first, second):
        assert documents_of(stores, twin_id=id_of(path))["personas"] == []


# --- The job ---------------------------------------------------------------------------------------------


async def test_what_came_before_an_erasure_is_erased_and_nothing_that_came_after_it(
    alice: Client, client_of: ClientOf, context: Context
) -> None:
    sub = f"phoenix-{uuid4()}"
    client = client_of(sub)
    old, other = await make_twin(client), await make_twin(alice, principals=[sub], consent=False)
    assert (await client.post(f"{other}/consents", json={"purposes": ["voice"], "notice": NOTICE})).status_code == 201
    first = await leave(client)
    new = await make_twin(client)
    await alice.patch(other, json={"principals": []})
    await alice.patch(other, json={"principals": [sub]})
    mine = await client.post(f"{other}/consents", json={"purposes": ["dubbing"], "notice": NOTICE})
    assert mine.status_code == 201
    await finish(context, first)

    assert is_problem(await client.get(old), 404, "not-found")
    assert (await client.get(new)).json()["consent"] is True
    assert (await reason(alice, other, "voice"), await reason(alice, other, "dubbing")) == ("withdrawn", "granted")
    assert (await alice.get(other)).json()["principals"] == [sub]
    second = await leave(client)
    assert second != first
    assert await reason(alice, other, "dubbing") == "withdrawn"
    await finish(context, second)
    assert (await alice.get(other)).json()["principals"] == []
    assert (await erasure_of(client, second))["removed"]["twins"] == 1
    assert await leave(client, 204) == second


async def test_an_account_can_be_erased_again_while_its_first_erasure_runs(
    client_of: ClientOf, context: Context
) -> None:
    client = client_of(f"again-{uuid4()}")
    await make_twin(client)
    first = await leave(client)
    path = await make_twin(client)
    second = await leave(client)
    assert first != second
    assert await leave(client) == second
    assert is_problem(await client.get(path), 404, "not-found")
    for url in (first, second):
        await finish(context, url)

    assert sum([(await erasure_of(client, url))["twins"] for url in (first, second)]) == 2


async def test_of_two_erasures_of_an_account_at_once_each_twin_is_in_one(
    client_of: ClientOf, context: Context, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_BATCH", 2)
    client = client_of(f"twice-{uuid4()}")
    paths = [await make_twin(client) for _ in range(7)]
    for path in paths:
        await client.put(f"{path}/persona", json={})
    urls = await asyncio.gather(*(leave(client) for _ in range(4)))
    assert len(set(urls)) == 1
    await finish(context, urls[0])
    erasure = await erasure_of(client, urls[0])

    assert (erasure["state"], erasure["twins"], erasure["removed"]["persona_documents"]) == ("complete", 7, 7)
    for path in paths:
        assert documents_of(stores, twin_id=id_of(path))["personas"] == []


async def test_a_job_that_is_run_twice_at_once_or_ends_after_each_batch_counts_everything_once(
    alice: Client, client_of: ClientOf, context: Context, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_BATCH", 2)
    monkeypatch.setattr(sweep, "_WORK", 0.0)
    monkeypatch.setattr(sweep, "PIECE", 2)
    sub = f"slow-{uuid4()}"
    client = client_of(sub)
    others = [await make_twin(alice, consent=False) for _ in range(5)]
    for path in others:
        await grant(alice, path, principal=sub)
    for _ in range(5):
        await client.put(f"{await make_twin(client)}/persona", json={})
    url = await leave(client)
    for _ in range(200):
        runs = await asyncio.gather(*(sweep.sweep(context, id_of(url)) for _ in range(3)), return_exceptions=True)
        assert not [run for run in runs if isinstance(run, BaseException)]
        if None in runs:
            break
    await finish(context, url)
    erasure = await erasure_of(client, url)

    assert erasure["removed"] == removed(twins=5, persona_versions=5, persona_documents=5, consents=5, names=5)
    for path in others:
        assert await transitions(alice, path) == ["given", "withdrawn"]
        assert (await verify(alice, path))["valid"] is True


async def test_a_job_that_dies_in_any_of_its_steps_ends_right(
    alice: Client, client_of: ClientOf, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = (
        *("erase_account_twins", "update_after", "update_step", "select_naming_twins", "forget_person"),
        *("insert_erased_ledgers", "vacuum_salts", "left_of_account", "complete"),
    )
    for step in steps:
        for when in ("before", "after"):
            sub = f"dying-{uuid4()}"
            client = client_of(sub)
            await client.put(f"{await make_twin(client)}/persona", json={})
            other = await make_twin(alice, consent=False)
            await grant(alice, other, principal=sub)
            url = await leave(client)
            whole = getattr(queries, step)
            deaths: list[None] = []

            async def dying(*args: Any, whole: Any = whole, when: str = when, deaths: list[None] = deaths) -> Any:
                if when == "after":
                    result = await whole(*args)
                if not deaths:
                    deaths.append(None)
                    raise OSError
                return result if when == "after" else await whole(*args)

            monkeypatch.setattr(queries, step, dying)
            await finish(context, url)
            monkeypatch.setattr(queries, step, whole)
            assert deaths, step
            erasure = await erasure_of(client, url)
            assert erasure["state"] == "complete", (step, when)
            assert erasure["removed"] == removed(
                twins=1, persona_versions=1, persona_documents=1, consents=1, names=1
            ), (step, when)
            assert await transitions(alice, other) == ["given", "withdrawn"], (step, when)


async def test_nothing_is_certified_while_a_name_is_left(
    alice: Client, client_of: ClientOf, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    sub = f"held-up-{uuid4()}"
    client = client_of(sub)
    other = await make_twin(alice, consent=False)
    await grant(alice, other, principal=sub)
    url = await leave(client)

    async def see_nothing(*_: object) -> list[Any]:
        return []

    with monkeypatch.context() as blind:
        blind.setattr(queries, "select_naming_twins", see_nothing)
        for _ in range(3):
            await go_on(context, url)
    assert (await erasure_of(client, url))["state"] == "running"
    async with context.postgres.connection() as connection:
        error = await connection.fetchval("SELECT last_error FROM outbox WHERE subject = $1", id_of(url))
    assert error == "RemainsError"


async def test_a_grant_that_overlaps_an_erasure_of_the_person_does_not_outlive_it(
    alice: Client, client_of: ClientOf, context: Context, stores: Stores
) -> None:
    """The grant has begun and waits for the twin; the account is erased meanwhile."""
    sub = f"racing-{uuid4()}"
    client = client_of(sub)
    await make_twin(client)
    path = await make_twin(alice, consent=False)
    async with superuser(stores) as connection, connection.transaction():
        await connection.execute("SELECT FROM twins WHERE id = $1 FOR UPDATE", id_of(path))
        granting = asyncio.create_task(
            alice.post(f"{path}/consents", json={"purposes": ["voice"], "notice": NOTICE, "principal": sub})
        )
        await asyncio.sleep(0.2)
        url = await leave(client)
    assert is_problem(await granting, 409, "person-must-consent")
    await finish(context, url)
    assert await reason(alice, path, "voice") == "no_consent"


async def test_an_erasure_waits_for_a_grant_that_has_the_accounts_lock_and_ends_it(
    alice: Client, client_of: ClientOf, context: Context, stores: Stores
) -> None:
    sub = f"overlapping-{uuid4()}"
    client = client_of(sub)
    path = await make_twin(alice, consent=False)
    owner = (await alice.get(ME)).json()["sub"]
    async with owner_of(stores) as connection, connection.transaction():
        row = await connection.fetchrow(
            "SELECT * FROM give_consent($1, $2, $2, $3, $4, 'api', '{voice}', '1', 'en', 'Yes.', NULL, NULL, NULL)",
            *(id_of(path), owner, sub, context.digests.digest("account", sub.encode())),
        )
        assert row is not None
        assert row["problem"] is None
        leaving = asyncio.create_task(client.delete(ME))
        await asyncio.sleep(0.3)
        assert not leaving.done()
    url = (await leaving).headers["location"]

    assert (await leaving).status_code == 202
    assert await reason(alice, path, "voice") == "withdrawn"
    await finish(context, url)
    assert await reason(alice, path, "voice") == "withdrawn"


async def test_a_twin_made_while_its_account_is_erased_is_either_erased_or_younger(
    client_of: ClientOf, context: Context
) -> None:
    client = client_of(f"both-{uuid4()}")
    await make_twin(client)
    made = [asyncio.create_task(make_twin(client)) for _ in range(10)]
    await asyncio.sleep(0.005)
    url = await leave(client)
    paths = await asyncio.gather(*made)
    seen = {item["id"] for item in (await client.get("/api/v1/twins", params={"limit": 100})).json()["items"]}
    await finish(context, url)

    kept = {str(id_of(path)) for path in paths if (await client.get(path)).status_code == 200}
    assert kept == seen
    assert (await erasure_of(client, url))["twins"] == 11 - len(kept)


async def test_a_twin_that_is_erased_by_its_owner_meanwhile_does_not_stop_a_person_from_leaving(
    alice: Client, client_of: ClientOf, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    sub = f"meanwhile-{uuid4()}"
    client = client_of(sub)
    gone, kept = await make_twin(alice, consent=False), await make_twin(alice, consent=False)
    for path in (gone, kept):
        await grant(alice, path, principal=sub)
    url = await leave(client)
    hers = await erase(alice, gone)
    await finish(context, url)
    await finish(context, hers)

    assert await reason(alice, kept) == "withdrawn"
    assert (await erasure_of(client, url))["removed"]["names"] == 2
    assert (await erasure_of(alice, hers))["state"] == "complete"


# --- The certificate ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7, 450])
async def test_each_ledger_of_an_erased_account_is_proved_by_its_certificate(
    client_of: ClientOf, context: Context, stores: Stores, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(sweep, "PIECE", 64)
    sub = f"rich-{uuid4()}"
    client = client_of(sub)
    async with superuser(stores) as connection:
        await connection.execute(
            """
            INSERT INTO twins (owner, twin_name, use_case, tone)
            SELECT $1, 'Alex', 'support', 'warm' FROM generate_series(1, $2::int)
            """,
            sub,
            count,
        )
    assert await counts(client) == NOTHING | {"twins": count}
    url = await leave(client)
    assert await counts(client) == NOTHING
    assert (await client.get(f"{url}/ledgers")).json() == {"items": [], "next_cursor": None}
    await finish(context, url)
    erasure = await erasure_of(client, url)
    certificate = await certificate_of(client, erasure)

    assert certificate["removed"] == removed(twins=count)
    assert certificate["tree"]["leaves"] == count
    assert len(erasure["certificate"]) < 4096
    assert "events" not in certificate
    entries: list[dict[str, Any]] = []
    following: str | None = f"{url}/ledgers?limit=100"
    while following:
        page = await client.get(following)
        entries += page.json()["items"]
        following = page.headers.get("link", "").partition(">")[0].removeprefix("<")
    assert [entry["index"] for entry in entries] == list(range(count))
    assert [entry["twin_id"] for entry in entries] == sorted(entry["twin_id"] for entry in entries)
    root = bytes.fromhex(certificate["tree"]["root"])
    for entry in entries:
        leaf = {name: entry[name] for name in ("twin_id", "seq", "head")}
        assert entry["seq"] == 1
        canonical = json.dumps(leaf, sort_keys=True, separators=(",", ":")).encode()
        assert proves(canonical, entry["index"], count, [bytes.fromhex(step) for step in entry["proof"]], root)


async def test_the_ledgers_of_an_erasure_are_shown_to_who_asked_for_it(alice: Client, bob: Client) -> None:
    url = await erase(alice, await make_twin(alice))
    assert is_problem(await bob.get(f"{url}/ledgers"), 404, "not-found")


async def test_a_certificate_of_long_events_stays_below_64_kilobytes(alice: Client, context: Context) -> None:
    path = await make_twin(alice, consent=False)
    purposes = [f"purpose-{n}" for n in range(20)]
    for _ in range(30):
        await withdraw(alice, await grant(alice, path, *purposes))
    url = await erase(alice, path)
    await finish(context, url)
    erasure = await erasure_of(alice, url)

    assert len(erasure["certificate"]) < 64_000
    assert (await certificate_of(alice, erasure))["events"] is None


@pytest.mark.parametrize("is_account", [False, True])
async def test_a_certificate_says_what_stays_with_whom_and_until_when(
    alice: Client, context: Context, is_account: bool
) -> None:
    path = await make_twin(alice)
    url = await leave(alice) if is_account else await erase(alice, path)
    await finish(context, url)
    certificate = await certificate_of(alice, await erasure_of(alice, url))
    stays = {item["what"]: (item["with"], item["until"]) for item in certificate["stays"]}

    assert stays.keys() == {"ledger_skeleton", "account_digests", "journal", "backups_and_logs", "served_receipts"} | (
        {"consents_without_name", "owners_texts"} if is_account else set()
    )
    (holder, until), (service, later) = stays["backups_and_logs"], stays["journal"]
    assert (holder, service) == ("operator", "service")
    assert certificate["completed_at"] < until < later  # a backup can be made good for as long as it lives


# --- The person -----------------------------------------------------------------------------------------


async def test_what_the_person_agreed_to_for_others_is_withdrawn_and_names_nobody(
    alice: Client, bob: Client, client_of: ClientOf, context: Context, stores: Stores
) -> None:
    sub = f"gundula-{uuid4()}"
    client = client_of(sub)
    hers, his = await make_twin(alice, consent=False), await make_twin(bob, consent=False)
    for owner, path in ((alice, hers), (bob, his)):
        await grant(owner, path, principal=sub)
    renewed = await renew(alice, (await alice.get(f"{hers}/consents")).json()["items"][0])
    ended = await withdraw(alice, await grant(alice, hers, "ended", principal=sub))
    future = await grant(alice, hers, "later", principal=sub, not_before=after(HOUR))
    other = await grant(alice, hers, "training", principal=f"{sub}-but-not-quite")
    await alice.patch(hers, json={"principals": [sub, "paula"]})
    assert (await client.post(f"{hers}/refusals", json={"purposes": ["dance"]})).status_code == 201
    stopped = await make_twin(alice, principals=[sub], consent=False)
    assert (await client.post(f"{stopped}/refusals")).status_code == 201
    await finish(context, await leave(client))

    for path, owner in ((hers, alice), (his, bob)):
        assert await reason(owner, path) == "withdrawn"
        assert (await verify(owner, path))["valid"] is True
    assert await transitions(bob, his) == ["given", "withdrawn"]
    assert await reason(alice, hers, "later") == "withdrawn"
    assert (await decide(alice, hers, "training"))["decision"] is True
    names = set()
    for consent in (renewed, ended, future):
        seen = (await alice.get(location(consent))).json()
        assert seen["state"] == "withdrawn"
        assert seen["principal"].startswith("\x01erased:")
        names.add(seen["principal"])
        # Whoever gets a new account of that name is somebody else.
        assert is_problem(await client.get(location(consent)), 404, "not-found")
        assert seen["notice"]["sha256"] == consent["notice"]["sha256"]
    assert len(names) == 3
    assert (await alice.get(location(ended))).json()["withdrawn_at"] == ended["withdrawn_at"]
    assert (await alice.get(location(other))).json() == other
    assert (await alice.get(hers)).json()["principals"] == ["paula"]
    refusals = (await alice.get(f"{hers}/refusals")).json()["items"]
    assert {refusal["by"] for refusal in refusals} == {"nobody"}
    found = {
        name: [text.replace(other["principal"], "") for text in texts] for name, texts in (await dump(stores)).items()
    }
    assert traces(found, sub) == []


async def test_the_pseudonym_of_a_line_of_renewals_is_one_and_no_token_can_have_it(
    alice: Client, bob: Client, client_of: ClientOf, context: Context
) -> None:
    sub = f"several-{uuid4()}"
    seen = []
    for owner in (alice, bob):
        path = await make_twin(owner, consent=False)
        first = await grant(owner, path, "voice", principal=sub)
        seen += [(owner, first), (owner, await renew(owner, first)), (owner, await grant(owner, path, principal=sub))]
    await finish(context, await leave(client_of(sub)))
    names = [(await owner.get(location(consent))).json()["principal"] for owner, consent in seen]

    assert [names.index(name) for name in names] == [0, 0, 2, 3, 3, 5]
    assert is_problem(await client_of(names[0]).get(ME), 401, "unauthorized")
    body = {"purposes": ["x"], "notice": NOTICE, "principal": names[0]}
    path = await make_twin(alice)
    assert is_problem(await alice.post(f"{path}/consents", json=body), 422, "validation-failed")


async def test_no_hash_of_a_ledger_can_be_tested_against_an_erased_person(
    alice: Client, client_of: ClientOf, context: Context, stores: Stores
) -> None:
    sub = f"testable-{uuid4()}"
    path = await make_twin(alice, principals=[sub, "paula"], consent=False)
    client = client_of(sub)
    await renew(alice, await grant(alice, path, "voice", principal=sub))
    kept = await grant(alice, path, "training", principal="paula")
    await client.post(f"{path}/refusals", json={"purposes": ["dance"]})

    async def salts() -> dict[UUID, tuple[bytes, int]]:
        async with superuser(stores) as connection:
            rows = await connection.fetch("SELECT * FROM salts WHERE twin_id = $1", id_of(path))
        return {row["lineage"]: (row["salt"], row["since_seq"]) for row in rows}

    before = await salts()
    assert len(before) == 3  # of the person, of paula, and the twin's own
    await finish(context, await leave(client))
    assert await salts() == {UUID(kept["id"]): before[UUID(kept["id"])]}
    assert (await client_of("paula").post(f"{path}/refusals", json={"purposes": ["song"]})).status_code == 201
    own, since = (await salts())[UUID(int=0)]
    assert own != before[UUID(int=0)][0]
    assert since == len(await transitions(alice, path))


async def test_a_notice_goes_with_the_last_line_of_renewals_that_shows_it(
    alice: Client, client_of: ClientOf, context: Context
) -> None:
    people = [f"reader-{n}-{uuid4()}" for n in range(2)]
    path = await make_twin(alice, consent=False)
    notice = NOTICE | {"text": f"Only for two: {uuid4()}."}
    consents = [await grant(alice, path, f"p{n}", principal=sub, notice=notice) for n, sub in enumerate(people)]
    await finish(context, await leave(client_of(people[0])))
    assert {(await alice.get(location(c))).json()["notice"]["text"] for c in consents} == {notice["text"]}
    await finish(context, await leave(client_of(people[1])))

    for consent in consents:
        seen = (await alice.get(location(consent))).json()["notice"]
        assert (seen["text"], seen["sha256"]) == ("", hashlib.sha256(str(notice["text"]).encode()).hexdigest())


async def test_after_an_erasure_purposes_stay_closed_and_the_owners_word_names_the_person_no_more(
    alice: Client, bob: Client, client_of: ClientOf, context: Context
) -> None:
    sub = f"closed-{uuid4()}"
    path, fresh = await make_twin(alice, consent=False), await make_twin(bob, consent=False)
    await grant(alice, path, "voice", principal=sub)
    client = client_of(sub)
    url = await leave(client)
    for n in range(2):
        for purposes, principal in ((["voice"], "paula"), (["voice-2"], None)):
            body = {"purposes": purposes, "notice": NOTICE, "principal": principal}
            if n or purposes == ["voice"]:
                answer = await alice.post(f"{path}/consents", json=body)
                assert n == 0 or is_problem(answer, 409, "person-must-consent")
                if n == 0 and answer.status_code == 201:
                    await withdraw(alice, answer.json())
        answer = await bob.post(f"{fresh}/consents", json={"purposes": ["x"], "notice": NOTICE, "principal": sub})
        assert is_problem(answer, 409, "person-must-consent")
        await finish(context, url)
    await bob.patch(fresh, json={"principals": [sub]})
    own = await client.post(f"{fresh}/consents", json={"purposes": ["x"], "notice": NOTICE})
    assert own.status_code == 201
    assert await reason(bob, fresh, "x") == "granted"


async def test_the_gate_says_withdrawn_before_and_after_the_job_though_an_earlier_grant_had_ended(
    alice: Client, client_of: ClientOf, context: Context
) -> None:
    sub = f"regranted-{uuid4()}"
    path = await make_twin(alice, consent=False)
    ended = await withdraw(alice, await grant(alice, path, "voice", principal=sub))
    await grant(alice, path, "voice", principal=sub)
    url = await leave(client_of(sub))
    assert await reason(alice, path, "voice") == "withdrawn"
    await finish(context, url)

    assert await reason(alice, path, "voice") == "withdrawn"
    assert await transitions(alice, path) == ["given", "withdrawn", "given", "withdrawn"]
    seen = (await alice.get(location(ended))).json()
    assert (seen["withdrawn_at"], seen["withdrawn_by"]) == (ended["withdrawn_at"], "owner")


async def test_many_consents_in_one_name_are_ended_in_batches(
    alice: Client, client_of: ClientOf, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_BATCH", 3)
    sub = f"popular-{uuid4()}"
    path = await make_twin(alice, consent=False)
    consent = await grant(alice, path, "voice", principal=sub)
    for n in range(7):
        consent = await renew(alice, consent, notice=NOTICE | {"text": f"Number {n}."})
    await grant(alice, path, "training", principal=sub)
    url = await leave(client_of(sub))
    await finish(context, url)

    seen = (await alice.get(f"{path}/consents", params={"limit": 100})).json()["items"]
    assert {item["state"] for item in seen} == {"withdrawn"}
    assert len({item["principal"] for item in seen}) == 2
    assert {item["notice"]["text"] for item in seen} == {""}
    assert (await transitions(alice, path))[-2:] == ["withdrawn", "withdrawn"]
