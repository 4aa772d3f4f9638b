"""Consent under real concurrency: one chain, one live grant, and no yes after a withdrawal."""

import asyncio
import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.support.app import Client, ClientOf, id_of, is_problem, make_twin, token
from tests.support.consent import NOTICE, after, grant, ledger, location, reason, transitions, verify, withdraw
from tests.support.database import superuser
from tests.support.stores import Stores
from twins.app import create_app
from twins.settings import Settings

ROUNDS = 8


@pytest.fixture
async def patient(settings: Settings) -> AsyncIterator[Client]:
    """A client of an application that lets a hundred requests queue for its ten connections."""
    app = create_app(settings.model_copy(update={"postgres_acquire_timeout": 60, "postgres_command_timeout": 60}))
    headers = {"Authorization": f"Bearer {token('patient')}"}
    async with Client(transport=httpx.ASGITransport(app), base_url="http://twins.test", headers=headers) as client:
        yield client
    await app.close()


def check_chain(entries: list[dict[str, Any]]) -> None:
    """Check that there is no gap and no fork."""
    previous = "0" * 64
    for n, entry in enumerate(entries, start=1):
        text = json.dumps(entry["event"], sort_keys=True, separators=(",", ":"))
        assert (entry["seq"], entry["event"]["prev_hash"]) == (n, previous)
        previous = entry["hash"]
        assert previous == hashlib.sha256(text.encode()).hexdigest()


async def test_fifty_withdrawals_and_fifty_renewals_at_once_leave_one_chain_that_ends_withdrawn(
    patient: Client,
) -> None:
    path = await make_twin(patient, consent=False)
    first = await grant(patient, path)

    async def withdraw_it() -> httpx.Response:
        return await patient.post(f"{location(first)}/withdraw")

    async def renew_the_latest() -> httpx.Response:
        latest = (await patient.get(f"{path}/consents", params={"limit": 1})).json()["items"][0]
        return await patient.post(f"{location(latest)}/renew")

    jobs = [withdraw_it] * 50 + [renew_the_latest] * 50
    random.Random(7).shuffle(jobs)
    answers = await asyncio.gather(*(job() for job in jobs))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {200, 201, 409}
    assert statuses[200] == 50
    for answer in answers:
        if answer.status_code == 409:
            assert is_problem(answer, 409, "consent-ended")

    entries = await ledger(patient, path)
    kinds = [entry["event"]["type"] for entry in entries]
    assert kinds == ["given"] + ["renewed"] * statuses[201] + ["withdrawn"]
    check_chain(entries)
    assert (await verify(patient, path))["valid"] is True
    consents = (await patient.get(f"{path}/consents", params={"limit": 100})).json()["items"]
    assert {consent["state"] for consent in consents} == {"withdrawn"}
    assert await reason(patient, path) == "withdrawn"


async def test_renewals_that_follow_one_another_among_grants_and_withdrawals_keep_the_chain(patient: Client) -> None:
    path = await make_twin(patient, consent=False)

    async def live(n: int) -> None:
        for _ in range(4):
            latest = (await patient.get(f"{path}/consents", params={"limit": 1})).json()["items"]
            below = f"{location(latest[0])}/{'withdraw' if n % 2 else 'renew'}" if latest else f"{path}/consents"
            for url, body in ((below, None), (f"{path}/consents", {"purposes": ["general"], "notice": NOTICE})):
                answer = await patient.post(url, json=body)
                assert answer.status_code in (200, 201, 409, 422), answer.text

    await asyncio.gather(*(live(n) for n in range(10)))
    entries = await ledger(patient, path)
    check_chain(entries)
    assert (await verify(patient, path))["valid"] is True
    live_grants = 0
    for entry in entries:
        live_grants += {"given": 1, "renewed": 0, "withdrawn": -1}[entry["event"]["type"]]
        assert live_grants in (0, 1)
    assert (await reason(patient, path) == "granted") == bool(live_grants)


async def test_of_fifty_grants_at_once_exactly_one_is_live(patient: Client, stores: Stores) -> None:
    path = await make_twin(patient, consent=False)
    answers = await asyncio.gather(
        *(patient.post(f"{path}/consents", json={"purposes": ["voice", f"p{n}"], "notice": NOTICE}) for n in range(50))
    )
    made = [answer for answer in answers if answer.status_code == 201]
    assert len(made) == 1
    for answer in answers:
        if answer.status_code != 201:
            assert is_problem(answer, 409, "consent-active")
            assert answer.json()["consent_id"] == made[0].json()["id"]
    async with superuser(stores) as connection:
        rows = await connection.fetch("SELECT purpose, consent_id FROM consent_states WHERE twin_id = $1", id_of(path))

    assert {(row["purpose"], str(row["consent_id"])) for row in rows} == {
        (purpose, made[0].json()["id"]) for purpose in made[0].json()["purposes"]
    }
    assert await transitions(patient, path) == ["given"]


async def test_of_fifty_patches_at_once_one_grants_and_one_withdraws(patient: Client) -> None:
    path = await make_twin(patient, consent=False)
    for consent, expected in ((True, ["given"]), (False, ["given", "withdrawn"])):
        answers = await asyncio.gather(*(patient.patch(path, json={"consent": consent}) for _ in range(50)))
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.json()["consent"] for answer in answers} == {consent}
        assert await transitions(patient, path) == expected


# --- After a withdrawal -----------------------------------------------------------------------------


YES: dict[str, Callable[[httpx.Response], bool]] = {
    "decision": lambda answer: answer.json()["decision"],
    "batch": lambda answer: answer.json()["items"][0]["decision"],
    "twin": lambda answer: answer.json()["consent"],
    "prompt": lambda answer: answer.status_code == 200,
    "persona": lambda answer: answer.status_code == 200,
}


class Asker:
    """Asks without a pause, and notes when each question started and whether the answer was yes."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float, bool]] = []
        self.done = False

    async def ask(self, kind: str, client: Client, method: str, url: str, body: object = None) -> None:
        while not self.done:
            start = time.perf_counter()
            answer = await client.request(method, url, json=body)
            self.seen.append((kind, start, YES[kind](answer)))


async def test_no_decision_that_starts_after_a_withdrawals_answer_says_yes(alice: Client, client_of: ClientOf) -> None:
    service = client_of("gateway", "twins:decide")
    path = await make_twin(alice)
    items = [{"twin_id": str(id_of(path))}]
    await alice.put(f"{path}/persona", json={"summary": "One."})
    for n in range(ROUNDS):
        asker = Asker()
        async with asyncio.TaskGroup() as tasks:
            for kind, client, method, url, body in (
                ("decision", alice, "GET", f"{path}/decision", None),
                ("decision", service, "GET", f"{path}/decision", None),
                ("batch", service, "POST", "/api/v1/decisions", {"items": items}),
                ("twin", alice, "GET", path, None),
                ("prompt", alice, "GET", f"{path}/persona/prompt", None),
                ("persona", alice, "PUT", f"{path}/persona", {"summary": f"Round {n}."}),
            ):
                tasks.create_task(asker.ask(kind, client, method, url, body))
            await asyncio.sleep(0.03)
            if n % 2:
                await alice.patch(path, json={"consent": False})
            else:
                (consent,) = (await alice.get(f"{path}/consents", params={"limit": 1})).json()["items"]
                await withdraw(alice, consent)
            answered = time.perf_counter()
            async with asyncio.timeout(10):
                while {kind for kind, start, _ in asker.seen if start > answered} != set(YES):
                    await asyncio.sleep(0.01)
            asker.done = True

        late = [(kind, yes) for kind, start, yes in asker.seen if start > answered]
        assert not [kind for kind, yes in late if yes]
        assert [kind for kind, _, yes in asker.seen if yes]
        await alice.patch(path, json={"consent": True})


async def test_a_persona_write_that_was_under_way_is_a_version_before_the_withdrawal_or_none(
    alice: Client, stores: Stores
) -> None:
    path = await make_twin(alice)
    for n in range(ROUNDS):
        write = asyncio.create_task(alice.put(f"{path}/persona", json={"summary": f"Round {n}."}))
        await asyncio.sleep(n * 0.0007)
        (consent,) = (await alice.get(f"{path}/consents", params={"limit": 1})).json()["items"]
        withdrawn = await withdraw(alice, consent)
        answer = await write
        if answer.status_code == 200:
            async with superuser(stores) as connection:
                before = await connection.fetchval(
                    """
                    SELECT v.created_at < w.withdrawn_at
                    FROM persona_versions v JOIN withdrawals w ON w.twin_id = v.twin_id AND w.lineage = $3
                    WHERE v.twin_id = $1 AND v.version = $2
                    """,
                    id_of(path),
                    answer.json()["version"],
                    withdrawn["id"],
                )
            assert before is True
        else:
            assert is_problem(answer, 403, "consent-required")
        await alice.patch(path, json={"consent": True})


async def test_a_persona_write_that_had_to_wait_until_consent_expired_is_refused(alice: Client, stores: Stores) -> None:
    path = await make_twin(alice, consent=False)
    await grant(alice, path, expires_at=after(timedelta(seconds=0.5)))
    async with superuser(stores) as connection, connection.transaction():
        await connection.execute("SELECT FROM twins WHERE id = $1 FOR UPDATE", id_of(path))
        write = asyncio.create_task(alice.put(f"{path}/persona", json={"summary": "Late."}))
        while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.005)
        assert await reason(alice, path) == "granted"
        while await reason(alice, path) == "granted":
            await asyncio.sleep(0.01)

    refused = await write
    assert is_problem(refused, 403, "consent-required")
    assert refused.json()["reason"] == "expired"
