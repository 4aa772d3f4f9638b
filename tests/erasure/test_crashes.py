"""Whatever dies, an erasure ends: complete, once, with the right counts, and touching nothing else."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx
import pytest

from shared.http.problems import Unavailable
from shared.stores import outbox
from tests.erasure.crashing import Crasher, running_crasher
from tests.support.app import ALEX, Client, id_of, is_problem, make_twin, token
from tests.support.consent import grant, reason, transitions
from tests.support.database import superuser
from tests.support.erasure import certificate_of, documents_of, erase, erasure_of, finish, go_on, removed
from tests.support.stores import Stores, running_stores
from twins import maintenance
from twins.app import create_app
from twins.context import Context
from twins.erasure import queries, sweep
from twins.persona import documents
from twins.persona import sweep as persona
from twins.persona.models import Persona
from twins.settings import Settings

DOCUMENTS = 3
EXPECTED = removed(twins=1, persona_versions=2, persona_documents=DOCUMENTS, consents=2)


@pytest.fixture(scope="module")
def own() -> Iterator[Stores]:
    """Servers that this module may hurt."""
    with running_stores() as stores:
        yield stores


@pytest.fixture(scope="module")
def settings(own: Stores, environment: dict[str, str]) -> Settings:
    # The session's keys, on these servers; one that is down is given up sooner.
    values = environment | own.environment | {"MONGODB_TIMEOUT": "1"}
    return Settings(**{name.lower(): value for name, value in values.items()})


class Application:
    """One application on the module's servers, with a client of its own account."""

    def __init__(self, client: Client, context: Context) -> None:
        self.client = client
        self.context = context

    async def full_twin(self, key: str) -> str:
        """Make a twin of which there is something everywhere."""
        made = await self.client.post("/api/v1/twins", json=ALEX, headers={"Idempotency-Key": key})
        path: str = made.headers["location"]
        for n in range(2):
            await self.client.put(f"{path}/persona", json={"summary": f"Number {n}."})
        await documents.insert_document(self.context.mongo, id_of(path), Persona(summary="Nobody's."))
        await grant(self.client, path, "voice")
        return path

    async def put_clock_forward(self) -> None:
        async with self.context.postgres.connection() as connection:
            await connection.execute("UPDATE outbox SET run_at = now()")


@pytest.fixture
async def application(settings: Settings) -> AsyncIterator[Application]:
    app = create_app(settings)
    headers = {"Authorization": f"Bearer {token('crash-owner')}"}
    async with Client(transport=httpx.ASGITransport(app), base_url="http://twins.test", headers=headers) as client:
        yield Application(client, app.state.context)
    await app.close()


@pytest.fixture
def crasher(own: Stores, settings: Settings, environment: dict[str, str]) -> Iterator[Crasher]:
    with running_crasher(own.environment) as running:
        yield running


async def rows_of(own: Stores, path: str) -> list[Any]:
    """Return everything that is stored of a twin."""
    found: list[Any] = [documents_of(own, twin_id=id_of(path))]
    async with superuser(own) as connection:
        for table in ("twins", "consents", "consent_states", "consent_events", "persona_versions", "idempotency_keys"):
            column = "id" if table == "twins" else "twin_id"
            found.append(
                await connection.fetch(f"SELECT t::text FROM {table} t WHERE {column} = $1 ORDER BY 1", id_of(path))
            )
    return found


async def erasure_id_of(own: Stores, path: str) -> list[UUID]:
    async with superuser(own) as connection:
        rows = await connection.fetch("SELECT erasure_id FROM erased_twins WHERE twin_id = $1", id_of(path))
    return [row["erasure_id"] for row in rows]


async def check_ended(own: Stores, application: Application, path: str, why: str) -> None:
    """Check that a twin is erased, once and wholly, with the right certificate."""
    (erasure_id,) = await erasure_id_of(own, path)
    url = f"/api/v1/erasures/{erasure_id}"
    await finish(application.context, url)
    erasure = await erasure_of(application.client, url)
    assert (erasure["state"], erasure["removed"]) == ("complete", EXPECTED), why
    certificate = await certificate_of(application.client, erasure)
    assert (certificate["removed"], certificate["remaining"]) == (EXPECTED, removed()), why
    assert [event["type"] for event in certificate["events"]] == ["given", "given", "erased"], why
    assert documents_of(own, twin_id=id_of(path))["personas"] == [], why
    assert is_problem(await application.client.get(path), 404, "not-found"), why
    async with superuser(own) as connection:
        assert await connection.fetchval("SELECT count(*) FROM outbox WHERE subject = $1", erasure_id) == 0, why


async def test_a_process_killed_before_any_of_its_steps_leaves_an_erasure_that_ends_right(
    own: Stores, application: Application, crasher: Crasher
) -> None:
    bystander = await application.full_twin("bystander")
    before = await rows_of(own, bystander)
    died, step, steps = True, 0, []
    while died:
        step += 1
        path = await application.full_twin(f"step-{step}")
        whole = await rows_of(own, path)
        died, about_to = await asyncio.to_thread(crasher.erase, step, token("crash-owner"), path)
        steps.append(about_to)
        why = f"killed before step {step}: {about_to}"
        if await erasure_id_of(own, path):
            assert is_problem(await application.client.get(path), 404, "not-found"), why
        else:  # not committed, so nothing has happened, and asking again works
            assert await rows_of(own, path) == whole, why
            assert (await application.client.get(path)).status_code == 200
            await erase(application.client, path)
        await check_ended(own, application, path, why)

    assert await rows_of(own, bystander) == before
    # The calls to a store that an erasure is known to make are among the places of death.
    for known in (
        "BEGIN",
        "COMMIT",
        "INSERT INTO erasures",
        "DELETE FROM persona_versions",
        "INSERT INTO outbox",
    ):
        assert any(known in about_to for about_to in steps), known
    for known, times in (
        ("find in MongoDB", 4),
        ("INSERT INTO erased_documents", 1),
        ("delete in MongoDB", 1),
        ("UPDATE erasures SET step", 2),
        ("UPDATE erasures SET after", 2),
        ("INSERT INTO erased_ledgers", 1),
        ("VACUUM", 1),
        ("SELECT complete_erasure", 1),
        ("DELETE FROM outbox", 1),
        ("UPDATE outbox SET attempts = 0", 1),
    ):
        assert sum(known in about_to for about_to in steps) == times, (known, steps)


async def test_a_process_killed_before_any_of_its_steps_leaves_an_erasure_of_an_account_that_ends_right(
    own: Stores, application: Application, crasher: Crasher
) -> None:
    died, step, steps = True, 0, []
    while died:
        step += 1
        sub = f"crash-account-{step}"
        path = await make_twin(application.client, consent=False)
        await grant(application.client, path, principal=sub)
        headers = {"Authorization": f"Bearer {token(sub)}"}
        made = await application.client.post("/api/v1/twins", json=ALEX, headers=headers)
        await application.client.put(f"{made.headers['location']}/persona", json={}, headers=headers)
        died, about_to = await asyncio.to_thread(crasher.erase, step, token(sub), "/api/v1/me")
        steps.append(about_to)
        why = f"killed before step {step}: {about_to}"
        asked = await application.client.delete("/api/v1/me", headers=headers)  # not committed, or the same once more
        assert asked.status_code in (202, 204), why
        url = asked.headers["location"]
        assert await reason(application.client, path) == "withdrawn", why
        await finish(application.context, url)
        erasure = (await application.client.get(url, headers=headers)).json()
        expected = removed(twins=1, persona_versions=1, persona_documents=1, consents=1, names=1)
        assert (erasure["state"], erasure["removed"]) == ("complete", expected), why
        assert await transitions(application.client, path) == ["given", "withdrawn"], why

    for known in (
        "FROM erase_account(",
        "SELECT erase_account_twins",
        "SELECT forget_person",
        "SELECT complete_erasure",
    ):
        assert any(known in about_to for about_to in steps), known


async def test_with_mongodb_down_a_twin_is_gone_at_once_and_its_documents_when_it_is_up(
    own: Stores, application: Application
) -> None:
    path, other = await application.full_twin("mongo-down"), await application.full_twin("mongo-down-other")
    kept = documents_of(own, twin_id=id_of(other))
    await maintenance.run(application.context)  # what killed processes left to the journal would all wait for MongoDB
    await asyncio.to_thread(own.mongod.stop)
    try:
        url = await erase(application.client, path)
        assert is_problem(await application.client.get(path), 404, "not-found")
        assert (await erasure_of(application.client, url))["state"] == "running"
        await application.put_clock_forward()
        await maintenance.run(application.context)
        erasure = await erasure_of(application.client, url)
        assert (erasure["state"], erasure["removed"]["persona_documents"]) == ("running", 0)
        async with superuser(own) as connection:
            job = await connection.fetchrow("SELECT * FROM outbox WHERE subject = $1", id_of(url))
        assert job is not None
        assert (job["last_error"], job["dead_at"]) == ("Unavailable", None)
    finally:
        await asyncio.to_thread(own.mongod.start)

    await application.put_clock_forward()
    await check_ended(own, application, path, "MongoDB was down")
    assert documents_of(own, twin_id=id_of(other)) == kept


@pytest.mark.parametrize(
    ("when", "module", "name"),
    [
        ("before", persona, "find_documents"),
        ("before", queries, "insert_erased_documents"),
        ("before", persona, "delete_documents"),
        ("before", queries, "update_step"),
        ("after", queries, "update_step"),
        ("before", queries, "insert_erased_ledgers"),
        ("before", queries, "vacuum_salts"),
        ("before", queries, "complete"),
        ("after", queries, "complete"),
    ],
)
async def test_with_postgresql_restarted_in_the_middle_of_a_sweep_the_erasure_ends(
    own: Stores, application: Application, monkeypatch: pytest.MonkeyPatch, when: str, module: Any, name: str
) -> None:
    path, other = await application.full_twin(f"{when}-{name}"), await make_twin(application.client)
    step = getattr(module, name)
    restarts: list[str] = []

    async def restart() -> None:
        if not restarts:
            restarts.append(name)
            await asyncio.to_thread(own.postgres.kill)
            await asyncio.to_thread(own.postgres.start)

    async def interrupted(*args: Any) -> Any:
        if when == "before":
            await restart()
        result = await step(*args)
        if when == "after":
            await restart()
        return result

    monkeypatch.setattr(module, name, interrupted)
    url = await erase(application.client, path)
    while not restarts:
        with suppress(Unavailable):
            await go_on(application.context, url)

    assert restarts
    assert await erasure_id_of(own, path) == [id_of(url)]
    await check_ended(own, application, path, f"PostgreSQL restarted {when} {name}")
    assert (await application.client.get(other)).status_code == 200


async def test_an_erasure_whose_job_cannot_even_note_its_failure_is_taken_up_after_its_lease(
    own: Stores, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "LEASE", 0.5)
    path = await application.full_twin("lease")

    async def stop(*_: object) -> list[UUID]:
        await asyncio.to_thread(own.postgres.kill)
        raise OSError

    find_documents = persona.find_documents
    monkeypatch.setattr(persona, "find_documents", stop)
    url = await erase(application.client, path)
    with pytest.raises(Unavailable):
        await go_on(application.context, url)
    monkeypatch.setattr(persona, "find_documents", find_documents)
    await asyncio.to_thread(own.postgres.start)
    assert (await erasure_of(application.client, url))["state"] == "running"
    await asyncio.sleep(0.5)

    assert await outbox.drain(application.context.postgres, sweep.handlers(application.context)) >= 1
    assert (await erasure_of(application.client, url))["removed"]["persona_documents"] == DOCUMENTS
    await check_ended(own, application, path, "the lease had to end")
