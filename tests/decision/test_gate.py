"""The gate: may this twin be used for this purpose, now, and why."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from tests.support.app import MISSING, Client, ClientOf, id_of, is_problem, make_twin, token
from tests.support.consent import HOUR, NOTICE, after, decide, grant, location, pass_time, reason, renew, withdraw
from tests.support.database import superuser
from tests.support.stores import Stores
from twins.app import create_app
from twins.context import Context
from twins.decision import service
from twins.settings import Settings

# --- Every reason ---------------------------------------------------------------------------------


async def test_a_granted_purpose_is_granted_with_its_consent(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    consent = await grant(alice, path, "voice", expires_at=after(HOUR))
    decision = await decide(alice, path, "voice")

    assert decision == {
        "decision": True,
        "purpose": "voice",
        "reason": "granted",
        "consent_id": consent["id"],
        "expires_at": consent["expires_at"],
        "assurance": "recorded",
        "recipient": {"type": "account", "id": decision["recipient"]["id"], "issuer": None},
        "evaluated_at": decision["evaluated_at"],
    }
    assert consent["given_at"] <= decision["evaluated_at"] <= after(timedelta(seconds=1))


async def test_a_purpose_nobody_agreed_to_is_refused(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    decision = await decide(alice, path)

    assert (decision["decision"], decision["reason"]) == (False, "no_consent")
    assert (decision["consent_id"], decision["expires_at"]) == (None, None)


@pytest.mark.parametrize("near", ["voice.clone", "voices", "voic", "general", "voice-", "a"])
async def test_a_grant_never_implies_another_purpose(alice: Client, near: str) -> None:
    path = await make_twin(alice, consent=False)
    await grant(alice, path, "voice")

    assert await reason(alice, path, near) == "no_consent"
    assert await reason(alice, path, "voice") == "granted"


async def test_general_is_the_purpose_where_none_is_named(alice: Client) -> None:
    path = await make_twin(alice, consent=True)

    assert (await alice.get(f"{path}/decision")).json()["purpose"] == "general"
    assert (await alice.get(f"{path}/decision")).json()["decision"] is True


async def test_a_withdrawn_purpose_is_refused_and_says_by_which_consent(alice: Client) -> None:
    path, other = await make_twin(alice, consent=False), await make_twin(alice)
    consent = await withdraw(alice, await grant(alice, path))
    decision = await decide(alice, path)

    assert (decision["reason"], decision["consent_id"]) == ("withdrawn", consent["id"])
    assert await reason(alice, other) == "granted"


async def test_before_and_after_its_time_a_consent_is_not_valid(alice: Client, stores: Stores) -> None:
    path = await make_twin(alice, consent=False)
    await grant(alice, path, not_before=after(HOUR), expires_at=after(3 * HOUR))
    seen = [await reason(alice, path)]
    async with superuser(stores) as connection:
        for _ in range(2):
            await pass_time(connection, 2 * HOUR, path)
            seen.append(await reason(alice, path))

    assert seen == ["not_yet_valid", "granted", "expired"]


async def test_a_withdrawal_outlives_the_expiry_and_the_beginning(alice: Client, stores: Stores) -> None:
    path = await make_twin(alice, consent=False)
    await withdraw(alice, await grant(alice, path, not_before=after(HOUR), expires_at=after(3 * HOUR)))
    seen = [await reason(alice, path)]
    async with superuser(stores) as connection:
        for _ in range(2):
            await pass_time(connection, 2 * HOUR, path)
            seen.append(await reason(alice, path))

    assert seen == ["withdrawn"] * 3


async def test_expiry_and_beginning_hold_to_the_microsecond(alice: Client, stores: Stores) -> None:
    path = await make_twin(alice, consent=False)
    consent = await grant(alice, path)
    # Both statements of one message see the same statement_timestamp(), so the boundary can be hit.
    async with superuser(stores) as connection:
        for column, distance, expected in (
            ("expires_at", 0, "expired"),
            ("expires_at", -1, "expired"),
            ("expires_at", 1, "granted"),
            ("not_before", 0, "granted"),
            ("not_before", -1, "granted"),
            ("not_before", 1, "not_yet_valid"),
        ):
            await connection.execute(
                f"""
                DROP TABLE IF EXISTS seen;
                UPDATE consent_states SET not_before = NULL, expires_at = NULL WHERE consent_id = '{consent["id"]}';
                UPDATE consent_states SET {column} = statement_timestamp() + interval '{distance} microsecond'
                WHERE consent_id = '{consent["id"]}';
                CREATE TEMP TABLE seen AS
                SELECT reason_of(false, NULL, seq, ended, standing, assurance, 0::smallint, NULL, NULL, NULL, NULL,
                                 NULL, NULL, NULL, NULL) AS reason FROM decisions
                WHERE twin_id = '{consent["twin_id"]}' AND purpose = '{consent["purposes"][0]}'
                """
            )
            assert await connection.fetchval("SELECT reason FROM seen") == expected, (column, distance)


async def test_over_http_every_answer_agrees_with_its_own_clock_around_both_ends(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    start, end = after(timedelta(seconds=0.15)), after(timedelta(seconds=0.3))
    await grant(alice, path, not_before=start, expires_at=end)
    seen = set()
    while "expired" not in seen:
        decision = await decide(alice, path)
        at = datetime.fromisoformat(decision["evaluated_at"])
        begins, ends = (datetime.fromisoformat(text) for text in (start, end))
        expected = "not_yet_valid" if at < begins else "granted" if at < ends else "expired"
        assert decision["reason"] == expected
        seen.add(expected)

    assert seen == {"not_yet_valid", "granted", "expired"}


@pytest.mark.parametrize("purpose", ["", "Voice", "voice general", "a" * 64, "-voice", "voice%00", "voice%0A", "é"])
async def test_a_question_that_no_grant_could_answer_is_refused(alice: Client, purpose: str) -> None:
    path = await make_twin(alice)
    refused = await alice.get(f"{path}/decision?purpose={purpose}")

    assert is_problem(refused, 422, "validation-failed")
    assert refused.json()["errors"][0]["parameter"] == "purpose"


async def test_two_purposes_in_one_question_are_refused(alice: Client) -> None:
    refused = await alice.get(f"{await make_twin(alice)}/decision?purpose=voice&purpose=general")

    assert is_problem(refused, 422, "validation-failed")


# --- Who may ask ----------------------------------------------------------------------------------


async def test_a_service_with_the_scope_may_ask_about_any_twin_and_do_nothing_else(
    alice: Client, client_of: ClientOf
) -> None:
    service = client_of("gateway", "other twins:decide")
    path = await make_twin(alice)

    assert await reason(service, path) == "granted"
    await alice.patch(path, json={"consent": False})
    assert await reason(service, path) == "withdrawn"
    for method, below in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/consents"),
        ("GET", "/ledger"),
        ("GET", "/ledger/verification"),
        ("GET", "/persona"),
        ("GET", "/persona/prompt"),
    ):
        assert is_problem(await service.request(method, path + below), 404, "not-found"), below


async def test_a_service_with_the_scope_may_ask_about_twins_of_many_owners_at_once(
    alice: Client, bob: Client, client_of: ClientOf
) -> None:
    service = client_of("gateway", "twins:decide")
    paths = [await make_twin(alice), await make_twin(bob, consent=False)]
    items = [{"twin_id": str(id_of(path))} for path in paths]
    answers = (await service.post("/api/v1/decisions", json={"items": items})).json()["items"]

    assert [(answer["decision"], answer["reason"]) for answer in answers] == [(True, "granted"), (False, "no_consent")]


@pytest.mark.parametrize("scope", [None, "", "twins", "twins:decide:all", "twins:decider", "TWINS:DECIDE"])
async def test_without_the_scope_a_foreign_twin_is_missing(
    alice: Client, client_of: ClientOf, scope: str | None
) -> None:
    stranger = client_of("stranger", scope)
    path = await make_twin(alice)

    assert is_problem(await stranger.get(f"{path}/decision"), 404, "not-found")
    batch = await stranger.post("/api/v1/decisions", json={"items": [{"twin_id": str(id_of(path))}]})
    assert [item["reason"] for item in batch.json()["items"]] == ["not_found"]


async def test_an_unknown_and_an_erased_twin_are_missing_for_everybody(
    alice: Client, client_of: ClientOf, anyone: Client
) -> None:
    service = client_of("gateway", "twins:decide")
    path = await make_twin(alice)
    await alice.delete(path)

    for client in (alice, service):
        for url in (path, f"/api/v1/twins/{MISSING}"):
            assert is_problem(await client.get(f"{url}/decision"), 404, "not-found")
        items = [{"twin_id": str(id_of(path))}, {"twin_id": MISSING}]
        batch = (await client.post("/api/v1/decisions", json={"items": items})).json()["items"]
        assert [(item["decision"], item["reason"]) for item in batch] == [(False, "not_found")] * 2
    assert is_problem(await anyone.get(f"{path}/decision"), 401, "unauthorized")
    assert is_problem(await anyone.post("/api/v1/decisions", json={"items": items}), 401, "unauthorized")


# --- Many at once ---------------------------------------------------------------------------------


async def test_a_batch_is_answered_in_order_with_every_reason(alice: Client, bob: Client, stores: Stores) -> None:
    path, foreign = await make_twin(alice, consent=False), await make_twin(bob)
    await grant(alice, path, "expired", expires_at=after(HOUR))
    async with superuser(stores) as connection:
        await pass_time(connection, 2 * HOUR, path)
    consents = {
        "granted": await grant(alice, path, "granted", expires_at=after(HOUR)),
        "withdrawn": await withdraw(alice, await grant(alice, path, "withdrawn")),
        "not_yet_valid": await grant(alice, path, "not_yet_valid", not_before=after(HOUR)),
    }
    mine = ["withdrawn", "granted", "no_consent", "granted", "expired", "not_yet_valid"]
    items = [{"twin_id": str(id_of(path)), "purpose": purpose} for purpose in mine]
    items += [{"twin_id": MISSING, "purpose": "granted"}, {"twin_id": str(id_of(foreign))}]
    answers = (await alice.post("/api/v1/decisions", json={"items": items})).json()["items"]

    assert [answer["reason"] for answer in answers] == [*mine, "not_found", "not_found"]
    assert [answer["purpose"] for answer in answers] == [*mine, "granted", "general"]
    for answer in answers:
        assert answer["decision"] == (answer["reason"] == "granted")
        consent = consents.get(answer["purpose"]) if answer["reason"] != "not_found" else None
        if answer["reason"] != "expired":
            assert answer["consent_id"] == (consent and consent["id"])
    assert len({answer["evaluated_at"] for answer in answers}) == 1
    single = await decide(alice, path, "granted")
    assert single | {"evaluated_at": None} == answers[1] | {"evaluated_at": None}


async def test_every_answer_is_counted_by_its_reason(alice: Client) -> None:
    def counted() -> Counter[str]:
        options: Any = None
        seen = service._decisions(options)
        return Counter({str(dict(one.attributes or {})["reason"]): int(one.value) for one in seen})

    path = await make_twin(alice)
    before = counted()
    await decide(alice, path)
    items = [{"twin_id": str(id_of(path)), "purpose": "voice"}, {"twin_id": MISSING}]
    await alice.post("/api/v1/decisions", json={"items": items})

    assert counted() - before == {"granted": 1, "no_consent": 1, "not_found": 1}


async def test_a_batch_of_a_hundred_is_answered_and_one_more_is_refused(alice: Client) -> None:
    paths = [await make_twin(alice, consent=bool(n % 3)) for n in range(6)]
    items = [{"twin_id": str(id_of(paths[n % 6]))} for n in range(101)]
    full = await alice.post("/api/v1/decisions", json={"items": items[:100]})
    assert [item["decision"] for item in full.json()["items"]] == [bool(n % 6 % 3) for n in range(100)]

    for body, pointer in (
        ({"items": items}, "#/items"),
        ({"items": []}, "#/items"),
        ({}, "#/items"),
        ({"items": [{"twin_id": "x"}]}, "#/items/0/twin_id"),
        ({"items": [{"twin_id": 7}]}, "#/items/0/twin_id"),
        ({"items": [{"purpose": "voice"}]}, "#/items/0/twin_id"),
        ({"items": [items[0], {"twin_id": MISSING, "purpose": "Voice"}]}, "#/items/1/purpose"),
        ({"items": [items[0] | {"owner": "alice"}]}, "#/items/0/owner"),
    ):
        refused = await alice.post("/api/v1/decisions", json=body)
        assert is_problem(refused, 422, "validation-failed"), body
        assert refused.json()["errors"][0]["pointer"] == pointer


# --- Its cost -------------------------------------------------------------------------------------


class Watched:
    """An application with one connection whose every statement is seen."""

    def __init__(self, context: Context, client: Client) -> None:
        self.context = context
        self.client = client

    @contextmanager
    def statements(self) -> Iterator[list[tuple[str, tuple[Any, ...]]]]:
        seen: list[tuple[str, tuple[Any, ...]]] = []

        def note(query: asyncpg.connection.LoggedQuery) -> None:
            seen.append((query.query, query.args))

        (holder,) = self.context.postgres._pool._pool._holders  # type: ignore[union-attr]
        with holder._con.query_logger(note):
            yield seen


@pytest.fixture
async def watched(settings: Settings) -> AsyncIterator[Watched]:
    app = create_app(settings.model_copy(update={"postgres_pool_max": 1, "postgres_pool_reserved": 0}))
    headers = {"Authorization": f"Bearer {token('watched')}"}
    async with Client(transport=httpx.ASGITransport(app), base_url="http://twins.test", headers=headers) as client:
        # The driver looks up the types of arrays once a connection.
        for asked in ({"twin_id": MISSING}, {"twin_id": MISSING} | _ATTRIBUTES, _NAMED[0]):
            await client.post("/api/v1/decisions", json={"items": [asked]})
        yield Watched(app.state.context, client)
    await app.close()


async def test_a_decision_is_one_statement_and_no_call_to_mongodb(watched: Watched) -> None:
    path = await make_twin(watched.client)
    items = [{"twin_id": str(id_of(path)), "purpose": f"p{n}"} for n in range(100)]
    for expected in ("granted", "withdrawn"):
        with watched.statements() as seen:
            assert await reason(watched.client, path) == expected
            await asyncio.sleep(0)
        assert len(seen) == 1, seen
        await watched.client.patch(path, json={"consent": False})
        await watched.context.mongo.close()  # the journal opened it
    with watched.statements() as seen:
        assert (await watched.client.get(f"/api/v1/twins/{MISSING}/decision")).status_code == 404
        assert (await watched.client.post("/api/v1/decisions", json={"items": items})).status_code == 200
        await asyncio.sleep(0)

    assert len(seen) == 2, seen
    assert watched.context.mongo._client is None


async def test_the_watch_sees_transactions_too(watched: Watched) -> None:
    path = await make_twin(watched.client)
    with watched.statements() as seen:
        await watched.client.patch(path, json={"tone": "warm"})
        await asyncio.sleep(0)

    first, *_, last = [query for query, _ in seen]
    assert (first, last) == ("BEGIN", "COMMIT")
    assert len(seen) >= 5


_ATTRIBUTES = {
    "recipient_type": "org",
    "recipient_id": "studio",
    "modality": "voice",
    "territory": "DE",
    "min_assurance": "token",
    "principal": "paula",
}
_NAMED = [{"external_id": {"type": "voice", "id": f"v{n}"}} | _ATTRIBUTES for n in range(100)]


async def test_a_decision_looks_up_single_rows_however_many_consents_and_twins_there_are(
    watched: Watched, stores: Stores
) -> None:
    path = await make_twin(watched.client)
    with watched.statements() as seen:
        assert await reason(watched.client, path) == "granted"
        items = [{"twin_id": str(id_of(path)), "purpose": f"p{n}"} for n in range(100)]
        await watched.client.post("/api/v1/decisions", json={"items": items})
        await watched.client.get(f"{path}/decision", params=_ATTRIBUTES)
        await watched.client.post("/api/v1/decisions", json={"items": [item | _ATTRIBUTES for item in items]})
        await watched.client.post("/api/v1/decisions", json={"items": _NAMED})
        await asyncio.sleep(0)
    assert len(seen) == 5, seen
    async with superuser(stores) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            """
            WITH t AS (
                INSERT INTO twins (owner, twin_name, use_case, tone)
                SELECT 'somebody', 'Alex', 'support', 'warm' FROM generate_series(1, 10000) RETURNING id
            ),
            made AS (
                SELECT uuidv7() AS id, t.id AS twin_id, 'general' AS purpose FROM t
                UNION ALL SELECT uuidv7(), $1, 'q' || n FROM generate_series(1, 10000) AS n
            ),
            c AS (
                INSERT INTO consents (id, twin_id, lineage, seq, principal, method, purposes, notice_version,
                                      notice_language, notice_sha256, given_at)
                SELECT id, twin_id, id, 1, 'p', 'api', ARRAY[purpose], '1', 'en', sha256('Yes.'), now() FROM made
                RETURNING *
            )
            INSERT INTO consent_states (twin_id, purpose, consent_id, lineage, seq, account, given_at)
            SELECT twin_id, purposes[1], id, id, 1, principal, given_at FROM c
            """,
            id_of(path),
        )
        await connection.execute(
            """
            WITH e AS (INSERT INTO erasures (owner_digest) SELECT '' FROM generate_series(1, 10000) RETURNING id)
            INSERT INTO erased_accounts (account, digest, erased_at, erasure_id)
            SELECT 'gone ' || id, sha256(uuid_send(id)), now(), id FROM e
            """
        )
        await connection.execute("ANALYZE twins, consents, consent_states, erased_accounts")
        plans = [
            json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON, ANALYZE) {query}", *args))[0]["Plan"]
            for query, args in seen
        ]
        await transaction.rollback()
        await connection.execute("ANALYZE twins, consents, consent_states, erased_accounts")

    for plan in plans:
        scans = [node for node in nodes(plan) if "Relation Name" in node]
        # One row, and once for a statement, not for each of its questions.
        states = [node for node in scans if node["Relation Name"] == "restore_state"]
        assert states
        assert max(node["Actual Rows"] * node["Actual Loops"] for node in states) <= 1
        scans = [node for node in scans if node not in states]
        # Who is named on a twin is looked up for those alone who do not own it.
        people = [node for node in scans if node["Relation Name"] == "named_accounts"]
        assert people
        assert max(node["Actual Loops"] for node in people) == 0
        scans = [node for node in scans if node not in people]
        relations = {node["Relation Name"] for node in scans}
        assert relations - {"external_ids"} == {"twins", "consent_states", "erased_accounts"}
        assert {node["Node Type"] for node in scans} <= {"Index Scan", "Index Only Scan"}
        # Of an owner with few twins it is cheapest to read all of them.
        assert max(node["Actual Rows"] for node in scans if node["Relation Name"] != "twins") <= 1


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


# --- The same decision elsewhere --------------------------------------------------------------------


async def test_persona_writes_and_the_prompt_ask_the_same_gate_and_reading_does_not(
    alice: Client, stores: Stores
) -> None:
    path = await make_twin(alice)
    persona = f"{path}/persona"
    assert (await alice.put(persona, json={"summary": "One."})).status_code == 200
    (first,) = (await alice.get(f"{path}/consents")).json()["items"]

    async def refused_for(why: str) -> None:
        assert await reason(alice, path) == why
        for method, below, body in (
            ("PUT", "", {"summary": "Two."}),
            ("PATCH", "", {"summary": "Two."}),
            ("POST", "/versions/1/restore", None),
            ("GET", "/prompt", None),
        ):
            answer = await alice.request(method, persona + below, json=body)
            assert is_problem(answer, 403, "consent-required"), (why, method)
            assert answer.json()["reason"] == why
        assert (await alice.get(persona)).json()["summary"] == "One."
        assert len((await alice.get(f"{persona}/versions")).json()["items"]) == 1

    await withdraw(alice, first)
    await refused_for("withdrawn")
    # A grant for something else does not help.
    await grant(alice, path, "voice")
    await refused_for("withdrawn")
    future = await grant(alice, path, not_before=after(HOUR))
    await refused_for("not_yet_valid")
    await renew(alice, future, not_before=None, expires_at=after(HOUR))
    assert (await alice.get(f"{persona}/prompt")).status_code == 200
    async with superuser(stores) as connection:
        await pass_time(connection, 2 * HOUR, path)
    await refused_for("expired")
    await grant(alice, path)
    assert (await alice.patch(persona, json={"summary": "Two."})).json()["version"] == 2


async def test_a_persona_of_a_twin_nobody_agreed_to_is_refused(alice: Client) -> None:
    path = await make_twin(alice, consent=False)
    refused = await alice.put(f"{path}/persona", json={"summary": "One."})

    assert is_problem(refused, 403, "consent-required")
    assert refused.json()["reason"] == "no_consent"
    consent = await alice.post(f"{path}/consents", json={"purposes": ["general"], "notice": NOTICE})
    assert (await alice.put(f"{path}/persona", json={"summary": "One."})).status_code == 200
    assert location(consent.json()) == consent.headers["location"]
