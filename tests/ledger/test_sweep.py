"""The verification of all ledgers by the timer: one process at a time, some seconds a time, once a day."""

import asyncio
import contextvars
import logging
from typing import Any

import asyncpg
import pytest

from tests.support.app import Client, id_of, make_twin
from tests.support.consent import grant, withdraw
from tests.support.database import superuser
from tests.support.stores import Stores
from twins import maintenance
from twins.context import Context
from twins.ledger import sweep


@pytest.fixture(autouse=True)
def _without_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "_REST", 0.0)


async def run(context: Context) -> None:
    """Do the timer's work, without the log fields of a request."""
    await asyncio.create_task(maintenance.run(context), context=contextvars.Context())


async def become_due(connection: asyncpg.Connection) -> None:
    """Let the last round have begun a day ago."""
    await connection.execute(
        """
        UPDATE ledger_rounds SET after = NULL, begun_at = now() - interval '1 day', leased_until = now(),
                                 verified = 0, broken = 0, skipped = 0, last_broken = 0
        """
    )


async def state(connection: asyncpg.Connection) -> dict[str, Any]:
    return dict(await connection.fetchrow("SELECT * FROM ledger_rounds"))


async def go_round(context: Context, connection: asyncpg.Connection) -> int:
    """Run the timer until the round is done, and return how often."""
    for number in range(1, 1000):
        await run(context)
        if (await state(connection))["after"] is None:
            return number
    raise AssertionError("the round does not end")


async def test_a_round_verifies_every_ledger_and_names_the_twin_and_event_of_a_broken_one(
    alice: Client, context: Context, stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    whole, broken = await make_twin(alice), await make_twin(alice)
    await withdraw(alice, await grant(alice, broken, "voice"))
    async with superuser(stores) as connection:
        await become_due(connection)
        statement = "UPDATE consent_states SET no = NULL WHERE twin_id = $1 AND purpose = 'voice'"
        await connection.execute(statement, id_of(broken))
        await go_round(context, connection)
        found = await state(connection)
        ledgers = await connection.fetchval("SELECT count(*) FROM twins WHERE ledger_seq > 0")

    lines = {
        record.__dict__["twin_id"]: (record.__dict__["seq"], record.__dict__["reason"])
        for record in caplog.records
        if record.message == "Ledger is broken" and record.levelno == logging.ERROR
    }
    assert lines[str(id_of(broken))] == (3, "state of a purpose differs")
    assert str(id_of(whole)) not in lines
    assert found["broken"] == found["last_broken"] == len(lines)
    assert found["verified"] + found["broken"] == ledgers
    assert found["ended_at"] > found["begun_at"]


async def test_a_round_goes_on_where_the_last_process_stopped(
    alice: Client, context: Context, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await make_twin(alice)
    async with superuser(stores) as connection:
        await become_due(connection)
        monkeypatch.setattr(sweep, "_WORK", 0.0)
        for number in range(1, 4):
            await run(context)
            found = await state(connection)
            assert found["verified"] + found["broken"] == number
            assert found["after"] is not None
        monkeypatch.setattr(sweep, "_WORK", 60.0)
        await run(context)
        assert (await state(connection))["after"] is None


async def test_a_round_begins_once_a_day(alice: Client, context: Context, stores: Stores) -> None:
    await make_twin(alice)
    async with superuser(stores) as connection:
        await become_due(connection)
        await go_round(context, connection)
        before = await state(connection)
        await run(context)
        assert await state(connection) == before


async def test_one_process_at_a_time_has_the_round(alice: Client, context: Context, stores: Stores) -> None:
    await make_twin(alice)
    async with superuser(stores) as connection:
        await become_due(connection)
        await asyncio.gather(*(run(context) for _ in range(5)))
        found = await state(connection)
        ledgers = await connection.fetchval("SELECT count(*) FROM twins WHERE ledger_seq > 0")
        assert found["verified"] + found["broken"] <= ledgers
        # A process that has died frees it at the end of its lease.
        await become_due(connection)
        await connection.execute(
            "UPDATE ledger_rounds SET after = gen_random_uuid(), leased_until = now() + interval '1 hour'"
        )
        await run(context)
        assert (await state(connection))["after"] is not None
        await connection.execute("UPDATE ledger_rounds SET leased_until = now()")
        await run(context)
        assert (await state(connection))["after"] is None


async def test_a_ledger_that_takes_too_long_is_skipped_and_said_so(
    alice: Client, context: Context, stores: Stores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = await make_twin(alice)
    monkeypatch.setattr(sweep, "LONGEST", -1.0)
    async with superuser(stores) as connection:
        await become_due(connection)
        await go_round(context, connection)
        found = await state(connection)

    assert found["skipped"] > 0
    skipped = {r.__dict__["twin_id"] for r in caplog.records if r.message == "Ledger is too long to be verified"}
    assert str(id_of(path)) in skipped


async def test_a_ledger_that_cannot_be_read_does_not_end_the_round(
    alice: Client, context: Context, stores: Stores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = await make_twin(alice)

    async def fail(*_: object) -> None:
        raise OverflowError

    monkeypatch.setattr(sweep, "verify", fail)
    async with superuser(stores) as connection:
        await become_due(connection)
        await go_round(context, connection)
        await connection.execute("UPDATE ledger_rounds SET broken = 0, last_broken = 0")

    lines = [record.__dict__ for record in caplog.records if record.message == "Ledger is broken"]
    assert [line["reason"] for line in lines if line["twin_id"] == str(id_of(path))] == ["OverflowError"]
