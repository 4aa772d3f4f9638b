"""Twins, consents, personas and one long ledger, written directly into the stores."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import asyncpg

from twins.consent.models import BOOLEAN_NOTICE
from twins.decision.models import GENERAL
from twins.decision.queries import Asked, select_decision
from twins.limits import key_of_account

OWNERS = 100
SHARE = 50
"""The least number of twins of an owner, so that pages are full at every size."""
WRITER = "writer"
"""The owner of all twins that the writing workloads create and change: the twins that are read stay unchanged."""
WRITTEN = 1000
"""The number of the writer's twins."""
MANY = 10_000
"""The number of consents of the twin with many."""

_TWINS = """
    INSERT INTO twins (owner, twin_name, use_case, tone)
    SELECT $1, 'Twin ' || n, 'customer support', 'professional' FROM generate_series($2::int, $3::int) n
"""
_GIVE = "give_consent($1, $2, $2, $2, '\\x00', 'api', $3, $4, $5, $6, NULL, NULL, NULL)"
# Each twin has a live general consent.
_CONSENTS = """
    SELECT count(*) FROM twins t, give_consent(t.id, t.owner, t.owner, t.owner, '\\x00', 'api', '{general}',
                                               $1, $2, $3, NULL, NULL, NULL)
"""
_NOTICE = (BOOLEAN_NOTICE.version, BOOLEAN_NOTICE.language, BOOLEAN_NOTICE.text)


def owner(number: int) -> str:
    """Return the name of one of the owners."""
    return f"owner-{number}"


def owners(rows: int) -> int:
    """Return how many owners share `rows` twins."""
    return min(OWNERS, rows // SHARE)


async def _writing(dsn: str) -> asyncpg.Connection:
    # What is planned on empty tables stays quick, as for the role that serves.
    return await asyncpg.connect(dsn, server_settings={"enable_seqscan": "off"})


async def _fill(dsn: str, rows: int) -> None:
    connection = await _writing(dsn)
    try:
        for number in range(owners(rows)):
            share = rows // owners(rows)
            # In small transactions: at the end of each, the owner's twins are counted one by one.
            for start in range(0, share, 1000):
                await connection.execute(_TWINS, owner(number), start + 1, min(start + 1000, share))
        await connection.execute(_TWINS, WRITER, 1, WRITTEN)
        await connection.execute(_CONSENTS, *_NOTICE)
        # Else each process verifies these ledgers beside the load; in Azure the timer has an instance of its own.
        await connection.execute("UPDATE ledger_rounds SET begun_at = now()")
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


def fill(dsn: str, rows: int) -> None:
    """Give each of the owners its share of `rows` twins."""
    asyncio.run(_fill(dsn, rows))


async def _some_twins(dsn: str, name: str, limit: int) -> list[UUID]:
    connection = await asyncpg.connect(dsn)
    try:
        # In random order, so that neighbours in a list are no neighbours on disk.
        query = "SELECT id FROM twins WHERE owner = $1 ORDER BY md5(id::text) LIMIT $2"
        return [row["id"] for row in await connection.fetch(query, name, limit)]
    finally:
        await connection.close()


def some_twins(dsn: str, name: str, limit: int) -> list[UUID]:
    """Return the ids of some twins of one owner."""
    return asyncio.run(_some_twins(dsn, name, limit))


async def _add_consents(dsn: str, twin_id: UUID, name: str) -> None:
    connection = await _writing(dsn)
    try:
        stored = await connection.fetchval("SELECT count(*) FROM consents WHERE twin_id = $1", twin_id)
        for number in range(stored + 1, MANY + 1):
            await connection.execute(f"SELECT {_GIVE}", twin_id, name, [f"purpose-{number}"], *_NOTICE)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


def add_consents(dsn: str, twin_id: UUID, name: str) -> None:
    """Bring a twin to `MANY` live consents, each for a purpose of its own."""
    asyncio.run(_add_consents(dsn, twin_id, name))


async def _add_events(dsn: str, twin_id: UUID, name: str, count: int) -> None:
    connection = await _writing(dsn)
    try:
        for _ in range(count // 2):
            given = await connection.fetchrow(f"SELECT * FROM {_GIVE}", twin_id, name, ["long"], *_NOTICE)
            await connection.execute("SELECT revoke_consent($1, $2, $2, $3, NULL)", twin_id, name, given["consent_id"])
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


def add_events(dsn: str, twin_id: UUID, name: str, count: int) -> None:
    """Add `count` events to a twin's ledger."""
    asyncio.run(_add_events(dsn, twin_id, name, count))


_RENEWALS = """
DO $$
DECLARE made uuid;
BEGIN
    FOR number IN 0..{count} LOOP
        SELECT consent_id INTO STRICT made FROM give_consent(
            '{twin_id}', '{owner}', '{owner}', '{person}', '\\x00', 'api', '{{{purposes}}}', number::text, 'en',
            repeat('I agree. ', 2221) || lpad(number::text, 11, '0'), NULL, NULL, made
        );
        IF number % 100 = 0 THEN
            COMMIT;
        END IF;
    END LOOP;
END $$
"""
"""Each renewal shows another notice, of 20,000 characters."""
# In small transactions: at the end of each, the rows of an owner are counted one by one.
_COPY = """
DO $$
DECLARE
    one {table};
    number int := 0;
BEGIN
    FOR one IN SELECT * FROM {table} WHERE twin_id = '{first}' LOOP
        one.twin_id := '{twin_id}';
        INSERT INTO {table} VALUES (one.*);
        number := number + 1;
        IF number % 1000 = 0 THEN
            COMMIT;
        END IF;
    END LOOP;
END $$
"""
_COPIED = ("consents", "consent_states", "notices", "salts", "named_accounts", "consent_events")


async def _renewed(dsn: str, name: str, person: str, purposes: list[str], count: int, twins: int) -> list[UUID]:
    connection = await _writing(dsn)
    try:
        await connection.execute(_TWINS, name, 1, twins)
        rows = await connection.fetch("SELECT id FROM twins WHERE owner = $1 ORDER BY id", name)
        first, *others = found = [row["id"] for row in rows]
        await connection.execute(
            _RENEWALS.format(count=count, twin_id=first, owner=name, person=person, purposes=",".join(purposes))
        )
        for twin_id, table in ((twin_id, table) for twin_id in others for table in _COPIED):
            await connection.execute(_COPY.format(table=table, twin_id=twin_id, first=first))
        await connection.execute(
            """
            UPDATE twins t SET ledger_seq = f.ledger_seq, ledger_hash = f.ledger_hash, ledger_at = f.ledger_at
            FROM twins f WHERE f.id = $1 AND t.id = ANY ($2)
            """,
            first,
            others,
        )
        await connection.execute("VACUUM ANALYZE")
        return found
    finally:
        await connection.close()


def renewed(dsn: str, name: str, person: str, purposes: list[str], count: int, twins: int) -> list[UUID]:
    """Make twins whose one consent has been renewed `count` times, and return their ids.

    The first is written by the database's functions. The others are copies, whose ledgers do not verify.
    """
    return asyncio.run(_renewed(dsn, name, person, purposes, count, twins))


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def execute(dsn: str, statement: str) -> None:
    """Run one statement."""
    asyncio.run(_execute(dsn, statement))


class _Explaining:
    """Stands in for a connection, and explains each statement."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def fetchrow(self, query: str, *arguments: object) -> list[str]:
        [found] = json.loads(await self._connection.fetchval(f"EXPLAIN (FORMAT JSON) {query}", *arguments))
        return list(_scans(found["Plan"]))


def _scans(node: dict[str, Any]) -> Iterator[str]:
    if "Relation Name" in node:
        yield f"{node['Node Type']} {node.get('Index Name', node['Relation Name'])}"
    for inner in node.get("Plans", ()):
        yield from _scans(inner)


async def _gate_plan(dsn: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        twin_id = await connection.fetchval("SELECT id FROM twins WHERE owner = $1 LIMIT 1", owner(0))
        explaining: Any = _Explaining(connection)
        asked = Asked(GENERAL, key_of_account(owner(0)))
        scans: Any = await select_decision(explaining, owner(0), owner(0), twin_id, asked, any_owner=False)
        return list(scans)
    finally:
        await connection.close()


def gate_plan(dsn: str) -> list[str]:
    """Return how PostgreSQL reads each table for the gate's statement."""
    return asyncio.run(_gate_plan(dsn))
