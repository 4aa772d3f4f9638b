"""The replay: what the events say is compared with what is stored, and the first difference is named."""

import asyncio
import random

import asyncpg
import pytest

from tests.support.app import Client, ClientOf, id_of, make_twin
from tests.support.consent import HOUR, after, grant, location, renew, transitions, verify, withdraw
from tests.support.database import owner_of, superuser, tampering
from tests.support.hostile import GUARDED, REFUSED
from tests.support.stores import Stores
from twins.context import Context
from twins.ledger import verification

QUENTINS = "twin_id = $1 AND opener = 'quentin'"
ADS = "twin_id = $1 AND purpose = 'ads'"
TERMS = "twin_id = $1 AND seq = 3"
LINE = "(SELECT lineage FROM consents WHERE twin_id = $1 AND seq = 2)"


async def spoken(client_of: ClientOf) -> tuple[Client, str]:
    """Make a twin on which an owner, two persons and an operator have spoken: yes and no, in part and in whole."""
    owner, paula = client_of("replay-owner"), client_of("paula")
    path = await make_twin(owner, principals=["quentin"])
    voice = await grant(owner, path, "voice", "dubbing", principal="paula", expires_at=after(HOUR))
    voice = await renew(owner, voice)
    await withdraw(owner, await grant(owner, path, "ads"))
    assert (await paula.post(f"{location(voice)}/withdraw", json={"purposes": ["voice"]})).status_code == 200
    assert (await paula.post(f"{path}/refusals", json={"purposes": ["games", "films"]})).status_code == 200
    await grant(paula, path, "voice", principal="paula")
    assert (await client_of("quentin").post(f"{path}/refusals", json={"purposes": ["news"]})).status_code == 201
    operator = client_of("operator", "twins:stop")
    assert (await operator.post(f"{path}/refusals", json={"purposes": ["news"]})).status_code == 201
    assert await transitions(owner, path) == (
        ["given", "given", "renewed", "given", "withdrawn", "withdrawn", "refused", "opened", "given"] + ["refused"] * 2
    )
    return owner, path


async def test_everything_that_can_be_said_is_replayed_to_what_is_stored(client_of: ClientOf) -> None:
    owner, path = await spoken(client_of)
    found = await verify(owner, path)

    assert (found["valid"], found["events"], found["terms_unverifiable"]) == (True, 11, 0)
    (refusal,) = (await client_of("quentin").get(f"{path}/refusals")).json()["items"]
    assert (await client_of("quentin").post(f"{path}/refusals")).status_code == 200
    assert (await client_of("quentin").delete(f"{path}/refusals/{refusal['id']}")).status_code == 204
    assert (await verify(owner, path))["valid"] is True


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_people_do_in_whatever_order_is_replayed_to_what_is_stored(  # noqa: C901 - one case an act
    client_of: ClientOf, seed: int
) -> None:
    chance = random.Random(seed)
    names = [f"{who}-{seed}" for who in ("owner", "paula", "quentin")]
    clients = [client_of(name) for name in names]
    owner, operator = clients[0], client_of("operator", "twins:stop")
    path = await make_twin(owner, principals=names[1:] if seed % 2 else [])
    consents: list[str] = []
    for number in range(70):
        client, purposes = chance.choice(clients), chance.sample("abcdef", chance.randint(1, 3))
        match chance.randrange(9):
            case 0 | 1 | 2:
                who = chance.choice(names) if client is owner else names[clients.index(client)]
                body = {
                    "purposes": purposes,
                    "notice": {"version": "1", "language": "en", "text": f'"Yes"\n\t{number}é'},
                }
                end = {"expires_at": after(HOUR)} if chance.random() < 0.5 else {}
                answer = await client.post(f"{path}/consents", json=body | end | {"principal": who})
                if answer.status_code == 201:
                    consents.append(location(answer.json()))
            case 3 if consents:
                answer = await client.post(f"{chance.choice(consents)}/renew", json={})
                if answer.status_code == 201:
                    consents.append(location(answer.json()))
            case 4 | 5 if consents:
                some = {"purposes": purposes} if chance.random() < 0.5 else {}
                await chance.choice([*clients, operator]).post(f"{chance.choice(consents)}/withdraw", json=some)
            case 6:
                some = {"purposes": purposes} if chance.random() < 0.95 else {}
                await chance.choice([*clients[1:], operator]).post(f"{path}/refusals", json=some)
            case 7 | 8:
                for item in (await client.get(f"{path}/refusals")).json().get("items", []):
                    for any_of_them in (*clients, operator):
                        await any_of_them.delete(f"{path}/refusals/{item['id']}")
        if number % 10 == 9:
            found = await verify(owner, path)
            assert found["valid"], (number, found)
    assert found["events"] > 1


async def test_what_people_do_during_a_verification_raises_no_alarm(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_CHUNK", 2)  # so that much can happen between two pages
    owner, path = await spoken(client_of)
    paula, quentin = client_of("paula"), client_of("quentin")

    async def act() -> None:
        for number in range(8):
            consent = await renew(paula, await grant(paula, path, f"p{number}", "voice-2", principal="paula"))
            assert (await quentin.post(f"{path}/refusals", json={"purposes": [f"q{number}"]})).is_success
            await withdraw(paula, consent)

    acting = asyncio.create_task(act())
    seen = []
    while not acting.done():
        seen.append(await verify(owner, path))
    await acting
    seen.append(await verify(owner, path))

    assert [found["reason"] for found in seen] == [None] * len(seen)
    assert seen[-1]["events"] > 30


# --- What is stored is changed ----------------------------------------------------------------------

TAMPERED = {
    # The state of a purpose, set back to yes.
    f"UPDATE consent_states SET no = NULL WHERE {ADS}": (5, "state of a purpose differs"),
    f"UPDATE consent_states SET seq = seq + 20 WHERE {ADS}": (5, "state of a purpose differs"),
    f"DELETE FROM consent_states WHERE {ADS}": (5, "state of a purpose is missing"),
    "DELETE FROM consent_states WHERE twin_id = $1 AND purpose = 'news'": (10, "purposes differ"),
    "UPDATE consent_states SET expires_at = NULL WHERE twin_id = $1 AND purpose = 'dubbing'": (
        *(3, "state of a purpose differs"),
    ),
    "UPDATE consent_states SET account = 'mallory' WHERE twin_id = $1 AND purpose = 'general'": (
        *(1, "state of a purpose differs"),
    ),
    "INSERT INTO consent_states (twin_id, purpose) VALUES ($1, 'zoo')": (11, "state of a purpose without an event"),
    # Withdrawals.
    f"DELETE FROM withdrawals WHERE {ADS}": (5, "a withdrawal is missing"),
    f"UPDATE withdrawals SET withdrawn_by = 'operator' WHERE {ADS}": (5, "a withdrawal differs"),
    f"UPDATE withdrawals SET withdrawn_at = now() WHERE {ADS}": (5, "a withdrawal differs"),
    f"INSERT INTO withdrawals SELECT $1, {LINE}, 'dubbing', now(), 'owner'": (11, "a withdrawal without an event"),
    f"UPDATE withdrawals SET actor = 'mallory' WHERE {ADS}": (5, "a withdrawal differs"),
    f"UPDATE withdrawals SET client = 'mallory' WHERE {ADS}": (5, "a withdrawal differs"),
    # Refusals.
    f"DELETE FROM locks WHERE {QUENTINS}": (10, "a lock is missing"),
    f"UPDATE locks SET opener = 'mallory' WHERE {QUENTINS}": (10, "a lock differs"),
    f"UPDATE locks SET opened_at = now() WHERE {QUENTINS}": (10, "a lock differs"),
    f"UPDATE locks SET purposes = '{{nothing}}' WHERE {QUENTINS}": (10, "a lock differs"),
    f"UPDATE locks SET purposes = NULL, exceptions = '{{news}}' WHERE {QUENTINS}": (10, "a lock differs"),
    "INSERT INTO locks (twin_id, opener_kind, refused_at) VALUES ($1, 'none', now())": (
        *(11, "a lock without an event"),
    ),
    "INSERT INTO stops VALUES ($1, 11, now(), NULL, true)": (11, "a stop without an event"),
    "UPDATE twins SET stop_seq = 11 WHERE id = $1": (11, "the last stop differs"),
    "UPDATE twins SET spoken = 0 WHERE id = $1": (8, "whether a person has spoken differs"),
    # Terms.
    f"UPDATE consents SET expires_at = '2099-01-01Z' WHERE {TERMS}": (3, "terms differ"),
    f"UPDATE consents SET not_before = '2020-01-01Z' WHERE {TERMS}": (3, "terms differ"),
    f"UPDATE consents SET principal = 'mallory' WHERE {TERMS}": (3, "terms differ"),
    f"UPDATE consents SET method = 'phone' WHERE {TERMS}": (3, "terms differ"),
    f"UPDATE consents SET notice_version = '0' WHERE {TERMS}": (3, "terms differ"),
    "UPDATE consents SET purposes = '{ads,zoo}' WHERE twin_id = $1 AND seq = 4": (4, "terms differ"),
    f"UPDATE consents SET renews = NULL WHERE {TERMS}": (3, "record differs"),
    f"UPDATE consents SET given_at = given_at - interval '1 day' WHERE {TERMS}": (3, "record differs"),
    f"UPDATE consents SET lineage = id WHERE {TERMS}": (3, "record differs"),
    f"UPDATE consents SET actor = principal WHERE {TERMS}": (3, "record differs"),
    f"UPDATE consents SET client = 'mallory' WHERE {TERMS}": (3, "record differs"),
    f"DELETE FROM consents WHERE {TERMS}": (3, "consent is missing"),
    """
    INSERT INTO consents (twin_id, lineage, seq, principal, method, purposes, notice_version, notice_language,
                          notice_sha256, given_at)
    SELECT twin_id, lineage, 12, principal, method, purposes, notice_version, notice_language, notice_sha256, given_at
    FROM consents WHERE twin_id = $1 AND seq = 2
    """: (11, "a consent without an event"),
    "UPDATE notices SET notice = 'Anything.' WHERE twin_id = $1": (1, "notice differs"),
    "DELETE FROM notices WHERE twin_id = $1": (1, "notice differs"),
    # Salts, given to each other.
    f"""
    UPDATE salts s SET salt = o.salt FROM salts o
    WHERE s.twin_id = $1 AND o.twin_id = $1 AND s.lineage = {LINE}
      AND o.lineage = (SELECT lineage FROM consents WHERE twin_id = $1 AND seq = 1)
    """: (2, "terms differ"),
    f"""
    UPDATE salts s SET salt = o.salt FROM salts o
    WHERE s.twin_id = $1 AND o.twin_id = $1 AND o.lineage = {LINE}
      AND s.lineage = '00000000-0000-0000-0000-000000000000'
    """: (7, "purposes differ"),
}


@pytest.mark.parametrize("statement", TAMPERED)
async def test_what_is_changed_behind_the_ledger_is_found_and_named(
    client_of: ClientOf, stores: Stores, caplog: pytest.LogCaptureFixture, statement: str
) -> None:
    owner, path = await spoken(client_of)
    async with tampering(stores) as connection:
        done = await connection.execute(statement, id_of(path))
        try:
            found = await verify(owner, path)
        finally:
            await connection.execute("DELETE FROM notices WHERE twin_id = $1", id_of(path))

    assert done.rpartition(" ")[2] != "0"
    assert (found["valid"], found["broken_at"], found["reason"]) == (False, *TAMPERED[statement])
    assert found["events"] <= 11
    assert "Ledger is broken" in caplog.messages


async def test_a_yes_that_was_given_while_a_lock_was_away_is_found(client_of: ClientOf, stores: Stores) -> None:
    owner, path = await spoken(client_of)
    async with superuser(stores) as connection:
        await connection.execute("CREATE TEMP TABLE away AS SELECT * FROM locks WHERE twin_id = $1", id_of(path))
        await connection.execute("DELETE FROM locks WHERE twin_id = $1", id_of(path))
        await connection.execute("UPDATE twins SET spoken = 0 WHERE id = $1", id_of(path))
        await grant(owner, path, "news")
        await connection.execute("INSERT INTO locks SELECT * FROM away")
        await connection.execute("UPDATE twins SET spoken = 2 WHERE id = $1", id_of(path))
    found = await verify(owner, path)

    assert (found["valid"], found["broken_at"], found["reason"]) == (False, 12, "given under a refusal")


async def test_an_erased_twin_that_is_brought_back_is_found(client_of: ClientOf, stores: Stores) -> None:
    owner, path = await spoken(client_of)
    async with superuser(stores) as connection:
        await connection.execute(
            """
            WITH e AS (INSERT INTO erasures (owner_digest) VALUES ('') RETURNING id)
            SELECT erase_twins((SELECT id FROM e), 'replay-owner', 'replay-owner', ARRAY[$1::uuid])
            """,
            id_of(path),
        )
        back = "owner = 'replay-owner', twin_name = 'Alex', use_case = 'x', tone = 'x', erased_at = NULL"
        await connection.execute(f"UPDATE twins SET {back} WHERE id = $1", id_of(path))
    found = await verify(owner, path)

    assert (found["valid"], found["broken_at"], found["reason"]) == (False, 12, "the twin is not erased")


async def test_terms_whose_salt_is_destroyed_are_counted_and_the_rest_is_verified(
    client_of: ClientOf, stores: Stores
) -> None:
    owner, path = await spoken(client_of)
    async with superuser(stores) as connection:
        await connection.execute(f"DELETE FROM salts WHERE twin_id = $1 AND lineage = {LINE}", id_of(path))
        kept = await verify(owner, path)
        await connection.execute(f"UPDATE consent_states SET no = NULL WHERE {ADS}", id_of(path))
        found = await verify(owner, path)

    assert (kept["valid"], kept["terms_unverifiable"]) == (True, 2)
    assert (found["broken_at"], found["reason"]) == (5, "state of a purpose differs")


async def test_a_twins_own_salt_may_be_drawn_anew(client_of: ClientOf, stores: Stores) -> None:
    owner, path = await spoken(client_of)
    async with superuser(stores) as connection:
        await connection.execute(
            "DELETE FROM salts WHERE twin_id = $1 AND lineage = '00000000-0000-0000-0000-000000000000'", id_of(path)
        )
    assert (await client_of("rosa", "twins:stop").post(f"{path}/refusals", json={"purposes": ["zoo"]})).is_success
    found = await verify(owner, path)

    assert (found["valid"], found["events"], found["terms_unverifiable"]) == (True, 12, 0)


# --- Who could change it ----------------------------------------------------------------------------


@pytest.mark.parametrize("statement", REFUSED)
async def test_the_serving_role_lacks_the_privilege(context: Context, statement: str) -> None:
    async with context.postgres.connection() as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


async def test_the_serving_role_may_change_nothing_in_the_tables_that_functions_write(stores: Stores) -> None:
    async with owner_of(stores) as connection:
        rows = await connection.fetch(
            """
            SELECT relname FROM pg_class
            WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
              AND (has_any_column_privilege('twins_serving', oid, 'INSERT, UPDATE')
                   OR has_table_privilege('twins_serving', oid, 'DELETE, TRUNCATE'))
            """
        )

    found = {row["relname"] for row in rows}
    assert "twins" in found
    assert not found & set(GUARDED)
