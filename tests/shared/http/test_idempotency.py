"""`Idempotency-Key`: a POST that is sent again takes effect once."""

import asyncio
import hashlib
from uuid import UUID

import httpx
import pytest

from shared.http import idempotency
from shared.http.idempotency import LIFE_HOURS, forget
from tests.support.app import ALEX, Client, is_problem, make_twin
from tests.support.database import owner_of, refused_name
from tests.support.stores import Stores
from twins.context import Context

TWINS = "/api/v1/twins"
KEY = {"Idempotency-Key": "4f1c0c2e-a-key-of-the-client"}


async def count(client: Client) -> int:
    return len((await client.get(TWINS, params={"limit": 100})).json()["items"])


async def test_the_same_request_again_is_given_the_same_answer(alice: Client) -> None:
    first, again = [await alice.post(TWINS, json=ALEX, headers=KEY) for _ in range(2)]

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    for name in ("location", "etag", "content-type", "content-length", "cache-control"):
        assert again.headers[name] == first.headers[name]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert first.headers["content-type"] == "application/json"
    assert await count(alice) == 1


async def test_what_has_changed_since_is_shown_as_it_is_now(alice: Client) -> None:
    first = await alice.post(TWINS, json=ALEX, headers=KEY)
    changed = await alice.patch(first.headers["location"], json={"tone": "warm", "consent": False})
    again = await alice.post(TWINS, json=ALEX, headers=KEY)

    assert (again.status_code, again.content) == (201, changed.content)
    assert again.headers["etag"] == changed.headers["etag"] != first.headers["etag"]
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert (
        await alice.patch(first.headers["location"], json={}, headers={"If-Match": again.headers["etag"]})
    ).is_success


async def test_a_repeat_that_cannot_read_what_was_made_is_refused_and_its_key_stays_used(
    alice: Client, stores: Stores
) -> None:
    first = await alice.post(TWINS, json=ALEX, headers=KEY)
    async with owner_of(stores) as connection, connection.transaction():
        await connection.execute("LOCK TABLE twins IN ACCESS EXCLUSIVE MODE")
        refused = await alice.post(TWINS, json=ALEX, headers=KEY)
    again = await alice.post(TWINS, json=ALEX, headers=KEY)

    assert is_problem(refused, 503, "unavailable")
    assert again.content == first.content
    assert await count(alice) == 1


@pytest.mark.parametrize(
    "content",
    [
        b'{"twin_name":"Alex","use_case":"support","tone":"x","consent":true} ',
        b'{"twin_name":"Bo","use_case":"support","tone":"x","consent":true}',
    ],
)
async def test_another_body_under_the_same_key_is_refused(alice: Client, content: bytes) -> None:
    headers = KEY | {"Content-Type": "application/json"}
    first = b'{"twin_name":"Alex","use_case":"support","tone":"x","consent":true}'
    assert (await alice.post(TWINS, content=first, headers=headers)).status_code == 201

    refused = await alice.post(TWINS, content=content, headers=headers)
    assert is_problem(refused, 422, "idempotency-key-reused")
    assert refused.json()["errors"] == [{"header": "Idempotency-Key", "detail": "was used for another request"}]
    assert await count(alice) == 1


async def test_another_resource_under_the_same_key_is_refused(alice: Client) -> None:
    path = await make_twin(alice)
    for n in (1, 2):
        await alice.put(f"{path}/persona", json={"summary": f"Number {n}."})
    restored = await alice.post(f"{path}/persona/versions/1/restore", headers=KEY)
    assert restored.status_code == 201

    refused = await alice.post(f"{path}/persona/versions/2/restore", headers=KEY)
    assert is_problem(refused, 422, "idempotency-key-reused")
    assert is_problem(await alice.post(TWINS, json=ALEX, headers=KEY), 422, "idempotency-key-reused")
    again = await alice.post(f"{path}/persona/versions/1/restore", headers=KEY)
    assert again.content == restored.content
    assert (await alice.get(f"{path}/persona")).json()["version"] == 3


async def test_the_same_key_of_another_owner_is_another_key(alice: Client, bob: Client) -> None:
    hers, his = [await client.post(TWINS, json=ALEX, headers=KEY) for client in (alice, bob)]

    assert hers.json()["id"] != his.json()["id"]
    assert "idempotency-replayed" not in his.headers
    assert (await bob.get(hers.headers["location"])).status_code == 404


async def test_without_a_key_each_request_makes_a_twin(alice: Client) -> None:
    for _ in range(2):
        await make_twin(alice)
    assert await count(alice) == 2


async def test_of_requests_at_once_one_makes_the_twin(alice: Client) -> None:
    answers = await asyncio.gather(*(alice.post(TWINS, json=ALEX, headers=KEY) for _ in range(8)))

    made = [answer for answer in answers if answer.status_code == 201]
    assert len({answer.content for answer in made}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in made) == 1
    for answer in answers:
        if answer.status_code != 201:
            assert is_problem(answer, 409, "idempotency-key-in-use")
    assert await count(alice) == 1


async def test_while_the_first_request_runs_the_second_is_told_so(alice: Client, stores: Stores) -> None:
    # The first answer is held up by a lock on the table that it has to insert into.
    async with owner_of(stores) as connection, connection.transaction():
        await connection.execute("LOCK TABLE twins IN SHARE MODE")
        first = asyncio.create_task(alice.post(TWINS, json=ALEX, headers=KEY))
        while not await connection.fetchval(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND NOT granted"
        ):
            await asyncio.sleep(0.005)
        second = await alice.post(TWINS, json=ALEX, headers=KEY)
        assert is_problem(second, 409, "idempotency-key-in-use")
        assert second.json()["detail"] == "A request with this Idempotency-Key is being answered."
        for _ in range(2):
            other = await alice.post(TWINS, json=ALEX | {"tone": "other"}, headers=KEY)
            assert is_problem(other, 422, "idempotency-key-reused")

    assert (await first).status_code == 201
    assert (await alice.post(TWINS, json=ALEX, headers=KEY)).content == (await first).content


@pytest.mark.parametrize("key", [b"", b" ", b"a b", b"x" * 256, "é".encode(), b"a\tb", b"\x7f"])
async def test_a_key_that_does_not_fit_is_refused_and_nothing_is_made(alice: Client, key: bytes) -> None:
    refused = await alice.post(TWINS, json=ALEX, headers={b"Idempotency-Key": key})

    assert is_problem(refused, 422, "validation-failed")
    assert refused.json()["errors"][0]["header"] == "Idempotency-Key"
    assert await count(alice) == 0


async def test_the_longest_key_of_the_oddest_characters_is_a_key(alice: Client) -> None:
    key = {"Idempotency-Key": ("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~" * 8)[:255]}
    first, again = [await alice.post(TWINS, json=ALEX, headers=key) for _ in range(2)]

    assert first.content == again.content


async def test_a_refused_request_leaves_its_key_free(alice: Client) -> None:
    assert (await alice.post(TWINS, json=ALEX | {"tone": ""}, headers=KEY)).status_code == 422
    assert (await alice.post(TWINS, json=ALEX, headers=KEY)).status_code == 201


async def test_a_failed_request_leaves_its_key_free(alice: Client, stores: Stores) -> None:
    async with refused_name(stores, "Nobody"):
        failed = await alice.post(TWINS, json=ALEX | {"twin_name": "Nobody"}, headers=KEY)

    assert is_problem(failed, 500, "internal-error")
    made = await alice.post(TWINS, json=ALEX | {"twin_name": "Nobody"}, headers=KEY)
    assert made.status_code == 201
    assert "idempotency-replayed" not in made.headers


async def test_a_key_is_free_again_after_a_day(alice: Client, context: Context) -> None:
    first = await alice.post(TWINS, json=ALEX, headers=KEY)
    for hours, expected in ((LIFE_HOURS - 1, 422), (2, 201)):
        async with context.postgres.connection() as connection:
            await connection.execute(
                "UPDATE idempotency_keys SET created_at = created_at - make_interval(hours => $1) WHERE twin_id = $2",
                hours,
                first.json()["id"],
            )
        answer = await alice.post(TWINS, json=ALEX | {"tone": "warm"}, headers=KEY)
        assert answer.status_code == expected

    assert answer.json()["id"] != first.json()["id"]
    again = await alice.post(TWINS, json=ALEX | {"tone": "warm"}, headers=KEY)
    assert again.content == answer.content
    assert again.headers["idempotency-replayed"] == "true"


async def kept(context: Context, *answers: httpx.Response) -> list[bool]:
    """Tell of each answer whether it is still stored."""
    async with context.postgres.connection() as connection:
        rows = await connection.fetch("SELECT twin_id FROM idempotency_keys")
    return [UUID(answer.json()["id"]) in {row["twin_id"] for row in rows} for answer in answers]


async def test_answers_are_removed_after_a_day_in_batches_for_as_long_as_there_is_time(
    alice: Client, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    await forget(context.postgres)  # of other tests
    answers = [await alice.post(TWINS, json=ALEX, headers={"Idempotency-Key": f"number-{n}"}) for n in range(4)]
    for answer, hours in zip(answers, (0, LIFE_HOURS - 1, LIFE_HOURS, LIFE_HOURS + 1), strict=True):
        async with context.postgres.connection() as connection:
            await connection.execute(
                "UPDATE idempotency_keys SET created_at = created_at - make_interval(hours => $1) WHERE twin_id = $2",
                hours,
                answer.json()["id"],
            )
    monkeypatch.setattr(idempotency, "_BATCH", 1)

    monkeypatch.setattr(idempotency, "_WORK", 0.0)
    await forget(context.postgres)
    assert sum(await kept(context, *answers)) == 4
    monkeypatch.setattr(idempotency, "_WORK", 5.0)
    for _ in range(2):
        await forget(context.postgres)
        assert await kept(context, *answers) == [True, True, False, False]


async def test_the_table_of_keys_has_digests_and_ids_and_nothing_else(alice: Client, context: Context) -> None:
    made = await alice.post(TWINS, json=ALEX, headers=KEY)
    async with context.postgres.connection() as connection:
        row = await connection.fetchrow("SELECT * FROM idempotency_keys WHERE twin_id = $1", made.json()["id"])

    assert row is not None
    assert set(row.keys()) == {"key_hash", "request_hash", "twin_id", "made", "status", "created_at"}
    assert (str(row["twin_id"]), row["made"], row["status"]) == (made.json()["id"], made.json()["id"], 201)
    assert len(row["key_hash"]) == len(row["request_hash"]) == 32
    # With a plain hash, whoever has the table could tell whether the twin was the one they guess.
    guessed = hashlib.sha256(b"POST /api/v1/twins\n" + made.request.content).digest()
    assert row["request_hash"] != guessed
