"""What a restore can meet: no journal, an old one, a broken ledger, a second restore."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest

from devstack.mongod import Mongod
from shared.stores.mongo import Mongo
from tests.support.app import id_of, is_problem, make_twin
from tests.support.consent import grant, reason, renew, verify, withdraw
from tests.support.database import owner_of, superuser
from tests.support.erasure import erase
from tests.support.restore import UNCONFIRMED, Backups, People, closed, go_on, made_good, outcomes, refuse, standing
from tests.support.stores import Stores, store_folder
from twins.context import Context
from twins.journal import documents, service


@pytest.fixture
async def open_again(backups: Backups, context: Context) -> AsyncIterator[None]:
    """Whatever a test leaves closed is open for the next."""
    yield
    assert backups.restored("--journal-lost").returncode == 0
    await made_good(context)


async def agreed(people: People, *purposes: str) -> str:
    """Make a twin for which Paula, whom it names, has agreed to purposes."""
    path = await make_twin(people("alice"), principals=[people.name("paula")], consent=False)
    await grant(people("paula"), path, *(purposes or ("voice",)))
    return path


async def compared(context: Context) -> None:
    """Wait until the ledgers have been compared with all of the journal."""
    await go_on(context)


@pytest.mark.usefixtures("open_again")
async def test_both_stores_restored_to_the_same_moment_stay_closed_until_the_newest_journal_is_named(
    people: People, backups: Backups, context: Context
) -> None:
    path = await agreed(people)
    dump, copy = await backups.dump(), backups.copy_documents()
    await refuse(people("paula"), path, "voice")
    newest = backups.copy_documents()
    await backups.restore(dump)
    backups.restore_documents(copy)

    await go_on(context)  # nothing tells these stores from ones that nobody has restored
    assert await reason(people("alice"), path, "voice") == "granted"
    done = backups.restored()
    assert done.returncode == 1
    assert "--journal-lost" in done.stderr
    await go_on(context)
    assert await reason(people("alice"), path, "voice") == UNCONFIRMED

    with store_folder() as folder, Mongod(folder / "mongod") as running:
        Backups(_with(backups.stores, running)).restore_documents(newest)
        done = backups.restored("--journal", running.uri)
    assert done.returncode == 0, done.stderr
    await made_good(context)
    assert await reason(people("alice"), path, "voice") == "refused"
    assert {entry["_id"] for entry in newest["journal"]} <= {entry["_id"] for entry in backups.journal()}


@pytest.mark.usefixtures("open_again")
async def test_what_is_compared_is_read_again_at_times_or_where_postgresql_knows_less(
    people: People, backups: Backups, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event may be earlier than one that was compared before it: a loss of it is noticed within a minute."""
    path = await agreed(people)
    for purpose in ("voice", "face", "name"):
        await refuse(people("paula"), path, purpose)
    await go_on(context)
    read: list[bytes] = []

    async def find(mongo: Mongo, at: str, digest: bytes, limit: int) -> list[dict[str, Any]]:
        found = await documents.find_after(mongo, at, digest, limit)
        read.extend(entry["_id"] for entry in found)
        return found

    monkeypatch.setattr(service, "find_after", find)
    await go_on(context)
    assert len(read) <= 1  # the newest, where another process has compared it

    context.compared.again_at = 0
    await go_on(context)
    assert len(set(read)) >= 3

    read.clear()
    async with superuser(backups.stores) as connection:
        first = datetime.fromisoformat(backups.journal()[-3]["at"])
        await connection.execute("UPDATE restores SET compared_to = $1", first)
    await go_on(context)
    assert len(set(read)) >= 3

    newest = backups.journal()[-1]
    lost = newest | {"_id": b"lost", "subject": uuid4(), "at": backups.journal()[-2]["at"]}
    backups.restore_documents(backups.copy_documents() | {"journal": [*backups.journal(), lost]})
    context.compared.again_at = 0
    await go_on(context)
    assert await reason(people("alice"), path, "other") == UNCONFIRMED
    backups.restore_documents({"journal": [entry for entry in backups.journal() if entry["_id"] != b"lost"]})


@pytest.mark.usefixtures("open_again")
async def test_a_journal_from_before_the_backup_does_not_count(
    people: People, backups: Backups, context: Context
) -> None:
    path = await agreed(people)
    copy = backups.copy_documents()
    await refuse(people("paula"), path, "voice")
    await compared(context)
    backups.restore_documents(copy)

    for arguments in ((), ("--journal", backups.stores.mongod.uri)):
        done = backups.restored(*arguments)
        assert (done.returncode, "not the newest" in done.stderr) == (1, True), done.stderr
    await go_on(context)
    assert await reason(people("alice"), path, "voice") == UNCONFIRMED


async def test_a_lost_journal_opens_on_the_operators_word_which_is_recorded(
    people: People, backups: Backups, context: Context
) -> None:
    path = await agreed(people)
    dump = await backups.dump()
    await refuse(people("paula"), path, "voice")
    await backups.restore(dump)

    done = backups.restored("--journal-lost")
    assert done.returncode == 0, done.stderr
    assert "the journal that counts is lost" in done.stderr
    assert await reason(people("alice"), path, "voice") == UNCONFIRMED
    await made_good(context)
    assert await reason(people("alice"), path, "voice") == "granted"
    async with superuser(backups.stores) as connection:
        row = await connection.fetchrow(
            "SELECT closed_by, journal, decided_at FROM restores ORDER BY epoch DESC LIMIT 1"
        )
    assert row is not None
    assert (row["closed_by"], row["journal"], row["decided_at"] is not None) == ("operator", "lost", True)
    # The entries from before are not news to the app: it does not close the gate again.
    await go_on(context)
    assert await reason(people("alice"), path, "voice") == "granted"


async def test_broken_ledgers_stay_closed_and_are_listed_while_others_open(
    people: People, backups: Backups, context: Context
) -> None:
    broken, whole = await agreed(people), await agreed(people)
    async with superuser(backups.stores) as connection:
        await connection.execute("UPDATE consents SET method = 'x' WHERE twin_id = $1", id_of(broken))
    assert backups.restored("--journal", backups.stores.mongod.uri).returncode == 0
    await made_good(context)

    assert await reason(people("alice"), whole, "voice") == "granted"
    assert await reason(people("alice"), broken, "voice") == UNCONFIRMED
    assert await closed(context) == {str(id_of(broken)): "the ledger is broken at 1: terms differ"}
    # A no takes effect behind a closed gate; a grant does not open it.
    await refuse(people("paula"), broken, "voice")
    assert await reason(people("alice"), broken, "voice") == UNCONFIRMED
    done = backups.restored("--open", str(id_of(broken)))
    assert done.returncode == 0, done.stderr
    assert await reason(people("alice"), broken, "voice") == "refused"
    assert await closed(context) == {}
    async with superuser(backups.stores) as connection:
        opened = await connection.fetchval("SELECT opened_unconfirmed FROM restores ORDER BY epoch DESC LIMIT 1")
    assert opened == [id_of(broken)]
    await erase(people("alice"), broken)  # no later restore lists it again


async def test_a_twin_whose_loss_cannot_be_repeated_stays_closed_and_opens_when_it_can(
    people: People, backups: Backups, context: Context
) -> None:
    path, other = await agreed(people), await agreed(people)
    dump = await backups.dump()
    await refuse(people("paula"), path, "voice")
    await backups.restore(dump)
    async with owner_of(backups.stores) as connection:
        await connection.execute("ALTER TABLE locks ADD CONSTRAINT locks_stuck CHECK (false) NOT VALID")
        try:
            assert backups.restored().returncode == 0
            await made_good(context)
            assert await reason(people("alice"), other, "voice") == "granted"
            assert await reason(people("alice"), path, "voice") == UNCONFIRMED
            assert (await closed(context))[str(id_of(path))] == "behind the journal: CheckViolationError"
        finally:
            await connection.execute("ALTER TABLE locks DROP CONSTRAINT locks_stuck")
        await connection.execute("UPDATE unconfirmed_twins SET tried_at = now() - interval '2 minutes'")
        await connection.execute("UPDATE restores SET ended_at = now() WHERE ended_at IS NULL")
    await go_on(context)
    assert await reason(people("alice"), path, "voice") == "refused"
    assert str(id_of(path)) not in await closed(context)


async def test_a_second_restore_repeats_each_event_once_more(
    people: People, backups: Backups, context: Context
) -> None:
    path, gone = await agreed(people, "voice", "face"), await agreed(people)
    dump = await backups.dump()
    refusal = await refuse(people("paula"), path, "voice")
    await refuse(people("paula"), path, "face")
    assert (await people("paula").delete(f"{path}/refusals/{refusal['id']}")).status_code == 204
    second = await refuse(people("paula"), path, "dance")
    erasure = await erase(people("alice"), gone)
    for _ in range(3):
        await backups.restore(dump)
        assert backups.restored().returncode == 0
        await made_good(context)
        assert await reason(people("alice"), path, "voice") == "refused"
        assert await reason(people("alice"), path, "face") == "refused"
        assert await standing(people("paula"), path) == [(["dance"], second["id"])]
        assert (await people("alice").get(gone)).status_code == 404
        assert (await people("alice").get(erasure)).status_code == 200
        assert (await verify(people("alice"), path))["valid"]
        found = (await outcomes(context))[str(id_of(path))]
        assert [kind for kind, outcome in found if outcome == "repeated"] == ["refused", "refused", "opened", "refused"]
        assert {outcome for _, outcome in found} <= {"repeated", "repeats another"}


async def test_what_follows_a_restore_is_journalled_and_a_backup_of_it_restored(
    people: People, backups: Backups, context: Context
) -> None:
    path = await agreed(people, "voice", "face")
    dump = await backups.dump()
    await refuse(people("paula"), path, "voice")
    await backups.restore(dump)
    # Another history begins before anybody notices: the journal has an event of the same number.
    withdrawn = (await people("paula").get("/api/v1/me/consents")).json()["items"][0]
    await people("paula").post(f"{path}/consents/{withdrawn['id']}/withdraw", json={"purposes": ["face"]})
    await go_on(context)
    assert await reason(people("alice"), path, "face") == UNCONFIRMED
    later = await backups.dump()
    assert backups.restored().returncode == 0
    await made_good(context)
    assert await reason(people("alice"), path, "voice") == "refused"
    assert await reason(people("alice"), path, "face") == "withdrawn"
    await refuse(people("paula"), path)
    await backups.restore(later)
    assert await reason(people("alice"), path, "voice") == UNCONFIRMED  # the backup of a closed gate is closed
    assert backups.restored().returncode == 0
    await made_good(context)
    assert await reason(people("alice"), path, "song") == "refused"
    assert (await verify(people("alice"), path))["valid"]


async def test_a_refusal_of_somebody_the_backup_does_not_name_stands_without_an_opener(
    people: People, backups: Backups, context: Context
) -> None:
    alice, paula = people("alice"), people("paula")
    path = await make_twin(alice, consent=True)
    dump = await backups.dump()
    assert (await alice.patch(path, json={"principals": [people.name("paula")]})).status_code == 200
    refusal = await refuse(paula, path)
    await backups.restore(dump)
    assert backups.restored().returncode == 0
    await made_good(context)
    assert await reason(alice, path) == "refused"
    assert await standing(alice, path) == [(None, refusal["id"])]
    assert is_problem(await paula.delete(f"{path}/refusals/{refusal['id']}"), 404, "not-found")
    assert (await alice.patch(path, json={"consent": True})).status_code == 409
    assert (await verify(alice, path))["valid"]


async def test_while_the_gate_is_closed_personas_boolean_and_batch_say_no_and_a_no_takes_effect(
    people: People, backups: Backups, context: Context
) -> None:
    alice = people("alice")
    path = await make_twin(alice)
    assert (await alice.put(f"{path}/persona", json={"summary": "Alex."})).status_code == 200
    dump = await backups.dump()
    await withdraw(alice, (await alice.get(f"{path}/consents")).json()["items"][0])
    await backups.restore(dump)
    await go_on(context)

    assert (await alice.get(path)).json()["consent"] is False
    prompt = await alice.get(f"{path}/persona/prompt")
    assert is_problem(prompt, 403, "consent-required")
    assert prompt.json()["reason"] == UNCONFIRMED
    asked = await alice.post("/api/v1/decisions", json={"items": [{"twin_id": str(id_of(path))}]})
    assert [(item["decision"], item["reason"]) for item in asked.json()["items"]] == [(False, UNCONFIRMED)]
    assert (await alice.patch(path, json={"consent": False})).status_code == 200
    made = await make_twin(alice)
    assert await reason(alice, made) == "granted"  # nothing of it is older than the restore
    assert backups.restored().returncode == 0
    await made_good(context)
    assert await reason(alice, path) == "withdrawn"


async def test_the_app_closes_the_gate_by_itself_and_opens_it_never(
    people: People, backups: Backups, context: Context
) -> None:
    path = await agreed(people)
    dump = await backups.dump()
    await refuse(people("paula"), path, "voice")
    await backups.restore(dump)
    for _ in range(3):
        await go_on(context)
    assert await reason(people("alice"), path, "voice") == UNCONFIRMED
    async with superuser(backups.stores) as connection:
        rows = await connection.fetch("SELECT closed_by, journal FROM restores WHERE ended_at IS NULL")
    assert [tuple(row) for row in rows] == [("app", None)]
    assert backups.restored().returncode == 0
    await made_good(context)
    assert await reason(people("alice"), path, "voice") == "refused"


def _with(stores: Stores, mongod: Mongod) -> Stores:
    return Stores(stores.postgres, mongod)


@pytest.mark.usefixtures("open_again")
async def test_what_a_person_took_and_what_the_owner_narrowed_is_not_given_back(
    people: People, backups: Backups, context: Context
) -> None:
    alice, paula = people("alice"), people("paula")
    path = await make_twin(alice, principals=[people.name("paula")], consent=False)
    old = await grant(alice, path, "voice", "face", principal={"label": "Alex"})
    other = await grant(alice, path, "text", "song")
    dump = await backups.dump()
    await grant(paula, path, "voice", modalities=["voice"])
    await renew(alice, other, purposes=["song"])
    await backups.restore(dump)

    await go_on(context)
    assert backups.restored("--journal", backups.stores.mongod.uri).returncode == 0
    await made_good(context)
    assert await closed(context) == {}
    found = [await reason(alice, path, purpose) for purpose in ("voice", "face", "text", "song")]
    assert found == ["withdrawn", "granted", "withdrawn", "granted"]
    assert (await verify(alice, path))["reason"] is None
    assert (await grant(paula, path, "voice"))["assurance"] == "token"
    assert old["state"] == "given"
