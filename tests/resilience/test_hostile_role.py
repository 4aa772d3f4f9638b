"""The serving role turned hostile: what somebody can do who has its password, and what not."""

import asyncpg
import pytest

from tests.resilience.harness.load import creators, load
from tests.resilience.harness.scenario import Scenario, scenario
from tests.support.app import ALEX
from tests.support.consent import NOTICE
from tests.support.hostile import REFUSED
from tests.support.stores import Stores


async def refused_by(dsn: str) -> int:
    """Try every statement in a session of its own, and return how many the server refused for want of a privilege."""
    connection = await asyncpg.connect(dsn)
    try:
        for statement in REFUSED:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()
    return len(REFUSED)


async def test_the_serving_role_turned_hostile_changes_no_consent_no_state_and_no_event(stores: Stores) -> None:
    async with scenario("the serving role turned hostile", stores) as s:
        clients = s.clients
        paula = clients.subject("paula")
        made = await clients.until(201, "POST", "/api/v1/twins", "owner", json=ALEX | {"principals": [paula]})
        twin = f"/api/v1/twins/{made.json()['id']}"
        voice = {"purposes": ["voice"], "notice": NOTICE, "principal": paula}
        given = await clients.until(201, "POST", f"{twin}/consents", "owner", json=voice)
        await clients.until(200, "POST", f"{twin}/consents/{given.json()['id']}/withdraw", "paula")
        before = await said(s, twin)
        async with load(*creators(clients, 4)):
            s.figures["statements_refused"] = await refused_by(stores.postgres.dsn)
        assert await said(s, twin) == before == (["granted", "withdrawn", "no_consent"], True, 3)


async def said(s: Scenario, twin: str) -> tuple[list[str], bool, int]:
    """Return what the gate says of three purposes, and whether the ledger verifies, with how many events."""
    asked = [f"{twin}/decision?purpose={purpose}" for purpose in ("general", "voice", "other")]
    reasons = [(await s.clients.until(200, "GET", path, "owner")).json()["reason"] for path in asked]
    found = (await s.clients.until(200, "GET", f"{twin}/ledger/verification", "owner")).json()
    return reasons, found["valid"], found["events"]
